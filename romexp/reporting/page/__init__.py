"""The page of results, one self-contained HTML file."""
