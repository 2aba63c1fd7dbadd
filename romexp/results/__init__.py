"""A run's folder as one contract, for who writes it and who reads it: rows, files, identity, settings."""
