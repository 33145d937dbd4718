"""``fatpatch extract``."""
