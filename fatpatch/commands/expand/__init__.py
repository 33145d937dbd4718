"""``fatpatch expand``."""
