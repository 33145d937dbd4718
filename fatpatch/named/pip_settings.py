"""Which indexes pip would ask, by its configuration files and environment variables (pip documentation, "Configuration"); netrc."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from fatpatch.remote.address import HTTP

PYPI: Final = "https://pypi.org/simple/"
_SECTIONS: Final = ("global", "download", "install")
_MOST: Final = 1 << 20


def pip_indexes(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The addresses of the indexes, the first one first; none where pip is told to ask none.

    By pip's files and PIP_* variables: a variable beats a file, and a later file an earlier one.
    """
    given = os.environ if environment is None else environment
    found: dict[str, str] = {}
    if given.get("PIP_CONFIG_FILE") != os.devnull:
        for path in _files(given):
            found.update(_read(path))
    for key in ("index-url", "extra-index-url", "no-index"):
        if value := given.get(f"PIP_{key.upper().replace('-', '_')}"):
            found[key] = value
    if found.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"):
        return ()
    indexes = [*(found.get("index-url") or PYPI).split(), *found.get("extra-index-url", "").split()]
    return tuple(dict.fromkeys(indexes))


def with_credentials(address: str) -> str:
    """The address with the user and password that netrc has for its host; as it is where it has its own, or netrc has none."""
    try:
        parts = urlsplit(address)
        if parts.scheme not in HTTP or parts.username is not None or not parts.hostname:
            return address
        import netrc

        found = netrc.netrc(os.environ.get("NETRC") or None).authenticators(parts.hostname)
    except (OSError, ValueError, SyntaxError):  # netrc.NetrcParseError is a SyntaxError
        return address
    if found is None or found[2] is None:
        return address
    pair = f"{quote(found[0], safe='')}:{quote(found[2], safe='')}"
    return parts._replace(netloc=f"{pair}@{parts.netloc}").geturl()


def _files(environment: Mapping[str, str]) -> Iterator[str]:
    """pip's files, from the weakest to the strongest: of the machine, the user, the environment, and that of PIP_CONFIG_FILE."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        yield os.path.join(environment.get("PROGRAMDATA", r"C:\ProgramData"), "pip", "pip.ini")
        yield os.path.join(home, "pip", "pip.ini")
        yield os.path.join(environment.get("APPDATA", home), "pip", "pip.ini")
    else:
        for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
            yield os.path.join(folder, "pip", "pip.conf")
        yield "/etc/pip.conf"
        yield os.path.join(home, ".pip", "pip.conf")
        yield os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "pip", "pip.conf")
    yield os.path.join(environment.get("VIRTUAL_ENV") or sys.prefix, "pip.ini" if sys.platform == "win32" else "pip.conf")
    if named := environment.get("PIP_CONFIG_FILE"):
        yield named


def _read(path: str) -> dict[str, str]:
    """The options of the sections that count; nothing of a file that is not there or is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            parser = configparser.RawConfigParser()
            parser.read_string(stream.read(_MOST))
    except (OSError, UnicodeError, configparser.Error):
        return {}
    return {key.replace("_", "-"): value for section in _SECTIONS if parser.has_section(section) for key, value in parser.items(section)}
