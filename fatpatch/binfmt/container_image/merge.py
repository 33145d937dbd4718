"""Layers laid over each other: what a container sees, found from the entries of their archives alone.

Whiteouts, opaque folders, links and changes of type have the effect that ``umoci unpack`` gives them.
Source: OCI image specification 1.1, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from fatpatch.binfmt.tar import read as tar
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import Member

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MAX_LINKS = 255
_MAX_DEPTH = 1000


class FileContent:
    """The bytes of a file that matters: ``member`` of the archive of layer ``layer`` (from 0), and how many paths lead to it.

    ``library``: whether its copies in lower layers are counted.
    """

    __slots__ = ("layer", "library", "member", "names")

    def __init__(self, layer: int, member: Member, *, library: bool) -> None:
        self.layer, self.member, self.library = layer, member, library
        self.names = 0


class _FilePath:
    """A path to a file; ``content`` is None where it does not matter. ``layer``: the one that made the path."""

    __slots__ = ("content", "layer")

    def __init__(self, content: FileContent | None, layer: int) -> None:
        self.content, self.layer = content, layer


class _Link:
    """A symbolic link."""

    __slots__ = ("layer", "target")

    def __init__(self, target: str, layer: int) -> None:
        self.target, self.layer = target, layer


class _Folder:
    """A folder; ``layer``: the last one that touched it or anything in it."""

    __slots__ = ("entries", "layer")

    def __init__(self, layer: int) -> None:
        self.entries: dict[str, _Entry] = {}
        self.layer = layer


_Entry = _FilePath | _Link | _Folder


class _UnusableError(Exception):
    """An entry that no file system could take; its words say why."""


class MergedLayers:
    """The file system that layers make, one applied after the other.

    ``dead``: by path, how many copies of libraries are hidden in lower layers, and their bytes.
    """

    def __init__(self) -> None:
        self._root = _Folder(-1)
        self._layer = -1
        self._others = _FilePath(None, -1)
        self._folders: dict[str, list[str]] = {}
        self.dead: dict[str, tuple[int, int]] = {}

    def begin(self) -> None:
        """The entries that follow are those of the next layer."""
        self._layer += 1
        self._others = _FilePath(None, self._layer)

    def apply(self, entry: tar.TarEntry, content: FileContent | None, locator: str, diagnostics: Diagnostics) -> None:
        """Apply one entry; what cannot be is a diagnostic. ``content``: of a file whose bytes will be asked for."""
        try:
            self._apply(entry, content)
        except _UnusableError as error:
            diagnostics.error(locator, None, f"{entry.name[:80]!a}: {error}", field="entry")

    def paths(self) -> Iterator[tuple[str, bool]]:
        """The path of everything but folders, and whether it is a symbolic link."""
        left = [("", self._root)]
        while left:
            path, folder = left.pop()
            for name, entry in folder.entries.items():
                if isinstance(entry, _Folder):
                    left.append((f"{path}/{name}", entry))
                else:
                    yield f"{path}/{name}", isinstance(entry, _Link)

    def files(self) -> Iterator[tuple[str, FileContent]]:
        """The path of every file that matters, sorted, with its bytes."""
        left: list[tuple[str, _Entry]] = [("", self._root)]
        while left:
            path, entry = left.pop()
            if isinstance(entry, _Folder):
                left += [(f"{path}/{name}", entry.entries[name]) for name in sorted(entry.entries, reverse=True)]
            elif isinstance(entry, _FilePath) and entry.content is not None:
                yield path, entry.content

    def _apply(self, entry: tar.TarEntry, content: FileContent | None) -> None:
        folder, name = posixpath.split(_clean(entry.name))
        if not name:
            if entry.kind != tar.FOLDER:
                raise _UnusableError("stands in the place of the root folder")
            return
        parts = self._resolved(folder)
        if name.startswith(_WHITEOUT):
            self._white_out(parts, None if name == _OPAQUE else name.removeprefix(_WHITEOUT))
            return
        made: _Entry
        if entry.kind == tar.FOLDER:
            made = _Folder(self._layer)
        elif entry.kind == tar.LINK:
            made = _Link(entry.link, self._layer)
        elif entry.kind == tar.HARD_LINK:
            made = self._linked(entry.link, [*parts, name])
        elif content is not None:
            made = _FilePath(content, self._layer)
        else:
            made = self._others
        self._put(parts, name, made)

    def _put(self, parts: list[str], name: str, made: _Entry) -> None:
        """Set an entry in the place of what was there; a folder stays what it is, and is touched."""
        above = self._made(parts)
        old = above.entries.get(name)
        if isinstance(old, _Folder) and isinstance(made, _Folder):
            old.layer = self._layer
            return
        if isinstance(made, _FilePath) and made.content is not None:
            made.content.names += 1
        if old is not None:
            self._gone("/".join(["", *parts, name]), old)
        if isinstance(made, _Link) or isinstance(old, _Link | _Folder):
            self._folders.clear()
        above.entries[name] = made

    def _linked(self, target: str, own: list[str]) -> _Entry:
        """A further path to what a hard link names; it may be of a lower layer."""
        folder, name = posixpath.split(_clean(target))
        parts = [*self._resolved(folder), name]
        found = self._find(parts)
        if found is None or isinstance(found, _Folder) or parts == own:
            what = "itself" if parts == own else "a folder" if found is not None else "nothing"
            raise _UnusableError(f"a hard link to {what} ({target[:80]!a})")
        if isinstance(found, _Link):
            return _Link(found.target, self._layer)
        return self._others if found.content is None else _FilePath(found.content, self._layer)

    def _white_out(self, parts: list[str], name: str | None) -> None:
        """Delete a path, or all in a folder, but what this layer itself has brought."""
        path = parts if name is None else [*parts, name]
        if name in ("", ".", ".."):
            raise _UnusableError("a whiteout of no file")
        found = self._find(path) if path else self._root
        if isinstance(found, _Folder) and (name is None or found.layer == self._layer):
            self._empty("/".join(["", *path]), found)
        elif found is not None and name is not None and found.layer != self._layer:
            above = self._find(parts) if parts else self._root
            assert isinstance(above, _Folder)
            self._gone("/".join(["", *path]), above.entries.pop(name))
        self._folders.clear()

    def _empty(self, path: str, folder: _Folder) -> None:
        """Take out of a folder what lower layers brought."""
        left = [(path, folder)]
        while left:
            path, folder = left.pop()
            for name, entry in list(folder.entries.items()):
                if entry.layer != self._layer:
                    self._gone(f"{path}/{name}", folder.entries.pop(name))
                elif isinstance(entry, _Folder):
                    left.append((f"{path}/{name}", entry))

    def _gone(self, path: str, entry: _Entry) -> None:
        """Count the files that matter below what is taken away, as far as no other path leads to them."""
        left = [(path, entry)]
        while left:
            path, entry = left.pop()
            if isinstance(entry, _Folder):
                left += [(f"{path}/{name}", inner) for name, inner in entry.entries.items()]
            elif isinstance(entry, _FilePath) and entry.content is not None:
                entry.content.names -= 1
                if not entry.content.names and entry.content.library:
                    count, size = self.dead.get(path, (0, 0))
                    self.dead[path] = count + 1, size + entry.content.member.size

    def _made(self, parts: list[str]) -> _Folder:
        """The folder of a path without links, made where it is missing; it and those above it are touched."""
        folder = self._root
        folder.layer = self._layer
        for part in parts:
            entry = folder.entries.get(part)
            if entry is None:
                entry = folder.entries[part] = _Folder(self._layer)
            if not isinstance(entry, _Folder):
                raise _UnusableError(f"lies below {part[:80]!a}, which is not a folder")
            entry.layer = self._layer
            folder = entry
        return folder

    def _find(self, parts: list[str]) -> _Entry | None:
        entry: _Entry | None = self._root
        for part in parts:
            entry = entry.entries.get(part) if isinstance(entry, _Folder) else None
        return entry

    def _resolved(self, path: str) -> list[str]:
        """The parts of a folder's path, its links followed inside the root; parts that are not there stay as they are."""
        known = self._folders.get(path)
        if known is not None:
            return known
        parts: list[str] = []
        chain: list[_Entry | None] = [self._root]
        left, links = path.split("/")[::-1], 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del parts[-1:], chain[len(parts) + 1 :]
                continue
            above = chain[-1]
            entry = above.entries.get(part) if isinstance(above, _Folder) else None
            if isinstance(entry, _Link):
                links += 1
                if links > _MAX_LINKS:
                    raise _UnusableError("its links lead in a circle")
                if entry.target.startswith("/"):
                    parts, chain = [], [self._root]
                left += entry.target.split("/")[::-1]
            else:
                parts.append(part)
                chain.append(entry)
            if len(parts) > _MAX_DEPTH or len(left) > _MAX_DEPTH * 8:
                raise _UnusableError("its folders are nested without end")
        self._folders[path] = parts
        return parts


def _clean(name: str) -> str:
    """An absolute path without ``.`` and ``..``, as its text has it."""
    return posixpath.normpath("/" + name.lstrip("/"))
