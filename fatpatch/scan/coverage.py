"""Counts over a tree: the summary, the table of targets, the kernel x target matrix and its holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import ImageKind, ModuleKind
from fatpatch.model.target import target_key
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload

_ISA = {ImageKind.PTX: "ISA {}", ImageKind.SPIRV: "SPIR-V {}"}
_NUMBER = lazy_pattern(r"\d+")


class TreeSummary(NamedTuple):
    """Counts of everything below a node; ``kernels`` is the number of distinct names, None when not read."""

    fatbins: int
    bundles: int
    images: int
    images_by_target: tuple[tuple[str, int], ...]
    kernels: int | None


class TargetRow:
    """One line of the table of targets. Sizes are bytes; ``stored`` is None when images share one blob.

    ``facts`` are the (codec, producer, version of intermediate code in words) that occur.
    """

    __slots__ = ("facts", "images", "payloads", "size", "stored", "target")

    def __init__(self, target: str) -> None:
        self.target = target
        self.images = self.payloads = 0
        self.stored: int | None = 0
        self.size: int | None = 0
        self.facts: set[tuple[str, str | None, str | None]] = set()


def payloads_below(node: Node) -> Iterator[tuple[Node, Payload]]:
    """(holder, payload) of a node and its members, in document order: members first, as they are read."""
    for member in node.members:
        yield from payloads_below(member)
    for payload in node.payloads:
        yield node, payload


def members_below(node: Node) -> Iterator[Node]:
    """Every member of a node, and theirs, the inner ones first."""
    for member in node.members:
        yield from members_below(member)
        yield member


def holders(node: Node) -> list[Node]:
    """The members of a node that hold GPU code, the inner ones first, and the node itself where it does."""
    return [each for each in (*members_below(node), node) if each.payloads]


def stored_share(image: ImageEntry) -> int:
    """The stored bytes of an image; of a compressed blob that several share, its part by unpacked bytes."""
    if image.stored_size is not None:
        return image.stored_size
    return image.stored_bytes * (image.size or 0) // image.blob_size if image.blob_size else 0


def all_diagnostics(node: Node) -> Iterator[Diagnostic]:
    """Those of the members first, in document order."""
    for member in node.members:
        yield from all_diagnostics(member)
    yield from node.diagnostics


def parts_not_read(node: Node) -> list[Diagnostic]:
    """Files and containers below a node that are recognised and not read."""
    return [item for item in all_diagnostics(node) if item.field == NOT_READ]


def summarize(node: Node, kernels: int | None = None) -> TreeSummary:
    """The summary of everything below ``node``."""
    counts: dict[str, int] = {}
    fatbins = bundles = images = 0
    for _, payload in payloads_below(node):
        fatbins += payload.kind == ModuleKind.FATBIN
        bundles += payload.kind == ModuleKind.OFFLOAD_BUNDLE
        images += len(payload.images)
        for image in payload.images:
            counts[image.target] = counts.get(image.target, 0) + 1
    by_target = tuple(sorted(counts.items(), key=lambda item: target_key(item[0])))
    return TreeSummary(fatbins=fatbins, bundles=bundles, images=images, images_by_target=by_target, kernels=kernels)


def target_table(payloads: Iterable[Payload]) -> list[TargetRow]:
    """One row a target, over the payloads of one place."""
    rows: dict[str, TargetRow] = {}
    for payload in payloads:
        seen = set()
        for image in payload.images:
            row = rows.get(image.target)
            if row is None:
                row = rows[image.target] = TargetRow(image.target)
            _add(row, image)
            if image.target not in seen:
                seen.add(image.target)
                row.payloads += 1
    return [rows[target] for target in sorted(rows, key=target_key)]


def _add(row: TargetRow, image: ImageEntry) -> None:
    row.images += 1
    row.stored = None if row.stored is None or image.stored_size is None else row.stored + image.stored_size
    row.size = None if row.size is None or image.size is None else row.size + image.size
    row.facts.add((image.compression, image.producer, image.code_version and _ISA.get(image.kind, "").format(image.code_version)))
