"""``fatpatch diff``."""
