"""What `romexp task=…` does, a module each (config group `task`)."""
