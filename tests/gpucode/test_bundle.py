"""Offload bundles: plain and all CCOB versions, several in one section, stepped over and never searched inside."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard
from builders import bundle, elf, pe

from fatpatch.base.errors import FormatError
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.tree import Node
from fatpatch.scan.survey import survey
from fatpatch.scan.walk import inspected

IMAGES = [("gfx1030", bundle.code_object(0x36)), ("gfx90a:xnack+", bundle.code_object(0x3F | 3 << 8, ("k", "other")))]
PLAIN = bundle.plain(IMAGES)
PLAIN = PLAIN[: PLAIN.rindex(IMAGES[1][1]) + len(IMAGES[1][1])]  # without padding behind the last object


def read(tmp_path: Path, data: bytes, name: str = "x.so") -> Node:
    path = tmp_path / name
    path.write_bytes(data)
    with inspected(str(path)) as node:
        return node


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4096)


@pytest.mark.parametrize("form", ["plain", "v1", "v2", "v3", "v1-zlib", "v2-zlib", "v3-zlib"])
def test_bundles_in_a_section(tmp_path: Path, form: str) -> None:
    data = PLAIN if form == "plain" else bundle.ccob(PLAIN, int(form[1]), 0 if form.endswith("zlib") else 1)
    path = tmp_path / "x.so"
    path.write_bytes(elf.shared_object([(".hip_fatbin", aligned(data) * 2)]))
    with inspected(str(path)) as node:
        assert [payload.kind for payload in node.payloads] == ["offload_bundle"] * 2
        assert [(payload.format, payload.version) for payload in node.payloads] == [
            ("plain", None) if form == "plain" else ("ccob", int(form[1]))
        ] * 2
        assert [image.target for payload in node.payloads for image in payload.images] == ["gfx1030", "gfx90a:xnack+"] * 2
        assert [payload.size for payload in node.payloads] == [len(data)] * 2
        findings = [finding for _, finding in survey([node], limit=1 << 24, jobs=1)]
    assert not node.diagnostics
    assert [[row[0] for row in finding.rows or ()] for finding in findings] == [["k"], ["k", "other"]] * 2
    assert findings[0].rows[0][1:4] == (12, 64, 8)
    assert findings[0].rows[0][6] == ((0, 8),)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_magic_inside_a_payload_is_no_bundle(tmp_path: Path, version: int) -> None:
    """Compressed bytes that happen to hold both magics, and even a whole small bundle, are stepped over."""
    inner = bundle.ccob(bundle.plain([("gfx900", b"\x7fELF" + bytes(60))]), 3)
    raw = zstandard.ZstdCompressor(level=-50).compress(bundle.plain([("gfx1030", inner + b"__CLANG_OFFLOAD_BUNDLE__" + inner)]))
    assert raw.count(b"CCOB") == 2, "stored as literals"
    whole = bundle.plain([("gfx1030", inner + b"__CLANG_OFFLOAD_BUNDLE__" + inner)])
    data = bundle.ccob(whole, version)
    packed = data[: {1: 20, 2: 24, 3: 32}[version]] + raw
    if version == 2:
        packed = packed[:8] + len(packed).to_bytes(4, "little") + packed[12:]
    elif version == 3:
        packed = packed[:8] + len(packed).to_bytes(8, "little") + packed[16:]
    node = read(tmp_path, elf.shared_object([(".hip_fatbin", aligned(packed) + aligned(PLAIN))]))
    assert [(payload.format, len(payload.images)) for payload in node.payloads] == [("ccob", 1), ("plain", 2)]
    assert not node.diagnostics


def test_hash_is_checked(tmp_path: Path) -> None:
    data = bytearray(bundle.ccob(PLAIN, 3))
    data[24] ^= 1
    path = tmp_path / "x.hipfb"
    path.write_bytes(bytes(data))
    with inspected(str(path)) as node:
        assert not node.diagnostics, "listing does not unpack"
        findings = [finding for _, finding in survey([node], limit=1 << 24, jobs=1)]
        with pytest.raises(FormatError) as caught:
            ImageReader(node.source, 1 << 24).read(node.payloads[0].images[0])
    assert caught.value.field == "CCOB hash"
    assert [finding.problem and finding.problem[2] for finding in findings] == ["CCOB hash", None], "told once"
    assert [finding.rows for finding in findings] == [None, None]


def test_magic_that_is_only_a_string(tmp_path: Path) -> None:
    """Compilers hold the magic as text: nothing is listed; in a section for bundles it is damage."""
    text = b"expected __CLANG_OFFLOAD_BUNDLE__ or CCOB\0\1\2\3" + bytes(100)
    node = read(tmp_path, elf.shared_object([(".rodata", text * 3)]))
    assert (node.payloads, node.diagnostics) == ((), ())
    node = read(tmp_path, elf.shared_object([(".hip_fatbin", text)]))
    assert {item.field for item in node.diagnostics} == {"bundle header"}
    odd = (
        b"__CLANG_OFFLOAD_BUNDLE__"
        + (1).to_bytes(8, "little")
        + bytes(16)
        + (20).to_bytes(8, "little")
        + b"Expected a known id "
        + bytes(64)
    )
    assert read(tmp_path, elf.shared_object([(".rodata", odd)])).payloads == ()


@pytest.mark.parametrize("packed", [False, True])
def test_bundles_without_a_section_of_their_own(tmp_path: Path, packed: bool) -> None:
    """Embedded for hipModuleLoadData: only the magic tells."""
    data = bundle.ccob(PLAIN, 2) if packed else PLAIN
    for content in (
        elf.shared_object([(".rodata", b"\1" * 24 + data)]),
        elf.shared_object([(".rodata", b"\1" * 24 + data)], headers=False),
        pe.dll([(b".rdata", b"\1" * 24 + data)]),
    ):
        node = read(tmp_path, content)
        assert [(payload.found_by, len(payload.images)) for payload in node.payloads] == [(("magic",), 2)]


@pytest.mark.parametrize("headers", [True, False])
def test_wrappers_lead_to_bundles(tmp_path: Path, headers: bool) -> None:
    def built(address: int) -> bytes:
        return elf.shared_object([("anything", bytes(64) + PLAIN), (".hipFatBinSegment", bundle.wrapper(address))], headers=headers)

    at = built(0).index(PLAIN)
    node = read(tmp_path, built(0x10000 + at))
    assert [payload.offset for payload in node.payloads] == [at]
    assert node.payloads[0].found_by == ("magic", "wrapper")
    assert node.payloads[0].wrapper.version == 1


def test_wrapper_that_leads_to_no_bundle(tmp_path: Path) -> None:
    node = read(tmp_path, elf.shared_object([(".data", b"\1" * 64), (".hipFatBinSegment", bundle.wrapper(0x10000 + 120))]))
    assert [(item.level, item.field) for item in node.diagnostics] == [("error", "bundle pointer")]


def test_bare_bundle_and_code_object(tmp_path: Path) -> None:
    node = read(tmp_path, bundle.ccob(PLAIN, 3), "x.hipfb")
    assert (node.container, node.payloads[0].format, node.payloads[0].found_by) == ("bundle", "ccob", ("file",))
    node = read(tmp_path, bundle.code_object(0x30 | 3 << 8), "x.hsaco")
    image = node.payloads[0].images[0]
    assert (node.container, image.target, image.code_version) == ("elf", "gfx908:xnack+", "6")


def test_entry_that_reaches_outside(tmp_path: Path) -> None:
    data = bytearray(PLAIN)
    at = data.index(b"hipv4") - 16
    data[at : at + 8] = (1 << 40).to_bytes(8, "little")
    node = read(tmp_path, bytes(data), "x.hipfb")
    assert [item.field for item in node.diagnostics] == ["entry size"]
    assert [image.readable for image in node.payloads[0].images] == [False, True]


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("hipv4-amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-", ("hsaco", "gfx90a:sramecc+:xnack-", "amd")),
        ("hip-amdgcn-amd-amdhsa-gfx906", ("hsaco", "gfx906", "amd")),
        ("hipv4-amdgcn-amd-amdhsa--gfx9-4-generic:xnack+", ("hsaco", "gfx9-4-generic:xnack+", "amd")),
        ("openmp-amdgcn-amd-amdhsa--gfx906", ("hsaco", "gfx906", "amd")),
        ("hip-spirv64-amd-amdhsa--amdgcnspirv", ("spirv", "amdgcnspirv", "amd")),
        ("hipv4-amdgcn-amd-amdhsa--amdgcnspirv", ("spirv", "amdgcnspirv", "amd")),
        ("sycl-spir64_gen-unknown-unknown", ("zebin", "spir64_gen", "intel")),
        ("sycl-spir64", ("spirv", "spir64", "intel")),
        ("openmp-nvptx64-nvidia-cuda--sm_70", ("sass", "sm_70", "nvidia")),
        ("host-x86_64-unknown-linux-gnu-", ("host", "x86_64-unknown-linux-gnu", "amd")),
        ("new-thing", ("unknown", "new-thing", "amd")),
    ],
)
def test_ids(identity: str, expected: tuple[str, str, str]) -> None:
    from fatpatch.gpucode.bundle.read import classify

    assert classify(identity, "amd") == expected
