"""Whatever the bytes: only FatpatchError, and the walk ends."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from builders import archive, bundle, elf, gguf, pe
from builders.cubin import cubin
from builders.fatbin import PTX, concatenated, container, entry, packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fatpatch.base.errors import FatpatchError
from fatpatch.scan.survey import survey
from fatpatch.scan.walk import inspected

FATBIN = container(
    packed(cubin(), "lz4", kind=2, major=1, minor=7), entry(PTX, options=b"-O3"), concatenated([(2, 75, 0x11, cubin()), (1, 75, 0x11, PTX)])
)
SO = elf.shared_object([(".nv_fatbin", FATBIN), (".nvFatBinSegment", elf.wrapper(0x10000 + 0x80))])
SEEDS = {
    "fatbin": FATBIN,
    "elf": SO,
    "pe": pe.dll([(b".nv_fatb", FATBIN), (b".nvFatBi", elf.wrapper(0x180001000))]),
    "coff": pe.coff_object([(".nv_fatbin", FATBIN)]),
    "zip": archive.zip_file([(b"a.so", SO), (b"b.gguf", gguf.model())], method=8, zip64=True),
    "tar": archive.tar_file([("a.so", SO)], gnu_long=True),
    "ar": archive.ar_file([("a_long_member_name.o", SO)]),
    "gguf": gguf.model(),
    "bundle": bundle.plain([("gfx1030", bundle.code_object())]),
    "ccob": bundle.ccob(bundle.plain([("gfx1030", bundle.code_object())]), 3),
    "cubin": cubin(new=True, arch=100),
    "ptx": PTX[:-1],
    "code object": bundle.code_object(target="gfx1030", comment=b"clang version 22.1.8"),
    "offload binary": elf.shared_object(
        [(".llvm.offloading", bundle.offload_binary(bundle.code_object(), 1, "amdgcn-amd-amdhsa", "gfx1030"))]
    ),
    "kpack": bundle.kpack({"lib/x.so": {"gfx1030": bundle.code_object()}}, zstd=True),
    "sycl": elf.shared_object([("__CLANG_OFFLOAD_BUNDLE__sycl-spir64", bundle.spirv("one", "two"))]),
}
INTERESTING = (0, 1, 2, 8, 0x40, 0x41, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, 1 << 63, (1 << 64) - 64)


def mutated(seed: bytes, number: int) -> bytes:
    """A reproducible mutation of ``seed``: overwritten fields, cut, doubled or shifted ranges."""
    rng = random.Random(number)
    data = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 400))
        what = rng.randrange(5)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTERESTING) & ((1 << 8 * width) - 1)
            data[at : at + width] = value.to_bytes(width, "little")
        elif what == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif what == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        else:
            del data[at:]
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def check(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        with inspected(str(path)) as node:
            for _ in survey([node], limit=1 << 24, jobs=1, digest=True):
                pass
    except FatpatchError:
        pass


@pytest.mark.parametrize("name", SEEDS)
def test_ten_thousand_mutations(tmp_path: Path, name: str) -> None:
    for number in range(10_000 // len(SEEDS) + 1):
        try:
            check(tmp_path / "x", mutated(SEEDS[name], number))
        except Exception as error:
            pytest.fail(f"{name}, mutation {number}: {type(error).__name__}: {error}")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), magic=st.sampled_from([b"", *(seed[:24] for seed in SEEDS.values())]))
def test_arbitrary_bytes(tmp_path: Path, data: bytes, magic: bytes) -> None:
    check(tmp_path / "x", magic + data)
