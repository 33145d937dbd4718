"""``fatpatch gpus``."""
