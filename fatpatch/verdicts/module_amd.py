"""The verdict on one AMD module: the object that the runtime chooses, and what its loader then says of it.

Sources: ROCm's clr, comgr and ROCr (reference: HIP load rules). No AMD GPU was asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.gpucode.code_object.target import CodeObjectHeader
from fatpatch.gpus.amd import choose_object, offered
from fatpatch.model.kinds import ContainerKind, ImageKind, ModuleKind
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader
from fatpatch.verdicts.load_result import NO_IMAGE
from fatpatch.verdicts.module import COMPATIBLE, FAILS, JIT, NATIVE, ModuleVerdict, verdict_on

_HOW = {"native": NATIVE, "generic": COMPATIBLE, "spirv": JIT}
_FIRST_VERSION, _FIRST_GENERIC = 3, 1


def heard(environment: Environment, nodes: Sequence[Node]) -> Environment:
    """The environment as the files hear it: where all are Windows libraries, HSA_OVERRIDE_GFX_VERSION does nothing."""
    if not environment.pretends or not nodes or any(node.container != ContainerKind.PE for node in nodes):
        return environment
    note = f"HSA_OVERRIDE_GFX_VERSION={environment.hsa_override} does nothing: the runtime of Windows does not look at it"
    device = environment.device._replace(target=environment.own_target or environment.device.target, note=note)
    return environment._replace(device=device, own_target=None, hsa_override=None)


def judge_amd(node: Node, payload: Payload, environment: Environment, reader: FactsReader) -> ModuleVerdict:
    """What a GPU makes of a bundle, of a library in a kernel pack, or of a lone code object."""
    if payload.kind == ModuleKind.KPACK_REFERENCE:
        return _verdict(payload, FAILS, None, None, "its device code is in a separate kernel pack, a file of its own: ask for that one")
    kinds = {image.kind for image in payload.images}
    if kinds and kinds <= {ImageKind.BITCODE}:
        return _verdict(payload, FAILS, None, None, "it is LLVM bitcode that becomes code when the program is linked: ask for the program")
    if payload.images and not offered(payload.images):
        return _verdict(payload, FAILS, None, None, "its code is not of HIP (but of OpenMP, say): another runtime chooses there")
    deaf = environment.pretends and node.container == ContainerKind.PE  # the runtime of Windows does not look at the variable
    device = environment.own_target if deaf and environment.own_target is not None else environment.device.target
    choice = choose_object(offered(payload.images), device)
    image = choice.image
    if image is None:
        why = "Windows does not look at HSA_OVERRIDE_GFX_VERSION, and " if deaf else ""
        return _verdict(payload, FAILS, NO_IMAGE, None, why + choice.reason)
    if image.kind == ImageKind.HSACO:
        identity = reader.identity(node.content, image)
        if identity is None:
            return _verdict(payload, FAILS, None, image, f"{image.target} cannot be read: {reader.problems[image.locator]}")
        if (refusal := _refused(image, identity)) is not None:
            return _verdict(payload, FAILS, NO_IMAGE, image, refusal)
    reason = choice.reason if not environment.pretends or deaf else f"{image.target} is what the GPU is told to be"
    return _verdict(payload, _HOW[choice.how], None, image, reason)


def _refused(image: ImageEntry, identity: CodeObjectHeader) -> str | None:
    """Why the loader refuses the object that the runtime has chosen by its id."""
    if not Target(identity.target).means(image.target) and identity.version != _FIRST_VERSION:
        return f"{image.target} is chosen by its id, but its header says {identity.target}: the loader refuses it"
    if identity.version is not None and identity.version < _FIRST_VERSION:
        return f"{image.target} is of code object version {identity.version}, which runtimes of today refuse"
    if Target(image.target).generic and identity.generic_version < _FIRST_GENERIC:
        return f"{image.target} states no version of the generic target, and the loader wants at least {_FIRST_GENERIC}"
    return None


def _passed_over(image: ImageEntry) -> str:
    """Why an image is not the one that is loaded."""
    if Target(image.target).generic:
        return "for another family, or less fitting"
    return "for another processor or setting" if ":" in image.target else "for another processor"


def _verdict(payload: Payload, verdict: str, error: int | None, image: ImageEntry | None, reason: str) -> ModuleVerdict:
    lost = tuple((each.target, _passed_over(each)) for each in payload.images if each is not image and each.size)
    return verdict_on(payload, verdict, error, image, reason)._replace(lost=tuple(dict.fromkeys(lost)))
