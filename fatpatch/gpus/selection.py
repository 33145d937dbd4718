"""Which image of one fatbin the driver loads, from entry headers alone.

Measured on an H100 with driver 580 (reference: load rules, section 0); for other devices NVIDIA's published rules: a cubin
runs on the same major from its own minor up (CUDA C++ Programming Guide, binary compatibility), targets with suffix a on
their own device only, with suffix f in their family.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.formats import numbers as n
from fatpatch.model.kinds import Codec, ImageKind
from fatpatch.model.tree import ImageEntry

MEASURED_DEVICE: Final = 90
NO_IMAGE: Final = 209
JIT_DISABLED: Final = 223
UNKNOWN_ERROR: Final = 999

_KIND_16 = 0x10  # no tool of NVIDIA's names it or writes it; the driver looks at it between SASS and PTX
_NEEDS_ARCH = frozenset({"sass", "ptx", "lto"})
_NO_ARCH = (0, 0xFFFFFFFF)
_FIRST_ACCELERATED = 90  # below it a target with suffix a does not exist, nor below 100 one with suffix f
_FIRST_FAMILY = 100
_TEGRA = frozenset({32, 53, 62, 72, 87, 88, 101, 110})  # CUDA GPU pages
_ARCHS = frozenset(
    {10, 11, 12, 13, 20, 21, 30, 32, 35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 88, 89, 90}
    | {100, 101, 103, 107, 110, 120, 121}
)
DEVICES: Final = tuple(sorted(arch for arch in _ARCHS if arch >= 50))
"""The SM numbers of GPUs that a driver of the last years knows."""

_REFUSED: Final = {87: frozenset({80, 86})}
"""Device -> plain machine code of its major that users saw refused there (error 209): jax 40487 and 40492, bitsandbytes 1930 on Orin."""

_FEW = 64
"""Images of a module up to which what is chosen of them is remembered."""
_SUFFIX_RANK = {"a": 0, "f": 1, "": 2}
_NUMBER = lazy_pattern(r"(\d+)([af]?)\Z")


class LoadChoice(NamedTuple):
    """What the driver makes of a fatbin: either ``image`` or ``error`` (a CUresult) is None, never both."""

    image: ImageEntry | None
    error: int | None
    reason: str
    measured: bool


class _Header(NamedTuple):
    """What of an image the choice depends on: the headers of many modules are alike."""

    kind: ImageKind
    kind_code: int | None
    target: str
    flags: int | None
    compression: Codec
    padded: bool
    inside: bool


class _Entry(NamedTuple):
    image: _Header
    arch: int
    suffix: str
    place: int


def choose(images: Sequence[ImageEntry], device: int, *, force_ptx: bool = False, disable_ptx: bool = False) -> LoadChoice:
    """The image that a device (61, 90) loads out of those of one fatbin, in file order, or the error that it ends in.

    ``force_ptx`` stands for CUDA_FORCE_PTX_JIT or CUDA_FORCE_JIT set to anything but 0, ``disable_ptx`` for
    CUDA_DISABLE_PTX_JIT or CUDA_DISABLE_JIT. A payload that turns out to be damaged, or PTX newer than the driver, still
    fails after the choice: the driver never falls back to another image.
    """
    headers = tuple(map(_header, images))
    index, error, reason = (_choice if len(headers) <= _FEW else _chosen)(headers, device, force_ptx, disable_ptx)
    measured = device == MEASURED_DEVICE and not (force_ptx and disable_ptx)
    return LoadChoice(None if index is None else images[index], error, reason, measured)


_Choice = tuple[int | None, int | None, str]
"""Which of the images, or the error, and why."""


def _chosen(headers: tuple[_Header, ...], device: int, force_ptx: bool, disable_ptx: bool) -> _Choice:
    """``choose`` by what the choice depends on."""
    entries = [_Entry(header, *_number(header.target), index) for index, header in enumerate(headers) if not header.inside]
    index, error, reason = _pick(entries, device, force_ptx, disable_ptx)
    if index is None and error == NO_IMAGE and len(entries) < len(headers):
        reason += "; driver 580 ignores concatenated entries (kind 0x100), a newer driver may not"
    if index is not None and (fault := _unpack_fault(headers[index])) is not None:
        return None, UNKNOWN_ERROR, f"{headers[index].target} is chosen, but {fault}"
    return index, error, reason


_choice = functools.lru_cache(maxsize=1024)(_chosen)


def _header(image: ImageEntry) -> _Header:
    padded = image.stored_bytes != image.stored_size
    return _Header(image.kind, image.kind_code, image.target, image.flags, image.compression, padded, image.within is not None)


def refused(device: int) -> frozenset[int]:
    """Plain machine code of the device's major, below it, that its driver was seen to refuse."""
    return _REFUSED.get(device, frozenset())


def promised(arch: int, device: int) -> bool:
    """Whether NVIDIA guarantees that plain SASS for ``arch`` runs on ``device``.

    Not within Tegra nor between Tegra and desktop parts (CUDA C++ Programming Guide, binary compatibility, note).
    """
    return arch == device or (arch // 10 == device // 10 and arch < device and not {arch, device} & _TEGRA)


def _pick(entries: list[_Entry], device: int, force_ptx: bool, disable_ptx: bool) -> _Choice:
    """The choice in the driver's order: any bad header, SASS, kind 0x10, PTX, relocatable PTX, index, nothing.

    When PTX is demanded the driver does not even look at the headers of machine code, LTO code and kind 0x10 (measured).
    """
    listed = entries
    if force_ptx:
        entries = [
            entry for entry in entries if entry.image.kind not in (ImageKind.SASS, ImageKind.LTO) and entry.image.kind_code != _KIND_16
        ]
    for image, arch, _, _ in entries:
        if arch in _NO_ARCH and (image.kind in _NEEDS_ARCH or image.kind_code == _KIND_16):
            return None, UNKNOWN_ERROR, f"an entry has the SM number {arch:#x}: the driver refuses the whole fatbin"
    if found := [entry for entry in entries if entry.image.kind == ImageKind.SASS and _runs(entry, device)]:
        best = min(found, key=lambda entry: _sass_rank(entry, device))  # the first of equals
        return best.place, None, _sass_reason(best, device)
    if any(image.kind_code == _KIND_16 and arch == device for image, arch, _, _ in entries):
        return None, UNKNOWN_ERROR, f"an entry of kind 0x10 for {_name(device)} is chosen, which the driver cannot load"
    if texts := [entry for entry in entries if entry.image.kind == ImageKind.PTX and _compiles(entry, device)]:
        best = _best_ptx(texts, device)
        if disable_ptx:
            return None, JIT_DISABLED, f"{best.image.target} would have to be compiled, which the environment forbids"
        why = "SASS is ignored, as the environment requests" if force_ptx else f"no SASS for {_name(device)}"
        return best.place, None, f"{best.image.target} is compiled by the driver: {why}"
    if linked := [entry for entry in entries if entry.image.kind == ImageKind.RELOCATABLE_PTX and _compiles(entry, device)]:
        others = f", linked with {len(linked) - 1} more" if len(linked) > 1 else ""
        return linked[0].place, None, f"relocatable {linked[0].image.target} is compiled{others}: there is nothing else"
    if any(entry.image.kind == ImageKind.INDEX for entry in entries):
        return None, UNKNOWN_ERROR, f"nothing for {_name(device)}, and the driver cannot load the index entry"
    return None, NO_IMAGE, _nothing(listed, device, force_ptx)


@functools.lru_cache(maxsize=1024)
def _number(target: str) -> tuple[int, str]:
    """SM number and suffix; -1 for a target without."""
    found = _NUMBER.search(target)
    return (int(found[1]), found[2]) if found else (-1, "")


def _known(arch: int) -> bool:
    """Unknown numbers (1, 9, 91) are skipped; those above the newest in this table are taken to exist."""
    return arch in _ARCHS or arch > max(_ARCHS)


def _runs(entry: _Entry, device: int) -> bool:
    """Whether machine code is usable. The driver looks at the header's number and flags only."""
    arch, suffix = entry.arch, entry.suffix
    if suffix == "a":
        return arch == device
    if suffix == "f":
        return _in_family(arch, device)
    return _known(arch) and arch // 10 == device // 10 and arch <= device and arch not in refused(device)


def _in_family(arch: int, device: int) -> bool:
    """Whether suffix f takes in a device: 100f has 103 and 107, not the Tegra part 101. Below 100 it hides the entry (measured)."""
    return arch >= _FIRST_FAMILY and _known(arch) and promised(arch, device)


def _compiles(entry: _Entry, device: int) -> bool:
    """Whether PTX is usable. Suffix a below 90 is no target of NVIDIA's: there the driver ignores the flag (measured)."""
    arch, suffix = entry.arch, entry.suffix
    if suffix == "f":
        return _in_family(arch, device)
    if suffix == "a" and arch >= _FIRST_ACCELERATED:
        return arch == device
    return _known(arch) and arch <= device


def _sass_rank(entry: _Entry, device: int) -> tuple[bool, int, int, bool]:
    """Sort key, best first: what is promised to run, the highest number, a before f before plain, of plain ones no Mercury flag."""
    image, arch, suffix, _ = entry
    mercury = not suffix and bool((image.flags or 0) & n.FLAG_MERCURY)
    return not promised(arch, device), -arch, _SUFFIX_RANK[suffix], mercury


def _best_ptx(texts: list[_Entry], device: int) -> _Entry:
    """The highest number. Of equals the last when it is the device's own, a first, else the first, flags ignored (measured)."""
    top = max(entry.arch for entry in texts)
    equals = [entry for entry in texts if entry.arch == top]
    if top != device:
        return equals[0]
    for suffix in "af":
        for entry in equals:
            if entry.suffix == suffix:
                return entry
    return equals[-1]


def _unpack_fault(image: _Header) -> str | None:
    """Why a chosen image surely cannot be unpacked (error 999, measured), as far as its header tells."""
    if image.compression != Codec.NONE and (image.flags or 0) & n.FLAG_OBFUSCATED:
        return "it is compressed and flagged as obfuscated"
    if image.kind == ImageKind.PTX and image.compression == Codec.ZLIB and not image.padded:
        return "zlib data of PTX needs at least one byte of padding behind it"
    return None


def _sass_reason(entry: _Entry, device: int) -> str:
    target, arch = entry.image.target, entry.arch
    if arch == device:
        return f"{target} is native SASS for {_name(device)}"
    if promised(arch, device):
        return f"{target} is binary-compatible SASS ({target} on {_name(device)})"
    return f"{target} is SASS for the same major version as {_name(device)}, but NVIDIA guarantees compatibility between desktop GPUs only"


def _order(target: str) -> tuple[bool, int, str]:
    """Machine code before PTX, by number."""
    found = _NUMBER.search(target)
    return target.startswith("compute"), int(found[1]) if found else 0, target


def _nothing(entries: list[_Entry], device: int, force_ptx: bool) -> str:
    only_lto = all(entry.image.kind == ImageKind.LTO for entry in entries)
    return _nothing_among(frozenset(entry.image.target for entry in entries), only_lto, device, force_ptx)


@functools.lru_cache(maxsize=1024)
def _nothing_among(found: frozenset[str], only_lto: bool, device: int, force_ptx: bool) -> str:
    targets = sorted(found, key=_order)
    wanted = "PTX" if force_ptx else "SASS or PTX"
    if targets and only_lto:
        return f"there is only LTO code ({', '.join(targets)}), which the driver does not load"
    if not targets:
        return "there is no plain entry at all"
    shunned = [target for target in targets if target in {f"sm_{arch}" for arch in refused(device)}]
    more = f"; {', '.join(shunned)} was reported to be refused on this board" if shunned else ""
    return f"there is no {wanted} that {_name(device)} can use, only {', '.join(targets)}{more}"


def _name(device: int) -> str:
    return f"{device // 10}.{device % 10}"
