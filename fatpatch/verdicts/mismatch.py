"""Kernels with a body that works, but was compiled for another road than the one that the host takes (reference: llamafile, 1.4).

The host picks launch shapes by the device, or by its list; a body was shaped by its image's target. What differs computes wrong numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from fatpatch.gpucode import flow
from fatpatch.verdicts.dispatch import DIFFERS, HostChecks
from fatpatch.verdicts.facts import arch_of, is_dead
from fatpatch.verdicts.module import ModuleVerdict
from fatpatch.verdicts.quants import VECTOR, needs_capability, role_of, steps_of


def doubtful(verdict: ModuleVerdict, host: HostChecks, arch: int, needed: Mapping[str, str] | None) -> tuple[str, ...]:
    """The kernels that the host may launch in a shape that they were not compiled for; none where the host is not known.

    Where a program marks what it left out by stubs, a mul_mat_vec_q without one is a fallback on purpose.
    """
    if verdict.image is None or host.family is None or host.agrees(arch, arch_of(verdict.image)) != DIFFERS:
        return ()
    decides, compiled = host.decides_by(arch), arch_of(verdict.image) * 10
    marked = any(is_dead(kernel.body) and _is_vector(kernel.name) for kernel in verdict.kernels)
    found = []
    for kernel in verdict.kernels:
        steps = steps_of(kernel.name, host.family.era)
        if kernel.body not in (flow.REAL, flow.HAS_TRAP) or (needed is not None and kernel.name not in needed):
            continue
        if steps is None:
            continue  # by which step its launch is chosen is not known, and that is no evidence
        least = needs_capability(kernel.name, host.family.era)
        same = bisect_right(steps, decides) == bisect_right(steps, compiled)
        if same or (least is not None and decides < least) or (marked and _is_vector(kernel.name)):
            continue
        found.append(kernel.name)
    return tuple(found)


def _is_vector(name: str) -> bool:
    role = role_of(name)
    return role is not None and role.role == VECTOR
