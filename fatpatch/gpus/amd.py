"""Which code object of a bundle an AMD GPU's runtime loads (source: ROCm clr, comgr and libhsakmt, read; no AMD GPU was asked)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.compatibility import nearest_compatible
from fatpatch.gpus.tables import table
from fatpatch.model.kinds import ImageKind
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry

_OVERRIDE = lazy_pattern(r"(\d{1,2})\.(\d{1,3})\.(\d{1,3})\Z", re.ASCII)
_SPIRV = "amdgcnspirv"
_FOREIGN = frozenset({"openmp", "sycl", "host"})
_USUAL: Final = {"sramecc": "+", "xnack": "-"}
"""How a GPU that can set a feature runs unless its user says otherwise."""


class AmdChoice(NamedTuple):
    """``how``: native, generic, spirv; ``image`` is None when there is nothing that the device can load."""

    image: ImageEntry | None
    how: str
    reason: str


class Override(NamedTuple):
    """A value for HSA_OVERRIDE_GFX_VERSION that can work, the processor that it stands for, and how far it can be trusted."""

    value: str
    target: str
    caution: str
    safe: bool


def overridden(value: str) -> str:
    """The processor that HSA_OVERRIDE_GFX_VERSION=10.3.0 makes of a device: gfx1030. InputError when the runtime refuses the value."""
    found = _OVERRIDE.match(value)
    if found is None or int(found[1]) > 63 or int(found[2]) > 255 or int(found[3]) > 255:
        hint = "three decimal numbers: 10.3.0 for gfx1030, 9.0.10 for gfx90a"
        raise InputError(f"{value[:40]!r} is not a value for HSA_OVERRIDE_GFX_VERSION: the runtime would find no GPU", hint=hint)
    return f"gfx{int(found[1])}{int(found[2]):x}{int(found[3]):x}"


def offered(images: Sequence[ImageEntry]) -> list[ImageEntry]:
    """The entries that HIP's runtime looks at: not those of OpenMP or SYCL, nor bitcode."""
    return [
        image
        for image in images
        if image.kind in (ImageKind.HSACO, ImageKind.SPIRV) and (image.identifier or "").split("-")[0] not in _FOREIGN
    ]


def choose_object(images: Sequence[ImageEntry], device: str) -> AmdChoice:
    """The first code object for the processor itself, else a generic one, else SPIR-V; features must not contradict the device's."""
    processor = Target(device).processor
    generic = _row(processor).get("generic", "")
    refused = ""
    for wanted, how, why in (
        (processor, "native", "is for this very processor"),
        (generic, "generic", f"is for the family {generic}, which {processor} belongs to; runtimes before ROCm 6.3 do not know such code"),
        (_SPIRV, "spirv", "is compiled at load time, by runtimes that can"),
    ):
        for image in images:
            found = Target(image.target)
            if not wanted or found.processor != wanted:
                continue
            problem = _contradiction(found, Target(device))
            if problem is None:
                return AmdChoice(image, how, f"{image.target} {why}")
            refused += f"; {image.target} is not loaded: {problem}"
    if refused:
        return AmdChoice(None, "none", refused.removeprefix("; "))
    targets = list(dict.fromkeys(image.target for image in images))
    alone = ": each is for its own processor alone" if not any(Target(target).generic for target in targets) else ""
    return AmdChoice(None, "none", f"there is no code object for {processor}, only {', '.join(targets) or 'nothing'}{alone}")


def switch_for(images: Sequence[ImageEntry], device: str) -> str | None:
    """The setting with which a device would load an object for its own processor: HSA_XNACK=1; None when none would do."""
    processor, stated = Target(device).processor, dict(Target(device).features)
    runs = {feature: stated.get(feature, usual) for feature, usual in _USUAL.items()}
    for image in images:
        found = Target(image.target)
        demanded = dict(found.features)
        if found.processor == processor and _row(processor).get("xnack") == "yes":
            differing = [feature for feature, sign in demanded.items() if runs.get(feature, sign) != sign]
            if differing == ["xnack"]:
                return f"HSA_XNACK={int(demanded['xnack'] == '+')}"
    return None


def first_processor(target: str) -> str:
    """The device that a code object is for: its target; of a generic target the first processor of the family, features kept."""
    name, _, features = target.partition(":")
    own = next((row["gfx"] for row in table("amd_targets") if row["generic"] == name), name)
    return f"{own}:{features}" if features else own


def can_set(processor: str, feature: str) -> bool:
    """Whether a processor has a feature that can be on or off; where the tables do not tell, it may have."""
    return feature in _USUAL and _row(processor).get(feature) != "no"


def _contradiction(wanted: Target, device: Target) -> str | None:
    """A feature that an object demands and the device runs otherwise, or does not have."""
    stated = dict(device.features)
    for feature, sign in wanted.features:
        if not can_set(device.processor, feature):
            return f"it demands {feature}{sign}, which {device.split(':')[0]} cannot set"
        runs = stated.get(feature, _USUAL.get(feature, sign))
        if runs != sign:
            return f"it demands {feature}{sign}, and the GPU runs {feature}{runs} unless configured otherwise"
    return None


def override_for(device: str, targets: Sequence[str]) -> Override | None:
    """The value that can make a device load an object that is there; None when none is known to be sane."""
    kin = nearest_compatible(device, targets)
    return None if kin is None else Override(_value(kin.code), kin.code, kin.caution, kin.same)


def _value(processor: str) -> str:
    """``10.3.0`` of gfx1030, ``9.0.10`` of gfx90a: the last two digits are hexadecimal."""
    digits = processor.removeprefix("gfx")
    return f"{int(digits[:-2])}.{int(digits[-2], 16)}.{int(digits[-1], 16)}"


def _row(gfx: str) -> dict[str, str]:
    return next((row for row in table("amd_targets") if row["gfx"] == gfx), {})
