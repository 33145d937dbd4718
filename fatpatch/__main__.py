"""``python -m fatpatch``."""

from fatpatch.cli import main

main()
