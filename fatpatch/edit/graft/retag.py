"""A code object under another processor's name: id, e_flags and metadata, and not one instruction. Only within a family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.errors import EditError, InputError
from fatpatch.base.locator import join
from fatpatch.base.records import NamedTuple
from fatpatch.edit.match import Match, Skipped
from fatpatch.edit.modules import ModuleInHost
from fatpatch.edit.payload.new_image import ImageToAdd, hsaco_image_of
from fatpatch.gpucode.code_object.read import metadata_ranges, read_code_object, tables_of
from fatpatch.gpucode.code_object.target import MACH, identify
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpus.compatibility import compatibility
from fatpatch.gpus.tables import table
from fatpatch.model.kinds import ImageKind
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry

_MACH_AT = 48  # the low byte of e_flags
_KEY = b"\xadamdhsa.target"  # a msgpack string of 13 bytes
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
                raise InputError(f"{text[:60]!r}: {name[:30]!r} is not a known AMD processor", hint=hint)
        if code == device:
            raise InputError(f"{text[:60]!r}: both are the same processor", hint="name the processor of the copies second")
        if compatibility(code, device) is None:
            message = (
                f"nothing known says that {device} runs the instructions of {code}: a wrong one hangs the GPU or computes wrong numbers"
            )
            raise EditError(message, hint=f"compile for {device} and give the object with --hsaco")
        return cls(code, device)


def retagged(data: bytes, device: str, locator: str) -> bytes:
    """A copy of a code object that names ``device``: the low byte of e_flags, and amdhsa.target in the metadata; nothing else.

    FormatError when it is damaged, EditError when the name does not fit in its place.
    """
    before = read_code_object(data)
    code = Target(before.identity.target).processor
    result = bytearray(data)
    result[_MACH_AT] = _CODES[device]
    for at in _noted_targets(data, code):
        if len(code) != len(device):
            raise EditError(f"names {code} in its metadata, and {device} has another length", locator=locator)
        result[at : at + len(device)] = device.encode()
    copy = bytes(result)
    found = read_code_object(copy)
    if found.target != before.identity.target.replace(code, device, 1) or found.kernels != before.kernels:
        raise EditError(f"does not become an object for {device} by another name: it is now read as {found.target}", locator=locator)
    return copy


def _noted_targets(data: bytes, code: str) -> Iterator[int]:
    """Where the metadata names the processor: the value of amdhsa.target, a msgpack string."""
    value = _TRIPLE + code.encode()
    for start, end in metadata_ranges(tables_of(data)):
        at = data.find(_KEY, start, end)
        at = data.find(value, at, at + len(_KEY) + 2 + len(value)) if at >= 0 else -1
        if at >= 0:
            yield at + len(_TRIPLE)


def retag_matches(
    modules: Sequence[ModuleInHost], retag: Retag, limit: int, *, replace: bool, force: bool
) -> tuple[list[Match], list[Skipped], list[str]]:
    """A copy for every module that has an object for the one processor, and none for the other unless that is to be replaced.

    Also the modules that need none, and what to warn of. EditError when there is no such module, or when the device only probably
    runs the code and that was not forced.
    """
    kin = compatibility(retag.code, retag.device)
    assert kin is not None
    matches: list[Match] = []
    skipped: list[Skipped] = []
    for module in modules:
        there = [image.target for image in module.payload.images if _is_for(image, retag.device)]
        for image in module.payload.images:
            if _is_for(image, retag.code):
                new_image = _copied(module, image, retag.device, limit)
                if not replace and any(Target(new_image.target).means(target) for target in there):
                    skipped.append(Skipped(new_image, f"has an object for {retag.device} already"))
                else:
                    matches.append(Match(module, new_image))
    if not matches and skipped:
        hint = "--replace puts the copies in their place"
        raise EditError(f"nothing to retag: every bundle with {retag.code} has an object for {retag.device} already", hint=hint)
    if not matches:
        raise EditError(f"nothing to retag: no bundle holds an object for {retag.code}", hint="'fatpatch inspect' lists what there is")
    caution = f"code for {retag.code} on {retag.device}: {kin.caution}"
    if not kin.same and not force:
        raise EditError(caution, hint="--force makes the copy all the same; try it before you rely on it")
    return matches, skipped, [] if kin.same else [f"forced: {caution}"]


def _is_for(image: ImageEntry, processor: str) -> bool:
    return image.kind == ImageKind.HSACO and image.readable and Target(image.target).processor == processor


def _copied(module: ModuleInHost, image: ImageEntry, device: str, limit: int) -> ImageToAdd:
    source = module.node.content
    locator = join(module.locator, image.target)
    header = identify(ImageReader(source, limit).read(image)[:64]).target
    if not Target(header).means(image.target):
        message = f"is labelled {image.target}, but its header says {header}: no copy of it can be trusted"
        raise EditError(message, locator=locator, hint="compile the object anew")

    def content() -> bytes:
        return retagged(ImageReader(source, limit).read(image), device, locator)

    return hsaco_image_of(locator, content, donor=module.node.locator)
