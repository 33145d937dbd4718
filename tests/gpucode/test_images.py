"""Cubins of both layouts, PTX text, demangling."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.cubin import cubin

from fatpatch.base.errors import FormatError
from fatpatch.gpucode.cubin.tables import Tables, records
from fatpatch.gpucode.demangle import demangle
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.ptx.read import looks_like_ptx, ptx_kernels, ptx_target
from fatpatch.scan.walk import inspected


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"arch": 61}, "sm_61"),
        ({"arch": 61, "flags": 0x3D0D3D}, "sm_61"),  # libcublas sets bit 11 on sm_50 to sm_61: no suffix there
        ({"arch": 90, "accelerated": True}, "sm_90a"),
        ({"arch": 100, "new": True}, "sm_100"),
        ({"arch": 100, "new": True, "accelerated": True}, "sm_100a"),
        ({"arch": 90, "new": True, "compat_a": True}, "sm_90a"),
        ({"arch": 100, "new": True, "arguments": b"-arch sm_100f "}, "sm_100f"),
        ({"arch": 100, "new": True, "arguments": b"-arch sm_90a "}, "sm_100"),
    ],
)
def test_target_of_a_cubin(fields: dict[str, object], target: str) -> None:
    assert Tables(cubin(**fields)).target() == target


@pytest.mark.parametrize("name", ["sm_61", "sm_90a", "sm_100f"])
def test_bare_cubins_say_their_suffix(samples: Path, name: str) -> None:
    with inspected(str(samples / f"kernels.{name}.cubin")) as node:
        image = node.payloads[0].images[0]
    assert (node.container, image.target, image.producer) == ("cubin", name, "CUDA 12.9")


def test_toolkit_of_both_layouts() -> None:
    assert read_image("sass", cubin()).producer == "CUDA 12.9"
    assert read_image("sass", cubin(new=True, arch=100)).producer == "CUDA 13.0"


def test_damaged_cubins_give_format_errors() -> None:
    good = cubin()
    for size in range(0, len(good), 7):
        with pytest.raises(FormatError):
            Tables(good[:size])
    with pytest.raises(FormatError) as caught:
        Tables(cubin(shnum=9999))
    assert caught.value.field == "e_shnum"


def test_records_stop_at_the_first_that_does_not_fit() -> None:
    assert list(records(b"\x03\x1b\xff\x00\x04\x2f\x02\x00ab\x77\x77\x77\x77\x04\x05\x00\x00")) == [(0x1B, b"\xff\0"), (0x2F, b"ab")]


PTX = b"""//
// .entry commented_out()
.version 8.4
.target sm_90a, debug
.address_size 64
.extern .entry declared(.param .u64 a);
.func helper(.param .b32 x) { .reg .pred p; // .entry no
}
.visible .entry _Z1kPfi(
	.param .u64 .ptr .global .align 4 _Z1kPfi_param_0,
	.param .u8 b, /* a comment, with a ) in it */
	.param .align 8 .b8 big[20],
	.param .f64 d
)
.maxntid 64, 2, 1
.minnctapersm 2
{ ret; }
.weak .entry none()
.reqntid 32
{ ret; }
\0"""


def test_ptx_entries() -> None:
    rows = ptx_kernels(PTX)
    assert [row[0] for row in rows] == ["_Z1kPfi", "none"]
    assert rows[0][6] == ((0, 8), (8, 1), (16, 20), (40, 8))
    assert (rows[0][5], rows[1][5], rows[1][6]) == (128, 32, ())
    assert ptx_target(PTX) == "compute_90a"


def test_what_looks_like_ptx() -> None:
    assert looks_like_ptx(b"// made by nobody\n/* x */ .version 7.0\n")
    assert not looks_like_ptx(b"the .version directive")
    assert not looks_like_ptx(b".version 7.0\0binary\1")


def test_bare_ptx(samples: Path) -> None:
    with inspected(str(samples / "kernels.compute_52.ptx")) as node:
        image = node.payloads[0].images[0]
    assert (node.container, image.target, image.code_version) == ("ptx", "compute_52", "8.8")


def test_demangle() -> None:
    assert demangle("_Z1kPfi") == "k(float*, int)"
    assert demangle("plain") is None
    assert demangle("_Zgarbage\x00") is None
    assert demangle("_Z" + "N" * 100_000) is None


def test_demangle_many_substitutions() -> None:
    """Through the child: a harmless name is read, one that doubles sixty times is given up, the next is read again."""
    harmless = "_Z1f1aIiE" + "S_" * 30
    letters = [
        "S_",
        *(f"S{digit}_" for digit in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        *(f"S1{digit}_" for digit in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ]
    hostile = "_Z1f1aIiiE" + "".join(f"S_I{letters[index]}{letters[index]}E" for index in range(1, 60))
    assert demangle(harmless).startswith("f(a<int>, a, a")
    assert demangle(hostile) is None
    assert demangle(harmless + "i") is not None
