"""What a comparison says, as titled lists of sentences: text and markdown differ in how they print them only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.base.words import plural, size
from fatpatch.model.target import Target
from fatpatch.release.difference import Changed, LibraryDifference, ModuleChange, Moved, TargetChange
from fatpatch.release.gpus import GpuChange
from fatpatch.verdicts.library_facts import TargetFacts
from fatpatch.verdicts.outcome import OUTCOMES
from fatpatch.verdicts.words.kernels import short

Quote = Callable[[str], str]
"""Makes a name from a file safe, and marks it as code where the format can."""

_FEW = 5
_NAMES = 3
_WORDS = {"registers": "registers", "shared": "shared memory", "local": "stack", "spills": "spilled registers", "code": "code size"}
_IN_BYTES = frozenset({"shared", "local", "code"})


class ReportSection(NamedTuple):
    """A title, then rows of a table under ``header``, or plain lines where there is none."""

    title: str
    lines: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class Wording(NamedTuple):
    """How names are shown: ``quote`` for the format, ``show`` for kernels; ``every`` kernel or the first few, and where the rest is."""

    quote: Quote
    show: Callable[[str], str]
    every: bool
    more: str = "--kernels lists all"

    def kernel(self, name: str) -> str:
        """A kernel as it is shown."""
        return self.quote(self.show(name) if self.every else short(self.show(name)))

    def some(self, lines: Sequence[str]) -> tuple[str, ...]:
        """All lines, or the first ones and how many more there are."""
        if self.every or len(lines) <= _FEW + 1:
            return tuple(lines)
        return (*lines[:_FEW], f"and {len(lines) - _FEW} more ({self.more})")


def sections(found: LibraryDifference, wording: Wording) -> Iterator[ReportSection]:
    """The parts that have something to say, what matters most first."""
    yield from _gpus(found.gpus, wording.quote)
    if found.targets:
        header = ("target", "modules", "stored", "unpacked", "")
        yield ReportSection("targets", (), header, tuple(_target_row(change, wording.quote) for change in found.targets))
    if found.ptx:
        rows = tuple((wording.quote(change.target), _versions(change.old), "->", _versions(change.new)) for change in found.ptx)
        yield ReportSection("PTX", tuple(f"{target}: {old} {arrow} {new}" for target, old, arrow, new in rows))
    if found.toolkits:
        old, new = (", ".join(map(wording.quote, toolkits)) or "not known" for toolkits in found.toolkits)
        yield ReportSection("toolkit", (f"{old} -> {new}",))
    if found.drivers:
        lines = [f"{change.old} -> {change.new} on Linux: {', '.join(change.targets)}" for change in found.drivers]
        yield ReportSection("lowest driver", tuple(lines))
    if found.modules:
        yield ReportSection("modules", tuple(_module_line(change, wording.quote) for change in found.modules))
    yield from _kernels(found, wording)
    if found.changed:
        yield from _numbers(found.changed, wording)


def one_line(found: LibraryDifference) -> str:
    """The gist: what is gone and what is new."""
    parts = []
    stopped = [change for change in found.gpus if change.stops]
    at_risk = [change for change in found.gpus if change.worked and not change.works and not change.stops]
    started = [change for change in found.gpus if change.starts]
    for word, changes in (("drops", stopped), ("may drop", at_risk), ("adds", started)):
        if changes:
            names = dict.fromkeys(change.series or change.family or change.target for change in changes)
            count = sum(len(change.names) for change in changes)
            parts.append(f"{word} {', '.join(names)}: {plural(count, 'product')}")
    lost = [change.target for change in found.targets if change.new is None]
    gained = [change.target for change in found.targets if change.old is None]
    parts += [f"removed {', '.join(lost)}"] if lost else []
    parts += [f"added {', '.join(gained)}"] if gained else []
    counts = (
        (len(found.kernels_lost), "kernel removed", "kernels removed"),
        (len(found.kernels_gained), "new kernel", "new kernels"),
        (len(found.targets_lost), "kernel lost a target", "kernels lost a target"),
        (len(found.new_stubs), "new stub", "new stubs"),
        (len(found.now_stubs), "kernel became a stub", "kernels became stubs"),
        (len(found.now_real), "stub became real", "stubs became real"),
        (len(found.other_code), "kernel with different code", "kernels with different code"),
    )
    parts += [plural(count, one, several) for count, one, several in counts if count]
    return "; ".join(parts) or ("other bytes: nothing that is compared here differs" if found.other_bytes else "")


def _gpus(changes: Sequence[GpuChange], quote: Quote) -> Iterator[ReportSection]:
    rest = [change for change in changes if not change.stops and not change.starts]
    titles = (
        ("GPUs that stop working", [change for change in changes if change.stops]),
        ("GPUs that may stop working", [change for change in rest if change.worked and not change.works]),
        ("GPUs that start working", [change for change in changes if change.starts]),
        ("Other changes", [change for change in rest if change.worked == change.works]),
    )
    for title, chosen in titles:
        if chosen:
            header = ("GPUs", "target", "products", "was", "now", "such as")
            rows = tuple(_gpu_row(change, quote) for change in chosen)
            yield ReportSection(title, tuple(_reasons(chosen, quote)), header, rows)


def _reasons(changes: Sequence[GpuChange], quote: Quote) -> Iterator[str]:
    """Why these GPUs do not run the new release: each reason once."""
    by_reason: dict[str, list[str]] = {}
    for change in changes:
        if change.why and not change.works:
            by_reason.setdefault(_for_any(change), []).append(change.target)
    rows = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    yield from (f"{', '.join(targets)}: {quote(why)}" for why, targets in rows[:_NAMES])
    if len(rows) > _NAMES:
        yield f"and {len(rows) - _NAMES} more reasons"


def _for_any(change: GpuChange) -> str:
    """The reason without the GPU's own number, so that it is the same for its siblings."""
    number = Target(change.target).sm
    return change.why if number is None else change.why.replace(f" {number // 10}.{number % 10}", " the GPU")


def _gpu_row(change: GpuChange, quote: Quote) -> tuple[str, ...]:
    names = ", ".join(map(quote, change.names[:_NAMES])) + (", ..." if len(change.names) > _NAMES else "")
    kind = f"{change.series} ({change.family})" if change.series and change.family else change.series or change.family
    return kind, change.target, str(len(change.names)), outcome_words(change.old), outcome_words(change.new), names


def outcome_words(word: str) -> str:
    """A verdict within a sentence."""
    return OUTCOMES[word].lower().replace("gpu", "GPU")


def _target_row(change: TargetChange, quote: Quote) -> tuple[str, ...]:
    old, new = change.old, change.new
    mark = "gained" if old is None else "lost" if new is None else ""
    return (
        quote(change.target),
        _both(old, new, lambda facts: str(facts.modules)),
        _both(old, new, lambda facts: size(facts.stored)),
        _both(old, new, lambda facts: size(facts.unpacked)),
        mark or _percent(old, new),
    )


def _both(old: TargetFacts | None, new: TargetFacts | None, tell: Callable[[TargetFacts], str]) -> str:
    before, after = (tell(facts) if facts is not None else "-" for facts in (old, new))
    return before if before == after else f"{before} -> {after}"


def _percent(old: TargetFacts | None, new: TargetFacts | None) -> str:
    if old is None or new is None or not old.stored or new.stored is None:
        return ""
    return f"{100 * (new.stored - old.stored) / old.stored:+.1f}%"


def _versions(versions: Sequence[str]) -> str:
    return f"ISA {', '.join(versions)}" if versions else "none"


def _module_line(change: ModuleChange, quote: Quote) -> str:
    parts = (("lost", change.lost), ("gained", change.gained))
    words = [f"{word} {', '.join(map(quote, targets))}" for word, targets in parts if targets]
    return f"{plural(change.times, 'module')} {' and '.join(words)}: {quote(change.first)}{', ...' if change.times > 1 else ''}"


def _kernels(found: LibraryDifference, wording: Wording) -> Iterator[ReportSection]:
    for title, names, others in (
        ("kernels removed", found.kernels_lost, found.kernels_gained),
        ("new kernels", found.kernels_gained, found.kernels_lost),
    ):
        if names:
            same = _namesakes(names, others, wording.show)
            words = f", {same} of them with other parameters in the other release" if same else ""
            yield ReportSection(f"{title}: {len(names)}{words}", wording.some([wording.kernel(name) for name in names]))
    moved = (
        ("kernels that lost a target", found.targets_lost),
        ("kernels that gained a target", found.targets_gained),
        ("new kernels that are stubs", found.new_stubs),
        ("real bodies that became stubs", found.now_stubs),
        ("stubs that became real", found.now_real),
        ("kernels whose code differs, all else being equal", found.other_code),
    )
    for title, rows in moved:
        if rows:
            yield ReportSection(f"{title}: {len(rows)}", wording.some([_moved_line(row, wording) for row in rows]))


def _namesakes(names: Sequence[str], others: Sequence[str], show: Callable[[str], str]) -> int:
    """How many of the kernels are called as one of the others, but for parameters and template arguments."""
    called = {short(show(name)).partition("<")[0] for name in others}
    return sum(short(show(name)).partition("<")[0] in called for name in names)


def _moved_line(row: Moved, wording: Wording) -> str:
    return f"{wording.kernel(row.kernel)}: {', '.join(map(wording.quote, row.targets))}"


def _numbers(changed: Sequence[Changed], wording: Wording) -> Iterator[ReportSection]:
    """For each field what takes more, then what takes less, the largest changes first."""
    for field in dict.fromkeys(change.field for change in changed):
        for word, mine in (
            ("more", [change for change in changed if change.field == field and change.new > change.old]),
            ("less", [change for change in changed if change.field == field and change.new < change.old]),
        ):
            if mine:
                ordered = mine if wording.every else sorted(mine, key=lambda change: -abs(change.new - change.old))
                title = f"{_WORDS[field]}: {len(mine)} take {word}"
                yield ReportSection(title, wording.some([_number_line(change, wording) for change in ordered]))


def _number_line(change: Changed, wording: Wording) -> str:
    unit = " B" if change.field in _IN_BYTES else ""
    return f"{wording.kernel(change.kernel)}, {wording.quote(change.target)}: {change.old} -> {change.new}{unit}"
