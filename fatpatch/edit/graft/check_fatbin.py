"""What must hold of fatbins after an edit: old entries verbatim and in order, the new images whole, no more and no less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.overlay import same_bytes
from fatpatch.base.source import Source
from fatpatch.edit.graft.plan import Graft
from fatpatch.edit.payload.fatbin import EntryCopy, entries_of
from fatpatch.edit.transaction.comparison import HostPair
from fatpatch.formats import numbers as n
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.kinds import ImageKind, ModuleKind
from fatpatch.model.tree import Node, Payload


def fatbin_checks(pair: HostPair, grafts: Sequence[Graft], limit: int) -> Iterator[CheckResult]:
    """The grafted fatbins: old entries verbatim and in order, the new images whole, the rest of the plan."""
    old_source, new_source = pair.old.source, pair.new.source
    assert old_source is not None
    assert new_source is not None
    tiling, kept, images, texts = [], [], [], []
    for payload in {graft.module.locator: graft.module.payload for graft in grafts}.values():
        mine = [graft for graft in grafts if graft.module.locator == payload.locator]
        found = pair.counterpart(payload)
        assert found is not None
        entries = entries_of(new_source, found)
        replaced = {graft.replaced.offset for graft in mine if graft.replaced is not None}
        before = (
            [entry for entry in entries_of(old_source, payload) if entry.offset not in replaced]
            if payload.kind == ModuleKind.FATBIN
            else []
        )
        if len(entries) != len(before) + len(mine) + (payload.kind != ModuleKind.FATBIN):
            tiling.append(f"{found.locator} has {len(entries)} entries")
        if not _in_order([_raw(old_source, entry) for entry in before], [_raw(new_source, entry) for entry in entries]):
            kept.append(f"{found.locator}: old entries differ")
        images += [problem for graft in mine for problem in _image_problems(graft, pair.new, found, limit)]
        texts += [f"{found.locator}: PTX without an options block" for entry in _new_entries(mine, found, entries) if _bad_ptx(entry)]
    yield check_of("entries fill their fatbins exactly", tiling)
    yield check_of("old entries byte-identical", kept)
    yield check_of("new images unpack to the given bytes", images)
    yield check_of("PTX entries carry an options block", texts)


def _raw(source: Source, entry: EntryCopy) -> Source:
    return source.slice(entry.offset, entry.size)


def _in_order(wanted: list[Source], there: list[Source]) -> bool:
    """Whether ``wanted`` occurs in ``there``, in order."""
    at = 0
    for source in there:
        if at < len(wanted) and same_bytes(wanted[at], source):
            at += 1
    return at == len(wanted)


def _image_problems(graft: Graft, holder: Node, fatbin: Payload, limit: int) -> Iterator[str]:
    new_image = graft.new_image
    found = [image for image in fatbin.images if image.target == new_image.target and image.kind == new_image.kind]
    if len(found) != 1:
        yield f"{fatbin.locator} has {len(found)} images for {new_image.target}"
        return
    data = ImageReader(holder.content, limit).read(found[0])
    wanted = new_image.content() + (b"\0" if new_image.kind == ImageKind.PTX else b"")
    if data.rstrip(b"\0") != wanted.rstrip(b"\0") or (new_image.kind == ImageKind.PTX and not data.endswith(b"\0")):
        yield f"{found[0].locator} does not hold the given bytes"


def _new_entries(grafts: Sequence[Graft], fatbin: Payload, entries: list[EntryCopy]) -> Iterator[EntryCopy]:
    given = {(graft.new_image.kind, graft.new_image.target) for graft in grafts}
    offsets = {image.offset for image in fatbin.images if (image.kind, image.target) in given}
    return (entry for entry in entries if entry.offset in offsets)


def _bad_ptx(entry: EntryCopy) -> bool:
    header = entry.header
    return header.kind == n.KIND_PTX and (not header.options_offset or header.header_size < n.ENTRY_HEADER_SIZE + 8)
