"""The llamafile of the samples, and GGUF headers."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import archive, gguf

from fatpatch.model.tree import Node
from fatpatch.scan.walk import inspected


def read(path: Path) -> Node:
    with inspected(str(path)) as node:
        return node


def test_demo_llamafile(samples: Path) -> None:
    node = read(samples / "demo.llamafile")
    assert (node.container, node.detail, node.member_count) == ("ape", "x86-64, aarch64", 9)
    members = {member.path: member for member in node.members}
    assert members["ggml-cuda.dll"].container == "pe"
    assert members["ggml-cuda.so"].container == "elf"
    assert all(members[name].stored_at % 65536 == 0 for name in ("ggml-cuda.dll", "ggml-cuda.so", "demo.Q8_0.gguf"))
    for name in ("ggml-cuda.dll", "ggml-cuda.so"):
        assert [image.target for image in members[name].payloads[0].images] == ["sm_60", "sm_70", "sm_75"]
        assert members[name].payloads[0].found_by == ("section", "wrapper")
    facts = members["demo.Q8_0.gguf"].facts
    assert (facts.architecture, facts.file_type, facts.tensor_types) == ("llama", "Q8_0", (("Q8_0", 2), ("F32", 1)))
    assert not node.diagnostics


@pytest.mark.parametrize(("size", "words"), [(0x71000, "segments reach to 0x8b8d0"), (0xE2000, "a zip member at 0x905c2")])
def test_a_download_that_stopped(samples: Path, tmp_path: Path, size: int, words: str) -> None:
    """Nothing of it may be called complete: cut in its programs, and cut behind them."""
    path = tmp_path / "half.llamafile"
    path.write_bytes((samples / "demo.llamafile").read_bytes()[:size])
    node = read(path)
    assert node.container == "ape"
    cut = next(item for item in node.diagnostics if "the file is cut off" in item.message)
    assert (cut.level, cut.offset) == ("error", size)
    assert words in cut.message


def test_a_wheel_that_stopped(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.whl"
    path.write_bytes((samples / "kernels-1.0-py3-none-linux_x86_64.whl").read_bytes()[:9000])
    assert "no central directory" in read(path).diagnostics[0].message


def test_ape_without_windows(tmp_path: Path) -> None:
    header = b"\x7fELF\x02\x01\x01\x09" + bytes(8) + b"\x02\0" + (183).to_bytes(2, "little") + bytes(44)
    path = tmp_path / "x.com"
    path.write_bytes(archive.ape(header, [(b"m.gguf", gguf.model())]))
    node = read(path)
    assert (node.container, node.detail) == ("ape", "aarch64; not for Windows")
    assert node.members[0].facts.tensors == 2


def test_gguf(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf.model())
    facts = read(path).facts
    assert (facts.version, facts.architecture, facts.file_type, facts.tensors) == (3, "llama", "Q8_0", 2)
    assert facts.tensor_types == (("F32", 1), ("Q8_0", 1))


BAD = {
    "version 9": gguf.model(version=9),
    "2^60 keys": b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1 << 60).to_bytes(8, "little"),
    "value type 99": gguf.model(keys=gguf.text(b"k") + (99).to_bytes(4, "little"), count=1),
    "array of 2^60": gguf.model(keys=gguf.text(b"k") + b"\x09\0\0\0" + b"\x08\0\0\0" + (1 << 60).to_bytes(8, "little"), count=1),
    "string of 2^60": gguf.model(keys=gguf.text(b"k") + b"\x08\0\0\0" + (1 << 60).to_bytes(8, "little"), count=1),
    "cut": gguf.model()[:70],
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_gguf(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(BAD[name])
    node = read(path)
    assert node.container == "gguf"
    assert node.facts is None
    assert node.diagnostics[0].offset is not None
