from __future__ import annotations

import pytest
from hostcode.machine_code import dll, elf

from fatpatch.base.source import Source
from fatpatch.hostcode.arch_list import arch_list, arch_lists
from fatpatch.scan.walk import walked

MESSAGE = b"%s:%d: ERROR: CUDA kernel %s has no device code compatible with CUDA arch %d. ggml-cuda.cu was compiled for: %s\n"


def read(constants: bytes, *images: bytes) -> tuple[int, ...] | None:
    with walked(Source.of(elf(b"\xc3", constants)), "host") as node:
        return arch_list(node, images)


def ptx_array(text: bytes) -> bytes:
    return b".global .align 1 .b8 $str[%d] = {" % (len(text) + 1) + b", ".join(b"%d" % byte for byte in text + b"\0") + b"};\n"


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        (b"\x00500,600,700,750,800,900\0", (500, 600, 700, 750, 800, 900)),
        (b"\0USE_GRAPHS\0ARCHS\x00520\0next\0", (520,)),
        (b"\0ARCHS\x00610,700\0" + b"\x00500,600\0", (610, 700)),
        (b"\0_ZN3cub17CUB_200302_520_NS11EmptyKernelIvEEvv\0", (520,)),
        (b"\0_ZN3cub43CUB_300001_SM_750_800_860_890_900_1000_12006detail\0", None),
        (b"\x00520\0", None),
        (b"\x00500,600,\0", None),
        (b"\x00600,500\0", None),
        (b"\x00123,456\0", None),
        (b"\0x500,600\0", None),
        (b"\x00500,600\0\x00500,700\0", None),
        (b"", None),
    ],
)
def test_in_constants(constants: bytes, expected: tuple[int, ...] | None) -> None:
    if b"_SM_" in constants:
        expected = (750, 800, 860, 890, 900, 1000, 1200)
    assert read(constants) == expected


def test_in_images() -> None:
    cubin = b"\x7fELF" + bytes(100) + MESSAGE + b"\0" + b"vec_dot_q8_0_q8_1_impl\0" + b"520\0"
    assert read(b"x", cubin) == (520,)
    assert read(b"x", b"\x7fELF" + bytes(100) + b"520\0") is None
    assert read(b"x", b"\x7fELF\x00520,610,700\0") == (520, 610, 700)
    ptx = b".version 8.4\n.target sm_52\n" + ptx_array(MESSAGE) + ptx_array(b"520,610,700")
    assert read(b"x", ptx) == (520, 610, 700)
    assert read(b"x", b".version 8.4\n" + ptx_array(b"520")) is None
    assert read(b"x", b".version 8.4\n" + ptx_array(MESSAGE) + ptx_array(b"520")) == (520,)


def test_every_list_with_its_place() -> None:
    with walked(Source.of(dll(b"\xc3", b"\0ARCHS\x00750,800\0CUB_200302_750_800_NS\0")), "host") as node:
        found = [(entry.values, entry.where) for entry in arch_lists(node)]
    assert found == [((750, 800), "feature"), ((750, 800), "string"), ((750, 800), "namespace")]


def test_no_host() -> None:
    with walked(Source.of(b"nothing"), "host") as node:
        assert arch_list(node) is None
