"""Training the networks of learned editors (MEND, KE)."""
