"""Which dead bodies are defects (reference: stubs, sections A and C).

Stubs alone are none: a quarter of the kernels of a healthy library can be stubs that its host never launches. What counts is a device
that gets code compiled for less than it is, and a host that decides by the device. An empty body that is real for later generations
only is how libraries guard code for tensor cores, and counts where the device is of such a generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from fatpatch.gpucode import flow
from fatpatch.gpucode.cubin.bodies import COPIES_AHEAD
from fatpatch.model.kinds import ImageKind
from fatpatch.model.target import Target
from fatpatch.model.tree import Node, Payload
from fatpatch.verdicts.dispatch import DIFFERS, EQUAL, HostChecks
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader, arch_of, is_dead
from fatpatch.verdicts.module import EMPTY, STUB, ModuleVerdict, settle
from fatpatch.verdicts.names import generations_named
from fatpatch.verdicts.nvidias import is_nvidias
from fatpatch.verdicts.quants import needs_capability

_WORKING = (flow.REAL, flow.HAS_TRAP)


def with_stubs(
    node: Node,
    payload: Payload,
    verdict: ModuleVerdict,
    environment: Environment,
    host: HostChecks,
    needed: Mapping[str, str] | None,
    reader: FactsReader,
) -> ModuleVerdict:
    """The verdict with its dead kernels judged. ``needed``: the kernels that a model launches, None when no model is given."""
    if verdict.image is None:
        return settle(verdict)
    printing = _printing(node, verdict, reader)
    dead = [kernel for kernel in verdict.kernels if (is_dead(kernel.body) or kernel.name in printing) and not kernel.defect]
    if not dead:
        return settle(verdict)
    arch, image_arch = environment.device.arch, arch_of(verdict.image)
    assert arch is not None
    agreement = host.agrees(arch, image_arch)
    above = {} if image_arch == arch or agreement == EQUAL else _above(node, payload, image_arch, reader)

    @lru_cache
    def beyond(number: int) -> frozenset[str]:
        return _beyond(node, payload, number, reader)

    judged = {}
    for kernel in dead:
        bodies = above.get(kernel.name, ())
        working = [(target, number) for target, number, body in bodies if body in _WORKING]
        if kernel.body == flow.EMPTY:
            working = [(target, number) for target, number in working if number <= arch or number // 10 == arch // 10]
        if all(number > arch for _, number in working) and any(is_dead(body) and number >= arch for _, number, body in bodies):
            working = []  # dead as well when compiled for this device or a newer one: it is meant
        if working and all(Target(target).suffix and number > arch for target, number in working):
            working = []  # real for the very GPUs that its targets name, and for none of them is the device
        meant = is_nvidias(node.path) or arch in reader.native(node.content, node.payloads)
        if working and meant and all(number > arch for _, number in working):
            working = []  # left out on purpose: cuDNN (RNN_persist_fp below 6.0), and vLLM 0.33, which has code for this very GPU
        first = min((number for _, number, body in bodies if body == flow.REAL), default=0)
        if working and arch < COPIES_AHEAD <= first and kernel.name in beyond(first):
            working = []  # the nearest real body has instructions that the device lacks (torch 2.4.1 below 7.0)
        if working and (said := generations_named(kernel.name)) and min(said) > arch // 10:
            working = []  # its name says that it is for a newer generation
        real = tuple(target for target, _ in working)
        launched = _launched(kernel.name, bodies, host, arch, image_arch)
        broken, note = _decide(image_arch == arch, agreement, launched, bool(real))
        defect = broken and (needed is None or kernel.name in needed)
        note = note if defect or not broken else "the model does not lead to it"
        word = (EMPTY if kernel.body == flow.EMPTY else STUB) if defect else kernel.verdict
        judged[kernel.name] = kernel._replace(verdict=word, defect=defect, broken=broken, real_in=real, note=note)
    defects = [name for name, kernel in judged.items() if kernel.defect]
    messages = reader.messages(node.content, verdict.image, defects) if defects else {}
    shapes = reader.shapes(node.content, verdict.image, defects) if defects else {}
    kernels = tuple(
        judged[kernel.name]._replace(message=messages.get(kernel.name), shape=shapes.get(kernel.name)) if kernel.name in judged else kernel
        for kernel in verdict.kernels
    )
    return settle(verdict._replace(kernels=kernels))


def _printing(node: Node, verdict: ModuleVerdict, reader: FactsReader) -> frozenset[str]:
    """Kernels that call out, store nothing and have a message to print: where another image has a body that works, they are stubs."""
    assert verdict.image is not None
    suspects = [kernel.name for kernel in verdict.kernels if kernel.body == flow.CALL_ONLY]
    return frozenset(reader.messages(node.content, verdict.image, suspects)) if suspects else frozenset()


def _launched(name: str, bodies: Sequence[tuple[str, int, str]], host: HostChecks, arch: int, image_arch: int) -> bool | None:
    """Whether a host of a known family launches the kernel on the device; None when it cannot be told.

    By what is known of the kernel; else by its bodies: it becomes real at a threshold of the host between the last image where it
    is dead and the first where it is not.
    """
    if host.family is None:
        return None
    decides = host.decides_by(arch)
    needed = needs_capability(name, host.family.era)
    if needed is not None:
        return decides >= needed
    real = [number for _, number, body in bodies if body in _WORKING]
    if not real or not host.thresholds:
        return None
    first = min(real) * 10
    last = max([image_arch * 10, *(number * 10 for _, number, body in bodies if is_dead(body) and number * 10 < first)])
    between = [value for value in host.thresholds if last < value <= first]
    if not between:
        return None
    return True if max(between) <= decides else False if min(between) > decides else None


def _decide(exact: bool, agreement: str, launched: bool | None, real: bool) -> tuple[bool, str]:
    """(whether it is a defect, why not)."""
    if exact:
        return False, "compiled for this very GPU: what its host does not launch was left out"
    if agreement == EQUAL:
        return False, "host and image stand on the same side of every threshold: its host does not launch it here"
    if launched is False:
        return False, "its host does not launch it on this GPU"
    if launched and agreement == DIFFERS:
        return True, ""
    if real:
        return True, ""
    return False, "no image of the module that is nearer to this GPU has a real body"


def _beyond(node: Node, payload: Payload, number: int, reader: FactsReader) -> frozenset[str]:
    """The kernels of a module whose body in the SASS for an SM number only GPUs from 8.0 on can have."""
    images = [image for image in payload.images if image.kind == ImageKind.SASS and image.readable and arch_of(image) == number]
    return reader.copies_ahead(node.content, images[0]) if images else frozenset()


def _above(node: Node, payload: Payload, image_arch: int, reader: FactsReader) -> dict[str, tuple[tuple[str, int, str], ...]]:
    """Kernel -> (target, SM number, class of its body) in the images for more than the chosen one."""
    found: dict[str, list[tuple[str, int, str]]] = {}
    for image in payload.images:
        if image.kind in (ImageKind.SASS, ImageKind.PTX) and image.readable and arch_of(image) > image_arch:
            for name, body in reader.facts(node.content, image).bodies.items():
                found.setdefault(name, []).append((image.target, arch_of(image), body))
    return {name: tuple(rows) for name, rows in found.items()}
