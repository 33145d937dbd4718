"""Code objects: identity by version, kernels of several notes, contradictions, producers; the messages of damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import bundle

from fatpatch.base.errors import FormatError
from fatpatch.gpucode.code_object.read import read_code_object
from fatpatch.gpucode.code_object.target import identify
from fatpatch.scan.survey import complaint_of, survey
from fatpatch.scan.walk import inspected


@pytest.mark.parametrize(
    ("flags", "version", "target", "generic"),
    [
        (0x36, 6, "gfx1030", 0),
        (0x3F | 3 << 8, 5, "gfx90a:xnack+", 0),
        (0x3F | 2 << 8 | 3 << 10, 4, "gfx90a:sramecc+:xnack-", 0),
        (0x3F | 1 << 8 | 1 << 10, 6, "gfx90a", 0),
        (0x2F | 0x100, 3, "gfx906:xnack+", 0),
        (0x2F | 0x200, 3, "gfx906:sramecc+", 0),
        (0x53 | 1 << 24, 6, "gfx10-3-generic", 1),
        (0xEE, 6, "mach_0xee", 0),
    ],
)
def test_identity(flags: int, version: int, target: str, generic: int) -> None:
    assert identify(bundle.code_object(flags, version=version)[:64]) == (target, version, generic)


def test_everything_that_a_kernel_declares() -> None:
    (row,) = read_code_object(bundle.code_object(target="gfx1030")).kernels
    assert row[:8] == ("k", 12, 64, 8, None, 256, ((0, 8),), None)
    assert row[8][:8] == (4, 20, 1, 2, 16, 8, 32, False)
    assert [(argument.offset, argument.size, argument.kind, argument.hidden) for argument in row[8].arguments] == [
        (0, 8, "global_buffer", False),
        (8, 4, "hidden_none", True),
    ]


def test_kernels_of_all_notes_count() -> None:
    """Link-time optimisation leaves one note for each part."""
    found = read_code_object(bundle.code_object(0x36, ("a", "b", "c"), notes=2))
    assert [row[0] for row in found.kernels] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("comment", "producer"),
    [
        (b"\0AMD clang version 19.0.0git (https://host/llvm-project roc-6.4.4 25224 d36)\0Linker: AMD LLD 19.0.0\0", "ROCm 6.4.4"),
        (b"\0Linker: AMD LLD 23.0.0 (x)\0AMD clang version 23.0.0git (y)\0", "AMD clang 23.0.0git"),
        (b"Debian clang version 22.1.8 (1~deb12u1)\0", "clang 22.1.8"),
        (b"something else", None),
    ],
)
def test_producer(comment: bytes, producer: str | None) -> None:
    assert read_code_object(bundle.code_object(comment=comment)).producer == producer


@pytest.mark.parametrize(
    ("entry", "data", "words"),
    [
        ("gfx1030", bundle.code_object(0x36, target="gfx1030"), None),
        ("gfx90a:xnack+:sramecc-", bundle.code_object(0x3F | 3 << 8 | 2 << 10, target="gfx90a:sramecc-:xnack+"), None),
        ("gfx1031", bundle.code_object(0x36, target="gfx1030"), "the entry says gfx1031, the image itself gfx1030"),
        ("gfx90a:xnack+", bundle.code_object(0x3F | 1 << 8, target="gfx90a"), "the entry says gfx90a:xnack+, the image itself gfx90a"),
        (
            "gfx1031",
            bundle.code_object(0x37, target="gfx1030"),
            "the entry says gfx1031, the image itself gfx1031 (in its metadata gfx1030)",
        ),
    ],
)
def test_id_header_and_metadata_are_compared(tmp_path: Path, entry: str, data: bytes, words: str | None) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.plain([(entry, data)]))
    with inspected(str(path)) as node:
        complaints = [complaint_of(image, finding) for image, finding in survey([node], limit=1 << 24, jobs=1)]
    assert [None if item is None else item.message for item in complaints] == [words]


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [(0, b"\0", "code object"), (18, b"\x3e\0", "e_machine"), (60, b"\xff\xff", "e_shoff"), (84, b"\xc1", "NT_AMDGPU_METADATA")],
)
def test_damage(at: int, value: bytes, field: str) -> None:
    data = bytearray(bundle.code_object())
    data[at : at + len(value)] = value
    with pytest.raises(FormatError) as caught:
        read_code_object(bytes(data))
    assert caught.value.field == field
