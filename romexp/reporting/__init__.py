"""Presents results: tables, figures, the HTML page, W&B reports."""
