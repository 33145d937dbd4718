"""llamafiles run an extracted copy of their GPU library: where it is, and what must happen to it (reference: llamafile, section 2)."""

from __future__ import annotations

import os

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node

_VERSION = lazy_pattern(rb"llamafile[ /]v?(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)\b")
_LIBRARIES = lazy_pattern(r"ggml-(?:cuda|rocm)\.(?:dll|so)")
_SEARCHED = 64 << 20


class Copy(NamedTuple):
    """Where a version keeps its extracted copy (below the home folder), and whether it refreshes it from the archive by itself."""

    version: str | None
    paths: tuple[str, ...]
    advice: str


def is_llamafile(node: Node) -> bool:
    """Whether a file is an APE that carries a GPU library at its root."""
    return node.container == ContainerKind.APE and any(_LIBRARIES.fullmatch(member.path) for member in node.members)


def version_of(node: Node) -> str | None:
    """The version that the program states of itself before its first member; None when it does not."""
    end = min((member.stored_at for member in node.members if member.stored_at is not None), default=node.content.size)
    body = node.content.slice(0, min(end, _SEARCHED, node.content.size))
    overlap = b""
    for chunk in body.chunks():
        found = _VERSION.search(overlap + chunk)
        if found:
            return found[1].decode()
        overlap = chunk[-64:]
    return None


def copy_of(library: str, version: str | None) -> Copy:
    """What is known of the extracted copy of a library (``ggml-cuda.dll``) for a version; all cases when it is None."""
    plain, versioned = f".llamafile/{library}", f".llamafile/v/{version or 'VERSION'}/{library}"
    if version is None:
        return Copy(
            None,
            (plain, versioned),
            f"versions up to 0.9.3 run an extracted copy, ~/{plain} or ~/{versioned}: delete it once; 0.10 renews it by itself",
        )
    number = tuple(int(part) for part in version.split("."))
    if number >= (0, 10):
        return Copy(version, (versioned,), "this version renews its extracted copy whenever it differs: nothing to do")
    path = versioned if number >= (0, 8, 5) else plain
    return Copy(version, (path,), f"this version runs the extracted copy ~/{path} and does not compare it: delete that once")


def extracted(library: str, version: str | None) -> list[str]:
    """The extracted copies that exist on this machine."""
    home = os.path.expanduser("~")
    folder = os.path.join(home, ".llamafile", "v")
    temporary = os.environ.get("TMPDIR")  # 0.8 and 0.8.1 prefer it
    candidates = [os.path.join(temporary, ".llamafile", library)] if temporary and version in (None, "0.8", "0.8.0", "0.8.1") else []
    candidates += [os.path.join(home, *path.split("/")) for path in copy_of(library, version).paths if "VERSION" not in path]
    if version is None and os.path.isdir(folder):
        candidates += [os.path.join(folder, name, library) for name in sorted(os.listdir(folder))]
    return [path for path in candidates if os.path.isfile(path)]


def notes_for(node: Node, edited: list[str]) -> list[str]:
    """What to tell the user after the libraries at these locators were edited inside a llamafile."""
    if not is_llamafile(node):
        return []
    version = version_of(node)
    return [
        f"llamafile {version or 'of unknown version'}: {copy_of(name, version).advice}"
        for where in edited
        if _LIBRARIES.fullmatch(name := where.rsplit("!", 1)[-1])
    ]


def renews_copies(node: Node) -> bool:
    """Whether this version writes its extracted copy anew at every start, so that changing the copy is of no use."""
    version = version_of(node)
    return version is not None and tuple(int(part) for part in version.split(".")) >= (0, 10)


def library_copies(node: Node) -> list[tuple[str, list[str]]]:
    """(library, extracted copies that exist) for each GPU library of a llamafile that holds fatbins."""
    version = version_of(node)
    return [
        (member.path, extracted(member.path, version)) for member in node.members if _LIBRARIES.fullmatch(member.path) and member.payloads
    ]
