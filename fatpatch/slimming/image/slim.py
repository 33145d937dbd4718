"""A container image made smaller: the libraries of every layer, and the ledgers of the packages that own them."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence

from fatpatch.base.errors import EditError, FormatError
from fatpatch.base.leftovers import folder_prefix, remove_folders
from fatpatch.base.records import NamedTuple
from fatpatch.base.workers import in_order
from fatpatch.base.writing import give_name, sync_folder
from fatpatch.scan.slim_marks import MARK, mark_bytes
from fatpatch.slimming.image.documents import layer_names, rewritten
from fatpatch.slimming.image.layer import LayerArchive, NewLayer, content_of, opened_layer, take_out, written
from fatpatch.slimming.image.store import ImageFiles, opened, plain, write_store
from fatpatch.slimming.ledger import FileFacts, conda_document, facts_of, hashes_in, record_lines
from fatpatch.slimming.library import slim_library
from fatpatch.slimming.mark import mark_of
from fatpatch.slimming.request import SLIMMED, LibraryResult, LibraryTask, SlimRequest, by_length

Report = Callable[[LibraryResult], None]


class SlimmedLayer(NamedTuple):
    """One layer with libraries: its name for a user, and what became of them."""

    shown: str
    results: tuple[LibraryResult, ...]


class SlimmedImage(NamedTuple):
    """What became of an image: layer by layer, and what to tell."""

    layers: tuple[SlimmedLayer, ...]
    notes: tuple[str, ...]


class _Change(NamedTuple):
    """A library with its bytes before, as SHA-256 in hexadecimal, and where its new ones are."""

    old: str
    path: str


class _Planned(NamedTuple):
    """A layer, and by the index of their members the libraries in it that get smaller."""

    name: str
    archive: LayerArchive
    changes: dict[int, _Change]


def slim_image(path: str, shown: str, output: str | None, request: SlimRequest, *, jobs: int, report: Report, today: str) -> SlimmedImage:
    """Slim an image into a new file or folder; None: only plan. EditError when that exists already."""
    if output is not None and os.path.lexists(output):
        raise EditError("exists already", locator=output, hint="choose another name")
    home = tempfile.gettempdir() if output is None else os.path.dirname(os.path.abspath(output))
    remove_folders(home)
    request = request._replace(record=False)
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), dir=home) as scratch:
        image = opened(path, shown, scratch)
        planned, slimmed, notes = [], [], list[str]()
        for number, name in enumerate(layer_names(image), 1):
            stored = image.path(name)
            assert stored is not None
            _refuse_other_bytes(name, stored, shown)
            archive = opened_layer(stored, os.path.join(scratch, f"layer-{number}.tar"), shown)
            if archive is None:
                notes += (
                    []
                    if _is_statement(stored)
                    else [f"layer {number} is no tar archive, plain or packed by gzip or zstd: it is left as it is"]
                )
                continue
            folder = os.path.join(scratch, f"libraries-{number}")
            os.mkdir(folder)
            changes, results = _libraries(
                archive, folder, f"layer {number}", request._replace(record=False), dry=output is None, jobs=jobs, report=report
            )
            planned.append(_Planned(name, archive, changes))
            slimmed.append(SlimmedLayer(f"layer {number}", tuple(results)))
        if output is None or not any(each.changes for each in planned):
            if output is not None:
                _copy_unchanged(path, output)
            return SlimmedImage(tuple(slimmed), tuple(notes))
        layers = dict(_new_layers(planned, request, today, scratch))
        words = mark_of(request, {}, today).words
        found = rewritten(image, layers, words, scratch)
        _write(found.files, image, output, scratch)
    return SlimmedImage(tuple(slimmed), (*notes, *found.notes))


def _libraries(
    archive: LayerArchive, folder: str, shown: str, request: SlimRequest, *, dry: bool, jobs: int, report: Report
) -> tuple[dict[int, _Change], list[LibraryResult]]:
    """Slim the libraries of a layer; what does not change is removed again at once."""
    by_member = {id(each): index for index, each in enumerate(archive.members)}
    hashes: list[str] = []
    libraries = archive.libraries

    def tasks() -> Iterator[LibraryTask]:
        for number, each in enumerate(libraries):
            path = os.path.join(folder, str(number))
            hashes.append(take_out(archive, each, path))
            yield LibraryTask(path, f"{shown}: {plain(each.name)}", None if dry else path, request)

    changes, results = dict[int, _Change](), list[LibraryResult]()
    for number, (each, result) in enumerate(zip(libraries, in_order(slim_library, tasks(), jobs), strict=True)):
        report(result)
        results.append(by_length(result))
        path = os.path.join(folder, str(number))
        if result.status == SLIMMED and not dry:
            changes[by_member[id(each)]] = _Change(hashes[number], path)
        else:
            os.unlink(path)
    return changes, results


def _new_layers(planned: Sequence[_Planned], request: SlimRequest, today: str, scratch: str) -> Iterator[tuple[str, NewLayer]]:
    """(name, new layer) of each layer that changes: by its libraries, or by a ledger that names one of any layer."""
    facts: dict[tuple[str, str], FileFacts] = {}
    for each in planned:
        for index, change in each.changes.items():
            facts[plain(each.archive.members[index].name), change.old] = facts_of(change.path)
    for number, each in enumerate(planned):
        changed = {index: change.path for index, change in each.changes.items()}
        added: dict[int, list[tuple[str, bytes]]] = {}
        by_member = {id(member): index for index, member in enumerate(each.archive.members)}
        for member in each.archive.ledgers:
            made = _ledger(each.archive, member, facts, request, today)
            if made is not None:
                path = os.path.join(scratch, f"ledger-{number}-{by_member[id(member)]}")
                with open(path, "xb") as sink:
                    sink.write(made[0])
                changed[by_member[id(member)]] = path
                added[by_member[id(member)]] = made[1]
        if changed:
            yield each.name, written(each.archive, changed, added, os.path.join(scratch, f"new-layer-{number}"))


def _ledger(
    archive: LayerArchive, member: tarfile.TarInfo, facts: dict[tuple[str, str], FileFacts], request: SlimRequest, today: str
) -> tuple[bytes, list[tuple[str, bytes]]] | None:
    """(new content, files to add behind it) of a ledger; None where it names no library that changed."""
    name = plain(member.name)
    root = posixpath.dirname(posixpath.dirname(name))
    old = content_of(archive, member)
    below = {posixpath.relpath(key[0], root or "."): key for key in facts if not root or key[0].startswith(f"{root}/")}
    if not below:
        return None
    hashes = hashes_in(old, name)
    new = {inner: facts[key] for inner, key in below.items() if hashes.get(inner) == bytes.fromhex(key[1])}
    if not new:
        return None
    if not name.endswith("/RECORD"):
        return conda_document(old, new, name), []
    info = posixpath.relpath(posixpath.dirname(name), root or ".")
    mark = mark_bytes(mark_of(request, {inner: each.size for inner, each in new.items()}, today))
    content = record_lines(old, new, (), name)
    if f"{info}/{MARK}".encode() not in content:
        content += _row(f"{info}/{MARK}", mark)
    return content, [(posixpath.join(posixpath.dirname(member.name), MARK), mark)]


def _row(name: str, data: bytes) -> bytes:
    import base64

    hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={hashed},{len(data)}\n".encode()


def _refuse_other_bytes(name: str, stored: str, shown: str) -> None:
    """FormatError when a layer is not what its digest says: the new digest would hide that."""
    if name.startswith("blobs/sha256/") and facts_of(stored).sha256.hex() != name.rpartition("/")[2]:
        raise FormatError(f"{name} is not what its digest says", locator=shown)


def _is_statement(path: str) -> bool:
    """Whether a layer is a JSON document, as those of attestations are."""
    with open(path, "rb") as stream:
        return stream.read(1) == b"{"


def _copy_unchanged(path: str, output: str) -> None:
    if os.path.isdir(path):
        shutil.copytree(path, output, symlinks=True)
    else:
        shutil.copyfile(path, output)


def _write(files: dict[str, str], image: ImageFiles, output: str, scratch: str) -> None:
    """The new image under its name, whole or not at all."""
    made = os.path.join(scratch, "image")
    if not image.archive:
        os.mkdir(made)
    write_store(files, image.links, made, archive=image.archive)
    if image.archive:
        with open(made, "r+b") as stream:  # Windows syncs what may be written
            os.fsync(stream.fileno())
        give_name(made, output, False)
    else:
        os.rename(made, output)
    sync_folder(os.path.dirname(os.path.abspath(output)))
