"""Instructions that older GPUs lack, written with those that they have, within the error that the instruction itself may make.

Each stands for itself, with a test of its numbers; what is not here is left to ptxas to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple


class Rewrite(NamedTuple):
    """``first``: the SM number from which on the instruction exists; ``why``: what the new code may differ by."""

    name: str
    first: int
    pattern: re.Pattern[bytes]
    code: Callable[[re.Match[bytes]], bytes]
    why: str


def _tanh(found: re.Match[bytes]) -> bytes:
    """1 - 2 / (1 + e^2x), and x itself where that would cancel: below 0.03 the two differ by less than 3e-4 of x."""
    guard, result, value = found[1] or b"", found[2], found[3]
    return (
        b"{\n\t.reg .f32 fatpatch_t, fatpatch_m;\n\t.reg .pred fatpatch_p;\n"
        b"\tmul.f32 fatpatch_t, %(x)s, 0f4038AA3B;\n"  # 2 / ln 2
        b"\tex2.approx.ftz.f32 fatpatch_t, fatpatch_t;\n"
        b"\tadd.f32 fatpatch_t, fatpatch_t, 0f3F800000;\n"
        b"\trcp.approx.ftz.f32 fatpatch_t, fatpatch_t;\n"
        b"\tfma.rn.f32 fatpatch_t, fatpatch_t, 0fC0000000, 0f3F800000;\n"
        b"\tabs.f32 fatpatch_m, %(x)s;\n"
        b"\tsetp.lt.f32 fatpatch_p, fatpatch_m, 0f3CF5C28F;\n"
        b"\tselp.f32 fatpatch_t, %(x)s, fatpatch_t, fatpatch_p;\n"
        b"\t%(guard)smov.f32 %(r)s, fatpatch_t;\n\t}"
    ) % {b"x": value, b"r": result, b"guard": guard}


REWRITES: Final = (
    Rewrite(
        "tanh.approx.f32",
        75,
        lazy_pattern(rb"(@!?[\w$%]+\s+)?\btanh\.approx\.f32\s+([\w$%]+)\s*,\s*([\w$%.]+)\s*;"),
        _tanh,
        "written with ex2 and rcp, within the 2^-11 that tanh.approx itself may be off",
    ),
)


def rewritten(body: bytes, arch: int) -> tuple[bytes, tuple[Rewrite, ...]]:
    """A body for an SM number, and what was written otherwise in it."""
    used = []
    if b"fatpatch_" in body:  # its own names would not be its own
        return body, ()
    for rewrite in REWRITES:
        if arch < rewrite.first:
            body, count = rewrite.pattern.subn(rewrite.code, body)
            if count:
                used.append(rewrite)
    return body, tuple(used)
