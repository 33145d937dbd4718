"""From what a user names to its bytes: a path, or an address."""

from __future__ import annotations

import os

from fatpatch.base.errors import InputError
from fatpatch.base.limits import Remote
from fatpatch.base.source import Source
from fatpatch.remote.address import HTTP, OTHERS, scheme_of, shown_address
from fatpatch.remote.inputs import is_image_layout


def open_input(path: str, options: Remote | None = None) -> Source:
    """Open a file by its path or address. InputError when it cannot be read, LimitError when more would be fetched than allowed."""
    scheme = scheme_of(path)
    if scheme is None:
        return Source.open(path)
    options = options or Remote()
    if scheme in HTTP:
        return _http(path, options)
    if scheme in OTHERS:
        return _named(path, options)
    known = ", ".join(sorted(HTTP | OTHERS))
    raise InputError(
        f"{scheme}: URLs are not supported", locator=shown_address(path), hint=f"supported: {known}; name a local file by its path"
    )


def state_of(path: str, options: Remote | None = None) -> tuple[int | None, int | None, str | None]:
    """(size, time of modification in ns, ETag or date of a server): by what it is known that a file has not changed."""
    scheme = scheme_of(path)
    if scheme is None:
        try:
            status = os.stat(os.path.join(path, "index.json") if is_image_layout(path) else path)
        except (OSError, ValueError):
            return None, None, None
        return status.st_size, status.st_mtime_ns, None
    if scheme in OTHERS:
        from fatpatch.remote.named import NamedFile

        store = NamedFile(path, options or Remote())
        return (store.size, None, store.tag) if store.tag else (None, None, None)
    if scheme not in HTTP:
        return None, None, None
    from fatpatch.remote.http import HttpFile

    file = HttpFile(path, options or Remote())
    file.close()
    return file.size, None, file.tag


def refuse_address(path: str) -> None:
    """InputError for an address, or for standard input, where a file is to be changed."""
    if path == "-" and not os.path.lexists(path):
        raise InputError("only files can be edited", locator="<stdin>", hint="save standard input to a file first")
    if scheme_of(path) is not None:
        raise InputError("is an address, and only files can be edited", locator=shown_address(path), hint="download it first")


def _http(url: str, options: Remote) -> Source:
    from fatpatch.remote.http import HttpFile
    from fatpatch.remote.spool import Spool

    shown = shown_address(url)
    file = HttpFile(url, options)
    try:
        if file.size == 0:
            spool = Spool(file, 0, shown, options)
        elif not file.ranges:
            spool = Spool.whole(file.whole(), file, shown, options)
        else:
            assert file.size is not None
            spool = Spool(file, file.size, shown, options)
            spool.put(0, file.head)
    except BaseException:
        file.close()
        raise
    return Source(spool, 0, spool.size)


def _named(url: str, options: Remote) -> Source:
    from fatpatch.remote.named import NamedFile
    from fatpatch.remote.spool import Spool

    file = NamedFile(url, options)
    return Source(Spool(file, file.size, shown_address(url), options), 0, file.size)
