"""The Python interface: what ``import fatpatch`` offers, without the command line. Reading, judging, comparing and editing."""
