"""Payloads written anew from their own entries, none given from outside: what pruning, recompressing and expanding have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.errors import InternalError
from fatpatch.base.overlay import Overlay, Write
from fatpatch.base.records import NamedTuple
from fatpatch.edit.filler import filler_problems, hole_bytes, without_codec
from fatpatch.edit.host.host import Options
from fatpatch.edit.host.tree import TreeEdit, edit_tree
from fatpatch.edit.payload.fatbin import entries_of
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.edit.rewrite.estimate import Estimate
from fatpatch.edit.transaction.checks import Contents, checks_of
from fatpatch.edit.transaction.commit import Destination, EditedFile, commit, guarded
from fatpatch.edit.transaction.comparison import HostPair, TreeComparison
from fatpatch.gpucode.bundle.read import read_bundle
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.fatbin.read import read_fatbin
from fatpatch.gpucode.frames import StreamBudget
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ModuleKind
from fatpatch.model.target import target_key
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import stored_share


class Change(NamedTuple):
    """A payload as it will be, with the images that stay, in order, and those that go.

    ``filled``: it keeps its size, with filler entries for what goes.
    """

    node: Node
    payload: Payload
    new: NewPayload
    kept: tuple[ImageEntry, ...]
    dropped: tuple[ImageEntry, ...] = ()
    filled: bool = False


class TargetRewrite(NamedTuple):
    """All images of one target, before and after: how many, and their stored bytes."""

    target: str
    images: int
    stored: int
    images_then: int
    stored_then: int


class RewritePlan(NamedTuple):
    """Everything that would be done; ``edit`` is None when there is nothing to do. ``lost``: targets that nothing serves any more.

    ``holes``: bytes that take no more room on a file system that knows holes. With an ``estimate`` it cannot be carried out.
    """

    changes: tuple[Change, ...]
    rows: tuple[TargetRewrite, ...]
    edit: TreeEdit | None
    notes: tuple[str, ...]
    lost: tuple[str, ...] = ()
    holes: int = 0
    estimate: Estimate | None = None


def planned(
    node: Node,
    modules: Sequence[tuple[Node, Payload]],
    changes: Sequence[Change],
    options: Options,
    notes: Sequence[str],
    lost: tuple[str, ...] = (),
) -> RewritePlan:
    """The plan of changes to some of the ``modules``."""
    edit = edit_tree(node, {change.payload.locator: change.new for change in changes}, options) if changes else None
    all_notes = (*notes, *(edit.notes if edit is not None else ()))
    holes = hole_bytes([*edit.overlay.writes, *_blank_tail(edit.overlay)]) if edit is not None else 0
    return RewritePlan(tuple(changes), tuple(rows_of(modules, changes)), edit, tuple(dict.fromkeys(all_notes)), lost, holes)


def _blank_tail(overlay: Overlay) -> Iterator[Write]:
    """The zeros among the bytes that are written anew."""
    at = overlay.kept
    for part in overlay.tail:
        for piece in part.flat():
            if piece.empty:
                yield Write(at, piece)
            at += piece.size


def rows_of(modules: Sequence[tuple[Node, Payload]], changes: Sequence[Change]) -> Iterator[TargetRewrite]:
    """One row a target of all ``modules``, in the usual order of targets."""
    changed = {change.payload.locator: _images_of(change) for change in changes}
    counts: dict[str, list[int]] = {}
    for _, payload in modules:
        for at, images in ((0, payload.images), (2, changed.get(payload.locator, payload.images))):
            for image in images:
                row = counts.setdefault(image.target, [0, 0, 0, 0])
                row[at] += 1
                row[at + 1] += stored_share(image)
    for target in sorted(counts, key=target_key):
        yield TargetRewrite(target, *counts[target])


def _images_of(change: Change) -> Sequence[ImageEntry]:
    """The images of the payload as it will be, read from its new bytes."""
    source = change.new.source()
    ignored = Diagnostics()
    if change.payload.kind == ModuleKind.FATBIN:
        room = len(change.payload.images) + change.payload.fillers
        return read_fatbin(source, 0, source.size, change.payload.locator, room, ignored).images
    found = read_bundle(source, 0, source.size, change.payload.locator, ignored, StreamBudget())
    return () if found is None else found.images


class Renewed(NamedTuple):
    """What was done, or would be: sizes of the whole file before and after, in bytes."""

    checks: tuple[CheckResult, ...]
    size_before: int
    size_after: int


def renew(
    subject: EditedFile, plan: RewritePlan, to: Destination, limit: int, more: Callable[[TreeComparison], list[CheckResult]] | None = None
) -> Renewed:
    """Carry out a plan: EditError before anything is written, VerifyError when the result is not as planned.

    ``more`` gives further checks, which must hold too.
    """
    edit, changes, found = plan.edit, plan.changes, list[CheckResult]()
    size = subject.before.size
    if edit is None:
        return Renewed((), size, size)
    if plan.estimate is not None:  # its bytes mean nothing: there is nothing to check
        if to.path is not None:
            raise InternalError("an estimate cannot be carried out")
        return Renewed((), size, edit.overlay.size)
    edited = {change.payload.locator for change in changes}

    def examine(both: TreeComparison) -> list[CheckResult]:
        return checks_of(edit, both, edited, _contents(changes, limit)) + ([] if more is None else more(both))

    guarded(subject, lambda: found.extend(commit(subject, edit, to, examine, limit)))
    return Renewed(tuple(found), size, edit.overlay.size)


def _contents(changes: Sequence[Change], limit: int) -> Contents:
    def contents(pair: HostPair) -> Iterator[CheckResult]:
        lost: list[str] = []
        differing: list[str] = []
        before, after = ImageReader(pair.old.content, limit), ImageReader(pair.new.content, limit)
        for change in changes:
            if change.node.locator != pair.old.locator:
                continue
            found = pair.counterpart(change.payload)
            assert found is not None
            wanted, there = [_label(image) for image in change.kept], [_label(image) for image in found.images]
            if wanted != there:
                lost.append(f"{found.locator} holds {len(there)} images, expected {len(wanted)}")
                continue
            differing += [
                f"{new.locator} differs"
                for old, new in zip(change.kept, found.images, strict=True)
                if not _same(pair, old, new, before, after)
            ]
        yield check_of("images that stay are there, no others", lost)
        if any(change.filled for change in changes):
            yield check_of("what was removed in place is filler", _filler_problems(pair, changes))
        yield check_of("images that stay byte-identical", differing)

    return contents


def _filler_problems(pair: HostPair, changes: Sequence[Change]) -> Iterator[str]:
    """What is wrong with payloads that keep their place: their entries are read anew, and compared with the old ones."""
    for change in changes:
        if change.filled and change.node.locator == pair.old.locator:
            found = pair.counterpart(change.payload)
            if found is None or found.size != change.payload.size:
                yield f"{change.payload.locator} has another size"
                continue
            entries = entries_of(pair.new.content, found)
            entries_before = entries_of(pair.old.content, change.payload)
            before = {(entry.offset - change.payload.offset, without_codec(entry.header)) for entry in entries_before}
            yield from filler_problems(pair.new.content, found, entries, before)


def _label(image: ImageEntry) -> tuple[str, str, str | None]:
    return image.kind, image.target, image.identifier


def _same(pair: HostPair, old: ImageEntry, new: ImageEntry, before: ImageReader, after: ImageReader) -> bool:
    """Whether two images unpack to the same bytes; those stored the same are not unpacked, those that cannot be must be stored the same."""
    if (old.compression, old.stored_bytes, old.within) == (new.compression, new.stored_bytes, new.within):
        first = pair.old.content.slice(old.data_offset, old.stored_bytes)
        second = pair.new.content.slice(new.data_offset, new.stored_bytes)
        if all(a == b for a, b in zip(first.chunks(), second.chunks(), strict=True)):
            return True
    first_bytes, second_bytes = before.read(old), after.read(new)
    padded = abs(len(first_bytes) - len(second_bytes)) < 8  # a payload that is not compressed counts its padding
    return first_bytes == second_bytes or (padded and first_bytes.rstrip(b"\0") == second_bytes.rstrip(b"\0"))
