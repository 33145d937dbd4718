"""``fatpatch formats``."""
