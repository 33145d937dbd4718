"""Fatbins: every codec and kind, and each row of the table of malformed input."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.cubin import cubin
from builders.fatbin import PTX, concatenated, container, entry, packed

from fatpatch.model.tree import ImageEntry, Node
from fatpatch.scan.survey import ImageSurvey, survey
from fatpatch.scan.walk import inspected

CUBIN = cubin(arch=75)
ZERO = bytes(8)


def read(tmp_path: Path, data: bytes) -> tuple[Node, list[tuple[ImageEntry, ImageSurvey]]]:
    path = tmp_path / "x.fatbin"
    path.write_bytes(data)
    with inspected(str(path)) as node:
        return node, list(survey([node], limit=64 << 20, jobs=1))


def targets(node: Node) -> list[str]:
    return [image.target for payload in node.payloads for image in payload.images]


def elf_entry(data: bytes = CUBIN, **fields: int) -> bytes:
    return entry(data, **{"kind": 2, "major": 1, "minor": 7, "arch": 75, **fields})


@pytest.mark.parametrize("codec", ["zlib", "lz4", "lz4-frame", "zstd"])
def test_codecs(tmp_path: Path, codec: str) -> None:
    node, found = read(tmp_path, container(packed(PTX, codec), packed(CUBIN, codec, kind=2, major=1, minor=7)))
    assert not node.diagnostics
    assert [(image.compression, image.size) for image, _ in found] == [(codec, len(PTX)), (codec, len(CUBIN))]
    assert [row[0] for _, finding in found for row in finding.rows or ()] == ["k", "k"]


def test_kernel_facts(tmp_path: Path) -> None:
    _, found = read(tmp_path, container(elf_entry(), entry(PTX)))
    (_, sass), (_, ptx) = found
    assert sass.rows == (("k", 40, 256, 16, ((0, 0x16C),), 128, ((0, 8), (8, 4)), 0x180, None),)
    assert ptx.rows == (("k", None, 0, None, None, None, ((0, 8), (8, 4)), None, None),)
    assert sass.producer == "CUDA 12.9"


def test_targets_with_suffixes_and_unknown_kinds(tmp_path: Path) -> None:
    data = container(
        elf_entry(cubin(arch=90, accelerated=True), arch=90, flags=0x100011), elf_entry(cubin(arch=100, new=True), arch=100, flags=0x1200011),
        entry(PTX, arch=90, flags=0x100011), entry(b"junk", kind=8, arch=80), entry(b"junk", kind=0x7777, arch=75), entry(b"junk", kind=0x80, arch=80),
    )  # fmt: skip
    node, _ = read(tmp_path, data)
    assert targets(node) == ["sm_90a", "sm_100f", "compute_90a", "lto_80", "unknown_75", "tile_80"]
    assert [item.message for item in node.diagnostics] == ["unknown kind 0x7777: kept, not looked into"]


def test_concatenated_entry(tmp_path: Path) -> None:
    node, found = read(
        tmp_path, container(concatenated([(2, 75, 0x11, CUBIN), (1, 75, 0x11, PTX), (2, 90, 0x100011, cubin(arch=90, accelerated=True))]))
    )
    assert targets(node) == ["sm_75", "compute_75", "sm_90a"]
    assert [len(finding.rows or ()) for _, finding in found] == [1, 1, 1]
    assert [image.stored_size for image, _ in found] == [None, None, None]


def test_real_concatenated_fatbin(samples: Path) -> None:
    with inspected(str(samples / "concatenated.fatbin")) as node:
        assert sorted(targets(node)) == ["compute_90", "sm_120", "sm_75", "sm_90a"]
        assert all(len(finding.rows or ()) == 5 for _, finding in survey([node], limit=1 << 24, jobs=1))


def test_obfuscated_entry_is_opaque(tmp_path: Path) -> None:
    node, found = read(tmp_path, container(entry(b"scrambled", kind=8, arch=80, flags=0x12011, compressed=9, uncompressed=99, key=7)))
    assert targets(node) == ["lto_80"]
    assert found[0][1].problem is None
    assert not node.diagnostics


def test_fatbins_with_gaps_and_trailing_bytes(tmp_path: Path) -> None:
    one = container(entry(PTX))
    node, _ = read(tmp_path, one + ZERO + one + ZERO * 3 + one + b"trailing bytes!!")
    assert len(node.payloads) == 3
    assert [(item.field, item.offset) for item in node.diagnostics] == [("fatbin magic", len(one) * 3 + 32)]


GOOD = (elf_entry(), entry(PTX, options=b"-O3"))
FIRST = len(GOOD[0])
FILE = container(*GOOD)


def put(at: int, form: str, value: int) -> Callable[[], bytes]:
    def change() -> bytes:
        data = bytearray(FILE)
        struct.pack_into(form, data, at, value)
        return bytes(data)

    return change


ZSTD = container(packed(PTX, "zstd"), elf_entry())


def put_zstd(at: int, form: str, value: int) -> Callable[[], bytes]:
    def change() -> bytes:
        data = bytearray(ZSTD)
        struct.pack_into(form, data, at, value)
        return bytes(data)

    return change


SECOND = 16 + FIRST
ELF_AT = 16 + 64
BOTH, ELF_ONLY, PTX_ONLY = ["sm_75", "compute_75"], ["sm_75"], ["compute_75"]
MALFORMED = {
    "truncated by 3": (lambda: FILE[:-3], ELF_ONLY, "payload size"),
    "truncated in the second header": (lambda: FILE[: SECOND + 0x30], ELF_ONLY, "entry header"),
    "container size too large": (put(8, "<Q", len(FILE) + 0x1000), BOTH, "payload size"),
    "container size 2^63": (put(8, "<Q", 1 << 63), BOTH, "payload size"),
    "container size 0": (put(8, "<Q", 0), BOTH, "container payload size"),
    "container size cuts the second entry": (put(8, "<Q", FIRST + 64), BOTH, "container payload size"),
    "container header size 0": (put(6, "<H", 0), BOTH, "container header size"),
    "container header size 24": (put(6, "<H", 24), BOTH, "container header size"),
    "container version 0": (put(4, "<H", 0), BOTH, "container version"),
    "container version 2": (put(4, "<H", 2), BOTH, "container version"),
    "entry version 0": (put(18, "<H", 0), BOTH, "entry version"),
    "entry version 0x201": (put(18, "<H", 0x201), BOTH, "entry version"),
    "entry header size 0": (put(20, "<I", 0), PTX_ONLY, "header size"),
    "entry header size 8": (put(20, "<I", 8), PTX_ONLY, "header size"),
    "entry header size 0x41": (put(20, "<I", 0x41), PTX_ONLY, "header size"),
    "entry payload size 2^40": (put(24, "<Q", 1 << 40), PTX_ONLY, "payload size"),
    "entry payload size 2^64-64": (put(24, "<Q", (1 << 64) - 64), PTX_ONLY, "payload size"),
    "kind 0": (put(16, "<H", 0), ["unknown_75", "compute_75"], "kind"),
    "kind 0x7777": (put(16, "<H", 0x7777), ["unknown_75", "compute_75"], "kind"),
    "arch 0": (put(16 + 0x1C, "<I", 0), ["sm_0", "compute_75"], "arch"),
    "arch 0xffffffff": (put(16 + 0x1C, "<I", 0xFFFFFFFF), ["sm_4294967295", "compute_75"], "arch"),
    "arch 61 over a cubin of sm_75": (put(16 + 0x1C, "<I", 61), ["sm_61", "compute_75"], "arch"),
    "identifier out of range": (put(16 + 0x20, "<I", 0x4000), BOTH, "identifier offset"),
    "identifier length out of range": (put(SECOND + 0x24, "<I", 0x4000), BOTH, "identifier offset"),
    "options out of range": (put(SECOND + 0x14, "<I", 0x4000), BOTH, "options offset"),
    "options length out of range": (put(SECOND + 0x44, "<I", 0x4000), BOTH, "options text"),
    "compressed size above the stored size": (put_zstd(16 + 0x10, "<I", 1 << 20), ["compute_75", "sm_75"], "compressed size"),
    "uncompressed size 1": (put_zstd(16 + 0x38, "<Q", 1), ["compute_75", "sm_75"], "uncompressed size"),
    "uncompressed size 2^40": (put_zstd(16 + 0x38, "<Q", 1 << 40), ["compute_75", "sm_75"], "uncompressed size"),
    "uncompressed size 2^63": (put_zstd(16 + 0x38, "<Q", 1 << 63), ["compute_75", "sm_75"], "uncompressed size"),
    "LZ4 flag on zstd": (put_zstd(16 + 0x28, "<Q", 0x2011), ["compute_75", "sm_75"], "flags"),
    "zstd flag cleared": (put_zstd(16 + 0x28, "<Q", 0x11), ["compute_75", "sm_75"], "payload"),
    "corrupt zstd": (put_zstd(16 + 64 + 12, "<Q", 0x1234567890ABCDEF), ["compute_75", "sm_75"], "payload"),
    "e_shoff": (put(ELF_AT + 40, "<Q", 1 << 40), BOTH, "e_shoff"),
    "e_shnum": (put(ELF_AT + 60, "<H", 0x7FFF), BOTH, "e_shnum"),
    "e_shstrndx": (put(ELF_AT + 62, "<H", 0x7FFF), BOTH, "e_shstrndx"),
    "e_machine 62": (put(ELF_AT + 18, "<H", 62), BOTH, "e_machine"),
    "trailing bytes": (lambda: FILE + b"\1" * 24, BOTH, "fatbin magic"),
    "zero bytes counted by the size": (lambda: container(*GOOD, bytes(64)), BOTH, "entry header"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(tmp_path: Path, name: str) -> None:
    """A diagnostic with locator, offset and field; what is whole is listed; the fatbin behind the damage is found."""
    make, expected, field = MALFORMED[name]
    data = make()
    node, found = read(tmp_path, data)
    complaints = [item for item in node.diagnostics if item.level != "note"]
    complaints += [item for image, finding in found if (item := _complaint(image, finding))]
    assert targets(node) == expected
    assert field in [item.field for item in complaints], complaints
    assert all(item.offset is not None and item.locator.startswith("x.fatbin") for item in complaints)
    if not name.startswith("truncated"):
        behind, _ = read(tmp_path, data + ZERO + container(entry(PTX)))
        assert targets(behind)[-1] == "compute_75"
        assert len(behind.payloads) >= 2


def _complaint(image: ImageEntry, finding: ImageSurvey) -> object:
    from fatpatch.scan.survey import complaint_of

    return complaint_of(image, finding)


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    data = container(packed(CUBIN, "lz4", kind=2, major=1, minor=7), entry(PTX, options=b"-O3"))
    for size in range(len(data)):
        node, _ = read(tmp_path, data[:size])
        assert len(targets(node)) <= 1


def test_limit_on_unpacked_size(tmp_path: Path) -> None:
    import zstandard

    blob = zstandard.compress(bytes(256 << 20))
    data = container(entry(blob, kind=2, flags=0x8011, compressed=len(blob), uncompressed=256 << 20), entry(PTX))
    node, found = read(tmp_path, data)
    assert targets(node) == ["sm_75", "compute_75"]
    assert "limit" in found[0][1].problem[0]
    assert found[1][1].rows
