"""The plan or result of ``slim`` in words, and as JSON (schema slim-1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fatpatch.api.slim import FAILED, LEFT_ALONE, SLIMMED, LibraryResult, SlimmedPackage, SlimReport, SlimRequest, lost_line
from fatpatch.base.locator import file_name
from fatpatch.base.words import columns, plural, safe, size

SCHEMA = "fatpatch.slim/1"
_SHOWN = 12
LICENCE = (
    "NVIDIA's licence has terms on modifying and redistributing its libraries: for your own machines this is your choice, "
    "before you pass slimmed NVIDIA packages on, check those terms"
)


def slim_text(report: SlimReport, *, verbose: bool) -> Iterator[str]:
    """The lines for a person: each package, whom it leaves without code, what was left alone and why, and the sum."""
    libraries = report.libraries
    changed = [each for each in libraries if each.status == SLIMMED]
    yield f"{safe(report.shown)}: {_wish(report.request)}"
    yield ""
    if changed:
        yield from (f"  {line}" for line in _table(report.packages))
        yield ""
    if verbose:
        yield from _library_lines(changed)
    lost = tuple(dict.fromkeys(target for each in changed for target in each.lost))
    yield from lost_line(lost)
    yield from _left_alone(libraries, verbose=verbose)
    yield from _trace_lines(report)
    yield from _savings(holding_code(libraries), report.request)
    yield from (safe(offer) for offer in report.offers)
    holding = [each for each in libraries if each.code or each.status in (LEFT_ALONE, FAILED)]
    before, after = sum(each.disk for each in holding), sum(each.disk_after for each in holding)
    would = "would take" if report.dry else "takes" if len(holding) == 1 else "take"
    if changed:
        yield f"{plural(len(holding), 'library', 'libraries')} with device code {would} {size(after)} on disk, {size(before)} before"
        yield f"{sum(each.checks for each in changed)} checks passed; each kept GPU loads the same as before, module by module"
    if not changed:
        yield "nothing to do"
    elif report.dry:
        yield "dry run: nothing was written"
    else:
        back = f"undo: {safe(report.undo)}" if report.undo else "no undo record was kept"
        yield f"wrote {safe(report.output or report.shown)}      {back}"
    notes = list(dict.fromkeys((*report.notes, *(note for each in changed for note in each.notes if note.startswith("llamafile ")))))
    if any(package.changed and is_nvidias(package.shown) for package in report.packages):
        notes.append(LICENCE)
    yield from (f"note: {safe(note)}" for note in notes)


def holding_code(libraries: Sequence[LibraryResult]) -> list[LibraryResult]:
    """Those with device code."""
    return [each for each in libraries if each.code]


def _savings(libraries: Sequence[LibraryResult], request: SlimRequest) -> Iterator[str]:
    """What each further option removes, or would."""
    owners = [each for each in libraries if each.lto]
    if owners:
        names = ", ".join(file_name(each.shown) for each in owners[:_SHOWN])
        total = size(sum(each.lto for each in owners))
        verb = "removes" if request.strip_lto else "would also remove"
        yield safe(f"--strip-lto {verb} {total} of code for link-time optimization: {names}")
        if linking := [file_name(each.shown) for each in owners if each.links]:
            yield safe(f"  a program that uses callbacks or own operations of {', '.join(linking)} needs it: they link it at run time")
    if request.codec is not None:
        yield f"--recompress {request.codec} saves {size(sum(each.recompressed for each in libraries))} of device code"


def _trace_lines(report: SlimReport) -> Iterator[str]:
    """What becomes of the kernels that a run has loaded: a warning, nothing is kept for it."""
    if not report.request.trace:
        return
    lost = {name: file_name(each.shown) for each in report.libraries for name in each.lost_kernels}
    unknown = report.unknown_kernels
    for name, library in list(lost.items())[:_SHOWN]:
        yield safe(f"warning: {library}: only removed code holds {name}, which the run loaded")
    if len(lost) > _SHOWN:
        yield f"warning: and {len(lost) - _SHOWN} more kernels that the run loaded"
    kept = len(report.request.trace) - len(lost) - len(unknown)
    elsewhere = f"; {len(unknown)} are in no library here" if unknown else ""
    yield f"{kept} of {plural(len(report.request.trace), 'kernel')} of the run stay{elsewhere}"


def is_nvidias(shown: str) -> bool:
    """Whether a package is one of NVIDIA's, by its name."""
    return shown.lower().replace("_", "-").startswith(("nvidia-", "libcu", "libnv", "cuda-", "cudnn", "nccl"))


def _wish(request: SlimRequest) -> str:
    parts = []
    if request.devices:
        parts.append("for " + ", ".join(f"{device.name} ({device.target})" for device in dict.fromkeys(request.devices)))
    if request.drop:
        parts.append(f"without {', '.join(request.drop)}")
    parts += ["PTX for newer GPUs is kept"] * request.keep_ptx + ["without code for link-time optimization"] * request.strip_lto
    return safe(", ".join([*parts, *([f"recompressed with {request.codec}"] if request.codec else [])]))


def _table(packages: Sequence[SlimmedPackage]) -> list[str]:
    rows = []
    for package in sorted(packages, key=lambda each: -sum(library.saved for library in each.libraries)):
        if package.changed:
            sums = [
                sum(getattr(each, field) for each in package.holding) for field in ("code", "code_after", "disk", "disk_after", "saved")
            ]
            rows.append([safe(package.shown), f"{len(package.changed)}/{len(package.holding)}", *map(size, sums)])
    return columns(("package", "libraries", "device code", "after", "on disk", "after", "saved"), rows)


def _library_lines(changed: Sequence[LibraryResult]) -> Iterator[str]:
    for each in changed:
        removed = ", ".join(f"{target} {size(stored)}" for target, stored in each.removed)
        yield f"{safe(each.shown)}  {size(each.disk)} -> {size(each.disk_after)} on disk; stays: {', '.join(each.kept) or 'nothing'}"
        yield f"  removed: {removed or 'parts of some targets'}"
        yield from (f"  note: {safe(note)}" for note in each.notes)
    if changed:
        yield ""


def _left_alone(libraries: Sequence[LibraryResult], *, verbose: bool) -> Iterator[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for each in libraries:
        if each.status in (LEFT_ALONE, FAILED):
            groups.setdefault((each.status, each.reason), []).append(each.shown)
    for (status, reason), names in groups.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN and not verbose else ""
        word = "FAILED, not written" if status == FAILED else "left alone"
        yield f"{word}: {safe(reason)}"
        yield from (f"  {safe(name)}" for name in (names if verbose else names[:_SHOWN]))
        yield from [f"  {more.strip()}"] if more else []


def slim_json(report: SlimReport, version: str) -> dict[str, Any]:
    """The document of schema fatpatch.slim/1."""
    libraries = report.libraries
    return {
        "schema": SCHEMA,
        "tool_version": version,
        "path": report.shown,
        "gpus": [{"name": device.name, "target": device.target} for device in dict.fromkeys(report.request.devices)],
        "drop": list(report.request.drop),
        "dry_run": report.dry,
        "output": report.output,
        "undo": report.undo,
        "disk_before": sum(each.disk for each in libraries),
        "disk_after": sum(each.disk_after for each in libraries),
        "packages": [
            {"name": package.shown, "libraries": [_library(each) for each in package.libraries]}
            for package in report.packages
            if package.holding
        ],
        "lost": list(dict.fromkeys(target for each in libraries for target in each.lost)),
        "trace": {"kernels": len(report.request.trace), "unknown": sorted(report.unknown_kernels)} if report.request.trace else None,
        "offers": list(report.offers),
        "notes": list(report.notes),
    }


def _library(each: LibraryResult) -> dict[str, Any]:
    return {
        "path": each.shown,
        "status": each.status,
        "reason": each.reason,
        "size_before": each.size,
        "size_after": each.size_after,
        "disk_before": each.disk,
        "disk_after": each.disk_after,
        "code_before": each.code,
        "code_after": each.code_after,
        "removed": [{"target": target, "size": stored} for target, stored in each.removed],
        "kept": list(each.kept),
        "lost": list(each.lost),
        "notes": list(each.notes),
        "checks": each.checks,
        "lto": each.lto,
        "links_device_code": each.links,
        "recompressed": each.recompressed,
        "lost_kernels": list(each.lost_kernels),
    }
