"""Reads raw files into the types of `romexp.facts`, and validates each record (docs/method.md §1).

Nothing here needs a model or a tokenizer.
"""
