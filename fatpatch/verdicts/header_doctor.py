"""The verdict on a file by the headers of its images alone: which image loads, not whether its kernels work.

Nothing is unpacked, so that a tree whose bytes are gone can be judged for any GPU and driver. What only bytes show is not looked at: stub
kernels, kernels that an image lacks, damaged images, and what host code launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fatpatch.gpucode.vacant import is_without_kernels
from fatpatch.gpus.amd import choose_object, offered
from fatpatch.gpus.drivers import cuda_of_ptx
from fatpatch.gpus.selection import choose
from fatpatch.gpus.tables import version_key
from fatpatch.model.kinds import HOSTS, Codec, ImageKind, Vendor
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.verdicts.aside import for_linkers
from fatpatch.verdicts.dispatch import HostChecks
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import arch_of
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.load_result import INVALID_IMAGE, JIT_DISABLED, NO_IMAGE, UNSUPPORTED_PTX
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, ModuleVerdict, verdict_on
from fatpatch.verdicts.results import Judged

_HOST: Final = HostChecks(None, (), False, None, "host code is not read")
_TEXTS: Final = frozenset({ImageKind.PTX, ImageKind.RELOCATABLE_PTX})
_HOW: Final = {"native": NATIVE, "generic": COMPATIBLE, "spirv": JIT}


class HeaderDoctor(Doctor):
    """Judges as ``Doctor`` does, by the headers of images."""

    def _judge_nvidia(self, environment: Environment, only: str | None = None) -> list[Judged]:
        return [
            Judged(node, payload, _loaded(node, payload, environment), _HOST)
            for node, payload in self.pairs
            if payload.vendor == Vendor.NVIDIA and only in (None, node.locator)
        ]

    def _judge_amd(self, node: Node, payload: Payload, environment: Environment) -> Judged:
        choice = choose_object(offered(payload.images), environment.device.target)
        found = _HOW[choice.how] if choice.image is not None else FAILS
        error = NO_IMAGE if choice.image is None else None
        return Judged(node, payload, _verdict(payload, found, error, choice.image, choice.reason), _HOST)

    def names(self, node: Node, payload: Payload) -> frozenset[str]:
        """None: no kernel is read."""
        return frozenset()

    def is_hollow(self, node: Node, image: ImageEntry) -> bool:
        """Never, as far as headers tell."""
        return False

    def _links(self, node: Node, modules: Sequence[Judged]) -> tuple[Judged, ...]:
        """Whether the library links at run time is in its code, which is not read: code for linkers beside other code is taken as such."""
        return tuple(for_linkers(modules, links=lambda: True))


def _loaded(node: Node, payload: Payload, environment: Environment) -> ModuleVerdict:
    arch = environment.device.arch
    assert arch is not None
    choice = choose(payload.images, arch, force_ptx=environment.force_ptx, disable_ptx=environment.disable_ptx)
    image, error, reason = choice.image, choice.error, choice.reason
    if is_without_kernels(payload) and node.container in HOSTS:
        return _verdict(payload, EMPTY, None, image, f"{reason}; by its size none of it has a kernel")
    if image is None:
        return _verdict(payload, FAILS, error, None, reason)
    for error, why in _refusals(image, environment):
        return _verdict(payload, FAILS, error, image, f"{reason}, but {why}")
    found = JIT if image.kind in _TEXTS else NATIVE if arch_of(image) == arch else COMPATIBLE
    return _verdict(payload, found, None, image, reason)


def _refusals(image: ImageEntry, environment: Environment) -> Iterator[tuple[int, str]]:
    """What the driver has against the image that it chose, as far as the header tells."""
    driver = environment.driver
    if image.kind in _TEXTS and environment.disable_ptx:
        yield JIT_DISABLED, "the environment forbids to compile it"
    if driver is None:
        return
    if image.compression == Codec.ZSTD and driver.zstd is False:
        yield INVALID_IMAGE, "the driver does not read zstd"
    isa = image.code_version if image.kind in _TEXTS else None
    if isa and driver.ptx and version_key(isa) > version_key(driver.ptx):
        yield UNSUPPORTED_PTX, f"the driver compiles PTX up to {driver.ptx}, and this is {isa}"


def _verdict(payload: Payload, verdict: str, error: int | None, image: ImageEntry | None, reason: str) -> ModuleVerdict:
    versions = [each.code_version for each in payload.images if each.kind == ImageKind.PTX and each.code_version]
    newest = max(versions, key=version_key, default=None)
    toolkit = None if newest is None or payload.wrapper is None else cuda_of_ptx(newest)
    return verdict_on(payload, verdict, error, image, reason)._replace(toolkit=toolkit, vacant=verdict == EMPTY)
