"""``fatpatch slim``."""
