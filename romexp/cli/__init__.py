"""The command line: checks a configuration, runs its job or jobs, and reports how they ended."""
