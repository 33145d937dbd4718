"""What GPU code files hold: each file read in turn, narrowed to what was asked for, its kernels surveyed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.base.locator import target_matches
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.demangle import demangle, readable
from fatpatch.model.kinds import ContainerKind, ImageKind
from fatpatch.model.target import target_key
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload, place_of
from fatpatch.named.reading import UnitReader
from fatpatch.named.unit import NamedUnit
from fatpatch.scan.coverage import TargetRow, TreeSummary, all_diagnostics, members_below, payloads_below, summarize, target_table
from fatpatch.scan.kernel_folders import kernel_folders, root_of
from fatpatch.scan.matrix import Matrix
from fatpatch.scan.slim_marks import marks_below
from fatpatch.scan.walk import KINDS

if TYPE_CHECKING:
    from fatpatch.gpucode.rows import KernelFacts
    from fatpatch.scan.survey import ImageSurvey

__all__ = [
    "KINDS",
    "FileKernels",
    "InspectChoices",
    "Inspection",
    "Matrix",
    "NamePattern",
    "PatternError",
    "TargetRow",
    "all_diagnostics",
    "complaints_of",
    "demangle",
    "json_document",
    "json_lines",
    "kernel_folders",
    "marks_below",
    "members_below",
    "payloads_below",
    "readable",
    "root_of",
    "signature_words",
    "target_table",
]

_MAX_TARGETS = 40
_SECONDS = 5.0


class PatternError(InputError):
    """A regular expression that is none, or that takes too long."""


class NamePattern:
    """A regular expression of a user, bounded in time, whatever it is and whatever it is looked for in."""

    def __init__(self, text: str) -> None:
        import regex

        try:
            self._compiled: Any = regex.compile(text)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise PatternError(f"not a regular expression: {error}") from error
        self._left = _SECONDS

    def search(self, text: str) -> bool:
        """Whether the expression matches somewhere in ``text``. PatternError when all searches together take too long."""
        began = time.monotonic()
        try:
            return self._compiled.search(text, timeout=max(self._left, 0.01)) is not None
        except TimeoutError as error:
            raise PatternError(f"takes longer than {_SECONDS:g} seconds to match the names of kernels") from error
        finally:
            self._left -= time.monotonic() - began


class InspectChoices(NamedTuple):
    """What to look at: ``kernels``, of them those that ``pattern`` finds or that have no code for ``missing``; images for ``targets``.

    ``digest``: the SHA-256 of each image; ``detail``: registers and sizes of kernels; ``kind``: what a file is read as.
    """

    kernels: bool = False
    pattern: NamePattern | None = None
    targets: tuple[str, ...] = ()
    missing: str | None = None
    digest: bool = False
    detail: bool = True
    jobs: int | None = None
    kind: str | None = None
    all_kinds: bool = False

    @property
    def survey(self) -> bool:
        """Whether images must be read at all."""
        return self.kernels or self.digest


class FileKernels(NamedTuple):
    """The kernels of a file by the place of their module: which targets have each, what it takes, and what could not be read."""

    matrices: dict[str, Matrix]
    resources: dict[str, list[tuple[str, KernelFacts]]]
    diagnostics: tuple[Diagnostic, ...]


class Inspection:
    """All files of one question."""

    def __init__(self, choices: InspectChoices, reading: UnitReader) -> None:
        self.choices, self.reading = choices, reading

    def nodes(self, units: Iterable[NamedUnit], folder_done: Callable[[NamedUnit, int], None]) -> Iterator[Node]:
        """The trees, one after the other; of a folder those with GPU code. ``folder_done`` is told how many of it have none."""
        for unit in units:
            without = 0
            for each, node, _ in self.reading.each(unit.units, self.choices.kind, all_kinds=self.choices.all_kinds):
                if unit.whole and not (any(payloads_below(node)) or any(all_diagnostics(node))):
                    without += 1
                    continue
                with self.reading.guarded(each.path, each.shown):
                    chosen = self._chosen(node)
                    self._refuse_nothing(node, chosen, each.shown)
                    yield chosen
            if unit.whole:
                folder_done(unit, without)

    def _chosen(self, node: Node) -> Node:
        """The tree with only the targets asked for."""
        wanted = self.choices.targets
        if not wanted:
            return node
        payloads = []
        for payload in node.payloads:
            images = tuple(image for image in payload.images if any(target_matches(image.target, target) for target in wanted))
            if images:
                payloads.append(payload._replace(images=images))
        return node._replace(members=tuple(self._chosen(member) for member in node.members), payloads=tuple(payloads))

    def _refuse_nothing(self, node: Node, chosen: Node, shown: str) -> None:
        """InputError when a file has images, and none for the targets asked for."""
        if not self.choices.targets:
            return
        there = {image.target for _, payload in payloads_below(node) for image in payload.images}
        if there and not any(True for _ in payloads_below(chosen)):
            listed = ", ".join(sorted(there, key=target_key)[:_MAX_TARGETS]) + (", ..." if len(there) > _MAX_TARGETS else "")
            raise InputError(f"has no image for {', '.join(self.choices.targets)}", locator=shown, hint=f"it has: {listed}")

    def images(self, node: Node) -> Iterator[tuple[Payload, ImageEntry, ImageSurvey | None]]:
        """Every image in document order, with what the survey found and the kernel filters applied."""
        pairs = [(payload, image) for _, payload in payloads_below(node) for image in payload.images]
        if not self.choices.survey:
            yield from ((payload, image, None) for payload, image in pairs)
            return
        from fatpatch.scan.survey import survey

        wanted = self._wanted(node)
        limit, given = self.reading.limits.image, self.choices
        found = survey([node], limit=limit, digest=given.digest, detail=given.detail, jobs=given.jobs)
        for (payload, image), (_, finding) in zip(pairs, found, strict=True):
            rows = finding.rows if given.kernels else None
            if rows is not None and wanted is not None:
                rows = tuple(row for row in rows if wanted(row.name))
            yield payload, image, finding._replace(rows=rows)

    def _wanted(self, node: Node) -> Callable[[str], bool] | None:
        """The filter on kernel names, if any; ``missing`` needs a pass of its own to know them."""
        pattern, missing = self.choices.pattern, self.choices.missing
        if pattern is None and missing is None:
            return None
        lacking: set[str] | None = None
        if missing is not None:
            from fatpatch.scan.survey import survey

            matrix = Matrix()
            for image, finding in survey([node], limit=self.reading.limits.image, detail=False, jobs=self.choices.jobs):
                matrix.add(image, finding.rows or ())
            lacking = matrix.lacking(missing)

        def wanted(name: str) -> bool:
            if lacking is not None and name not in lacking:
                return False
            return pattern is None or pattern.search(name) or pattern.search(readable(name))

        return wanted

    def kernels(self, node: Node) -> FileKernels:
        """The kernels of a file, where they were asked for."""
        found = FileKernels({}, {}, ())
        complaints = list(all_diagnostics(node))
        if not self.choices.survey:
            return found._replace(diagnostics=tuple(complaints))
        for payload, image, finding in self.images(node):
            assert finding is not None
            rows, place = finding.rows or (), place_of(payload)
            if self.choices.detail:
                found.resources.setdefault(place, []).extend((image.target, row) for row in rows)
            devices = finding.code_version if image.kind == ImageKind.ZEBIN else None
            found.matrices.setdefault(place, Matrix()).add(image, rows, finding.producer or devices)
            complaints += complaints_of(image, finding)
        return found._replace(diagnostics=tuple(complaints))

    def json_pieces(self, node: Node, on_complaint: Callable[[Diagnostic], None]) -> Iterator[str]:
        """The object of one file in the document of schema fatpatch.inspect/1; ``on_complaint`` is told what could not be read."""
        from fatpatch.scan import document

        names: set[str] = set()
        images = self.images(node)

        def lookup(image: ImageEntry) -> ImageSurvey | None:
            _, found_image, finding = next(images)
            assert found_image is image
            if finding is not None:
                names.update(row.name for row in finding.rows or ())
                for complaint in complaints_of(image, finding):
                    on_complaint(complaint)
            return finding

        def summary() -> TreeSummary:
            return summarize(node, len(names) if self.choices.kernels else None)

        for item in all_diagnostics(node):
            on_complaint(item)
        yield from document.file_json(node, lookup, demangle, summary)
        assert next(images, None) is None


def complaints_of(image: ImageEntry, finding: ImageSurvey | None) -> list[Diagnostic]:
    """What could not be read of an image."""
    from fatpatch.scan.survey import complaint_of

    complaint = None if finding is None else complaint_of(image, finding)
    return [] if complaint is None else [complaint]


def json_document(files: Iterator[Iterator[str]], errors: Sequence[FatpatchError]) -> Iterator[str]:
    """The pieces of the whole document around those of its files; ``errors`` as they are at its end."""
    from fatpatch.scan import document

    return document.document(files, errors)


def json_lines(files: Iterator[Iterator[str]]) -> Iterator[str]:
    """One line a file."""
    from fatpatch.scan import document

    return document.lines(files)


def signature_words(node: Node) -> str | None:
    """Who signed a PE, in words; None for another file, or where nobody did."""
    if node.container != ContainerKind.PE or node.source is None:
        return None
    from fatpatch.binfmt.pe.authenticode import signature_of

    signature = signature_of(node.source)
    return None if signature is None else signature.words()
