"""``fatpatch audit``."""
