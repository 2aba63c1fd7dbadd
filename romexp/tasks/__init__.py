"""The tasks of `romexp task=…`, one module for each (config group `task`)."""
