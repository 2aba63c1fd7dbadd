"""Causal tracing: where a model recalls a fact (paper §2, App. B; docs/method.md §2)."""
