"""A kernel that is real only above the device, in a library that has code for the device in other modules: it was left out on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry

from fatpatch.gpus.devices import find
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor

STUB, REAL = b"trap;", b".reg .b64 %rd<2>;\nld.param.u64 %rd1, [p];\nst.global.u32 [%rd1], 1;"


def text(arch: int, body: bytes) -> bytes:
    return b".version 8.4\n.target sm_%d\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n%s\nret;\n}\n\0" % (arch, body)


def guarded(real_from: int) -> bytes:
    """A module whose kernel is a trap for 8.0 and works from ``real_from`` on."""
    return container(entry(text(80, STUB), arch=80, options=b""), entry(text(real_from, REAL), arch=real_from, options=b""))


def broken(tmp_path: Path, *modules: bytes, name: str = "lib.so") -> list[str]:
    """The kernels that are called broken on an RTX 3060 (8.6)."""
    path = tmp_path / name
    path.write_bytes(elf.shared_object([(".nv_fatbin", b"".join(module + bytes(-len(module) % 8) for module in modules))]))
    with inspected(str(path)) as node:
        found = Doctor(node, limit=1 << 26).judge(Environment(find("RTX 3060")))
        return [kernel.name for module in found.modules for kernel in module.verdict.kernels if kernel.defect]


@pytest.mark.parametrize(
    ("arch", "defects"),
    [(86, []), (80, ["k"]), (89, ["k"])],
    ids=["a module for this device", "one for a lower device", "one for a higher device"],
)
def test_real_above_the_device_only(tmp_path: Path, arch: int, defects: list[str]) -> None:
    other = container(entry(cubin(arch=arch), kind=2, arch=arch))
    assert broken(tmp_path, guarded(89), other) == defects


def test_an_alarm_that_stays(tmp_path: Path) -> None:
    """Alone, or where the kernel is real for the device itself."""
    assert broken(tmp_path, guarded(89)) == ["k"]
    other = container(entry(cubin(arch=86), kind=2, arch=86))
    with_own = container(entry(text(80, STUB), arch=80, options=b""), entry(text(86, REAL), arch=86, options=b""))
    assert broken(tmp_path, with_own, other) == []  # compute_86 is loaded


def test_nvidias_own_libraries(tmp_path: Path) -> None:
    """cuDNN 8.9 on a GTX 980: RNN_persist_fp is a trap in sm_50 and works from 6.0 on, as its documents say."""
    assert broken(tmp_path, guarded(89), name="libcudnn_adv_infer.so.8") == []
    assert broken(tmp_path, guarded(89), name="libmine.so.8") == ["k"]


LDGSTS, STG, EXIT, NOP = ((opcode | 0x7000).to_bytes(16, "little") for opcode in (0xFAE, 0x986, 0x94D, 0x918))


@pytest.mark.parametrize(
    ("gpu", "body", "defects"),
    [
        ("GTX 1060", LDGSTS + STG + EXIT, []),
        ("GTX 1060", STG + EXIT, ["k"]),
        ("A100", LDGSTS + STG + EXIT, []),
    ],
    ids=["real only with cp.async", "real for any GPU", "where it is real"],
)
def test_a_body_that_the_device_cannot_have(tmp_path: Path, gpu: str, body: bytes, defects: list[str]) -> None:
    """torch 2.4.1 on a GTX 1060: one kernel of CUTLASS is a trap in sm_60, and copies ahead (cp.async, from 8.0 on) where it is real."""
    real = entry(cubin(arch=80, body=(body + NOP * 24)[:0x180]), kind=2, arch=80)
    path = tmp_path / "lib.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(entry(text(60, STUB), arch=60, options=b""), real))]))
    with inspected(str(path)) as node:
        found = Doctor(node, limit=1 << 26).judge(Environment(find(gpu)))
        assert [kernel.name for module in found.modules for kernel in module.verdict.kernels if kernel.defect] == defects
