"""What a user gives to a binary: cubins, PTX, fatbins, code objects, the images of another binary. Bytes are read when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fatpatch.base.errors import EditError, FatpatchError, FormatError
from fatpatch.base.locator import file_name, join
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import header_of
from fatpatch.edit.payload.hashes import rename_hashes
from fatpatch.formats import numbers as n
from fatpatch.gpucode.code_object.read import read_code_object
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.cubin.header import identify
from fatpatch.gpucode.ptx.read import looks_like_ptx
from fatpatch.gpucode.signature import ImageSignature, signature_of
from fatpatch.model.kinds import ImageKind
from fatpatch.model.target import Target, target_key
from fatpatch.model.tree import ImageEntry, Node
from fatpatch.remote.address import shown_address
from fatpatch.remote.opening import open_input
from fatpatch.scan.coverage import payloads_below

_64_BIT_ADDRESSES = 0x400
_KINDS = (ImageKind.SASS, ImageKind.PTX, ImageKind.HSACO)
_FIRST_VERSION = 4
_HINT_HSACO = "make one with: clang -x hip --cuda-device-only --no-gpu-bundle-output --offload-arch=gfx1031 file.hip -o file.hsaco"
_HINT_CUBIN = "make one with: nvcc -cubin -arch=sm_61 file.cu (or take it out of a binary with 'fatpatch extract')"


class ImageToAdd(NamedTuple):
    """One image to put into a module. ``content`` reads its bytes (PTX without its NUL); ``host`` is the kind of file it comes from.

    ``donor`` and ``path`` are the locator and the path of that file.
    """

    origin: str
    kind: str
    target: str
    content: Callable[[], bytes]
    signature: ImageSignature
    options: str | None = None
    identifier: str | None = None
    debug: bool = False
    host: str | None = None
    donor: str = ""
    path: str = ""

    @property
    def vendor(self) -> str:
        """Whose GPUs it is for."""
        return "amd" if self.kind == ImageKind.HSACO else "nvidia"

    @property
    def arch(self) -> int:
        """The SM number of CUDA code."""
        return Target(self.target).level[0]

    def renamed(self, renames: dict[str, str]) -> ImageToAdd:
        """The same with module ids replaced (same lengths), and the signature read again."""
        data = rename_hashes(self.content(), renames)
        return self._replace(content=lambda: data, signature=signature_of(self.kind, data, options=self.options))


def cubin_image(path: str, limit: int) -> ImageToAdd:
    """A cubin file. EditError when it is something else, FormatError when it is damaged."""
    name, data = _read(path, limit)
    if data[:4] == n.FATBIN_MAGIC_BYTES:
        raise EditError("is a fatbin, not a cubin", locator=name, hint="give it with --fatbin")
    if data[:2] == b"MZ":
        raise EditError("is a Windows binary, not a cubin", locator=name, hint="a host binary goes to --from")
    if data[:4] != n.ELF_MAGIC:
        raise EditError(f"expected a cubin (7f454c46), got {data[:4].hex() or 'an empty file'}", locator=name, hint=_HINT_CUBIN)
    identity = identify(data)
    if identity is None or identity.elf.machine != n.EM_CUDA:
        machine = "an ELF header cut short" if identity is None else f"machine {identity.elf.machine}"
        raise EditError(
            f"is not a cubin: expected e_machine {n.EM_CUDA} (CUDA), got {machine}", locator=name, hint="a host binary goes to --from"
        )
    return _image_to_add(name, "sass", data)


def ptx_image(path: str, limit: int) -> ImageToAdd:
    """A PTX text. EditError when it is something else, or has what a driver's JIT refuses (a BOM, no version, 32 bits)."""
    name, data = _read(path, limit)
    if data.startswith(b"\xef\xbb\xbf"):
        raise EditError("starts with a byte order mark: the driver refuses it (error 218)", locator=name, hint="save it as plain ASCII")
    text = data.rstrip(b"\0")
    if not looks_like_ptx(text[: 1 << 20]) or b"\0" in text:
        raise EditError(
            "expected PTX text that starts with .version", locator=name, hint="make one with: nvcc -ptx -arch=compute_61 file.cu"
        )
    return _image_to_add(name, "ptx", text)


def hsaco_image(path: str, limit: int) -> ImageToAdd:
    """A code object file. EditError when it is something else, FormatError when it is damaged."""
    name, data = _read(path, limit)
    if data[:4] in (n.BUNDLE_MAGIC[:4], n.CCOB_MAGIC):
        raise EditError("is a bundle, not a code object", locator=name, hint="give it with --from, and its --target")
    identity = identify(data)
    if data[:4] != n.ELF_MAGIC or identity is None or identity.elf.machine != n.EM_AMDGPU:
        machine = data[:4].hex() or "an empty file"
        if data[:4] == n.ELF_MAGIC and identity is not None:
            machine = f"machine {identity.elf.machine}"
        raise EditError(f"expected a code object (ELF, machine {n.EM_AMDGPU}), got {machine}", locator=name, hint=_HINT_HSACO)
    return hsaco_image_of(name, lambda: data)


def hsaco_image_of(origin: str, content: Callable[[], bytes], *, donor: str = "", path: str = "", host: str | None = None) -> ImageToAdd:
    """A code object whose bytes ``content`` gives. EditError when no runtime of today would load it."""
    data = content()
    try:
        found = read_code_object(data)
        signature = signature_of("hsaco", data)
    except FormatError as error:
        error.locator = error.locator or origin
        raise
    version = found.identity.version
    if version is None or version < _FIRST_VERSION:
        words = "no HSA object" if version is None else f"version {version}"
        raise EditError(f"expected an HSA code object of version 4 or later, got {words}", locator=origin, hint=_HINT_HSACO)
    if found.target != found.identity.target or not found.identity.target.startswith("gfx"):
        raise EditError(f"its header and its metadata name different processors: {found.target}", locator=origin, hint=_HINT_HSACO)
    return ImageToAdd(origin, "hsaco", found.identity.target, content, signature, host=host, donor=donor, path=path)


def images_from(node: Node, targets: Iterable[str], limit: int, *, shown: str) -> list[ImageToAdd]:
    """Every image of the targets (all targets when none is named) below ``node``.

    EditError, with what there is, when a target occurs nowhere.
    """
    wanted = tuple(targets)
    images = [(holder, image) for holder, payload in payloads_below(node) for image in payload.images if image.kind in _KINDS]
    if not images:
        raise EditError("holds no CUDA image and no AMD code object", locator=shown, hint="'fatpatch inspect' says what it holds")
    for target in wanted:
        if not any(image.target == target for _, image in images):
            there = ", ".join(sorted({image.target for _, image in images}, key=target_key))
            raise EditError(f"has no {target} image", locator=shown, hint=f"it has: {there}")
    return [_from_image(holder, image, limit) for holder, image in images if not wanted or image.target in wanted]


def _from_image(holder: Node, image: ImageEntry, limit: int) -> ImageToAdd:
    source = holder.content

    def content() -> bytes:
        data = ImageReader(source, limit).read(image)
        return data.rstrip(b"\0") if image.kind == ImageKind.PTX else data

    if image.kind == ImageKind.HSACO:
        given = hsaco_image_of(image.locator, content, donor=holder.locator, path=holder.path, host=holder.container)
        if not Target(image.target).means(given.target):
            message = f"is labelled {image.target}, but its header says {given.target}: a runtime refuses it"
            raise EditError(message, locator=image.locator, hint="choose another donor")
        return given
    try:
        signature = signature_of(image.kind, content(), options=image.options)
    except FatpatchError as error:
        raise EditError(f"cannot be read: {error.message}", locator=image.locator, hint="choose another donor") from error
    debug = bool((image.flags or 0) & n.FLAG_DEBUG)
    new_image = ImageToAdd(
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
    return _checked(new_image)


def _image_to_add(name: str, kind: str, data: bytes) -> ImageToAdd:
    try:
        signature = signature_of(kind, data)
    except FormatError as error:
        error.locator = error.locator or name
        raise
    if kind == ImageKind.SASS:
        identity = identify(data)
        old = identity is not None and not identity.new_layout
        elf = header_of(data)
        if elf is not None and elf.phnum and elf.segments_end > len(data):
            message = f"its program headers end at {elf.segments_end:#x}, the cubin at {len(data):#x}"
            raise FormatError(message, locator=name, field="e_phoff")
        if data[4] != 2 or (old and not int.from_bytes(data[48:52], "little") & _64_BIT_ADDRESSES):
            raise EditError("is a 32-bit cubin; a 64-bit process cannot load it", locator=name, hint="compile with -m64")
    if signature.target is None or signature.version is None:
        raise EditError("names no .version or no .target sm_NN", locator=name, hint="give the PTX as nvcc wrote it")
    return _checked(ImageToAdd(name, kind, signature.target, lambda: data, signature))


def _checked(new_image: ImageToAdd) -> ImageToAdd:
    """Refuse what no driver would load."""
    if new_image.signature.version is None or new_image.signature.target is None:
        raise EditError("names no .version or no .target sm_NN", locator=new_image.origin, hint="give another image")
    said = new_image.signature.target
    if new_image.kind == ImageKind.SASS and said is not None and said.rstrip("af") != new_image.target.rstrip("af"):
        message = f"is labelled {new_image.target}, but the cubin is {said}: the driver refuses it (error 300) and tries no other image"
        raise EditError(message, locator=new_image.origin, hint="give the cubin that was compiled for the target")
    if new_image.signature.address_bits != 64:
        raise EditError(
            f".address_size {new_image.signature.address_bits}: drivers compile only 64-bit PTX for today's GPUs (error 218)",
            locator=new_image.origin,
            hint="compile with -m64",
        )
    return new_image


def _read(path: str, limit: int) -> tuple[str, bytes]:
    source = open_input(path)
    try:
        name = join("", file_name(shown_address(path)))
        if source.size > limit:
            raise EditError(f"is {source.size:#x} bytes, more than the limit of {limit:#x}", locator=name, hint="raise --max-image-size")
        return name, source.read(0, source.size)
    finally:
        source.close()
