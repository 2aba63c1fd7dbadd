"""The command line: checks a configuration, runs its job or jobs, says how they ended. No algorithm here."""
