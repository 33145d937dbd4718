"""``fatpatch undo``."""
