"""What an image is for, as one value: ``sm_90a``, ``compute_120f``, ``lto_90``, ``gfx90a:xnack+``, ``gfx11-generic``, ``spir64``."""

from __future__ import annotations

import functools
import re
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.model.kinds import Vendor

SASS, PTX, LTO = "sm", "compute", "lto"
GENERIC: Final = "-generic"
_NVIDIA = lazy_pattern(r"([a-z]+)_(\d{1,9})([af]?)\Z", re.ASCII)
_AMD = lazy_pattern(r"(gfx[0-9a-z-]+)((?::[a-z]+[+-])*)\Z", re.ASCII)
_FEATURE = lazy_pattern(r":([a-z]+)([+-])", re.ASCII)
_PROCESSOR = lazy_pattern(r"gfx([0-9]{1,2}[0-9a-f]{2})(?::|\Z)", re.ASCII)
_FAMILY = lazy_pattern(r"gfx(\d{1,2})(?:-(\d))?-generic", re.ASCII)
_NUMBER = lazy_pattern(r"\d+", re.ASCII)
_NAMED = lazy_pattern(r"(?:sm|compute)_?(\d{2,3}[af]?)|(\d{1,2})\.(\d)", re.ASCII)


class _Parts(NamedTuple):
    form: str
    arch: int | None
    suffix: str
    processor: str
    features: tuple[tuple[str, str], ...]


@functools.lru_cache(1 << 12)
def _parts(text: str) -> _Parts:
    if found := _NVIDIA.match(text):
        return _Parts(found[1], int(found[2]), found[3], text, ())
    name, _, rest = text.partition(":")
    return _Parts("gfx" if text.startswith("gfx") else "", None, "", name, tuple(_FEATURE.findall(f":{rest}")) if rest else ())


class Target(str):
    """A target that answers for its parts. Text of no known form is a target of which only the name is known."""

    __slots__ = ()

    @property
    def form(self) -> str:
        """``sm``, ``compute``, ``lto`` or what else NVIDIA's name begins with; ``gfx``; empty for anything else."""
        return _parts(self).form

    @property
    def arch(self) -> int | None:
        """The SM number: 90 of ``sm_90a``; None for what is not NVIDIA's."""
        return _parts(self).arch

    @property
    def sm(self) -> int | None:
        """The SM number of machine code: None for PTX and the rest."""
        found = _parts(self)
        return found.arch if found.form == SASS else None

    @property
    def suffix(self) -> str:
        """``a`` for one GPU alone, ``f`` for its family, or empty."""
        return _parts(self).suffix

    @property
    def level(self) -> tuple[int, str]:
        """(90, "a") of ``sm_90a`` or ``compute_90a``; ValueError for anything else."""
        found = _parts(self)
        if found.arch is None or found.form not in (SASS, PTX):
            raise ValueError(f"{str(self)!r} is not of the form sm_61, sm_90a or compute_75")
        return found.arch, found.suffix

    @property
    def processor(self) -> str:
        """``gfx90a`` of ``gfx90a:sramecc+:xnack-``; of others the whole."""
        return _parts(self).processor

    @property
    def features(self) -> tuple[tuple[str, str], ...]:
        """(feature, sign) of each setting that an AMD target states."""
        return _parts(self).features

    @property
    def generic(self) -> bool:
        """Whether it is for a family of AMD's processors."""
        return self.processor.endswith(GENERIC)

    @property
    def vendor(self) -> Vendor:
        """Whose GPUs it is of."""
        return Vendor.AMD if self.startswith(("gfx", "amdgcn")) else Vendor.INTEL if self.startswith("spir") else Vendor.NVIDIA

    @property
    def known_form(self) -> bool:
        """Whether it reads as NVIDIA's or AMD's compilers name targets."""
        return _parts(self).form in (SASS, PTX, LTO) or _AMD.match(self) is not None

    def means(self, other: str) -> bool:
        """Whether two targets mean the same: features have no order (``gfx90a:sramecc+:xnack-``)."""
        return self == other or sorted(self.split(":")) == sorted(other.split(":"))


def target_key(target: str) -> tuple[str, int, str]:
    """Sorts sm_61 before sm_100, sm_90 before sm_90a, gfx908 before gfx90a and gfx1030; machine code before intermediate code."""
    if processor := _PROCESSOR.match(target):
        return "gfx", int(processor[1], 16) * 2 + 1, target
    if family := _FAMILY.match(target):
        return "gfx", int(f"{family[1]}{family[2] or 0}0", 16) * 2, target
    number = _NUMBER.search(target)
    prefix = target[: number.start()] if number else target
    return ({"sm_": "0"}.get(prefix, prefix), int(number[0]) if number else 0, target)


def named_target(text: str) -> Target | None:
    """The target of a GPU as a person writes it: ``sm_61``, ``sm61``, ``compute_61``, ``6.1``, ``gfx1031:xnack+``; None for other text."""
    lower = text.lower()
    if found := _NAMED.fullmatch(lower):
        return Target(f"sm_{found[1] or found[2] + found[3]}")
    return Target(lower) if _AMD.match(lower) else None
