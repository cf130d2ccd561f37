"""A mechanism, a probe and a task for deadweight, found through entry points."""
