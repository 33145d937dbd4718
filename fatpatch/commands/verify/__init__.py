"""``fatpatch verify``."""
