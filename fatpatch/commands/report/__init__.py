"""``fatpatch report``."""
