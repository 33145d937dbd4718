"""Simple indexes of packages (PEP 503 as HTML, PEP 691 as JSON): the wheels of a project."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from fatpatch.base.errors import FormatError, InputError
from fatpatch.base.limits import Remote
from fatpatch.remote.address import HTTP, scheme_of, shown_address

_MOST = 64 << 20
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,200})(?:==([A-Za-z0-9.!+_*-]{1,100}))?")


def wheels(index: str, wanted: str, options: Remote | None = None) -> list[str]:
    """The addresses, or in a folder the paths, of all wheels of a project ``name`` or ``name==version``, in the order of the index.

    InputError for a name that is none, and for a project that the index does not have or has no wheel of.
    """
    found = _NAME.fullmatch(wanted)
    if found is None:
        raise InputError(f"expected the name of a project, got {wanted[:80]!r}", hint="such as torch or torch==2.9.0")
    name, version = re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]
    scheme = scheme_of(index)
    if scheme is not None and urlsplit(index).query:
        raise InputError("an index has no query", locator=shown_address(index), hint="give the address that ends in /simple/")
    links = _in_folder(index, name) if scheme is None else _on_server(index, name, options or Remote())
    followed = HTTP | {scheme}  # a page must not lead to files here, nor to stores with the reader's own credentials
    result = [link for link in links if (scheme is None or scheme_of(link) in followed) and _is_wheel(link, name, version)]
    if not result:
        where = shown_address(index) if scheme_of(index) else index
        raise InputError(f"has no wheel of {wanted}", locator=where, hint="look at the name and the version")
    return list(dict.fromkeys(result))


def _is_wheel(link: str, name: str, version: str | None) -> bool:
    file = unquote(urlsplit(link).path if scheme_of(link) else link).replace(os.sep, "/").rsplit("/", 1)[-1]
    parts = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or len(parts) < 5:
        return False
    return re.sub(r"[-_.]+", "-", parts[0]).lower() == name and version in (None, parts[1])


def _in_folder(index: str, name: str) -> list[str]:
    """Of a folder of projects that of the project, or of a flat one all that is in it."""
    folder = next((path for path in (os.path.join(index, name), index) if os.path.isdir(path)), None)
    if folder is None:
        raise InputError("is no folder", locator=index, hint="give a folder of wheels, or the address of a simple index")
    return [os.path.join(folder, file) for file in sorted(os.listdir(folder))]


def _on_server(index: str, name: str, options: Remote) -> list[str]:
    from fatpatch.remote.opening import open_input

    page = urljoin(index if index.endswith("/") else index + "/", f"{name}/")
    source = open_input(page, options._replace(most=_MOST))
    try:
        text = source.read(0, source.size).decode("utf-8", "replace")
    finally:
        source.close()
    if text.lstrip().startswith("{"):
        return _of_json(text, page)
    parser = _Links(page)
    try:
        parser.feed(text)
    except (AssertionError, ValueError) as error:  # what the parser of the standard library raises for broken declarations
        raise FormatError("is no page of a simple index", locator=shown_address(page)) from error
    return parser.found


def _of_json(text: str, page: str) -> list[str]:
    try:
        document: Any = json.loads(text)
        return [urljoin(page, str(row["url"])).partition("#")[0] for row in document["files"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("is no page of a simple index", locator=shown_address(page)) from error


class _Links(HTMLParser):
    """The links of a page, without what stands behind #."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.page = page
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            try:
                self.found.append(urljoin(self.page, target).partition("#")[0])
            except ValueError:
                return  # a link that is none
