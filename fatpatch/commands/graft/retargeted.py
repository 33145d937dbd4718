"""An image that retarget makes, as an image to graft."""

from __future__ import annotations

from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.gpucode.signature import signature_of
from fatpatch.gpus.marks import MARK
from fatpatch.retargeting.kernels import IDENTICAL
from fatpatch.retargeting.run import Retargeted, RetargetRequest


def donation_of(found: Retargeted, request: RetargetRequest) -> ImageToAdd:
    """The new image as something to graft."""
    assert found.image is not None
    data, kind = found.image, "ptx" if request.as_ptx else "sass"
    origin = f"{found.payload.locator} ({found.source} for {request.target})"
    target = request.target.replace("sm_", "compute_") if request.as_ptx else request.target
    unsure = sum(verdict.taken and verdict.number != IDENTICAL for verdict in found.verdicts)
    mark = f"{MARK} {found.source}" + (f", {unsure} kernels unverified" if unsure else "")
    signature = signature_of(kind, data, options=found.options)
    return ImageToAdd(origin, kind, target, lambda: data, signature, options=found.options, identifier=mark)
