"""``fatpatch inspect``."""
