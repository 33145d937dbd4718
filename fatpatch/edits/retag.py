"""A code object under another processor's name: id, e_flags and metadata, and not one instruction. Only within a family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fatpatch.edits.donation import Donation, hsaco_donation_of
from fatpatch.edits.match import Match, Skipped
from fatpatch.edits.modules import Module
from fatpatch.errors import EditError, InputError
from fatpatch.gpus.kinship import kinship
from fatpatch.gpus.tables import table
from fatpatch.images.amdgpu import MACH, identify
from fatpatch.images.hsaco import read_code_object
from fatpatch.locator import join
from fatpatch.model import Image
from fatpatch.payloads.content import ImageReader

_MACH_AT = 48  # the low byte of e_flags
_TRIPLE = b"amdgcn-amd-amdhsa--"
_CODES = {name: code for code, name in MACH.items()}


class Retag(NamedTuple):
    """``code`` is the processor whose objects are copied, ``device`` the one that the copies are for."""

    code: str
    device: str

    @classmethod
    def of(cls, text: str) -> Retag:
        """``gfx1030:gfx1031``. InputError for other text, EditError for processors that do not run each other's code."""
        code, _, device = text.strip().lower().partition(":")
        known = {row["gfx"] for row in table("amd_targets")}
        for name in (code, device):
            if name not in known:
                hint = "write for example gfx1030:gfx1031: the processor of the objects, then that of the copies"
                raise InputError(f"{text[:60]!r}: {name[:30]!r} is no AMD processor that is known here", hint=hint)
        if code == device:
            raise InputError(f"{text[:60]!r}: both are the same processor", hint="name the processor of the copies second")
        if kinship(code, device) is None:
            message = (
                f"nothing known says that {device} runs the instructions of {code}: a wrong one hangs the GPU or computes wrong numbers"
            )
            raise EditError(message, hint=f"compile for {device} and give the object with --hsaco")
        return cls(code, device)


def retagged(data: bytes, device: str, locator: str) -> bytes:
    """A copy of a code object that names ``device``. EditError when its name stands where it cannot be replaced in place."""
    old = identify(data[:64]).target
    code = old.split(":")[0]
    result = bytearray(data)
    result[_MACH_AT] = _CODES[device]
    noted = _TRIPLE + code.encode()
    if len(code) != len(device) and noted in data:
        raise EditError(f"names {code} in its metadata, and {device} has another length", locator=locator)
    at = data.find(noted)
    while at >= 0:
        result[at + len(_TRIPLE) : at + len(noted)] = device.encode()
        at = data.find(noted, at + len(noted))
    copy = bytes(result)
    found, before = read_code_object(copy), read_code_object(data)
    if found.target != old.replace(code, device, 1) or found.kernels != before.kernels:
        raise EditError(f"does not become an object for {device} by another name: it is now read as {found.target}", locator=locator)
    return copy


def retag_matches(
    modules: Sequence[Module], retag: Retag, limit: int, *, replace: bool, force: bool
) -> tuple[list[Match], list[Skipped], list[str]]:
    """A copy for every module that has an object for the one processor, and none for the other unless that is to be replaced.

    Also the modules that need none, and what to warn of. EditError when there is no such module, or when the device only probably
    runs the code and that was not forced.
    """
    kin = kinship(retag.code, retag.device)
    assert kin is not None
    matches: list[Match] = []
    skipped: list[Skipped] = []
    for module in modules:
        image = next((image for image in module.payload.images if _is_for(image, retag.code)), None)
        if image is None:
            continue
        donation = _copied(module, image, retag.device, limit)
        if not replace and any(_is_for(each, retag.device) for each in module.payload.images):
            skipped.append(Skipped(donation, f"has an object for {retag.device} already"))
        else:
            matches.append(Match(module, donation))
    if not matches and skipped:
        hint = "--replace puts the copies in their place"
        raise EditError(f"nothing to retag: every bundle with {retag.code} has an object for {retag.device} already", hint=hint)
    if not matches:
        raise EditError(f"nothing to retag: no bundle holds an object for {retag.code}", hint="'fatpatch inspect' lists what there is")
    caution = f"code for {retag.code} on {retag.device}: {kin.caution}"
    if not kin.same and not force:
        raise EditError(caution, hint="--force makes the copy all the same; try it before you rely on it")
    return matches, skipped, [] if kin.same else [f"forced: {caution}"]


def _is_for(image: Image, processor: str) -> bool:
    return image.kind == "hsaco" and image.readable and image.target.split(":")[0] == processor


def _copied(module: Module, image: Image, device: str, limit: int) -> Donation:
    assert module.node.source is not None
    source = module.node.source
    locator = join(module.locator, image.target)

    def content() -> bytes:
        return retagged(ImageReader(source, limit).read(image), device, locator)

    return hsaco_donation_of(locator, content, donor=module.node.locator)
