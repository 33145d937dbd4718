"""``fatpatch doctor``."""
