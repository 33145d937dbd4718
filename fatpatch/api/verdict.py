"""A verdict: whether a file runs on a GPU, why not, and what helps."""

from __future__ import annotations

from typing import Any

from fatpatch.api.documents import plain
from fatpatch.gpucode.demangle import readable
from fatpatch.verdicts import document as doctor_json
from fatpatch.verdicts.claims import contradiction
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB
from fatpatch.verdicts.operations import operations
from fatpatch.verdicts.outcome import outcome_of, works
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words import report as doctor_words
from fatpatch.verdicts.words.context import driver_range, seconds
from fatpatch.verdicts.words.kernels import short
from fatpatch.verdicts.words.report import device_words, headline
from fatpatch.verdicts.words.why import obstacle

__all__ = [
    "COMPATIBLE",
    "EMPTY",
    "FAILS",
    "JIT",
    "NATIVE",
    "STUB",
    "Verdict",
    "device_words",
    "doctor_json",
    "driver_range",
    "headline",
    "obstacle",
    "seconds",
    "short",
]


class Verdict:
    """Whether a file runs on a GPU: true only when nothing is incompatible."""

    def __init__(
        self,
        doctor: Doctor,
        found: FileVerdict,
        shown: str,
        remedies: tuple[Remedy, ...],
        installed: frozenset[str] = frozenset(),
    ) -> None:
        """``installed``: the libraries that lie beside the file."""
        self.facts, self.remedies = found, remedies
        self._shown, self._beside = shown, doctor.beside(found, installed)
        self._failing = operations(doctor.lacking(found), readable)
        self.contradicts_name = contradiction(doctor.node, shown, doctor.limit)
        """What contradicts the CUDA release in the file's name, in words; None where nothing does."""

    def __bool__(self) -> bool:
        return works(self.facts)

    def __repr__(self) -> str:
        return f"<fatpatch.Verdict {self.outcome}: {self._shown}>"

    def __str__(self) -> str:
        return self.report()

    @property
    def outcome(self) -> str:
        """``runs``, ``slow-start``, ``will-not-run``, ``runs-in-part``, ...: the words of the schema fatpatch.doctor/2."""
        return outcome_of(self.facts)

    @property
    def reason(self) -> str:
        """The first line of the report, which says the verdict, the GPU and the driver."""
        return headline(self.facts, self._shown)

    def report(self, *, verbose: bool = False) -> str:
        """The text that ``fatpatch doctor`` prints."""
        lines = doctor_words.report(self.facts, self.remedies, self._shown, readable, self._beside, self._failing, verbose=verbose)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The object that ``fatpatch doctor --format json`` prints for the file (schema fatpatch.doctor/2, "files")."""
        row = doctor_json.file_json(self.facts, self.remedies, self._beside, self._failing, self._shown)
        return plain({**row, "contradicts_name": self.contradicts_name})
