"""Dispatch, stubs as defects, linking, compile cost, outcome: rule by rule, on small modules."""

from __future__ import annotations

from typing import Any

import pytest
from builders.fatbin import PTX

from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.hostcode.family import ARCH_LIST, PER_TYPE, Family
from fatpatch.model.tree import Payload, Wrapper
from fatpatch.verdicts.dispatch import DIFFERS, EQUAL, NOT_KNOWN, HostChecks
from fatpatch.verdicts.jit import Cost, estimated, total
from fatpatch.verdicts.linking import linked
from fatpatch.verdicts.module import FAILS, NATIVE, STUB, KernelVerdict, ModuleVerdict, settle
from fatpatch.verdicts.stubs import _decide, _launched

OLD = Family("ggml", PER_TYPE, (), None, None, False)
NEW = Family("ggml", ARCH_LIST, (), (500, 610, 700), None, True)


def host(
    family: Family | None = OLD, thresholds: tuple[int, ...] = (600, 610, 700), arch_list: tuple[int, ...] | None = None
) -> HostChecks:
    return HostChecks(family, thresholds, True, None, "", arch_list)


@pytest.mark.parametrize(
    ("device", "image", "expected"),
    [
        (61, 60, DIFFERS),
        (60, 60, EQUAL),
        (75, 70, EQUAL),
        (86, 70, EQUAL),
        (62, 61, EQUAL),
        (60, 52, DIFFERS),
        (53, 52, EQUAL),
        (61, 52, DIFFERS),
    ],
)
def test_host_and_image_of_2024(device: int, image: int, expected: str) -> None:
    assert host().agrees(device, image) == expected


def _cost_of(text: bytes) -> Cost:
    return estimated(PtxText(text.rstrip(b"\0")))


def test_a_host_that_decides_by_its_list() -> None:
    newer = host(NEW, arch_list=(500, 610, 700))
    assert [newer.decides_by(device) for device in (50, 52, 61, 89, 35)] == [500, 500, 610, 700, -1]
    assert newer.agrees(89, 70) == EQUAL
    assert newer.agrees(61, 52) == DIFFERS
    assert host(NEW, arch_list=(520,)).agrees(90, 52) == EQUAL  # the wheel that holds 5.2 only


def test_an_unknown_host_says_so() -> None:
    assert host(None, ()).agrees(61, 60) == NOT_KNOWN
    assert host(OLD, ()).agrees(61, 60) == NOT_KNOWN


@pytest.mark.parametrize(
    ("exact", "agreement", "launched", "real", "defect"),
    [
        (True, EQUAL, None, True, False),  # compiled for this GPU
        (True, DIFFERS, True, True, False),
        (False, EQUAL, True, True, False),  # the same side of every threshold
        (False, DIFFERS, True, False, True),  # the host launches it, though nobody has a real body
        (False, DIFFERS, False, True, False),
        (False, DIFFERS, None, True, True),
        (False, NOT_KNOWN, None, True, True),  # fail closed: real elsewhere
        (False, NOT_KNOWN, None, False, False),
        (False, NOT_KNOWN, False, True, False),
    ],
)
def test_which_dead_bodies_are_defects(exact: bool, agreement: str, launched: bool | None, real: bool, defect: bool) -> None:
    found, note = _decide(exact, agreement, launched, real)
    assert found == defect
    assert bool(note) != defect


@pytest.mark.parametrize(
    ("name", "bodies", "device", "image", "expected"),
    [
        ("_Z12mul_mat_q8_0ILb1EEvPKvS1_Pfiiiii", [("sm_70", 70, "real")], 61, 60, True),
        ("_Z12mul_mat_q8_0ILb1EEvPKvS1_Pfiiiii", [("sm_61", 61, "real")], 60, 52, False),  # the host of a 6.0 card takes another road
        ("_Z18flash_attn_ext_f16ILi256E", [("sm_70", 70, "real")], 61, 60, False),
        ("other", [("sm_61", 61, "real")], 61, 60, True),  # 610 is the only step between
        ("other", [("sm_70", 70, "real")], 61, 60, None),  # 610 or 700
        ("other", [("sm_61", 61, "stub-trap"), ("sm_70", 70, "real")], 61, 60, False),  # so it was 700
        ("other", [("sm_70", 70, "stub-trap")], 61, 60, None),
        ("other", [], 61, 60, None),
    ],
)
def test_whether_a_host_launches_a_kernel(
    name: str, bodies: list[tuple[str, int, str]], device: int, image: int, expected: bool | None
) -> None:
    assert _launched(name, bodies, host(), device, image) is expected
    assert _launched(name, bodies, host(None, ()), device, image) is None


def module(verdict: str = NATIVE, error: int | None = None, kernels: tuple[KernelVerdict, ...] = (), **fields: Any) -> ModuleVerdict:
    made = ModuleVerdict("x", 0, 8, verdict, error, None, None, None, "reason", (), kernels, None, True)
    return made._replace(**fields)


def test_settling() -> None:
    good, stub = KernelVerdict("a", NATIVE, "real"), KernelVerdict("b", STUB, "stub-trap", True)
    missing = KernelVerdict("c", FAILS, "missing", True)
    assert settle(module(kernels=(good,))).verdict == NATIVE
    assert settle(module(kernels=(good, stub))).verdict == STUB
    found = settle(module(kernels=(good, missing)))
    assert (found.verdict, found.cuda_error) == (FAILS, 500)
    assert settle(module(kernels=(stub, missing))).verdict == STUB


def payload(section: str, version: int) -> Payload:
    return Payload(f"x!{section}", "nvidia", "fatbin", section, 0, 8, (), (), Wrapper(version, 0))


PART, WHOLE = payload("__nv_relfatbin", 1), payload(".nv_fatbin", 2)
LACKING = module(FAILS, 209)


def test_relocatable_code() -> None:
    whole = module(kernels=(KernelVerdict("k", NATIVE, "real"),))
    assert [found.verdict for found in linked([(PART, LACKING), (WHOLE, whole)])] == [NATIVE, NATIVE]
    assert [len(found.kernels) for found in linked([(PART, whole), (WHOLE, whole)])] == [0, 1]  # its code runs as part of the whole
    assert [found.verdict for found in linked([(PART, LACKING), (WHOLE, module())])] == [FAILS, NATIVE]  # an empty one holds nothing
    assert [found.verdict for found in linked([(PART, module()), (WHOLE, LACKING)])] == [NATIVE, NATIVE]
    both = linked([(PART, LACKING), (WHOLE, LACKING)])
    assert [(found.verdict, found.cuda_error) for found in both] == [(FAILS, 500), (FAILS, 500)]
    assert "500" in both[0].reason
    refused = linked([(PART, whole), (WHOLE, module(FAILS, 200))])  # the driver has committed to its image: nothing takes its place
    assert [(found.verdict, found.cuda_error) for found in refused] == [(FAILS, 200), (FAILS, 200)]
    plain = payload(".nv_fatbin", 1)
    assert linked([(plain, LACKING)])[0].cuda_error == 209


def test_relocatable_code_that_nothing_links() -> None:
    loose = module(kernels=(KernelVerdict("a", NATIVE, "real"), KernelVerdict("b", NATIVE, "real")), unlinked=(("b", 200),))
    found = settle(linked([(PART, loose)])[0])
    assert (found.verdict, found.cuda_error) == (FAILS, 200)
    assert [kernel.defect for kernel in found.kernels] == [False, True]
    whole = module(kernels=(KernelVerdict("a", NATIVE, "real"),))
    assert settle(linked([(PART, loose), (WHOLE, whole)])[0]).verdict == NATIVE


def test_compile_cost() -> None:
    """By instructions: 1,000 statements cost 82 ms in one kernel and 73 in many; functions without a kernel count, too."""
    head, body = b"x" * 1_000_000, (b".entry" + b"a;" * 1000).ljust(10_000)
    cost = _cost_of(head + body + b"\0")
    assert cost.seconds == pytest.approx(0.0075 + 0.18 * 1.01 + 73e-6 * (25 + 1000 + 1000 * 1000 / 8000))
    assert (cost.text_bytes, cost.cache_bytes) == (1_010_000, 1_504_900)
    assert _cost_of(PTX).seconds == pytest.approx(0.010, abs=0.003)
    assert _cost_of(b"x" * 100).seconds < 0.0076
    functions = b".func f { " + b"add.u32 r, r, r; " * 10_000 + b"}"
    assert _cost_of(functions).seconds > 1
    assert _cost_of(functions.replace(b"add", b"div")).seconds > 10 * _cost_of(functions).seconds
    assert total([cost, cost]).seconds == pytest.approx(2 * cost.seconds)
