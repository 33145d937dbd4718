"""Simple indexes of packages (PEP 503 as HTML, PEP 691 as JSON): the files of a project."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

from fatpatch.base.errors import FormatError, InputError
from fatpatch.base.limits import Remote
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.remote.address import HTTP, scheme_of, shown_address

_MOST = 64 << 20
_NAME = lazy_pattern(r"([A-Za-z0-9][A-Za-z0-9._-]{0,200})(?:==([A-Za-z0-9.!+_*-]{1,100}))?")
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


class IndexFile(NamedTuple):
    """A file of a project: its address (or in a folder its path), and what the index says of it. ``size`` is None where it does not."""

    address: str
    requires_python: str = ""
    yanked: bool = False
    size: int | None = None

    @property
    def name(self) -> str:
        """The last part of the address: the name of the file."""
        path = unquote(urlsplit(self.address).path) if scheme_of(self.address) else self.address
        return path.replace(os.sep, "/").rsplit("/", 1)[-1]


def wheels(index: str, wanted: str, options: Remote | None = None) -> list[str]:
    """The addresses, or in a folder the paths, of all wheels of a project ``name`` or ``name==version``, in the order of the index.

    InputError for a name that is none, and for a project that the index does not have or has no wheel of.
    """
    found = _NAME.fullmatch(wanted)
    if found is None:
        raise InputError(f"expected the name of a project, got {wanted[:80]!r}", hint="such as torch or torch==2.9.0")
    version = found[2]
    files = project_files(index, found[1], options)
    result = [each.address for each in files if each.name.endswith(".whl") and version in (None, each.name.split("-")[1])]
    if not result:
        where = shown_address(index) if scheme_of(index) else index
        raise InputError(f"has no wheel of {wanted}", locator=where, hint="look at the name and the version")
    return list(dict.fromkeys(result))


def project_files(index: str, name: str, options: Remote | None = None) -> list[IndexFile]:
    """All files of a project in the order of the index, those of other projects left out; empty where it has none of that name.

    InputError for a server that does not answer, and for a project that it does not have.
    """
    plain = re.sub(r"[-_.]+", "-", name).lower()
    if index.startswith("file:"):
        index = url2pathname(urlsplit(index).path)
    scheme = scheme_of(index)
    if scheme is not None and urlsplit(index).query:
        raise InputError("an index has no query", locator=shown_address(index), hint="give the address that ends in /simple/")
    files = _in_folder(index, plain) if scheme is None else _on_server(index, plain, options or Remote())
    followed = HTTP | {scheme}  # a page must not lead to files here, nor to stores with the reader's own credentials
    return [each for each in files if (scheme is None or scheme_of(each.address) in followed) and _is_of(each.name, plain)]


def _is_of(file: str, name: str) -> bool:
    """Whether a file is a wheel or source distribution of a project, by its name."""
    if file.endswith(".whl"):
        parts = file.removesuffix(".whl").split("-")
        return len(parts) >= 5 and re.sub(r"[-_.]+", "-", parts[0]).lower() == name
    return re.sub(r"[-_.]+", "-", file).lower().startswith(f"{name}-") and file.endswith((".tar.gz", ".zip"))


def _in_folder(index: str, name: str) -> list[IndexFile]:
    """Of a folder of projects that of the project, or of a flat one all that is in it."""
    folder = next((path for path in (os.path.join(index, name), index) if os.path.isdir(path)), None)
    if folder is None:
        raise InputError("is not a folder", locator=index, hint="give a folder of wheels, or the URL of a simple index")
    return [IndexFile(os.path.join(folder, file)) for file in sorted(os.listdir(folder))]


def _on_server(index: str, name: str, options: Remote) -> list[IndexFile]:
    page = urljoin(index if index.endswith("/") else index + "/", f"{name}/")
    text = page_text(page, options, _ACCEPT)
    if text.lstrip().startswith("{"):
        return _of_json(text, page)
    parser = _Links(page)
    try:
        parser.feed(text)
    except (AssertionError, ValueError) as error:  # what the parser of the standard library raises for broken declarations
        raise FormatError("is not a page of a simple index", locator=shown_address(page)) from error
    return parser.found


def page_text(page: str, options: Remote, accept: str) -> str:
    """The text of a page of an index, up to 64 MiB; nothing is reported of it."""
    from fatpatch.remote.opening import open_input

    source = open_input(page, options._replace(most=_MOST, accept=accept, report=None))
    try:
        return source.read(0, source.size).decode("utf-8", "replace")
    finally:
        source.close()


def _of_json(text: str, page: str) -> list[IndexFile]:
    try:
        document: Any = json.loads(text)
        return [_row(row, page) for row in document["files"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError("is not a page of a simple index", locator=shown_address(page)) from error


def _row(row: Any, page: str) -> IndexFile:
    size = row.get("size")
    return IndexFile(
        address=urljoin(page, str(row["url"])).partition("#")[0],
        requires_python=str(row.get("requires-python") or ""),
        yanked=bool(row.get("yanked")),
        size=size if isinstance(size, int) and size >= 0 else None,
    )


class _Links(HTMLParser):
    """The links of a page, without what stands behind #."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.page = page
        self.found: list[IndexFile] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        target = given.get("href") if tag == "a" else None
        if target:
            try:
                address = urljoin(self.page, target).partition("#")[0]
            except ValueError:
                return  # a link that is none
            self.found.append(IndexFile(address, given.get("data-requires-python") or "", "data-yanked" in given))
