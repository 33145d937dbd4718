"""``fatpatch check``."""
