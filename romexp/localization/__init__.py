"""Does a causal trace say where a fact can be edited? The protocol of Hase et al. 2023 (docs/method.md §14)."""
