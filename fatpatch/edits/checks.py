"""The checks of a result that has been read again from scratch: what was planned is there, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.coverage import all_diagnostics
from fatpatch.edits.check_archive import archive_checks
from fatpatch.edits.check_elf import elf_checks
from fatpatch.edits.check_pe import pe_checks
from fatpatch.edits.comparison import Comparison, Pair
from fatpatch.edits.fatbin import Entry, entries_of
from fatpatch.edits.overlay import same_bytes
from fatpatch.edits.plan import Graft, Plan
from fatpatch.edits.result import Check, check_of
from fatpatch.errors import FatpatchError
from fatpatch.formats import numbers as n
from fatpatch.model import Node, Payload
from fatpatch.payloads.content import ImageReader
from fatpatch.source import Source


def checks_of(plan: Plan, both: Comparison, limit: int) -> list[Check]:
    """Every check of a plan's result, by the tree that was read from its bytes alone."""
    assert plan.edit is not None
    result = [_reads_back(both.old, both.new)]
    for locator, moves in plan.edit.moves.items():
        pair = both.pairs.get(locator)
        if pair is None:
            result.append(check_of("file found again", [f"{locator} is gone"]))
            continue
        grafts = [graft for graft in plan.grafts if graft.module.node.locator == locator]
        try:
            result += _fatbin_checks(pair, grafts, limit)
            if pair.old.container == "elf":
                result += elf_checks(pair.old, pair.new, moves)
            elif pair.old.container == "pe":
                result += pe_checks(pair.old, pair.new)
        except FatpatchError as error:
            result.append(check_of("result readable", [str(error)]))
    for locator, node in both.olds.items():
        edited = {where for where in plan.edit.members if where.rsplit("!", 1)[0] == locator}
        if edited and locator in both.news:
            result += archive_checks(node, both.news[locator], edited)
    return result


def _reads_back(old: Node, new: Node) -> Check:
    before = [(item.message, item.field) for item in all_diagnostics(old) if item.level == "error"]
    errors = []
    for item in all_diagnostics(new):
        if item.level == "error":
            if (item.message, item.field) in before:
                before.remove((item.message, item.field))
            else:
                errors.append(f"{item.locator}: {item.message}")
    return check_of("reads back without new errors", errors)


def _fatbin_checks(pair: Pair, grafts: list[Graft], limit: int) -> Iterator[Check]:
    edited = {graft.module.locator for graft in grafts}
    lost, wrappers, changed = [], [], []
    for payload in pair.old.payloads:
        found = pair.counterpart(payload)
        if found is None or found.kind != ("fatbin" if payload.locator in edited else payload.kind):
            lost.append(f"{payload.locator} is not at its place")
            continue
        if payload.wrapper != found.wrapper:
            wrappers.append(f"{payload.locator}: its wrapper was {payload.wrapper}, is {found.wrapper}")
        if payload.locator not in edited and not _equal(pair.old, payload, pair.new, found):
            changed.append(f"{payload.locator} has other bytes than before")
    extra = len(pair.new.payloads) - len(pair.old.payloads)
    if extra:
        lost.append(f"{abs(extra)} fatbins {'more' if extra > 0 else 'less'} than before")
    yield check_of("every fatbin found where it should be", lost)
    yield check_of("every wrapper leads to its fatbin", wrappers)
    yield check_of("other fatbins byte-identical", changed)
    if not lost:
        yield from _content_checks(pair, grafts, limit)


def _equal(old: Node, first: Payload, new: Node, second: Payload) -> bool:
    assert old.source is not None
    assert new.source is not None
    return first.size == second.size and same_bytes(
        old.source.slice(first.offset, first.size), new.source.slice(second.offset, second.size)
    )


def _content_checks(pair: Pair, grafts: list[Graft], limit: int) -> Iterator[Check]:
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
        before = [entry for entry in entries_of(old_source, payload) if entry.offset not in replaced] if payload.kind == "fatbin" else []
        if len(entries) != len(before) + len(mine) + (payload.kind != "fatbin"):
            tiling.append(f"{found.locator} has {len(entries)} entries")
        if not _in_order([_raw(old_source, entry) for entry in before], [_raw(new_source, entry) for entry in entries]):
            kept.append(f"{found.locator}: old entries differ")
        images += [problem for graft in mine for problem in _image_problems(graft, pair.new, found, limit)]
        texts += [f"{found.locator}: PTX without an options block" for entry in _new_entries(mine, found, entries) if _bad_ptx(entry)]
    yield check_of("entries fill their fatbins exactly", tiling)
    yield check_of("old entries byte-identical", kept)
    yield check_of("new images unpack to the given bytes", images)
    yield check_of("PTX entries carry an options block", texts)


def _raw(source: Source, entry: Entry) -> Source:
    return source.slice(entry.offset, entry.size)


def _in_order(wanted: list[Source], there: list[Source]) -> bool:
    """Whether ``wanted`` occurs in ``there``, in order."""
    at = 0
    for source in there:
        if at < len(wanted) and same_bytes(wanted[at], source):
            at += 1
    return at == len(wanted)


def _image_problems(graft: Graft, holder: Node, fatbin: Payload, limit: int) -> Iterator[str]:
    assert holder.source is not None
    donation = graft.donation
    found = [image for image in fatbin.images if image.target == donation.target and image.kind == donation.kind]
    if len(found) != 1:
        yield f"{fatbin.locator} has {len(found)} images for {donation.target}"
        return
    data = ImageReader(holder.source, limit).read(found[0])
    wanted = donation.content() + (b"\0" if donation.kind == "ptx" else b"")
    if data.rstrip(b"\0") != wanted.rstrip(b"\0") or (donation.kind == "ptx" and not data.endswith(b"\0")):
        yield f"{found[0].locator} does not hold the given bytes"


def _new_entries(grafts: list[Graft], fatbin: Payload, entries: list[Entry]) -> Iterator[Entry]:
    given = {(graft.donation.kind, graft.donation.target) for graft in grafts}
    offsets = {image.offset for image in fatbin.images if (image.kind, image.target) in given}
    return (entry for entry in entries if entry.offset in offsets)


def _bad_ptx(entry: Entry) -> bool:
    header = entry.header
    return header.kind == n.KIND_PTX and (not header.options_offset or header.header_size < n.ENTRY_HEADER_SIZE + 8)
