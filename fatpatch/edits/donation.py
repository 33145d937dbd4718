"""What a user gives to a binary: cubins, PTX, fatbins, and the images of another binary. Small facts only: bytes are read when needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fatpatch.coverage import payloads_below
from fatpatch.edits.hashes import rename_hashes
from fatpatch.elf64 import HEADER
from fatpatch.errors import EditError, FatpatchError, FormatError
from fatpatch.formats import numbers as n
from fatpatch.images.cubin import identify
from fatpatch.images.ptx import looks_like_ptx
from fatpatch.images.signature import Signature, signature_of, split_target
from fatpatch.locator import join
from fatpatch.model import Image, Node
from fatpatch.payloads.content import ImageReader
from fatpatch.source import Source

_64_BIT_ADDRESSES = 0x400
_HINT_CUBIN = "make one with: nvcc -cubin -arch=sm_61 file.cu (or take it out of a binary with 'fatpatch extract')"


class Donation(NamedTuple):
    """One image to put into a module. ``content`` reads its bytes (PTX without its NUL); ``host`` is the kind of file it comes from.

    ``donor`` and ``path`` are the locator and the path of that file.
    """

    origin: str
    kind: str
    target: str
    content: Callable[[], bytes]
    signature: Signature
    options: str | None = None
    identifier: str | None = None
    debug: bool = False
    host: str | None = None
    donor: str = ""
    path: str = ""

    @property
    def arch(self) -> int:
        """The SM number."""
        return split_target(self.target)[0]

    def renamed(self, renames: dict[str, str]) -> Donation:
        """The same with module ids replaced (same lengths), and the signature read again."""
        data = rename_hashes(self.content(), renames)
        return self._replace(content=lambda: data, signature=signature_of(self.kind, data, options=self.options))


def cubin_donation(path: str, limit: int) -> Donation:
    """A cubin file. EditError when it is something else, FormatError when it is damaged."""
    name, data = _read(path, limit)
    if data[:4] == n.FATBIN_MAGIC_BYTES:
        raise EditError("is a fatbin, not a cubin", locator=name, hint="give it with --fatbin")
    if data[:2] == b"MZ":
        raise EditError("is a Windows binary, not a cubin", locator=name, hint="a host binary goes to --from")
    if data[:4] != n.ELF_MAGIC:
        raise EditError(f"expected a cubin (7f454c46), got {data[:4].hex() or 'an empty file'}", locator=name, hint=_HINT_CUBIN)
    identity = identify(data)
    if identity is None or identity.machine != n.EM_CUDA:
        machine = "an ELF header cut short" if identity is None else f"machine {identity.machine}"
        raise EditError(
            f"is no cubin: expected e_machine {n.EM_CUDA} (CUDA), got {machine}", locator=name, hint="a host binary goes to --from"
        )
    return _donation(name, "sass", data)


def ptx_donation(path: str, limit: int) -> Donation:
    """A PTX text. EditError when it is something else, or has what a driver's JIT refuses (a BOM, no version, 32 bits)."""
    name, data = _read(path, limit)
    if data.startswith(b"\xef\xbb\xbf"):
        raise EditError("starts with a byte order mark: the driver refuses it (error 218)", locator=name, hint="save it as plain ASCII")
    text = data.rstrip(b"\0")
    if not looks_like_ptx(text[: 1 << 20]) or b"\0" in text:
        raise EditError(
            "expected PTX text that starts with .version", locator=name, hint="make one with: nvcc -ptx -arch=compute_61 file.cu"
        )
    return _donation(name, "ptx", text)


def donations_from(node: Node, targets: Iterable[str], limit: int, *, shown: str) -> list[Donation]:
    """Every image of the targets (all targets when none is named) below ``node``.

    EditError, with what there is, when a target occurs nowhere.
    """
    wanted = tuple(targets)
    if not any(payload.vendor == "nvidia" and payload.images for _, payload in payloads_below(node)):
        raise EditError("holds no CUDA image", locator=shown, hint="'fatpatch inspect' says what it holds")
    images = [(holder, image) for holder, payload in payloads_below(node) for image in payload.images if image.kind in ("sass", "ptx")]
    for target in wanted:
        if not any(image.target == target for _, image in images):
            there = ", ".join(sorted({image.target for _, image in images}, key=_by_arch)) or "no CUDA images"
            raise EditError(f"has no {target} image", locator=shown, hint=f"it has: {there}")
    return [_from_image(holder, image, limit) for holder, image in images if not wanted or image.target in wanted]


def _by_arch(target: str) -> tuple[str, int, str]:
    prefix, _, number = target.partition("_")
    digits = number.rstrip("af")
    return prefix, int(digits) if digits.isdigit() else 0, number


def _from_image(holder: Node, image: Image, limit: int) -> Donation:
    assert holder.source is not None
    source = holder.source

    def content() -> bytes:
        data = ImageReader(source, limit).read(image)
        return data.rstrip(b"\0") if image.kind == "ptx" else data

    try:
        signature = signature_of(image.kind, content(), options=image.options)
    except FatpatchError as error:
        raise EditError(f"cannot be read: {error.message}", locator=image.locator, hint="choose another donor") from error
    debug = bool((image.flags or 0) & n.FLAG_DEBUG)
    donation = Donation(
        image.locator,
        image.kind,
        image.target,
        content,
        signature,
        image.options,
        image.identifier,
        debug,
        holder.container,
        holder.locator,
        holder.path,
    )
    return _checked(donation)


def _donation(name: str, kind: str, data: bytes) -> Donation:
    try:
        signature = signature_of(kind, data)
    except FormatError as error:
        error.locator = error.locator or name
        raise
    if kind == "sass":
        identity = identify(data)
        old = identity is not None and not identity.new_layout
        _, _, _, _, _, phoff, _, _, _, entry_size, count, _, _, _ = HEADER.unpack_from(data)
        if count and phoff + count * entry_size > len(data):
            raise FormatError(
                f"its program headers end at {phoff + count * entry_size:#x}, the cubin at {len(data):#x}", locator=name, field="e_phoff"
            )
        if data[4] != 2 or (old and not int.from_bytes(data[48:52], "little") & _64_BIT_ADDRESSES):
            raise EditError("is a 32-bit cubin; a 64-bit process cannot load it", locator=name, hint="compile with -m64")
    if signature.target is None or signature.version is None:
        raise EditError("names no .version or no .target sm_NN", locator=name, hint="give the PTX as nvcc wrote it")
    return _checked(Donation(name, kind, signature.target, lambda: data, signature))


def _checked(donation: Donation) -> Donation:
    """Refuse what no driver would load."""
    if donation.signature.version is None or donation.signature.target is None:
        raise EditError("names no .version or no .target sm_NN", locator=donation.origin, hint="give another image")
    said = donation.signature.target
    if donation.kind == "sass" and said is not None and said.rstrip("af") != donation.target.rstrip("af"):
        message = f"is labelled {donation.target}, but the cubin is {said}: the driver refuses it (error 300) and tries no other image"
        raise EditError(message, locator=donation.origin, hint="give the cubin that was compiled for the target")
    if donation.signature.address_bits != 64:
        raise EditError(
            f".address_size {donation.signature.address_bits}: drivers compile only 64-bit PTX for today's GPUs (error 218)",
            locator=donation.origin,
            hint="compile with -m64",
        )
    return donation


def _read(path: str, limit: int) -> tuple[str, bytes]:
    source = Source.open(path)
    try:
        name = join("", os.path.basename(path))
        if source.size > limit:
            raise EditError(f"is {source.size:#x} bytes, more than the limit of {limit:#x}", locator=name, hint="raise --max-image-size")
        return name, source.read(0, source.size)
    finally:
        source.close()
