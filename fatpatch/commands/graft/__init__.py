"""``fatpatch graft``."""
