"""``fatpatch prune``."""
