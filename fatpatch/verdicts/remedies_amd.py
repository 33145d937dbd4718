"""Remedies for AMD GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.locator import file_name
from fatpatch.base.shell_word import shell_word
from fatpatch.gpus.amd import offered, override_for, switch_for
from fatpatch.gpus.compatibility import Compatibility, nearest_compatible
from fatpatch.model.kinds import ContainerKind, ImageKind, ModuleKind
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry
from fatpatch.verdicts.donors import grafts
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.remedy import Candidate, Remedy
from fatpatch.verdicts.results import GOOD, FileVerdict, Judged

_UNTRIED = "Experimental: no AMD GPU was at hand"
_VARIABLE = "HSA_OVERRIDE_GFX_VERSION"


def amd(doctor: Doctor, found: FileVerdict, shown: str, candidates: Sequence[Candidate]) -> Iterator[Remedy]:
    """Another value for HSA_OVERRIDE_GFX_VERSION where one can work, a copy of an object that fits, another build."""
    device = found.environment.device
    if not found.modules and found.unread:
        return
    if not found.modules:
        yield Remedy("another build", None, None, f"one that holds AMD code for {device.target}")
        yield Remedy(_VARIABLE, None, False, "there is no AMD code in the file that it could lead to")
        return
    if found.verdict in GOOD:
        return
    broken = [module for module in found.modules if module.verdict.verdict not in GOOD]
    if all(module.verdict.cuda_error is None for module in broken):
        return  # where the code is, or what it is, is not known
    if candidates:
        for remedy in grafts(doctor, found, broken, shown, candidates):
            untried = remedy.command is not None
            yield remedy._replace(works=None, why=f"{remedy.why}. {_UNTRIED}") if untried else remedy
    if found.environment.hsa_override is not None:
        yield Remedy(f"another value for {_VARIABLE}", None, None, "leave it out to see which value can work")
        return
    if (setting := _setting(device.target, broken)) is not None:
        why = "an object for this processor is there, for the other setting; on Linux, where hardware and kernel allow it"
        yield Remedy(setting.split("=")[0], f"{setting} PROGRAM", None, why)
    else:
        sound = _common(doctor, [module for module in broken if module.node.container != ContainerKind.PE])
        yield from _override(device.target, broken, sound)
        yield from _retag(device.target, broken, _common(doctor, broken), shown)
    yield Remedy("rebuild from source", f"hipcc --offload-arch={device.target} ...", True, f"compiles code for {device.target} itself")


def _setting(target: str, broken: Sequence[Judged]) -> str | None:
    """The one setting with which all modules would load."""
    found = {switch_for([image for image in module.payload.images if image.kind == ImageKind.HSACO], target) for module in broken}
    return found.pop() if len(found) == 1 else None


def _override(target: str, broken: Sequence[Judged], there: Sequence[str]) -> Iterator[Remedy]:
    """The variable is of Linux, and it must lead to an object in every module that lacks one."""
    linux = [module for module in broken if module.node.container != ContainerKind.PE]
    if not linux:
        yield Remedy(_VARIABLE, None, False, "the runtime of Windows does not look at it")
        return
    advice = override_for(target, there)
    if advice is None:
        yield Remedy(_VARIABLE, None, False, f"the file has no object whose code {target} is known to run")
        return
    windows = "" if len(linux) == len(broken) else ". It does nothing for the Windows libraries"
    why = f"on Linux the runtime then loads {advice.target}; {advice.caution}{windows}"
    yield Remedy(_VARIABLE, f"{_VARIABLE}={advice.value} PROGRAM", None, why)


def _retag(target: str, broken: Sequence[Judged], there: Sequence[str], shown: str) -> Iterator[Remedy]:
    """A copy of a fitting object under the GPU's own name."""
    device = Target(target).processor
    kin = nearest_compatible(device, there)
    if kin is None or not all(module.payload.kind == ModuleKind.OFFLOAD_BUNDLE for module in broken):
        return
    why = f"a copy under the GPU's own name; {kin.caution}. {_UNTRIED}"
    yield Remedy(f"graft the {kin.code} code as {device}", _command(kin, device, shown), None, why)


def _command(kin: Compatibility, device: str, shown: str) -> str:
    place = ["--in-place"] if shown.endswith(".whl") else ["-o", f"fixed-{file_name(shown)}"]
    path = f"./{shown}" if shown.startswith("-") else shown
    force = [] if kin.same else ["--force"]
    return " ".join(map(shell_word, ["fatpatch", "graft", path, "--retag", f"{kin.code}:{device}", *force, *place]))


def _common(doctor: Doctor, modules: Sequence[Judged]) -> list[str]:
    """The processors that every one of the modules has an object for, one that is what its id says."""
    sets = [
        {Target(image.target).processor for image in offered(module.payload.images) if _sound(doctor, module, image)} for module in modules
    ]
    return sorted(set.intersection(*sets)) if sets else []


def _sound(doctor: Doctor, module: Judged, image: ImageEntry) -> bool:
    if image.kind != ImageKind.HSACO or not image.readable or module.node.source is None:
        return False
    identity = doctor.reader.header(module.node.source, image)
    return identity is not None and Target(identity.target).means(image.target)
