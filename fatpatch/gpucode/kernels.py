"""What the bytes of one image say: kernels, target, producer; by kind of image."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.base.source_bytes import SourceBytes
from fatpatch.gpucode.cubin.kernels import cubin_kernels
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.ptx.read import ptx_kernels, ptx_target, ptx_version
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.model.kinds import ImageKind


class Reading(NamedTuple):
    """One image read whole. ``target`` and ``code_version`` are what its own bytes say, None when they do not."""

    kernels: list[KernelFacts]
    target: str | None
    code_version: str | None
    producer: str | None


def read_image(kind: str, data: bytes | SourceBytes, *, detail: bool = True) -> Reading:
    """Read an image of a kind in WITH_KERNELS; without ``detail`` names and registers suffice. Code objects alone may be ``SourceBytes``.

    FormatError, with the offset in the image, when it is damaged.
    """
    if kind == ImageKind.HSACO:
        from fatpatch.gpucode.code_object.read import read_code_object

        found = read_code_object(data, detail=detail)
        version = found.identity.version
        return Reading(found.kernels, found.target, None if version is None else str(version), found.producer)
    assert isinstance(data, bytes)
    if kind == ImageKind.SASS:
        tables = Tables(data)
        return Reading(cubin_kernels(tables, detail=detail), tables.target(), None, tables.toolkit())
    if kind == ImageKind.SPIRV:
        from fatpatch.gpucode.spirv import read_module

        module = read_module(data)
        return Reading(list(map(KernelFacts, module.entry_points)), None, module.version, None)
    if kind == ImageKind.ZEBIN:
        from fatpatch.gpucode.zebin import read_zebin

        zebin = read_zebin(data)
        return Reading(list(map(KernelFacts, zebin.kernels)), None, " ".join(zebin.devices) or None, None)
    kernels = ptx_kernels(data, detail=detail)
    if detail and kind == ImageKind.PTX:
        from fatpatch.gpucode.ptx.shared import with_shared

        kernels = with_shared(kernels, data)
    return Reading(kernels, ptx_target(data), ptx_version(data), None)
