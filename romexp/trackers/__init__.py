"""Trackers besides Weights & Biases (`romexp.tracking`): each a small adapter behind the same protocol."""
