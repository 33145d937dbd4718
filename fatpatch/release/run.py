"""Two releases compared: files, folders, archives. What has the same GPU code on both sides is not read any further."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import SEPARATOR, escape
from fatpatch.base.records import NamedTuple
from fatpatch.model.target import target_key
from fatpatch.model.tree import Diagnostic, Node
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.named.unit import NamedUnit, files_of
from fatpatch.release.code import Codes, codes_of, differing
from fatpatch.release.difference import LibraryDifference, Moved, difference
from fatpatch.release.pairing import paired
from fatpatch.remote.address import scheme_of
from fatpatch.scan.coverage import all_diagnostics, holders
from fatpatch.verdicts.all_gpus import Answer, answers
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.library_facts import LibraryFacts, listed, read_whole

OnRead = Callable[[str, int, int], None]


class Side(NamedTuple):
    """One release: its name, and the holders of GPU code in it, with what doctor says of each by path."""

    shown: str
    facts: tuple[LibraryFacts, ...]
    answers: dict[str, dict[str, Answer]]


class ReleaseComparison(NamedTuple):
    """Every holder of both releases, with what could not be read of them."""

    old: Side
    new: Side
    differences: tuple[LibraryDifference, ...]
    diagnostics: tuple[Diagnostic, ...]
    errors: tuple[FatpatchError, ...]

    @property
    def empty(self) -> bool:
        """Whether both have the same GPU code."""
        return all(each.empty for each in self.differences)


class _Release:
    """One side, read in two passes: what it holds, then whole what the other side has not.

    A single file, and one with an address, stays open between them, until ``stack`` closes it: it is fetched, and a packed member
    unpacked, once.
    """

    def __init__(self, unit: NamedUnit, limits: Limits, on_read: OnRead, stack: ExitStack) -> None:
        if unit.problem is not None:
            raise unit.problem
        self.shown = unit.shown
        self._stack = stack
        self._kept: dict[str, Node] = {}
        self.limits = limits
        several = unit.whole or unit.distribution is not None or unit.parts
        self.files = as_units(files_of([unit])) if several else [unit]  # a pattern is no release
        self.reading = UnitReader(limits, self._failed, lambda shown: nullcontext(on_read))
        self.listed: dict[str, list[LibraryFacts]] = {}
        self.diagnostics: list[Diagnostic] = []
        self.errors: list[FatpatchError] = []

    def look(self) -> None:
        """The first pass."""
        for unit in self.files:
            with self.reading.guarded(unit.path, unit.shown), self._opened(unit) as root:
                self.diagnostics += all_diagnostics(root)
                self.listed[unit.path] = [listed(node, self._path(unit.shown, node), unit.shown) for node in holders(root)]

    @contextmanager
    def _opened(self, unit: NamedUnit) -> Iterator[Node]:
        """The tree of one of the files."""
        if len(self.files) > 1 and not scheme_of(unit.path):
            with self.reading.opened(unit) as found:
                yield found.node
            return
        if unit.path not in self._kept:
            self._kept[unit.path] = self._stack.enter_context(self.reading.opened(unit)).node
        yield self._kept[unit.path]

    def _failed(self, error: FatpatchError) -> None:
        """An unreadable file is an error of the whole when it is the only one."""
        if len(self.files) == 1:
            raise error
        self.errors.append(error)

    @property
    def facts(self) -> list[LibraryFacts]:
        """Of all holders, in order."""
        return [facts for each in self.listed.values() for facts in each]

    def read(self, alike: frozenset[str], jobs: int | None) -> Side:
        """The second pass; the holders whose path is in ``alike`` stay as they are."""
        result: list[LibraryFacts] = []
        found: dict[str, dict[str, Answer]] = {}
        for unit in self.files:
            facts = self.listed.get(unit.path, [])
            if all(each.path in alike for each in facts):
                result += facts
                continue
            with self.reading.guarded(unit.path, unit.shown), self._opened(unit) as root:
                result += self._read(root, facts, alike, found, jobs)
        return Side(self.shown, tuple(result), found)

    def _read(
        self, root: Node, facts: list[LibraryFacts], alike: frozenset[str], found: dict[str, dict[str, Answer]], jobs: int | None
    ) -> list[LibraryFacts]:
        nodes = holders(root)
        if [(node.locator, node.size) for node in nodes] != [(each.locator, each.size) for each in facts]:
            raise InputError("changed while it was read", hint="run again")
        doctor = Doctor(root, limit=self.limits.image)
        by_holder = answers(doctor)
        result = []
        for each, node in zip(facts, nodes, strict=True):
            whole = each if each.path in alike else read_whole(each, node, doctor.reader, jobs=jobs)
            result.append(whole)
            found[each.path] = by_holder.get(node.locator, {})
            self.diagnostics += whole.complaints
        return result

    def codes(self, paths: frozenset[str]) -> dict[str, Codes]:
        """The code of the holders whose path is one of these, by that path."""
        found: dict[str, Codes] = {}
        for unit in self.files:
            if not any(each.path in paths for each in self.listed.get(unit.path, [])):
                continue
            with self._opened(unit) as root:
                nodes = {self._path(unit.shown, node): node for node in holders(root)}
                found |= {each: codes_of(nodes[each], self.limits.image) for each in paths & nodes.keys()}
        return found

    def _path(self, shown: str, node: Node) -> str:
        """Where a holder lies below what was given: the same in two releases whose outermost names differ."""
        inside = shown[len(self.shown.rstrip("/")) + 1 :]
        steps = node.locator.split(SEPARATOR)[1:]
        return SEPARATOR.join([*([escape(inside)] if inside else []), *steps])


def compare(
    old: NamedUnit, new: NamedUnit, *, limits: Limits, threshold: float = 0.0, jobs: int | None = None, on_read: OnRead
) -> ReleaseComparison:
    """Compare two units: files, folders, packages. A FatpatchError when one cannot be read at all."""
    with ExitStack() as stack:
        return _compared([_Release(unit, limits, on_read, stack) for unit in (old, new)], threshold, jobs)


def _compared(releases: Sequence[_Release], threshold: float, jobs: int | None) -> ReleaseComparison:
    for release in releases:
        release.look()
    if not any(release.facts or release.errors or release.diagnostics for release in releases):
        hint = "look whether the right files were given"
        raise InputError("neither holds GPU code", locator=", ".join(release.shown for release in releases), hint=hint)
    pairs = [pair for pair in paired(releases[0].facts, releases[1].facts) if pair.unchanged]
    before = releases[0].read(frozenset(pair.old.path for pair in pairs if pair.old), jobs)
    after = releases[1].read(frozenset(pair.new.path for pair in pairs if pair.new), jobs)
    differences = list(_differences(before, after, threshold))
    return ReleaseComparison(
        before,
        after,
        tuple(_with_code(differences, *releases)),
        tuple(item for release in releases for item in release.diagnostics),
        tuple(error for release in releases for error in release.errors),
    )


def _differences(before: Side, after: Side, threshold: float) -> Iterator[LibraryDifference]:
    for pair in paired(before.facts, after.facts):
        yield difference(pair, threshold, _answers(before, pair.old), _answers(after, pair.new))


def _with_code(differences: list[LibraryDifference], before: _Release, after: _Release) -> Iterator[LibraryDifference]:
    """The differences; where all that is told is the same, with the kernels whose code is not."""
    pairs = [each.pair for each in differences if each.other_bytes]
    old = before.codes(frozenset(pair.old.path for pair in pairs if pair.old)) if pairs else {}
    new = after.codes(frozenset(pair.new.path for pair in pairs if pair.new)) if pairs else {}
    for each in differences:
        if each.other_bytes and each.pair.old is not None and each.pair.new is not None:
            rows = differing(old.get(each.pair.old.path, {}), new.get(each.pair.new.path, {}))
            yield each._replace(other_code=tuple(Moved(kernel, tuple(sorted(rows[kernel], key=target_key))) for kernel in sorted(rows)))
        else:
            yield each


def _answers(side: Side, facts: LibraryFacts | None) -> dict[str, Answer]:
    return {} if facts is None else side.answers.get(facts.path, {})
