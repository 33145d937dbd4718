"""``fatpatch retarget``."""
