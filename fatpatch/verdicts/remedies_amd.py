"""Remedies for AMD GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.gpus.amd import override_for
from fatpatch.verdicts.judged import GOOD, FileVerdict
from fatpatch.verdicts.remedy import Remedy


def amd(found: FileVerdict) -> Iterator[Remedy]:
    """Another value for HSA_OVERRIDE_GFX_VERSION where one can work, another build where none can."""
    device = found.environment.device
    targets = [image.target for module in found.modules for image in module.payload.images if image.target.startswith("gfx")]
    if not found.modules and found.unread:
        return
    if not found.modules:
        yield Remedy("another build", None, None, f"one that holds AMD code for {device.target}")
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", None, False, "there is no AMD code in the file that it could lead to")
        return
    if found.verdict in GOOD:
        return
    if found.environment.hsa_override is not None:
        yield Remedy("another value for HSA_OVERRIDE_GFX_VERSION", None, None, "leave it out to see which value can work")
        return
    advice = override_for(device.target, targets)
    if advice is None:
        why = f"no object in the file has the same instructions as {device.target}"
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", None, False, why)
    else:
        why = f"on Linux the runtime then loads {advice.target}: {advice.caution}. On Windows it does nothing"
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", f"HSA_OVERRIDE_GFX_VERSION={advice.value} PROGRAM", None, why)
    yield Remedy("rebuild from source", f"hipcc --offload-arch={device.target} ...", True, f"compiles code for {device.target} itself")
