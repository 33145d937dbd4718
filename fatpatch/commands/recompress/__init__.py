"""``fatpatch recompress``."""
