"""Training of the networks of the learned editors MEND and KE (docs/method.md §4.6)."""
