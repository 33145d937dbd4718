"""One library made smaller: as ``prune`` does it, compacted where that can be done, in place where it cannot; then recompressed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fatpatch.base.checks import CheckResult
from fatpatch.base.errors import EditError, FatpatchError, UnsupportedError, VerifyError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.edit.host.host import Options
from fatpatch.edit.rewrite.prune import PruneRequest, plan_prune
from fatpatch.edit.rewrite.recompress import RecompressRequest, plan_recompress, recompressed
from fatpatch.edit.rewrite.remove_images import KINDS
from fatpatch.edit.rewrite.rewrite_modules import Renewed, RewritePlan, renew, rows_of
from fatpatch.edit.transaction.commit import Destination, EditedFile
from fatpatch.edit.transaction.comparison import TreeComparison
from fatpatch.edit.transaction.file_stamp import state_of
from fatpatch.hostcode.llamafile import notes_for
from fatpatch.model.kinds import ImageKind
from fatpatch.model.target import target_key
from fatpatch.model.tree import Node
from fatpatch.scan.coverage import payloads_below, stored_share
from fatpatch.scan.walk import inspected
from fatpatch.slimming.request import FAILED, LEFT_ALONE, SLIMMED, UNCHANGED, LibraryResult, LibraryTask, SlimRequest
from fatpatch.slimming.same_load import modules_without_kernels, same_load_checks
from fatpatch.slimming.trace import TracedKernels, traced

_BLOCK = 512
_LINKER = b"nvJitLinkCreate"


class Done(NamedTuple):
    """One edit that was carried out, or would be."""

    plan: RewritePlan
    renewed: Renewed
    kernels: TracedKernels = TracedKernels()


def slim_library(task: LibraryTask) -> LibraryResult:
    """Slim one file. A refusal is in the result: other libraries go on."""
    try:
        return _slimmed(task)
    except VerifyError as error:
        return LibraryResult(task.shown, FAILED, error.message)
    except FatpatchError as error:
        size, disk = _sizes(task.path)
        return LibraryResult(task.shown, LEFT_ALONE, error.message, size, size, disk, disk)


def _slimmed(task: LibraryTask) -> LibraryResult:
    request = task.request
    size, disk = _sizes(task.path)
    to = Destination(task.to, overwrite=True, record=request.record)
    found = LibraryResult(task.shown, UNCHANGED, "", size, size, disk, disk)
    with _opened(task.path, task.shown, request) as subject:
        payloads = [payload for _, payload in payloads_below(subject.node) if payload.kind in KINDS]
        if not payloads:
            return found._replace(reason="no device code")
        code = sum(stored_share(image) for payload in payloads for image in payload.images)
        lto = sum(stored_share(image) for payload in payloads for image in payload.images if image.kind == ImageKind.LTO)
        found = found._replace(code=code, code_after=code, lto=lto, links=bool(lto) and links_device_code(subject.node))
        if reason := _nothing_for(subject.node, request):
            return found._replace(status=LEFT_ALONE, reason=reason)
        if request.trace:  # while the file is the old one
            kernels = traced(subject.node, (), request.trace, request.limit)
            found = found._replace(kept_kernels=kernels.kept)
        pruned = _attempt(subject, request, to)
    found = _with(found, pruned, task)
    if pruned is not None and request.trace:
        found = found._replace(kept_kernels=pruned.kernels.kept, lost_kernels=pruned.kernels.lost)
    if request.codec is None:
        return found
    recompression = RecompressRequest(request.codec, host=Options(rebuild=True, compact=True), limit=request.limit)
    try:
        if task.to is None:
            return _estimated(found, task, recompression, pruned)
        with _opened(task.to if pruned is not None else task.path, task.shown, request) as subject:
            packed = _with(found, _first_that_works(subject, to, request, _recompressions(subject.node, recompression)), task)
            return packed._replace(recompressed=found.code_after - packed.code_after)
    except FatpatchError as error:
        if pruned is None:
            raise
        return found._replace(notes=(*found.notes, f"not recompressed: {error.message}"))


def _estimated(found: LibraryResult, task: LibraryTask, recompression: RecompressRequest, pruned: Done | None) -> LibraryResult:
    """The result with what recompression would save besides, by its own accounting: the file without the removed images does not exist."""
    dropped = {} if pruned is None else {change.payload.locator: change.dropped for change in pruned.plan.changes}
    with _opened(task.path, task.shown, task.request) as subject:
        modules, changes, notes, _ = recompressed(subject.node, recompression._replace(dropped=dropped))
        rows = [row for row in rows_of(modules, changes) if row.images]
    saved = max(found.code_after - sum(row.stored_then for row in rows), 0) if changes else 0
    if not saved:
        return found
    return found._replace(
        status=SLIMMED,
        size_after=found.size_after - saved,
        disk_after=max(found.disk_after - saved, 0),
        code_after=found.code_after - saved,
        recompressed=saved,
        kept=found.kept or tuple(row.target for row in rows if row.images_then),
        notes=tuple(dict.fromkeys((*found.notes, *notes))),
    )


def _opened(path: str, shown: str, request: SlimRequest) -> _Opened:
    return _Opened(path, shown, request)


class _Opened:
    """A file as the subject of an edit."""

    def __init__(self, path: str, shown: str, request: SlimRequest) -> None:
        self._before = state_of(path)
        self._path = path
        self._inspected = inspected(path, name=os.path.basename(shown), limits=Limits(image=request.limit))

    def __enter__(self) -> EditedFile:
        return EditedFile(self._path, self._inspected.__enter__(), self._before)

    def __exit__(self, *error: object) -> None:
        self._inspected.__exit__(None, None, None)


def _nothing_for(node: Node, request: SlimRequest) -> str:
    """Why a file is left alone as a whole: it has no code for any of the GPUs, so nobody here uses it, or for none of what is to go."""
    from fatpatch.edit.rewrite.select_images import loads_any

    if request.devices and not loads_any(node, request.devices):
        return f"nothing in it runs on {', '.join(device.name for device in request.devices)}"
    return ""


Planner = Callable[[], RewritePlan]


def _attempt(subject: EditedFile, request: SlimRequest, to: Destination) -> Done | None:
    """The images removed: with the file as short as it can be, else in place."""
    node = subject.node
    drop = request.drop and _present(node, request.drop)
    if not request.devices and not drop and not request.strip_lto:
        return None
    keep = request.keep._replace(drop=drop)
    spared = frozenset(modules_without_kernels(node, request))

    def planner(*, compact: bool, fill: bool) -> Planner:
        host = Options(compact=compact, rebuild=True)
        return lambda: plan_prune(node, PruneRequest(keep, host=host, limit=request.limit, fill=fill, spared=spared))

    return _first_that_works(subject, to, request, (planner(compact=True, fill=False), planner(compact=False, fill=False)))


def _present(node: Node, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Those patterns that something in the file is for."""
    from fatpatch.base.locator import target_matches

    targets = {image.target for _, payload in payloads_below(node) for image in payload.images}
    return tuple(pattern for pattern in patterns if any(target_matches(target, pattern) for target in targets))


def _recompressions(node: Node, recompression: RecompressRequest) -> Iterator[Planner]:
    yield lambda: plan_recompress(node, recompression)
    yield lambda: plan_recompress(node, recompression._replace(host=recompression.host._replace(compact=False), fill=True))


def _first_that_works(
    subject: EditedFile, to: Destination, request: SlimRequest, planners: Iterator[Planner] | tuple[Planner, ...]
) -> Done | None:
    """Carry out the first plan that can be made; None when there is nothing to do. The last refusal when none can."""
    refusal: FatpatchError | None = None
    for planner in planners:
        try:
            plan = planner()
            if plan.edit is None:
                return None
            plan = plan._replace(
                notes=(*plan.notes, *notes_for(subject.node, list(dict.fromkeys(each.node.locator for each in plan.changes))))
            )
            kernels = traced(subject.node, plan.changes, request.trace, request.limit) if request.trace else TracedKernels()
            return Done(plan, renew(subject, plan, to, request.limit, lambda both: _more(both, request)), kernels)
        except (EditError, UnsupportedError) as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _more(both: TreeComparison, request: SlimRequest) -> list[CheckResult]:
    return same_load_checks(both, request)


def _with(found: LibraryResult, done: Done | None, task: LibraryTask) -> LibraryResult:
    """The result with one more edit in it."""
    if done is None:
        return found
    plan, renewed = done.plan, done.renewed
    size = renewed.size_after
    estimate = max(found.disk_after - (renewed.size_before - size) - plan.holes, 0)
    disk = _sizes(task.to)[1] if task.to is not None else estimate
    removed = dict(found.removed)
    removed |= {row.target: row.stored for row in plan.rows if row.images and not row.images_then}
    return found._replace(
        status=SLIMMED,
        size_after=size,
        disk_after=disk,
        code_after=found.code_after - sum(row.stored - row.stored_then for row in plan.rows),
        removed=tuple(sorted(removed.items(), key=lambda item: target_key(item[0]))),
        kept=tuple(row.target for row in plan.rows if row.images_then),
        lost=tuple(dict.fromkeys((*found.lost, *plan.lost))),
        notes=tuple(dict.fromkeys((*found.notes, *plan.notes))),
        checks=found.checks + len(renewed.checks),
    )


def links_device_code(node: Node) -> bool:
    """Whether LTO entries of a file are there to be linked at run time: whether its library names the linker's function anywhere."""
    holders = {
        holder.locator: holder for holder, payload in payloads_below(node) if any(image.kind == ImageKind.LTO for image in payload.images)
    }
    return any(each.source is not None and each.source.find(_LINKER, 0, each.size) >= 0 for each in holders.values())


def _sizes(path: str) -> tuple[int, int]:
    """Bytes of a file, and those that it takes on disk."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, getattr(status, "st_blocks", -(-status.st_size // _BLOCK)) * _BLOCK
