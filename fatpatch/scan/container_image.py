"""A container image as one file system: what of its layers a container sees, with the layer that brought each file.

The layers are read twice and never unpacked whole: first their headers, laid over each other, then what is left of what may hold GPU
code, one file after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from fatpatch.base.errors import FatpatchError, InputError, LimitError, TruncatedError
from fatpatch.base.locator import file_name, join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.base.words import plural
from fatpatch.binfmt import unpack
from fatpatch.binfmt.codecs import stream_codec
from fatpatch.binfmt.container_image.manifest import ImageRef, LayerRef, digest_problem, images_of, is_foreign
from fatpatch.binfmt.container_image.merge import FileContent, MergedLayers
from fatpatch.binfmt.container_image.store import BlobStore
from fatpatch.binfmt.stream import StreamReader
from fatpatch.binfmt.tar import read as tar
from fatpatch.model.container_image import ContainerImage, FileOrigin, LayerFacts
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ContainerKind
from fatpatch.model.tree import Member, Node
from fatpatch.scan.image_packages import PackageTexts, is_package_text
from fatpatch.scan.kernel_folders import is_kernel_file
from fatpatch.scan.ledgers import LIBRARY

KIND = ContainerKind.CONTAINER_IMAGE
_MAX_ENTRIES = 5_000_000
_HEAD = 4096
_PROGRAMS = (b"\x7fELF", b"MZ")

Visit = Callable[[Source, str, Member], tuple[Node | None, bool]]
"""Reads one file (its bytes, its locator, its path): the node, if it concerns us, and whether its bytes are still needed."""


class LayerReading(NamedTuple):
    """What reading an image takes: where its bytes go, what of them may matter, who reads a file. ``verify``: every digest is computed."""

    workspace: unpack.Workspace
    matters: Callable[[bytes, Member], bool]
    visit: Visit
    progress: Callable[[str, int, int], None]
    verify: bool
    platform: str | None


class _OpenLayer(NamedTuple):
    """A layer that can be read: ``source`` is its archive, through ``reader`` where it is compressed."""

    ref: LayerRef
    stored: Source
    codec: str | None
    source: Source
    reader: StreamReader | None
    hashed: _Hash


class _Hash:
    """The SHA-256 of unpacked bytes, and how many of them there may be."""

    def __init__(self, allowed: int) -> None:
        self.engine = hashlib.sha256()
        self._left = allowed

    def __call__(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise LimitError("unpacks to more than is sensible: refused as a bomb", field="size")
        self.engine.update(data)


def image_nodes(store: BlobStore, locator: str, path: str, reading: LayerReading, diagnostics: Diagnostics) -> Node:
    """The node of all images of a store: of a single one with its files as members, of several with a node for each."""
    refs = images_of(store, reading.platform, locator, diagnostics)
    return node_of(store, refs, locator, path, reading, diagnostics)


def node_of(store: BlobStore, refs: Sequence[ImageRef], locator: str, path: str, reading: LayerReading, diagnostics: Diagnostics) -> Node:
    """The node of some images of a store. What is wrong with one is a diagnostic, and the others are read."""
    if len(refs) == 1:
        return _image(store, refs[0], locator, path, reading, diagnostics)
    names = _labels(refs)
    members = tuple(_image(store, ref, join(locator, name), name, reading, Diagnostics()) for ref, name in zip(refs, names, strict=True))
    size = store.size if store.root is None else sum(member.size for member in members)
    return Node(locator, path, size, KIND, f"{len(refs)} images", members, (), diagnostics.finish(), member_count=len(refs))


def _labels(refs: Sequence[ImageRef]) -> list[str]:
    """What tells the images of one store apart: their platforms, or their names, or both, with a number where that is not enough."""
    for spell in (lambda ref: ref.platform, lambda ref: ref.name, lambda ref: f"{ref.name} {ref.platform}".strip()):
        names = [spell(ref) for ref in refs]
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{spell(ref)}#{index + 1}" for index, ref in enumerate(refs)]


def _image(store: BlobStore, ref: ImageRef, locator: str, path: str, reading: LayerReading, diagnostics: Diagnostics) -> Node:
    layers, merged, entries = [], MergedLayers(), 0
    allowed = reading.workspace.allowed
    for number, layer_ref in enumerate(ref.layers, 1):
        merged.begin()
        layer = _opened(store, layer_ref, number, allowed, locator, diagnostics)
        layers.append(layer)
        if layer is not None:
            entries += _merge(layer, merged, _MAX_ENTRIES - entries, number, locator, reading, diagnostics)
            _check(layer, number, locator, reading, diagnostics)
    members, facts = _files(ref, layers, merged, locator, reading, diagnostics)
    words = ", ".join(filter(None, (ref.platform, plural(len(layers), "layer"))))
    size = store.size if store.root is None else sum(each.size for each in facts.layers)
    return Node(
        locator,
        path,
        size,
        KIND,
        words,
        members,
        (),
        diagnostics.finish(),
        member_count=len(members),
        image=facts,
        kernel_files=facts.kernel_files,
    )


def _opened(store: BlobStore, ref: LayerRef, number: int, allowed: int, locator: str, diagnostics: Diagnostics) -> _OpenLayer | None:
    """A layer, open; None, with a diagnostic, where it is not there or not read."""
    where = f"layer {number} ({ref.name[:80]!a})"
    stored = store.open(ref.name)
    if stored is None and is_foreign(ref):
        diagnostics.not_read(locator, 0, f"{where} is kept elsewhere: not read")
        return None
    if stored is None:
        diagnostics.error(locator, None, f"{where} is not there", field="layers")
        return None
    if ref.size is not None and ref.size != stored.size:
        diagnostics.error(locator, None, f"{where} has {stored.size:#x} bytes, the manifest says {ref.size:#x}", field="layers")
    codec = stream_codec(stored)
    hashed = _Hash(allowed)
    reader = None if codec is None else StreamReader(stored, codec, hashed)
    source = stored if reader is None else reader.source()
    if not tar.probe(source) and any(source.peek(0, tar.BLOCK)):
        problem = "" if reader is None or reader.problem is None else f": {reader.problem.message}"
        diagnostics.not_read(locator, 0, f"{where} is not a tar archive that fatpatch can read{problem}")
        return None
    return _OpenLayer(ref, stored, codec, source, reader, hashed)


def _merge(
    layer: _OpenLayer, merged: MergedLayers, most: int, number: int, locator: str, reading: LayerReading, diagnostics: Diagnostics
) -> int:
    """Lay a layer over those before; how many entries it has."""
    count, end, where = 0, 0, join(locator, f"layer {number}")
    for entry in tar.entries(layer.source, where, diagnostics, most):
        count += 1
        if not count % 256:
            reading.progress(where, number, count)
        merged.apply(entry, _content(layer, entry.member, number - 1, reading), where, diagnostics)
        if entry.member is not None:
            end = entry.member.offset + entry.member.stored_size
    if layer.reader is not None:
        layer.reader.to_end()
        size = layer.reader.end or 0
        if layer.reader.problem is None and size < end:
            diagnostics.error(where, end, f"its last file ends at {end:#x}, the archive at {size:#x}", field="size")
    return count


def _content(layer: _OpenLayer, member: Member | None, number: int, reading: LayerReading) -> FileContent | None:
    """What of a file matters; None where nothing does."""
    if member is None:
        return None
    if is_package_text(member.name):
        return FileContent(number, member, library=False)
    stored = member.method == Codec.STORED or (member.parts[:1] and not member.parts[0][0])
    head = layer.source.peek(member.offset, min(member.stored_size, _HEAD)) if stored else b""
    if not reading.matters(head, member):
        return None
    return FileContent(number, member, library=head.startswith(_PROGRAMS) or LIBRARY.search(member.name) is not None)


def _check(layer: _OpenLayer, number: int, locator: str, reading: LayerReading, diagnostics: Diagnostics) -> None:
    """The digests of a layer: of one that was unpacked all are known, of a plain one they take another reading."""
    where = f"layer {number}"
    if layer.reader is not None and layer.reader.problem is not None:
        diagnostics.error(locator, None, f"{where}: {layer.reader.problem.message}", field="data")
        return
    if layer.reader is not None:
        said = layer.ref.diff_id
        real = f"sha256:{layer.hashed.engine.hexdigest()}"
        if said is not None and said.startswith("sha256:") and said != real:
            diagnostics.error(locator, None, f"{where}: unpacked it has the digest {real}, expected {said}", field="diff_ids")
    if layer.reader is not None or reading.verify:
        for digest in dict.fromkeys((layer.ref.digest, layer.ref.diff_id if layer.reader is None else None)):
            if (problem := digest_problem(layer.stored, digest)) is not None:
                diagnostics.error(locator, None, f"{where}: {problem}", field="digest")


def _files(
    ref: ImageRef, layers: Sequence[_OpenLayer | None], merged: MergedLayers, locator: str, reading: LayerReading, diagnostics: Diagnostics
) -> tuple[tuple[Node, ...], ContainerImage]:
    """The files that a container sees, each read once, in the order in which the layers have them; shown by path."""
    paths: dict[int, list[str]] = {}
    contents: dict[int, FileContent] = {}
    for path, content in merged.files():
        paths.setdefault(id(content), []).append(path)
        contents[id(content)] = content
    order = sorted(contents, key=lambda key: (contents[key].layer, contents[key].member.offset))
    nodes: dict[str, Node] = {}
    texts = PackageTexts()
    for count, key in enumerate(order):
        content, names = contents[key], sorted(paths[key], key=lambda path: (len(path), path))
        layer = layers[content.layer]
        assert layer is not None
        where = join(locator, names[0])
        reading.progress(where, count, len(order))
        try:
            if texts.takes(names):
                texts.add(names, _plain(layer, content.member))
                continue
            node = _read(layer, content.member, names[0], where, reading)
        except InputError:  # a network that fails, a full disk: what follows from that is no answer
            raise
        except FatpatchError as error:
            diagnostics.caught(where, error)
            continue
        if node is not None:
            dead = [merged.dead[name] for name in names if name in merged.dead]
            copies, size = sum(count for count, _ in dead), sum(size for _, size in dead)
            origin = FileOrigin(content.layer + 1, layer.ref.digest or layer.ref.name, tuple(names[1:]), copies, size)
            nodes[names[0]] = node._replace(origin=origin, stored_at=None)
    live = {path for names in paths.values() for path in names}
    gone = [number for path, number in merged.dead.items() if path not in live]
    packages, cuda = texts.packages()
    nodes = {path: texts.marked(node, path) for path, node in nodes.items()}
    facts = ContainerImage(
        name=ref.name,
        platform=ref.platform,
        layers=tuple(_facts(layer, each) for layer, each in zip(layers, ref.layers, strict=True)),
        deleted=sum(count for count, _ in gone),
        deleted_bytes=sum(size for _, size in gone),
        packages=packages,
        cuda=cuda,
        names=frozenset(
            file_name(path).lower() for path in (*live, *(path for path, link in merged.paths() if link)) if LIBRARY.search(path)
        ),
        kernel_files=tuple(sorted(path for path, link in merged.paths() if not link and is_kernel_file(path))),
    )
    return tuple(nodes[path] for path in sorted(nodes)), facts


def _facts(layer: _OpenLayer | None, ref: LayerRef) -> LayerFacts:
    if layer is None:
        return LayerFacts(ref.digest or ref.name, ref.size or 0, None, "not read", ref.created_by)
    unpacked = layer.stored.size if layer.reader is None else layer.reader.end
    return LayerFacts(ref.digest or ref.name, layer.stored.size, unpacked, layer.codec or "none", ref.created_by)


def _plain(layer: _OpenLayer, member: Member) -> Iterator[bytes]:
    return layer.source.chunks(member.offset, member.stored_size)


def _read(layer: _OpenLayer, member: Member, path: str, locator: str, reading: LayerReading) -> Node | None:
    """The node of a file. Of a plain layer its bytes are read in place, of another from a copy that is forgotten when it is not needed."""
    workspace = reading.workspace
    if layer.reader is None or member.method != Codec.STORED:
        content = workspace.open(layer.source, member)
        node, needed = reading.visit(content, locator, member._replace(name=path, method="stored", parts=()))
        if not needed:
            workspace.release(content)
        return node
    copy = workspace.spooled(layer.source.slice(member.offset, member.stored_size))
    if copy.size != member.size:
        workspace.cut_back(copy)
        raise TruncatedError(f"{member.size:#x} bytes needed, {copy.size:#x} there", offset=member.offset, field="size")
    node, needed = reading.visit(copy, locator, member._replace(name=path))
    if not needed:
        workspace.cut_back(copy)
        return None if node is None else node._replace(source=None)
    return node
