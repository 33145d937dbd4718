"""One run of ``inspect``: what was found in each file, handed to a renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fatpatch.api.inspection import InspectChoices, Inspection, complaints_of, json_document, json_lines, readable
from fatpatch.api.naming import NamedUnit, all_diagnostics
from fatpatch.base.errors import FormatError, UnsupportedError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import STANDARD_INPUT
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import plural, safe
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.options import print_diagnostics
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.tree import Diagnostic, Node

Writer = Callable[[str], object]


class InspectRequest(NamedTuple):
    """What the user asked to see."""

    choices: InspectChoices
    mangled: bool
    verbose: bool
    limits: Limits

    @property
    def filtered(self) -> bool:
        """Whether only some kernels were asked for."""
        return self.choices.pattern is not None or self.choices.missing is not None


class Run:
    """All files of one command line."""

    def __init__(self, request: InspectRequest, units: list[NamedUnit]) -> None:
        self.request = request
        self.units = units
        self.loop = FileLoop()
        self.inspection = Inspection(request.choices, self.loop.reading(request.limits))

    def write(self, form: str, out: Writer) -> int:
        """Write every file in the form asked for; the exit code."""
        if form == "text":
            self._text(out)
        elif form == "csv":
            self._csv(out)
        else:
            pieces = (self.inspection.json_pieces(node, self._note) for node in self._nodes())
            for piece in json_lines(pieces) if form == "ndjson" else json_document(pieces, self.loop.errors):
                out(piece)
        return self.loop.code

    def _nodes(self) -> Iterator[Node]:
        return self.inspection.nodes(self.units, self._folder_done)

    def _folder_done(self, unit: NamedUnit, without: int) -> None:
        if without:
            quiet.note(f"{safe(unit.shown)}: {plural(without, 'unit')} without GPU code")
        elif not unit.units:
            quiet.note(f"{safe(unit.shown)}: no library, archive or image in this folder")

    def _note(self, item: Diagnostic) -> None:
        if item.level == "error":
            self.loop.found(FormatError.exit_code)
        elif item.field == NOT_READ:
            self.loop.found(UnsupportedError.exit_code)

    def _complain(self, diagnostics: Iterable[Diagnostic]) -> None:
        for item in diagnostics:
            self._note(item)
        print_diagnostics(diagnostics)

    def _text(self, out: Writer) -> None:
        from fatpatch.commands.inspect import text

        for index, node in enumerate(self._nodes()):
            found = self.inspection.kernels(node)
            lines = text.report(
                node,
                found.matrices,
                found.resources,
                verbose=self.request.verbose,
                filtered=self.request.filtered,
                show=str if self.request.mangled else readable,
                shown_as=shown_command(node),
            )
            out("".join(f"{line}\n" for line in (*([""] if index else []), *lines)))
            self._complain(found.diagnostics)

    def _csv(self, out: Writer) -> None:
        from fatpatch.commands.inspect import csv

        out(csv.header(self.request.choices.kernels))
        for node in self._nodes():
            complaints = list(all_diagnostics(node))
            for payload, image, finding in self.inspection.images(node):
                out(csv.rows(node, payload, image, finding, kernels=self.request.choices.kernels))
                complaints += complaints_of(image, finding)
            self._complain(complaints)


def shown_command(node: Node) -> str:
    """The file as a user would type it."""
    path = "-" if node.path == STANDARD_INPUT else safe(node.path)
    return f'"{path}"' if " " in path else path
