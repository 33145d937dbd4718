"""``fatpatch releases``."""
