"""``fatpatch query``."""
