"""GPUs by name, target or PCI id: what a user calls a device, and the target that its driver loads code for."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.amd import can_set
from fatpatch.gpus.generations import generation
from fatpatch.gpus.products import DOUBTFUL, Product, alike_numbers, loosely_named, named, nearest, products, with_chip, with_pci_id
from fatpatch.gpus.profiles import own_name
from fatpatch.gpus.tables import table
from fatpatch.gpus.toolkits import known_archs, toolkits_for
from fatpatch.model.kinds import Vendor
from fatpatch.model.target import Target, named_target

__all__ = ["Device", "all_devices", "candidates", "device_of", "family", "find", "generation", "well_known"]

_LONGEST = 200
_SHOWN = 8
_PART = 3  # the rank of names that have more words than the text
_FIRST_SEGMENTS = 3
_SEGMENTS = ("geforce", "workstation", "datacenter", "titan", "jetson", "radeon", "pro", "instinct")
_KNOWN_NAMES = ("Radeon", "Instinct", "GeForce")
_PCI_VENDORS: Final = {"10de": "nvidia", "1002": "amd"}
_CERTAINTY: Final = {
    "pci": "the name is from a community list",
    "build": "the target is from AMD's build scripts only",
}
_ASK_ID: Final[dict[str, str]] = {
    Vendor.NVIDIA: "give the PCI id, such as 10de:1c03; nvidia-smi --query-gpu=pci.device_id --format=csv shows it, or lspci -nn",
    Vendor.AMD: "give the PCI id, such as 1002:73bf, as lspci -nn shows it, or the target that rocminfo shows (gfx1030)",
}


class Device(NamedTuple):
    """One GPU. ``name`` as the driver prints it without the vendor, or "compute capability 6.1" where only a target is known.

    ``target``: sm_61 or gfx1031. ``arch``: the SM number 61, None for AMD. ``segment``: geforce, workstation, datacenter, ...,
    with "laptop" where it is one; empty when not known. ``note``: what is not certain, empty when all is.
    """

    vendor: str
    name: str
    target: str
    arch: int | None
    segment: str
    chip: str | None
    note: str


def find(text: str) -> Device:
    """The GPU that a text means: a name ("1060", "RTX 3060 Laptop"), a target (sm_61, 6.1, gfx1031) or a PCI id (10de:1c03).

    InputError, with candidates in its hint, when the text fits no GPU or several with different targets.
    """
    text = _checked(text)
    if (device := _by_target(text)) is not None:
        return device
    if text.lower() == "auto":
        raise InputError(
            "'auto' stands for the GPUs of this machine, which are not asked here", hint="give a name, or a target such as sm_61"
        )
    if text.lower() in _generations():
        raise InputError(f"{text!r} is a generation, not a GPU", hint=f"'fatpatch gpus {text}' lists its products and targets")
    if (given := _pci_id(text)) is not None:
        return _by_pci_id(*given)
    if found := named(text):
        return _decide(text, [product for rank, product in found if rank == found[0][0]])
    if re.fullmatch(r"[0-9a-fA-F]{4}", text) and (by_id := with_pci_id(text)):
        return device_of(by_id[0])
    if chips := with_chip(text):
        first = chips[0]
        return Device(first.vendor, f"a GPU with chip {text}", first.target, first.arch, "", text, "only the chip was given")
    if (part := own_name(text)) is not None:
        device = find(part[0])
        return device._replace(note="; ".join(filter(None, (part[1], device.note))))
    loose, dropped = loosely_named(text)
    if loose:
        device = _decide(text, [product for rank, product in loose if rank == loose[0][0]])
        return device._replace(note="; ".join(filter(None, (f"the tables have no name with {dropped!r}", device.note))))
    close = alike_numbers(text) or nearest(text)
    hint = f"the nearest names: {_listed(close)}" if close else "fatpatch gpus lists the names that are known"
    raise InputError(f"no GPU named {text!r} is known", hint=f"{hint}; or give the target, such as sm_61 or gfx1030")


def candidates(text: str) -> tuple[Device, ...]:
    """Every GPU that a text may mean, best first: names, a target, a generation, a chip, a PCI id. Empty when none does."""
    text = _checked(text)
    if (device := _by_target(text)) is not None:
        return tuple(device_of(product) for product in products() if product.target == device.target) or (device,)
    if (given := _pci_id(text)) is not None:
        return tuple(device_of(product) for product in with_pci_id(*given))
    ranked = named(text)
    if not ranked and (part := own_name(text)) is not None:
        return candidates(part[0])
    if not ranked or ranked[0][0] >= _PART:
        whole = [product for product in products() if text.lower() == family(product.target).lower()] or with_chip(text)
        if whole:
            return tuple(device_of(product) for product in whole)
    if not ranked and re.fullmatch(r"[0-9a-fA-F]{4}", text):
        return tuple(device_of(product) for product in with_pci_id(text))
    return tuple(device_of(product) for _, product in ranked or loosely_named(text)[0])


@functools.lru_cache(maxsize=1)
def all_devices() -> tuple[Device, ...]:
    """Every GPU of the tables, NVIDIA first, in the order of targets; a name with several targets stands once for each."""
    return tuple(device_of(product) for product in products())


def well_known(devices: Sequence[Device]) -> tuple[str, ...]:
    """The names, those that people know first: one of each segment, certain ones, desktop, GTX and RTX, short, newest."""
    names = sorted(devices, key=lambda device: device.name, reverse=True)
    names.sort(key=lambda device: (bool(device.note), "laptop" in device.segment, "TX " not in device.name, len(device.name)))
    segments = sorted({device.segment for device in names}, key=_place_of_segment)
    first = [next(device.name for device in names if device.segment == segment) for segment in segments]
    return tuple(dict.fromkeys(first[:_FIRST_SEGMENTS] + [device.name for device in names]))


def _generations() -> frozenset[str]:
    return frozenset(family(target).lower() for target in {product.target for product in products()}) - {""}


def _place_of_segment(segment: str) -> tuple[int, str]:
    return (_SEGMENTS.index(segment) if segment in _SEGMENTS else len(_SEGMENTS)), segment


def family(target: str) -> str:
    """The generation of a target: Pascal for sm_61, RDNA2 for gfx1031; empty when it is not known."""
    if (arch := Target(target).sm) is not None:
        return generation(arch)
    return next((row["family"] for row in table("amd_targets") if row["gfx"] == target), "")


def device_of(product: Product) -> Device:
    """A row of the tables as a device."""
    notes = [product.note, _CERTAINTY.get(product.certainty, "")]
    twins = [item for item in _twins(product) if item.target != product.target]
    if twins and product.certainty == DOUBTFUL:
        notes.append(f"the name usually means {_listed(twins)}")
    elif twins:
        rare = " in a community list" if all(item.certainty == DOUBTFUL for item in twins) else ""
        notes.append(f"the same name{rare}: {', '.join(dict.fromkeys(map(_told, twins)))}")
    return Device(
        vendor=product.vendor,
        name=product.name,
        target=product.target,
        arch=product.arch,
        segment=f"{product.segment} laptop" if product.laptop else product.segment,
        chip="/".join(product.chips) or None,
        note="; ".join(filter(None, notes)),
    )


def _checked(text: str) -> str:
    text = " ".join(text.replace("\u00ae", " ").replace("\u2122", " ").split())  # the signs of registered names and trademarks
    if not text or len(text) > _LONGEST:
        raise InputError("a GPU name is missing" if not text else "the GPU name is too long", hint="write for example 'GTX 1060' or sm_61")
    return text


def _by_target(text: str) -> Device | None:
    """``sm_61``, ``compute_61``, ``6.1``, ``gfx1031``; None for other text, InputError for a target that does not exist."""
    found = named_target(text)
    if found is None:
        return None
    if (arch := found.arch) is not None:
        if toolkits_for(found) is None and arch not in _table_archs():
            known = " ".join(f"sm_{arch}" for arch in sorted(known_archs()) if arch >= 50)
            raise InputError(f"no GPU with target {text!r} is known", hint=f"known are {known}")
        if found.suffix and toolkits_for(found) is None:
            raise InputError(f"there is no target {text!r}", hint=f"the GPU is sm_{arch}")
        note = "the name of sm_110 in CUDA 12.8 and 12.9; drivers from 580 on report 11.0" if arch == 101 else ""
        return Device("nvidia", f"compute capability {arch // 10}.{arch % 10}", f"sm_{arch}", arch, "", None, note)
    if found.generic:
        raise InputError(f"{text!r} is a target for several GPUs", hint="give that of one GPU, such as gfx1030")
    if not any(row["gfx"] == found.processor for row in table("amd_targets")):
        known = " ".join(row["gfx"] for row in table("amd_targets"))
        raise InputError(f"no GPU with target {text!r} is known", hint=f"known are {known}")
    if unknown := [name for name, _ in found.features if not can_set(found.processor, name)]:
        raise InputError(f"{found.processor} has no setting {unknown[0]}", hint=f"the GPU is {found.processor}")
    return Device("amd", found, found, None, "", None, "")


def _table_archs() -> set[int]:
    return {product.arch for product in products() if product.arch is not None}


def _pci_id(text: str) -> tuple[str, str | None] | None:
    """The device and vendor of ``10de:1c03``, of nvidia-smi's 0x1C0310DE, of 0x1c03; also within a line of lspci."""
    lower = text.lower()
    if found := re.search(r"\b(10de|1002):([0-9a-f]{4})\b", lower):
        return found[2], _PCI_VENDORS[found[1]]
    if found := re.fullmatch(r"0x([0-9a-f]{4})(10de|1002)?", lower):
        return found[1], _PCI_VENDORS[found[2]] if found[2] else None
    return None


def _by_pci_id(digits: str, vendor: str | None) -> Device:
    found = with_pci_id(digits, vendor)
    if not found:
        raise InputError(f"no GPU with the PCI id {digits} is known", hint="give its name or its target, such as sm_61 or gfx1030")
    product = next((item for item in found if item.name.startswith(_KNOWN_NAMES)), found[0])
    device = device_of(product)
    own = [part for part in (product.note, _CERTAINTY.get(product.certainty, "")) if part]
    return device._replace(note="; ".join(own))  # the id has settled what the name leaves open


def _decide(text: str, found: Sequence[Product]) -> Device:
    """The one device that equally good matches stand for; InputError when they differ in target."""
    certain = [product for product in found if product.certainty != DOUBTFUL]
    targets = {product.target for product in certain}
    if len(targets) == 1:
        return device_of(certain[0])
    ask = _ASK_ID["amd" if all(product.vendor == Vendor.AMD for product in found) else "nvidia"]
    if not certain:
        raise InputError(f"the name {text!r} does not identify the GPU", hint=f"it may be {_listed(found)}; {ask}")
    names = {product.name.lower() for product in certain}
    if len(names) == 1:
        raise InputError(f"several GPUs are called {certain[0].name}", hint=f"{', '.join(map(_told, certain))}: {ask}")
    write = "write the whole name" if len({product.name for product in certain}) == len(certain) else "write the whole name, or " + ask
    raise InputError(f"{text!r} fits GPUs with different targets", hint=f"{_listed(certain)}: {write}")


def _twins(product: Product) -> list[Product]:
    return [item for item in products() if item.words == product.words and item.vendor == product.vendor]


def _listed(found: Sequence[Product]) -> str:
    shown = list(dict.fromkeys(f"{product.name} ({product.target})" for product in found))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _told(product: Product) -> str:
    return f"{product.name} ({product.target}, {'/'.join(product.chips)})" if product.chips else f"{product.name} ({product.target})"
