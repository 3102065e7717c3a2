"""A configuration for this data, this machine and so many minutes."""
