"""FP4xx: kernels that lack a target, or are there twice. FP6xx: how the code was built."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.gpucode.demangle import readable
from fatpatch.policy.rule import Rule
from fatpatch.policy.subject import Hit, RuleSubject
from fatpatch.scan.matrix import Matrix

_SHOWN = 3


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(readable(name) for name in names[:_SHOWN]) + more


def _holes(subject: RuleSubject) -> Iterator[Hit]:
    if not subject.demands.cover:
        return
    for place, readings in subject.places():
        matrix = Matrix()
        for _, image, rows in readings:
            matrix.add(image, rows)
        for target in matrix.columns():
            lacking = sorted(matrix.lacking(target))
            if lacking:
                message = f"{len(lacking)} of {len(matrix.cells)} kernels have no code for {target}, which others have: {_named(lacking)}"
                yield Hit(place, message, "compile their sources for it as well", target)


def _duplicates(subject: RuleSubject) -> Iterator[Hit]:
    if not subject.demands.no_duplicates:
        return
    for place, readings in subject.places():
        modules: dict[str, set[str]] = {}
        for payload, _, rows in readings:
            for row in rows:
                modules.setdefault(row.name, set()).add(payload.locator)
        twice = sorted(name for name, holders in modules.items() if len(holders) > 1)
        if twice:
            message = f"{len(twice)} kernels are in more than one module: {_named(twice)}"
            yield Hit(place, message, "instantiate templates in one source file (extern template)", "duplicates")


def _debug(subject: RuleSubject) -> Iterator[Hit]:
    yield from _for_debuggers(subject, "debug", subject.demands.no_debug_info, "debug information", "compile without -G or -g")


def _lines(subject: RuleSubject) -> Iterator[Hit]:
    yield from _for_debuggers(subject, "lineinfo", subject.demands.no_line_info, "line tables", "compile without -lineinfo")


def _for_debuggers(subject: RuleSubject, kind: str, asked: bool, words: str, remedy: str) -> Iterator[Hit]:
    if not asked:
        return
    found = [image for image, kinds in subject.debug() if kind in kinds]
    if found:
        yield Hit(found[0].locator, f"{len(found)} of {len(subject.images)} images hold {words}", remedy, kind)


def _toolkits(subject: RuleSubject) -> Iterator[Hit]:
    if not subject.demands.one_toolkit:
        return
    made_by: dict[str, str] = {}
    for _, image, reading in subject.readings:
        producer = reading.producer or image.producer
        if producer is not None:
            made_by.setdefault(producer, image.locator)
    if len(made_by) > 1:
        listed = "; ".join(f"{producer} (first in {locator})" for producer, locator in sorted(made_by.items()))
        yield Hit(subject.locator, f"made by {len(made_by)} toolkits: {listed}", "build everything with one toolkit", "toolkits")


RULES = (
    Rule(
        "FP401", "kernel-lacks-target", "error", "a kernel has no code for a target that its siblings have",
        "Launching such a kernel on that GPU is error 209 or 500, while its siblings work. `fatpatch inspect FILE --missing TARGET` "
        "lists them.",
        _holes,
    ),
    Rule(
        "FP402", "kernel-twice", "warning", "a kernel is in more than one module",
        "Template instances that several source files compile take their space several times, and the CUDA runtime uses the one that "
        "was registered first.",
        _duplicates,
    ),
    Rule(
        "FP601", "debug-info", "error", "an image holds debug information",
        "Device debug information (nvcc -G) comes with unoptimised code and shows names and paths of the source.",
        _debug,
    ),
    Rule(
        "FP602", "line-info", "warning", "an image holds line tables",
        "Line tables (-lineinfo) take space and show paths of the source; the code is the same.",
        _lines,
    ),
    Rule(
        "FP603", "mixed-toolkits", "warning", "images of one file were made by different toolkits",
        "A part was built elsewhere or is left over from an older build: its code may need another driver than the rest.",
        _toolkits,
    ),
)  # fmt: skip
