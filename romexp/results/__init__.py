"""The format of a run's folder, shared by the code that writes and reads it: rows, files, identity and settings."""
