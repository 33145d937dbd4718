"""One run of ``inspect``: read each file, survey its images if asked to, hand the result to a renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fatpatch.base.errors import FormatError, InputError, UnsupportedError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import target_matches
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import plural, safe
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.options import print_diagnostics
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.standard_input import SHOWN
from fatpatch.gpucode.demangle import readable
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import ImageKind
from fatpatch.model.target import target_key
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload, place_of
from fatpatch.named.unit import NamedUnit, opened_unit
from fatpatch.scan.coverage import TreeSummary, all_diagnostics, payloads_below, summarize
from fatpatch.scan.matrix import Matrix
from fatpatch.scan.walk import Progress as OnRead

if TYPE_CHECKING:
    from fatpatch.commands.inspect.pattern import Pattern
    from fatpatch.gpucode.rows import KernelFacts
    from fatpatch.scan.survey import ImageSurvey

_MAX_TARGETS = 40
Writer = Callable[[str], object]


class InspectRequest(NamedTuple):
    """What the user asked to see."""

    kernels: bool
    pattern: Pattern | None
    targets: tuple[str, ...]
    missing: str | None
    resources: bool
    mangled: bool
    digest: bool
    verbose: bool
    jobs: int | None
    kind: str | None
    all_kinds: bool
    limits: Limits

    @property
    def survey(self) -> bool:
        """Whether images must be read at all."""
        return self.kernels or self.digest


class Run:
    """All files of one command line."""

    def __init__(self, request: InspectRequest, units: list[NamedUnit]) -> None:
        self.request = request
        self.units = units
        self.loop = FileLoop()

    def write(self, form: str, out: Writer) -> int:
        """Write every file in the form asked for; the exit code."""
        if form == "text":
            self._text(out)
        elif form == "csv":
            self._csv(out)
        else:
            from fatpatch.scan import document as json

            pieces = (self._json(node) for node in self._nodes())
            for piece in json.lines(pieces) if form == "ndjson" else json.document(pieces, self.loop.errors):
                out(piece)
        return self.loop.code

    def _nodes(self) -> Iterator[Node]:
        """The trees, one after the other; a file that cannot be read is an error on stderr and the next one follows."""
        for unit in self.units:
            without = 0
            for each in unit.units:
                with self.loop.file(each.path, each.shown), Progress(each.shown) as progress, self._open(each, progress.at) as node:
                    if unit.whole and not (any(payloads_below(node)) or any(all_diagnostics(node))):
                        without += 1
                        continue
                    chosen = self._chosen(node)
                    if self.request.targets:
                        self._refuse_nothing(node, chosen, each.shown)
                    yield chosen
            if unit.whole:
                quiet.note(f"{safe(unit.shown)}: {plural(without, 'unit')} without GPU code")

    def _open(self, unit: NamedUnit, progress: OnRead) -> AbstractContextManager[Node]:
        """A kind can be forced on a file only."""
        if unit.distribution is not None:
            return opened_unit(unit, self.request.limits, progress, all_kinds=self.request.all_kinds)
        return opened_unit(unit, self.request.limits, progress, kind=self.request.kind, all_kinds=self.request.all_kinds)

    def _chosen(self, node: Node) -> Node:
        """The tree with only the targets asked for."""
        if not self.request.targets:
            return node
        members = tuple(self._chosen(member) for member in node.members)
        payloads = []
        for payload in node.payloads:
            images = tuple(
                image for image in payload.images if any(target_matches(image.target, target) for target in self.request.targets)
            )
            if images:
                payloads.append(payload._replace(images=images))
        return node._replace(members=members, payloads=tuple(payloads))

    def _refuse_nothing(self, node: Node, chosen: Node, shown: str) -> None:
        """InputError when a file has images, and none for the targets asked for."""
        there = {image.target for _, payload in payloads_below(node) for image in payload.images}
        if there and not any(True for _ in payloads_below(chosen)):
            listed = ", ".join(sorted(there, key=target_key)[:_MAX_TARGETS]) + (", ..." if len(there) > _MAX_TARGETS else "")
            raise InputError(f"has no image for {', '.join(self.request.targets)}", locator=shown, hint=f"it has: {listed}")

    def _findings(self, node: Node, *, detail: bool = True) -> Iterator[tuple[Payload, ImageEntry, ImageSurvey | None]]:
        """Every image in document order, with what the survey found and the kernel filters applied."""
        pairs = [(payload, image) for _, payload in payloads_below(node) for image in payload.images]
        if not self.request.survey:
            yield from ((payload, image, None) for payload, image in pairs)
            return
        from fatpatch.scan.survey import survey

        wanted = self._wanted(node)
        found = survey([node], limit=self.request.limits.image, digest=self.request.digest, detail=detail, jobs=self.request.jobs)
        for (payload, image), (_, finding) in zip(pairs, found, strict=True):
            rows = None if finding.rows is None or not self.request.kernels else tuple(row for row in finding.rows if wanted(row.name))
            yield payload, image, finding._replace(rows=rows)

    def _wanted(self, node: Node) -> Callable[[str], bool]:
        """The filter on kernel names; ``--missing`` needs a pass of its own to know them."""
        pattern, missing = self.request.pattern, self.request.missing
        lacking: set[str] | None = None
        if missing is not None:
            from fatpatch.scan.survey import survey

            matrix = Matrix()
            for image, finding in survey([node], limit=self.request.limits.image, detail=False, jobs=self.request.jobs):
                matrix.add(image, finding.rows or ())
            lacking = matrix.lacking(missing)

        def wanted(name: str) -> bool:
            if lacking is not None and name not in lacking:
                return False
            return pattern is None or pattern.search(name) or pattern.search(readable(name))

        return wanted

    def _note(self, diagnostics: Iterable[Diagnostic]) -> None:
        for item in diagnostics:
            if item.level == "error":
                self.loop.found(FormatError.exit_code)
            elif item.field == NOT_READ:
                self.loop.found(UnsupportedError.exit_code)

    def _json(self, node: Node) -> Iterator[str]:
        from fatpatch.gpucode.demangle import demangle
        from fatpatch.scan import document as json
        from fatpatch.scan.survey import complaint_of

        names: set[str] = set()
        findings = self._findings(node)

        def lookup(image: ImageEntry) -> ImageSurvey | None:
            _, found_image, finding = next(findings)
            assert found_image is image
            if finding is not None:
                names.update(row.name for row in finding.rows or ())
                if (complaint := complaint_of(image, finding)) is not None:
                    self._note([complaint])
            return finding

        def summary() -> TreeSummary:
            return summarize(node, len(names) if self.request.kernels else None)

        self._note(all_diagnostics(node))
        yield from json.file_json(node, lookup, demangle, summary)
        assert next(findings, None) is None

    def _text(self, out: Writer) -> None:
        from fatpatch.commands.inspect import text

        for index, node in enumerate(self._nodes()):
            matrices: dict[str, Matrix] = {}
            resources: dict[str, list[tuple[str, KernelFacts]]] = {}
            complaints = list(all_diagnostics(node))
            if self.request.survey:
                from fatpatch.scan.survey import complaint_of

                for payload, image, finding in self._findings(node, detail=self.request.resources):
                    assert finding is not None
                    rows = finding.rows or ()
                    if self.request.resources:
                        resources.setdefault(place_of(payload), []).extend((image.target, row) for row in rows)
                    devices = finding.code_version if image.kind == ImageKind.ZEBIN else None
                    matrices.setdefault(place_of(payload), Matrix()).add(image, rows, finding.producer or devices)
                    if (complaint := complaint_of(image, finding)) is not None:
                        complaints.append(complaint)
            lines = text.report(
                node,
                matrices,
                resources,
                verbose=self.request.verbose,
                filtered=self.request.pattern is not None or self.request.missing is not None,
                show=str if self.request.mangled else readable,
                shown_as=shown_command(node),
            )
            out("".join(f"{line}\n" for line in (*([""] if index else []), *lines)))
            self._note(complaints)
            print_diagnostics(complaints)

    def _csv(self, out: Writer) -> None:
        from fatpatch.commands.inspect import csv
        from fatpatch.scan.survey import complaint_of

        out(csv.header(self.request.kernels))
        for node in self._nodes():
            complaints = list(all_diagnostics(node))
            for payload, image, finding in self._findings(node):
                out(csv.rows(node, payload, image, finding, kernels=self.request.kernels))
                if finding is not None and (complaint := complaint_of(image, finding)) is not None:
                    complaints.append(complaint)
            self._note(complaints)
            print_diagnostics(complaints)


def shown_command(node: Node) -> str:
    """The file as a user would type it."""
    path = "-" if node.path == SHOWN else safe(node.path)
    return f'"{path}"' if " " in path else path
