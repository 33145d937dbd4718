"""``fatpatch db``."""
