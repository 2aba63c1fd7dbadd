"""The page of results: one HTML file that holds everything."""
