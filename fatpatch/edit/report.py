"""The result of pruning, recompressing or expanding in words and as JSON (schema edit-1), and the last lines of every edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fatpatch.base.checks import CheckResult
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import columns, plural, safe, size
from fatpatch.edit.rewrite.estimate import Estimate
from fatpatch.edit.rewrite.rewrite_modules import Renewed, RewritePlan, TargetRewrite
from fatpatch.gpus.generations import generation
from fatpatch.model.target import Target

SCHEMA = "fatpatch.edit/1"
_LARGE_RECORD = 1_000_000


class EditReport(NamedTuple):
    """What is said beside the plan: the command, the file, the result's name, how to take it back, notes; ``dry``: nothing was written.

    ``record``: bytes of the undo record; ``copied``: where the file went as it is, since there was nothing to do.
    """

    command: str
    shown: str
    output: str | None
    undo: str | None
    notes: tuple[str, ...]
    dry: bool
    record: int | None = None
    copied: str | None = None


def result_lines(
    checks: Sequence[CheckResult], sizes: tuple[int, int], report: EditReport, *, verbose: bool, more: str = "", about: str = ""
) -> Iterator[str]:
    """How many checks passed (each by name with ``verbose``), where the result is, how to take it back, and the notes.

    ``about`` stands before a size that is an estimate, of which nothing was checked.
    """
    if verbose:
        yield from (f"  ok: {check.name}" for check in checks)
    if not about:
        yield f"{sum(check.ok for check in checks)} of {len(checks)} checks passed{more}"
    grown = sizes[1] - sizes[0]
    if report.dry:
        change = (
            f"the file would {'grow' if grown > 0 else 'shrink'} by {about}{size(abs(grown))}" if grown else "the file would keep its size"
        )
        yield f"dry run: nothing was written; {change}"
    else:
        back = f"undo: {safe(report.undo)}" if report.undo else "no undo record was written: the edit cannot be reverted"
        if report.record is not None and report.record > _LARGE_RECORD:
            back += f"      (its record takes {size(report.record)}; --no-undo keeps none)"
        yield f"wrote {safe(report.output or '')} ({'+' if grown >= 0 else '-'}{size(abs(grown))})      {back}"
    for note in report.notes:
        yield f"note: {safe(note)}"


def edit_text(plan: RewritePlan, done: Renewed, report: EditReport, *, verbose: bool) -> Iterator[str]:
    """The lines for a person: each target before and after, whom it leaves without code, then the usual."""
    if plan.edit is None:
        what = f"{safe(report.copied)} is a copy of it" if report.copied else "nothing was written"
        yield f"{safe(report.shown)}: nothing to do; {what}"
        yield from estimate_line(plan.rows, plan.estimate)
        for note in report.notes:
            yield f"note: {safe(note)}"
        return
    yield f"{safe(report.shown)}  {plural(len(plan.changes), 'module')} written anew"
    yield ""
    yield from target_table(plan.rows)
    yield ""
    yield from estimate_line(plan.rows, plan.estimate)
    yield from lost_line(plan.lost)
    shown = plan.changes if verbose else ()
    for change in shown:
        yield f"{safe(change.payload.locator)}  {len(change.kept)} of {plural(len(change.payload.images), 'image')} kept"
        yield f"  {plan.edit.placements[change.payload.locator]}"
    for where, how in plan.edit.members.items():
        yield f"{safe(where)}  {how}"
    freed = sum(row.stored - row.stored_then for row in plan.rows)
    shrunk = done.size_before - done.size_after
    holding = [change.payload.locator for change in plan.changes]
    archived = [
        where
        for where, how in plan.edit.members.items()
        if "!" in where and how != "in place" and any(locator.startswith(f"{where}!") for locator in holding)
    ]
    if archived and not plan.edit.compacted - {where.rsplit("!", 1)[0] for where in archived} and freed > 0:
        yield f"unpacked, {plural(len(archived), 'member')} will be as large as before: zeros stand for what went; --compact takes them out"
    elif plan.holes and any(change.filled for change in plan.changes):
        kept = sum(change.filled for change in plan.changes)
        yield f"{plural(kept, 'fatbin')} {'keeps its place' if kept == 1 else 'keep their places'}: filler entries stand for removed images"
        yield f"on a file system with holes the file takes {size(plan.holes)} less on disk than its size"
    elif freed > 0 and shrunk < freed // 2 and not plan.edit.compacted:
        blank = size(freed - max(shrunk, 0))
        verb = "would be" if report.dry else "are"
        yield f"{blank} of the file {verb} zeros now, no room where the file system knows holes; --compact takes out what fills pages"
    about = "" if plan.estimate is None else "about "
    yield from result_lines(done.checks, (done.size_before, done.size_after), report, verbose=verbose, about=about)


def target_table(rows: Sequence[TargetRewrite]) -> Iterator[str]:
    """Images and stored bytes of each target, before and after, and their sum."""
    total = TargetRewrite("total", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    yield from (f"  {line}" for line in columns(("target", "images", "after", "stored", "after", "change"), map(_cells, [*rows, total])))


def estimate_line(rows: Sequence[TargetRewrite], estimate: Estimate | None) -> Iterator[str]:
    """That sizes are estimated, and how near they are; nothing where every image was compressed."""
    if estimate is not None:
        then = sum(row.stored_then for row in rows)
        bounds = f"{size(max(then - estimate.margin, 0))} to {size(then + estimate.margin)}"
        yield (
            f"estimate: {estimate.compressed} of {plural(estimate.images, 'image')} compressed; "
            f"all would take {bounds} (95 % confidence); --exact compresses all"
        )


def lost_line(lost: Sequence[str]) -> Iterator[str]:
    """The GPUs that some module no longer serves; nothing where there is none."""
    if lost:
        yield f"no longer served: {', '.join(_generations(lost))}"


def _cells(row: TargetRewrite) -> Sequence[str]:
    freed = row.stored - row.stored_then
    change = "-" if not freed else f"-{size(freed)}" if freed > 0 else f"+{size(-freed)}"
    return safe(row.target), str(row.images), str(row.images_then), size(row.stored), size(row.stored_then), change


def _generations(targets: Sequence[str]) -> Iterator[str]:
    """``Volta (sm_70, sm_72)``; targets of no generation known here as they are."""
    groups: dict[str, list[str]] = {}
    for target in targets:
        number = Target(target).sm
        groups.setdefault("" if number is None else generation(number), []).append(target)
    for name, members in groups.items():
        yield f"{name} ({', '.join(members)})" if name else ", ".join(members)


def edit_json(plan: RewritePlan, done: Renewed, report: EditReport, version: str) -> dict[str, Any]:
    """The document of schema fatpatch.edit/1."""
    edit = plan.edit
    return {
        "schema": SCHEMA,
        "tool_version": version,
        "command": report.command,
        "output": report.output or report.copied,
        "size_before": done.size_before,
        "size_after": done.size_after,
        "targets": [row._asdict() for row in plan.rows],
        "modules": [
            {
                "module": change.payload.locator,
                "tactic": edit.placements[change.payload.locator] if edit is not None else None,
                "kept": [image.target for image in change.kept],
                "dropped": [image.target for image in change.dropped],
            }
            for change in plan.changes
        ],
        "lost": list(plan.lost),
        "members": [] if edit is None else [{"locator": where, "tactic": how} for where, how in edit.members.items()],
        "checks": [check._asdict() for check in done.checks],
        "notes": list(report.notes),
        "undo": report.undo,
        "record_size": report.record,
        "dry_run": report.dry,
        "estimate": None if plan.estimate is None else plan.estimate._asdict(),
    }
