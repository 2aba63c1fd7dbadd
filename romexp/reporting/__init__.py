"""Drawing alone: tables, figures, the page of results, W&B reports."""
