"""Where the headers of releases are kept from run to run, unless an option names another index."""

from __future__ import annotations

import os
import sys

from fatpatch.base.errors import EditError, InputError


def releases_index() -> str:
    """The path of the user's own index of releases; its folder is made. InputError where that cannot be."""
    from fatpatch.commands._shared.options import make_folder

    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "fatpatch")
    try:
        make_folder(folder)
    except EditError as error:
        raise InputError(error.message, locator=folder, hint="name an index with --db") from error
    return os.path.join(folder, "releases.sqlite")
