"""Which AMD processors run code that was made for another one, and what is known of that.

Sources: LLVM's generic targets (AMDGPU usage: a generic target without restrictions means that all its processors have the same
instructions) and the supersets that its processor table names. Nothing here was tried on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.tables import table
from fatpatch.model.target import Target

_SAME: Final = frozenset({"gfx10-3-generic", "gfx12-generic"})
_MORE: Final = (  # code for a processor, devices, what to say of them with that code
    ("gfx1100", ("gfx1101",), "often done, not guaranteed: it has as many registers as gfx1100, but other hazards"),
    ("gfx1100", ("gfx1102", "gfx1103"), "often done, not guaranteed: gfx1100 code may use more registers than it has"),
    ("gfx1100", ("gfx1150", "gfx1151", "gfx1152", "gfx1153"), "often done, not guaranteed: a later revision with other hazards"),
    ("gfx1010", ("gfx1011", "gfx1012", "gfx1013"), "plausible, not guaranteed: it has all instructions of gfx1010 and more"),
    ("gfx900", ("gfx902", "gfx90c"), "plausible, not guaranteed: it has all instructions of gfx900 and more"),
)


class Compatibility(NamedTuple):
    """How far a device can be trusted with code for ``code``: ``same`` when it has the very instructions; ``caution`` in words."""

    code: str
    same: bool
    caution: str


def compatibility(code: str, device: str) -> Compatibility | None:
    """What is known of a device (gfx1031) with code for another processor (gfx1030); None when nothing speaks for it."""
    code, device = Target(code).processor, Target(device).processor
    family = _generic(code)
    if family in _SAME and family == _generic(device) and code != device:
        return Compatibility(code, True, f"it has the same instructions as {code}")
    found = (caution for made_for, devices, caution in _MORE if made_for == code and device in devices)
    return next((Compatibility(code, False, caution) for caution in found), None)


def nearest_compatible(device: str, targets: Sequence[str]) -> Compatibility | None:
    """The kin of a device among the targets that there are: one with the same instructions if any, else one that may do."""
    found = [kin for target in sorted(dict.fromkeys(targets)) if (kin := compatibility(target, device)) is not None]
    return min(found, key=lambda kin: not kin.same, default=None)


def _generic(processor: str) -> str:
    return next((row["generic"] for row in table("amd_targets") if row["gfx"] == processor), "")
