"""CSV of ``inspect``: one line an image, or with kernels one line a kernel of an image."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from fatpatch.api.kernels import demangle
from fatpatch.base.words import cell
from fatpatch.model.tree import ImageEntry, Node, Payload

if TYPE_CHECKING:
    from fatpatch.scan.survey import ImageSurvey

IMAGE_COLUMNS = (
    "path", "locator", "vendor", "payload", "section", "kind", "target", "code_version", "compression", "stored_size", "size",
    "offset", "producer", "sha256",
)  # fmt: skip
KERNEL_COLUMNS = (
    "kernel", "demangled", "registers", "shared_bytes", "local_bytes", "constant_bytes", "max_threads", "params", "code_size",
    "agprs", "sgprs", "vgpr_spills", "sgpr_spills", "kernarg_size", "wavefront_size",
)  # fmt: skip


def header(kernels: bool) -> str:
    """The first line."""
    return _line([*IMAGE_COLUMNS, *(KERNEL_COLUMNS if kernels else ())])


def rows(node: Node, payload: Payload, image: ImageEntry, finding: ImageSurvey | None, *, kernels: bool) -> str:
    """The lines of one image; with kernels none for an image without any."""
    version, producer, digest = (None, None, None) if finding is None else (finding.code_version, finding.producer, finding.sha256)
    values: list[object] = [
        node.path, image.locator, payload.vendor, payload.kind, payload.section, image.kind, image.target,
        image.code_version or version,
        image.compression, image.stored_size, image.size, image.offset, producer or image.producer, digest,
    ]  # fmt: skip
    if not kernels:
        return _line(values)
    lines = []
    for name, registers, shared, local, banks, threads, parameters, code, amd in (None if finding is None else finding.rows) or ():
        constant = None if banks is None else dict(banks).get(0, 0)
        described = None if parameters is None else " ".join(f"{offset}:{size}" for offset, size in parameters)
        usage = (None,) * 6 if amd is None else (amd.agprs, amd.sgprs, amd.vgpr_spills, amd.sgpr_spills, amd.kernarg_size, amd.wavefront)
        lines.append(_line([*values, name, demangle(name), registers, shared, local, constant, threads, described, code, *usage]))
    return "".join(lines)


def _line(values: list[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([cell(value) for value in values])
    return buffer.getvalue()
