"""SPIR-V and Metal code is counted when asked for, by sound headers only."""

from __future__ import annotations

import json
from pathlib import Path

from builders import archive, bundle, elf
from conftest import Run

from fatpatch.scan.walk import inspected

SHADERS = bundle.spirv("main") + bundle.spirv("main", minor=6) + bytes(8) + bundle.spirv("second", "third")
FALSE = b"\x03\x02\x23\x07\xff\xff\xff\xff" + bytes(16) + b"MTLB" + b"\xff" * 40


def test_modules_and_libraries(tmp_path: Path) -> None:
    library = bundle.metallib("kernel_add", "kernel_mul")
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".rodata", FALSE + SHADERS + library)]))
    with inspected(str(path), all_kinds=True) as node:
        assert node.inventory == (
            ("SPIR-V module", 3, len(SHADERS) - 8, ("1.4", "1.6"), (("main", 2), ("second", 1), ("third", 1))),
            ("Metal library", 1, len(library), (), (("kernel_add", 1), ("kernel_mul", 1))),
        )
    with inspected(str(path)) as node:
        assert node.inventory is None


def test_one_line_in_text_and_json(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(archive.zip_file([(b"a/shaders.spv", SHADERS), (b"b.txt", b"hello")]))
    done = run("inspect", "--all-kinds", path)
    assert (done.returncode, done.stderr) == (0, "")
    line = "x.zip!a/shaders.spv: 3 SPIR-V modules, "
    assert [text for text in done.stdout.splitlines() if line in text]
    assert "no GPU code" not in done.stdout
    file = json.loads(run("inspect", "--all-kinds", "--format", "json", path).stdout)["files"][0]
    assert file["inventory"] == []
    assert file["members"][0]["inventory"][0]["entry_points"] == {"main": 2, "second": 1, "third": 1}


def test_nothing_to_count(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".rodata", FALSE)]))
    assert "no GPU code found" in run("inspect", "--all-kinds", path).stdout
