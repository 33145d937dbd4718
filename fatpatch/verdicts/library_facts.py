"""What is compared of one holder of GPU code: targets, sizes, kernels with what they take and whether they work, PTX, toolkits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from fatpatch.base.records import NamedTuple
from fatpatch.gpucode import flow
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.gpucode.signature import without_hashes
from fatpatch.model.kinds import ImageKind
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload
from fatpatch.scan.coverage import total_of
from fatpatch.scan.survey import complaint_of, survey
from fatpatch.verdicts.facts import FactsReader, is_dead
from fatpatch.verdicts.read_ahead import read_all_ahead

REAL, STUB = "real", "stub"


class Cell(NamedTuple):
    """One kernel on one target. ``local``: bytes of stack or scratch of a thread, spills among them.

    ``spills``: spilled registers, AMD only. ``body``: real or stub, None where it cannot be told. Of a kernel that several modules hold:
    the most of each, a stub when one of them is, and in ``code`` the bytes of all, so that the order of modules plays no part.
    """

    registers: int | None
    shared: int | None
    local: int | None
    spills: int | None
    code: int | None
    body: str | None


class TargetFacts(NamedTuple):
    """All images of one target: how many modules hold it, and their bytes; ``stored`` is None where images share one blob."""

    modules: int
    stored: int | None
    unpacked: int | None


class ModuleKernels(NamedTuple):
    """One payload: kernel names without build-folder ids, and targets."""

    locator: str
    names: frozenset[str]
    targets: frozenset[str]


class LibraryFacts(NamedTuple):
    """``kernels``: by name without build-folder ids, then by target. ``ptx``: target -> ISA versions.

    ``path`` is where the holder lies in what was given, empty for the file itself; ``file`` is the outermost file as it is shown;
    ``digest`` that of the payloads alone, in any order.
    """

    path: str
    name: str
    file: str
    locator: str
    container: str
    size: int
    gpu_size: int
    digest: str
    targets: Mapping[str, TargetFacts]
    kernels: Mapping[str, Mapping[str, Cell]] = {}
    ptx: Mapping[str, tuple[str, ...]] = {}
    toolkits: tuple[str, ...] = ()
    modules: tuple[ModuleKernels, ...] = ()
    complaints: tuple[Diagnostic, ...] = ()


def listed(node: Node, path: str, file: str) -> LibraryFacts:
    """What can be said without reading images: a second release with the same digest needs no more."""
    return LibraryFacts(
        path=path,
        name=path.rsplit("!", 1)[-1] or node.path,
        file=file,
        locator=node.locator,
        container=node.container,
        size=node.size,
        gpu_size=sum(payload.size for payload in node.payloads),
        digest=_digest(node),
        targets=_targets(node),
    )


def read_whole(facts: LibraryFacts, node: Node, reader: FactsReader, *, jobs: int | None) -> LibraryFacts:
    """The facts with all that the images say. ``reader`` is doctor's: a body that both need is read once."""
    kernels: dict[str, dict[str, Cell]] = {}
    toolkits: set[str] = set()
    ptx: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {payload.locator: set() for payload in node.payloads}
    complaints = []
    read_all_ahead(node, reader, jobs)
    found = survey([node._replace(members=())], limit=reader.limit, jobs=jobs)
    for (payload, image), (_, reading) in zip(_images(node), found, strict=True):
        if (complaint := complaint_of(image, reading)) is not None:
            complaints.append(complaint)
        if producer := reading.producer or image.producer:
            toolkits.add(producer)
        version = reading.code_version or image.code_version
        if image.kind == ImageKind.PTX and version is not None:
            ptx.setdefault(image.target, set()).add(version)
        bodies = body_classes(node, image, reader) if reading.rows else {}
        for row in reading.rows or ():
            name = without_hashes(row.name)
            names[payload.locator].add(name)
            cell, cells = _cell(row, bodies.get(row.name)), kernels.setdefault(name, {})
            cells[image.target] = _together(cells[image.target], cell) if image.target in cells else cell
    return facts._replace(
        kernels=kernels,
        ptx={target: tuple(sorted(versions)) for target, versions in ptx.items()},
        toolkits=tuple(sorted(toolkits)),
        modules=tuple(
            ModuleKernels(payload.locator, frozenset(names[payload.locator]), frozenset(image.target for image in payload.images))
            for payload in node.payloads
        ),
        complaints=tuple(complaints),
    )


def _digest(node: Node) -> str:
    """Of all payloads, whatever their order."""
    digests = []
    for payload in node.payloads:
        result = hashlib.sha256()
        for chunk in node.content.chunks(payload.offset, payload.size):
            result.update(chunk)
        digests.append(result.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _images(node: Node) -> Iterator[tuple[Payload, ImageEntry]]:
    return ((payload, image) for payload in node.payloads for image in payload.images)


def _cell(row: KernelFacts, body: str | None) -> Cell:
    amd = row.amd
    spills = None if amd is None or amd.vgpr_spills is None else amd.vgpr_spills + (amd.sgpr_spills or 0)
    return Cell(row.registers, row.shared_bytes, row.local_bytes, spills, row.code_size, body)


def _together(first: Cell, second: Cell) -> Cell:
    """Two copies of a kernel as one."""
    bodies = {first.body, second.body}
    return Cell(
        registers=_most(first.registers, second.registers),
        shared=_most(first.shared, second.shared),
        local=_most(first.local, second.local),
        spills=_most(first.spills, second.spills),
        code=None if first.code is None and second.code is None else (first.code or 0) + (second.code or 0),
        body=STUB if STUB in bodies else REAL if bodies == {REAL} else None,
    )


def _most(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)


def body_classes(node: Node, image: ImageEntry, reader: FactsReader) -> dict[str, str]:
    """Kernel name -> REAL or STUB; those of which it cannot be told are left out."""
    if image.kind not in (ImageKind.SASS, ImageKind.PTX) or node.source is None:
        return {}
    found = reader.facts(node.source, image).bodies
    return {name: STUB if is_dead(body) else REAL for name, body in found.items() if body != flow.UNKNOWN}


def _targets(node: Node) -> dict[str, TargetFacts]:
    images: dict[str, list[ImageEntry]] = {}
    modules: dict[str, int] = {}
    for payload in node.payloads:
        for target in {image.target for image in payload.images}:
            modules[target] = modules.get(target, 0) + 1
        for image in payload.images:
            images.setdefault(image.target, []).append(image)
    return {
        target: TargetFacts(modules[target], total_of(image.stored_size for image in each), total_of(image.size for image in each))
        for target, each in images.items()
    }
