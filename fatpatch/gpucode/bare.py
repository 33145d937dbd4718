"""Files that are GPU code and nothing else: a cubin, a PTX text, a code object, a fatbin, a bundle."""

from __future__ import annotations

from fatpatch.base.errors import FormatError
from fatpatch.base.locator import join
from fatpatch.base.source import Source
from fatpatch.binfmt.elf.read import machine_of
from fatpatch.formats import numbers as n
from fatpatch.gpucode.bundle import read as offload_bundle
from fatpatch.gpucode.frames import StreamBudget
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ContainerKind, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Payload

_PTX_HEAD = 1 << 16
UNKNOWN_TARGET = "unknown"
_KPACK_VERSIONS = 16
Bare = ContainerKind | ImageKind
"""What a file is that holds GPU code and nothing else; an AMD code object is an ELF file, and named by its image."""

_BY_MACHINE: dict[int, Bare] = {n.EM_CUDA: ContainerKind.CUBIN, n.EM_AMDGPU: ImageKind.HSACO}
BARE_IMAGES = {
    ContainerKind.CUBIN: (ImageKind.SASS, ModuleKind.CUBIN, Vendor.NVIDIA),
    ContainerKind.PTX: (ImageKind.PTX, ModuleKind.PTX, Vendor.NVIDIA),
    ImageKind.HSACO: (ImageKind.HSACO, ModuleKind.CODE_OBJECT, Vendor.AMD),
}


def sniff_bare(source: Source) -> Bare | None:
    """``cubin``, ``hsaco``, ``fatbin``, ``bundle``, ``kpack`` or ``ptx`` when the whole file is one; else None."""
    head = source.peek(0, 64)
    if head[:4] == n.ELF_MAGIC:
        return _BY_MACHINE.get(machine_of(source) or 0)
    if head[:4] == n.FATBIN_MAGIC_BYTES:
        return ContainerKind.FATBIN
    if head[:4] == n.KPACK_MAGIC and int.from_bytes(head[4:8], "little") < _KPACK_VERSIONS:
        return ContainerKind.KPACK
    if (head[:24] == n.BUNDLE_MAGIC or head[:4] == n.CCOB_MAGIC) and offload_bundle.sane(source, 0, source.size, StreamBudget()):
        return ContainerKind.BUNDLE
    if head[:1] not in (b" ", b"\t", b"\r", b"\n", b".", b"/", b"\xef"):
        return None
    from fatpatch.gpucode.ptx.read import looks_like_ptx

    return ContainerKind.PTX if looks_like_ptx(source.peek(0, _PTX_HEAD)) else None


def bare_payload(source: Source, bare: Bare, locator: str, limit: int, diagnostics: Diagnostics) -> Payload:
    """The payload of a bare cubin, PTX or code object: one image that is the whole file."""
    from fatpatch.gpucode.cubin.tables import Tables
    from fatpatch.gpucode.ptx.read import BYTE_ORDER_MARK, ptx_target, ptx_version

    kind, payload_kind, vendor = BARE_IMAGES[bare]
    target, version, producer = UNKNOWN_TARGET, None, None
    readable = source.size <= limit or kind == ImageKind.HSACO  # of which only tables are read
    if not readable:
        message = f"expected at most {limit:#x} bytes, got {source.size:#x}: not looked into"
        diagnostics.error(locator, 0, message, field="size")
    elif kind == ImageKind.PTX:
        head = source.peek(0, _PTX_HEAD)
        target, version = ptx_target(head) or UNKNOWN_TARGET, ptx_version(head)
        if target == UNKNOWN_TARGET:
            diagnostics.error(locator, 0, "expected a .target directive that names an architecture", field=".target")
        if head.startswith(BYTE_ORDER_MARK):
            diagnostics.warning(locator, 0, "begins with a byte order mark, which ptxas refuses", field=".version")
    elif kind == ImageKind.SASS:
        try:
            tables = Tables(source.peek(0, source.size))
            target, producer = tables.target(), tables.toolkit()
            version = "1.8" if tables.identity.new_layout else "1.7"
        except FormatError as error:
            diagnostics.caught(locator, error)
            readable = False
    else:
        from fatpatch.gpucode.code_object.target import identify

        identity = identify(source.peek(0, 64))
        target = identity.target
        version = None if identity.version is None else str(identity.version)
    image = ImageEntry(
        locator=join(locator, target),
        kind=kind,
        target=target,
        code_version=version,
        compression=Codec.NONE,
        stored_size=source.size,
        size=source.size,
        offset=0,
        data_offset=0,
        stored_bytes=source.size,
        producer=producer,
        readable=readable,
    )
    return Payload(
        locator=locator, vendor=vendor, kind=payload_kind, section=None, offset=0, size=source.size, found_by=("file",), images=(image,)
    )
