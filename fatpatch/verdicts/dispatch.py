"""Whether host and device code agree on what the GPU can do (reference: llamafile, sections 1.4 and 4).

Host code decides by the device's compute capability, or by its list of targets; a body was compiled for its image's. Where a
threshold lies between the two, the host may launch a kernel whose body was left out, or with a shape that it was not compiled for.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.family import ARCH_LIST, MID_2024, PER_TYPE, Family, family
from fatpatch.hostcode.registration import Registration, registered
from fatpatch.hostcode.thresholds import thresholds
from fatpatch.model.tree import Node

EQUAL: Final = "equal"
DIFFERS: Final = "differs"
NOT_KNOWN: Final = "unknown"

_BY_ERA: Final = {
    PER_TYPE: (600, 610, 700),
    MID_2024: (600, 610, 700, 750, 800),
    ARCH_LIST: (530, 600, 610, 700, 750, 800, 890, 900, 1000, 1200),
}
_ALL: Final = (530, 600, 610, 700, 750, 800, 890, 900, 1000, 1200)
_LOWEST: Final = 500


class HostChecks(NamedTuple):
    """What is known of the host code of one file. ``read``: the thresholds stand in its code, else they are those of its era."""

    family: Family | None
    thresholds: tuple[int, ...]
    read: bool
    registration: Registration | None
    reason: str
    arch_list: tuple[int, ...] | None = None

    def decides_by(self, arch: int) -> int:
        """The number that the host compares with its thresholds for a device: 610 for 6.1, or what its list allows; -1 for none."""
        if self.family is None or not self.family.uses_arch_list or not self.arch_list:
            return arch * 10
        return max((number for number in self.arch_list if number <= arch * 10), default=-1)

    def agrees(self, arch: int, image_arch: int) -> str:
        """EQUAL when no threshold lies between what the host decides by and what the image was compiled for."""
        if self.family is None or not self.thresholds:
            return NOT_KNOWN
        mine = bisect_right(self.thresholds, self.decides_by(arch))
        return EQUAL if mine == bisect_right(self.thresholds, image_arch * 10) else DIFFERS


def host_of(node: Node, names: frozenset[str], archs: frozenset[int]) -> HostChecks:
    """Read the host code of one file. ``names``: the kernels of its images; ``archs``: the SM numbers of its images."""
    try:
        known = family(node, names)
        registration = registered(node, names) if names else None
        if known is None:
            return HostChecks(None, (), False, registration, "how its host code chooses kernels is not known to fatpatch")
        found = thresholds(node)
    except FatpatchError as error:
        return HostChecks(None, (), False, None, f"its host code cannot be read: {error.message}")
    usual = _BY_ERA.get(known.era, _ALL)
    values = tuple(sorted({*(value for value in found.values if value >= _LOWEST), *(value for value in found.alone if value in usual)}))
    read = bool(values) and not known.uses_arch_list
    listed = known.arch_list or (tuple(sorted(arch * 10 for arch in archs)) if known.uses_arch_list else None)
    return HostChecks(known, values if read else usual, read, registration, found.reason, listed)
