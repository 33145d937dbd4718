"""The text of ``inspect``: what the file is, its parts, one table of targets a place, then what stands out, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fatpatch.api.inspection import (
    Matrix,
    TargetRow,
    all_diagnostics,
    marks_below,
    members_below,
    payloads_below,
    signature_words,
    target_table,
)
from fatpatch.base.shared_names import shared_beginning
from fatpatch.base.words import columns, plural, safe, size
from fatpatch.commands._shared.console import room_behind
from fatpatch.commands.inspect.remarks import remarks
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import CONTAINER_WORDS, MODULE_WORDS, ContainerKind, ModuleKind, Vendor
from fatpatch.model.target import target_key
from fatpatch.model.tree import Inventory, Node, Payload, place_of

if TYPE_CHECKING:
    from fatpatch.gpucode.rows import KernelFacts

_CAPTIONS = {
    Vendor.NVIDIA: "kernels (registers by target; + = PTX, the driver decides; . = not there)",
    Vendor.AMD: "kernels (VGPRs by target; . = not there)",
    Vendor.INTEL: "kernels (+ = there; . = not there)",
}
_MANY = 6
"""Above so many places, each gets a row in place of a table."""

_MAX_NAMES = 3
_MAX_COLUMNS = 64
_MARGIN = 4
_LOOKED_FOR = (
    "looked for: CUDA fatbins (by section, wrapper and magic), cubins, PTX, AMD offload bundles, code objects and kernel packs; "
    "not for SPIR-V and Metal, which --all-kinds counts"
)


def report(
    node: Node,
    matrices: Mapping[str, Matrix],
    resources: Mapping[str, Sequence[tuple[str, KernelFacts]]],
    *,
    verbose: bool,
    filtered: bool,
    show: Callable[[str], str],
    shown_as: str,
) -> Iterator[str]:
    """The lines for one file. ``matrices`` holds the kernels by place, and nothing when they were not read.

    ``resources``: (target, kernel) by place, for the table of what they take; none when it is not asked for.
    """
    yield _head(node)
    yield from (f"  {safe(mark.words)}" for mark in marks_below(node))
    groups: dict[str, list[Payload]] = {}
    for _, payload in payloads_below(node):
        groups.setdefault(place_of(payload), []).append(payload)
    brief = len(groups) > _MANY and not (verbose or matrices or resources)
    yield from _member_lines(node, verbose=verbose, brief=brief)
    barren = sum(1 for member in members_below(node) if not _matters(member))
    if barren:
        yield f"  {plural(barren, 'other member')} read, without GPU code"
    yield from _image_lines(node, verbose=verbose)
    for place, stock in _stocks(node):
        yield f"  {safe(place)}: {_stock(stock)}"
    if brief:
        from fatpatch.commands.inspect.many import many_lines

        yield from many_lines(groups, safe(node.path))
        yield from ("", "-v shows each place by target", f"Next: fatpatch inspect {shown_as} --kernels")
        return
    for place, everything in groups.items():
        payloads = [payload for payload in everything if payload.images or not payload.fillers] or everything
        matrix = matrices.get(place)
        yield ""
        yield place
        table = target_table(payloads)
        if table:
            yield from (f"  {line}" for line in _table(payloads, table, matrix if not filtered else None))
        yield from (f"  {line}" for line in remarks(payloads, table))
        yield from (f"  {line}" for line in _removed(everything))
        if verbose:
            yield from (f"  {line}" for line in _evidence(everything))
        if matrix is not None:
            yield ""
            yield from (f"  {line}" for line in hole_lines(matrix) if not filtered)
            yield from (f"  {line}" for line in matrix_lines(matrix, show, _CAPTIONS.get(payloads[0].vendor, "kernels"), filtered=filtered))
        if place in resources:
            from fatpatch.commands.inspect.resources import resource_lines

            yield from (f"  {line}" for line in resource_lines(resources[place], show))
    if not groups and not any(True for _ in _stocks(node)):
        damaged = any(item.level == "error" or item.field == NOT_READ for item in all_diagnostics(node))
        yield f"no GPU code found{' in what could be read' if damaged else ''} ({_LOOKED_FOR})"
    elif groups and not matrices:
        yield ""
        yield f"Next: fatpatch inspect {shown_as} --kernels"


def matrix_lines(matrix: Matrix, show: Callable[[str], str], caption: str, *, filtered: bool) -> Iterator[str]:
    """The kernel x target matrix, names last so that the cells line up, and on a terminal shortened in the middle to fit a line.

    ``filtered``: the user asked for some kernels only.
    """
    order = matrix.columns()
    if len(order) > _MAX_COLUMNS:
        yield f"{len(order)} targets are too many for a table: choose with --target, or use --format csv"
        return
    chosen = sorted(matrix.cells)
    if not chosen:
        yield "no kernel matches" if filtered else "no kernels were read"
        return
    rows = [[*(matrix.cells[name].get(target, ".") for target in order), safe(show(name))] for name in chosen]
    taken = _MARGIN + sum(max(map(len, column)) + 2 for column in list(zip([*order, ""], *rows, strict=True))[:-1])
    if (room := room_behind(taken)) is not None:
        from fatpatch.base.layout import middle

        rows = [[*row[:-1], middle(row[-1], room)] for row in rows]
    yield caption
    yield from (f"  {line}" for line in columns([*order, "kernel"], rows, left=frozenset({len(order)})))


def hole_lines(matrix: Matrix) -> Iterator[str]:
    """How many kernels lack which target that their siblings have."""
    total = len(matrix.cells)
    lacking = {target: total - count for target, count in matrix.count().items() if count < total}
    if not total:
        return
    if not lacking:
        yield f"{_all(total, 'kernel')} {'has' if total == 1 else 'have'} {_all(len(matrix.targets), 'target')}"
        return
    incomplete = matrix.incomplete()
    yield f"{incomplete} of {plural(total, 'kernel')} {'lacks' if incomplete == 1 else 'lack'} a target that others have:"
    for target in sorted(lacking, key=target_key):
        yield f"  {target} is missing in {lacking[target]} of {total}      (--missing {target} lists them)"


def _all(count: int, word: str) -> str:
    """``all 3 kernels``, ``the only kernel``."""
    return f"the only {word}" if count == 1 else f"all {plural(count, word)}"


def _head(node: Node) -> str:
    words = _kind(node)
    if node.container == ContainerKind.APE:
        words += " + zip" if node.member_count else ""
    parts = [words, size(node.size)]
    if node.member_count:
        parts.append(plural(node.member_count, "member"))
    if node.facts is not None:
        parts.append(_model(node))
    if (signed := signature_words(node)) is not None:
        parts.append(safe(signed))
    return f"{safe(node.path)}   {', '.join(parts)}"


def _kind(node: Node) -> str:
    name = CONTAINER_WORDS.get(node.container, node.container)
    detail = node.detail
    if node.container == ContainerKind.APE:
        name, detail = f"APE ({detail})", ""
    elif detail == "wheel":
        name, detail = "wheel", ""
    elif node.container == ContainerKind.RAW and detail:
        name, detail = detail, ""
    packing = f" ({node.packing})" if node.packing else ""
    return f"{name}{' ' if detail else ''}{safe(detail)}{packing}"


def _member_lines(node: Node, *, verbose: bool, brief: bool) -> Iterator[str]:
    """A line for each part; the folder that all members are in is said once. ``brief``: those with GPU code have a row below."""
    rows = [(name, words) for name, words, found in _parts(node, 1, verbose=verbose) if not (brief and found)]
    beginning = shared_beginning([name.strip() for name, _ in rows if not name.startswith("    ")])
    if beginning:
        yield f"  in {beginning}"
        here = f"  {beginning}"
        rows = [(f"    {name[len(here) :]}" if name.startswith(here) else f"  {name}", words) for name, words in rows]
    width = max((len(name) for name, _ in rows), default=0)
    for name, words in rows:
        yield f"{name.ljust(width)}  {words}".rstrip()


def _parts(node: Node, depth: int, *, verbose: bool) -> Iterator[tuple[str, str, bool]]:
    """A line for each member that matters, and for those inside it."""
    for member in node.members:
        if not _matters(member):
            continue
        words = [_model(member)] if member.facts is not None else [_kind(member).removesuffix(" shared object"), size(member.size)]
        where = (ContainerKind.APE, ContainerKind.ZIP, ContainerKind.ELF) if verbose else (ContainerKind.APE, ContainerKind.ELF)
        if member.stored_at is not None and node.container in where:
            words.append(f"stored at {member.stored_at:#x}" + _alignment(member.stored_at))
        if member.origin is not None:
            from fatpatch.commands.inspect.image_text import origin_words

            words.append(origin_words(member.origin))
        found = _found(member)
        yield "  " * depth + safe(member.path, 120), ", ".join(words) + (f"   {found}" if found else ""), bool(found)
        yield from _parts(member, depth + 1, verbose=verbose)


def _image_lines(node: Node, *, verbose: bool) -> Iterator[str]:
    """What to say of a container image, and of a folder of kernel libraries."""
    if node.kernel_files or any(each.image is not None for each in (node, *node.members)):
        from fatpatch.commands.inspect.image_text import image_lines, kernel_folder_lines

        yield from image_lines(node, verbose=verbose)
        yield from kernel_folder_lines(node)


def _stocks(node: Node) -> Iterator[tuple[str, Inventory]]:
    """The inventories of a file and its members, each with where it was taken."""
    for each in (*members_below(node), node):
        for stock in each.inventory or ():
            yield each.locator, stock


def _stock(stock: Inventory) -> str:
    """One line: how many, how large, which versions, which entry points."""
    several = "Metal libraries" if stock.kind == "Metal library" else ""
    words = [plural(stock.pieces, stock.kind, several), size(stock.size)]
    if stock.versions:
        words.append(f"version {stock.versions[0]}" + (f" to {stock.versions[-1]}" if len(stock.versions) > 1 else ""))
    names = [f"{safe(name, 60)}{f' ({times})' if times > 1 else ''}" for name, times in stock.entry_points[:_MAX_NAMES]]
    more = f" and {len(stock.entry_points) - _MAX_NAMES} more" if len(stock.entry_points) > _MAX_NAMES else ""
    entries = f"; entry points {', '.join(names)}{more}" if names else ""
    return f"{', '.join(words)}{entries}; compiled by the driver of whatever GPU there is"


def _matters(node: Node) -> bool:
    """Whether there is GPU code, a model or damage in a member or below it."""
    return bool(node.payloads or node.facts or node.diagnostics or node.inventory) or any(_matters(member) for member in node.members)


def _alignment(offset: int) -> str:
    return ", aligned 64 KiB" if offset % 65536 == 0 else ""


def _found(node: Node) -> str:
    counts: dict[str, list[int]] = {}
    for payload in node.payloads:
        counts.setdefault(payload.kind, []).append(len(payload.images))
    return "; ".join(
        f"{plural(len(images), MODULE_WORDS.get(kind, kind))}, {plural(sum(images), 'image')}" for kind, images in counts.items()
    )


def _model(node: Node) -> str:
    facts = node.facts
    assert facts is not None
    types = ", ".join(f"{count} {name}" for name, count in facts.tensor_types[:6])
    more = f", {len(facts.tensor_types) - 6} more types" if len(facts.tensor_types) > 6 else ""
    name = safe(facts.architecture or "unknown architecture", 60)
    file_type = f", {facts.file_type}" if facts.file_type else ""
    return f"GGUF model: {name}{file_type}: {plural(facts.tensors, 'tensor')} ({types}{more})"


def _table(payloads: list[Payload], table: list[TargetRow], matrix: Matrix | None) -> list[str]:
    unit = {ModuleKind.FATBIN: "fatbins", ModuleKind.OFFLOAD_BUNDLE: "bundles"}.get(payloads[0].kind, "in")
    several = len(payloads) > 1
    kernels = None if matrix is None else matrix.count()
    header = [
        "target",
        "images",
        *([unit] if several else []),
        *(["kernels"] if kernels is not None else []),
        "stored",
        "unpacked",
        "codec",
        "toolkit or PTX ISA" if payloads[0].vendor == Vendor.NVIDIA else "made by",
    ]
    rows = [
        [
            row.target,
            str(row.images),
            *([f"{row.payloads}/{len(payloads)}"] if several else []),
            *([str(kernels.get(row.target, 0))] if kernels is not None else []),
            size(row.stored),
            size(row.size),
            _codecs(row),
            _made_by(row, set() if matrix is None else matrix.producers.get(row.target, set())),
        ]
        for row in table
    ]
    return columns(header, rows, left=frozenset({0, len(header) - 1, len(header) - 2}))


def _codecs(row: TargetRow) -> str:
    return ", ".join(sorted({codec for codec, _, _ in row.facts}))


def _made_by(row: TargetRow, read: set[str]) -> str:
    producers = {producer for _, producer, _ in row.facts if producer} or read
    versions = {version for _, _, version in row.facts if version}
    return ", ".join((*sorted(producers), *sorted(versions)))


def _removed(payloads: list[Payload]) -> Iterator[str]:
    """What was removed in place, by the filler entries that stand there."""
    fillers, total = sum(payload.fillers for payload in payloads), sum(payload.filler_size for payload in payloads)
    emptied = sum(payload.fillers > 0 and not payload.images for payload in payloads)
    if fillers:
        more = f"; {plural(emptied, 'fatbin')} {'holds' if emptied == 1 else 'hold'} nothing else" if emptied else ""
        yield f"images were removed in place: {plural(fillers, 'filler')} of {size(total)}{more}"


def _evidence(payloads: list[Payload]) -> Iterator[str]:
    for payload in payloads:
        wrapper = "" if payload.wrapper is None else f", wrapper v{payload.wrapper.version} at {payload.wrapper.offset:#x}"
        packed = f", {payload.format.upper()} version {payload.version}" if payload.format and payload.version else ""
        packed += f", {plural(payload.fillers, 'filler')} of {size(payload.filler_size)}" if payload.fillers else ""
        found_by = " and ".join(payload.found_by)
        yield f"{payload.locator}  at {payload.offset:#x}, {size(payload.size)}{packed}, found by {found_by}{wrapper}"
        for image in payload.images:
            note = f"  options {safe(image.options)!r}" if image.options else ""
            note += f"  identifier {safe(image.identifier)!r}" if image.identifier else ""
            inside = "" if image.within is None else f", unpacked at {image.within[0]:#x}"
            version = f", version {image.code_version}" if image.code_version is not None else ""
            yield f"  {image.target}  {image.kind}, at {image.offset:#x}{inside}, {size(image.size)}{version}{note}"
