"""The page of results, an HTML file that asks the network for nothing."""
