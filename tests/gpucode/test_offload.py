"""Offload binaries, entry sections (rdc, SYCL), kernel packs and the references to them."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
import zstandard
from builders import archive, bundle, elf, pe
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry

from fatpatch.model.tree import Node
from fatpatch.scan.survey import survey
from fatpatch.scan.walk import inspected

OBJECT = bundle.code_object(0x36)
BITCODE = b"BC\xc0\xde" + bytes(60)
RDC = "__CLANG_OFFLOAD_BUNDLE__hip-amdgcn-amd-amdhsa--"


def read(tmp_path: Path, data: bytes, name: str = "x.o") -> tuple[Node, list[list[str]]]:
    path = tmp_path / name
    path.write_bytes(data)
    with inspected(str(path)) as node:
        return node, [[row[0] for row in finding.rows or ()] for _, finding in survey([node], limit=1 << 24, jobs=1)]


def images(node: Node) -> list[tuple[str, str, str]]:
    return [(payload.vendor, image.kind, image.target) for payload in node.payloads for image in payload.images]


def test_offload_binaries(tmp_path: Path) -> None:
    fatbin = container(entry(PTX))
    section = b"".join([
        bundle.offload_binary(BITCODE, 2, "amdgcn-amd-amdhsa", "gfx90a:xnack+"),
        bundle.offload_binary(OBJECT, 1, "amdgcn-amd-amdhsa", "gfx1030"),
        bundle.offload_binary(fatbin, 4, "nvptx64-nvidia-cuda", "sm_75"),
        bundle.offload_binary(cubin(), 3, "nvptx64-nvidia-cuda", "sm_75"),
        bundle.offload_binary(PTX, 5, "nvptx64-nvidia-cuda", "sm_75"),
    ])  # fmt: skip
    node, kernels = read(tmp_path, elf.shared_object([(".llvm.offloading", section)]))
    assert images(node) == [
        ("amd", "bitcode", "gfx90a:xnack+"), ("amd", "hsaco", "gfx1030"), ("nvidia", "ptx", "compute_75"), ("nvidia", "sass", "sm_75"),
        ("nvidia", "ptx", "compute_75"),
    ]  # fmt: skip
    assert kernels == [[], ["k"], ["k"], ["k"], ["k"]]
    assert [payload.kind for payload in node.payloads] == ["offload_binary"] * 2 + ["fatbin"] + ["offload_binary"] * 2
    assert not node.diagnostics


def test_offload_binary_elsewhere_and_of_another_version(tmp_path: Path) -> None:
    data = bundle.offload_binary(OBJECT, 1, "amdgcn-amd-amdhsa", "gfx1030")
    node, _ = read(tmp_path, elf.shared_object([(".rodata", b"\1" * 8 + data)]))
    assert [(payload.kind, payload.found_by) for payload in node.payloads] == [("offload_binary", ("magic",))]
    newer = bundle.offload_binary(OBJECT, 1, "amdgcn-amd-amdhsa", "gfx1030", version=9)
    node, _ = read(tmp_path, elf.shared_object([(".llvm.offloading", newer + data)]))
    assert [item.field for item in node.diagnostics] == ["offload binary version"]
    assert [len(payload.images) for payload in node.payloads] == [0, 1], "the next one is read"


@pytest.mark.parametrize(
    ("at", "value", "field"), [(8, 1 << 40, "offload binary size"), (16, 1 << 20, "entry offset"), (64, 1 << 30, "image size")]
)
def test_damaged_offload_binary(tmp_path: Path, at: int, value: int, field: str) -> None:
    data = bytearray(bundle.offload_binary(OBJECT, 1, "amdgcn-amd-amdhsa", "gfx1030"))
    data[at : at + 8] = value.to_bytes(8, "little")
    node, _ = read(tmp_path, elf.shared_object([(".llvm.offloading", bytes(data))]))
    assert [item.field for item in node.diagnostics] == [field]


@pytest.mark.parametrize("form", ["elf", "coff"])
def test_relocatable_hip_object(tmp_path: Path, form: str) -> None:
    sections = [(f"{RDC}gfx906", BITCODE), (f"{RDC}gfx90a:xnack-", BITCODE), ("__CLANG_OFFLOAD_BUNDLE__host-x86_64-pc-linux-gnu-", b"\0")]
    node, kernels = read(tmp_path, elf.shared_object(sections) if form == "elf" else pe.coff_object(sections))
    assert images(node) == [("amd", "bitcode", "gfx906"), ("amd", "bitcode", "gfx90a:xnack-")]
    assert kernels == [[], []]
    assert not node.diagnostics


def zebins() -> bytes:
    one = elf.shared_object([(".text.kernel_one", b"\1" * 64), (".text.kernel_two", b"\1" * 64)], machine=205)
    return archive.ar_file([("pad_0", b""), ("64.12.60.7", one), ("64.20.1.4", one)])


@pytest.mark.parametrize("compressed", [False, True])
def test_sycl_sections(tmp_path: Path, compressed: bool) -> None:
    pack = zstandard.compress if compressed else bytes
    spirv = pack(bundle.spirv("first", "second"))
    others = spirv + bytes(-len(spirv) % 16) + pack(bundle.spirv("third")) if compressed else spirv
    sections = [("__CLANG_OFFLOAD_BUNDLE__sycl-spir64_gen", pack(zebins())), ("__CLANG_OFFLOAD_BUNDLE__sycl-spir64", others)]
    node, kernels = read(tmp_path, elf.shared_object(sections), "x.so")
    more = [("intel", "spirv", "spir64")] if compressed else []
    assert images(node) == [("intel", "zebin", "spir64_gen"), ("intel", "spirv", "spir64"), *more]
    assert kernels == [["kernel_one", "kernel_two"], ["first", "second"], *([["third"]] if compressed else [])]
    assert node.payloads[1].images[0].code_version == "1.4"
    assert not node.diagnostics


def test_sycl_in_a_windows_image(tmp_path: Path) -> None:
    """Eight characters of the section's name are left; each zstd frame tells what it holds."""
    both = b"".join(data + bytes(-len(data) % 16) for data in (zstandard.compress(bundle.spirv("one")), zstandard.compress(zebins())))
    node, kernels = read(tmp_path, pe.dll([(b"__CLANG_", both)]), "x.dll")
    assert images(node) == [("intel", "spirv", "spir64"), ("intel", "zebin", "spir64_gen")]
    assert kernels == [["one"], ["kernel_one", "kernel_two"]]


@pytest.mark.parametrize("zstd", [False, True])
def test_kernel_pack(tmp_path: Path, zstd: bool) -> None:
    objects = {"lib/libone.so": {"gfx1030": OBJECT, "gfx1031": bundle.code_object(0x37, ("a", "b"))}, "bin/two": {"gfx1030": OBJECT}}
    node, kernels = read(tmp_path, bundle.kpack(objects, zstd=zstd), "test.kpack")
    assert node.container == "kpack"
    assert [payload.locator for payload in node.payloads] == ["test.kpack!lib/libone.so", "test.kpack!bin/two"]
    assert [image.target for payload in node.payloads for image in payload.images] == ["gfx1030", "gfx1031", "gfx1030"]
    assert kernels == [["k"], ["a", "b"], ["k"]]
    assert not node.diagnostics


@pytest.mark.parametrize(
    ("at", "data", "field"), [(4, b"\2", "kpack version"), (8, b"\xff\xff\xff", "toc_offset"), (-3, b"\xc1\xc1\xc1", "table of contents")]
)
def test_damaged_kernel_pack(tmp_path: Path, at: int, data: bytes, field: str) -> None:
    pack = bytearray(bundle.kpack({"x": {"gfx1030": OBJECT}}))
    pack[at : at + len(data) or None] = data
    node, _ = read(tmp_path, bytes(pack), "x.kpack")
    assert [item.field for item in node.diagnostics] == [field]


def test_split_library_names_its_pack(tmp_path: Path) -> None:
    reference = msgpack.packb({"kernel_name": "lib/libx.so", "kpack_search_paths": ["../.kpack/blas_@GFXARCH@.kpack"]})

    def built(address: int) -> bytes:
        return elf.shared_object([(".rocm_kpack_ref", reference), (".hipFatBinSegment", bundle.wrapper(address, 0x4B504948))])

    at = built(0).index(reference)
    node, _ = read(tmp_path, built(0x10000 + at), "libx.so")
    assert [(payload.kind, payload.size, payload.images) for payload in node.payloads] == [("kpack_reference", len(reference), ())]
    assert [(item.level, "lib/libx.so: ../.kpack/blas_@GFXARCH@.kpack" in item.message) for item in node.diagnostics] == [("note", True)]
    node, _ = read(tmp_path, built(0x10000 + at + 3), "libx.so")
    assert [item.field for item in node.diagnostics] == ["kpack reference"]


def test_both_makers_in_one_file(tmp_path: Path) -> None:
    amd, nvidia = bundle.plain([("gfx1030", OBJECT)]), container(entry(PTX))
    node, kernels = read(tmp_path, elf.shared_object([(".nv_fatbin", nvidia), (".hip_fatbin", amd)]), "x.so")
    assert images(node) == [("nvidia", "ptx", "compute_75"), ("amd", "hsaco", "gfx1030")]
    assert kernels == [["k"], ["k"]]
