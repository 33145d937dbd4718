"""The verdict on one of many packages: by headers alone, until a kernel matters."""

from __future__ import annotations

from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.header_doctor import HeaderDoctor
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.module import COMPATIBLE
from fatpatch.verdicts.nvidias import is_nvidias
from fatpatch.verdicts.outcome import works
from fatpatch.verdicts.results import FileVerdict

_READ: Final = 64 << 20
"""Stored bytes of images up to which their kernels are looked at."""


class QuickVerdict(NamedTuple):
    """``by_headers``: no kernel was looked at."""

    found: FileVerdict
    by_headers: bool


def judged_quickly(doctor: Doctor, environment: Environment) -> QuickVerdict:
    """By the headers where all of it loads as it is; by its kernels too where something fails, or where a GPU loads code for another one.

    Code for another GPU is where dead kernels are (stubs): it is read up to 64 MiB of images, and not in NVIDIA's own libraries.
    """
    quick = HeaderDoctor(doctor.node, limit=doctor.limit).judge(environment)
    if not works(quick):
        return QuickVerdict(doctor.judge(environment), by_headers=False)
    doubtful = [each for each in quick.here if each.verdict.verdict == COMPATIBLE and not is_nvidias(each.node.path)]
    size = sum(each.verdict.image.stored_bytes for each in doubtful if each.verdict.image is not None)
    if doubtful and size <= _READ:
        return QuickVerdict(doctor.judge(environment), by_headers=False)
    return QuickVerdict(quick, by_headers=True)
