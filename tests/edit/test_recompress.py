"""Recompression by all processors, and its estimates: the bytes are those that zstandard alone gives, the estimate holds the exact sum."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path

import jsonschema
import pytest
import zstandard
from builders.cubin import cubin
from builders.fatbin import container, entry, packed
from conftest import ROOT
from edit.elf_builder import fatpatch as command

import fatpatch
from fatpatch.base.workers import in_threads
from fatpatch.edit.rewrite import estimate

HEADER = struct.Struct("<HHIQIIHHIIIQQQ")
SCHEMA = json.loads((ROOT / "fatpatch/edit/edit-1.schema.json").read_text())
LEVEL = 3


def code(seed: int) -> bytes:
    """A cubin with a tail that packs about as well as real ones: words of a small vocabulary."""
    chance = random.Random(seed)
    words = [chance.randbytes(8) for _ in range(64)]
    return cubin(arch=75, kernels=(f"k{seed}",)) + b"".join(chance.choices(words, k=chance.randrange(1 << 8, 1 << 12)))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.fatbin"
    path.write_bytes(
        b"".join(container(*(entry(code(10 * n + m), kind=2, arch=75, major=1, minor=7) for m in range(6))) for n in range(12))
    )
    return path


def stored(data: bytes) -> list[tuple[int, bytes, int]]:
    """(flags, payload without its padding, unpacked size) of every entry, by the sizes alone."""
    found, at = [], 0
    while at < len(data):
        magic, _, head, size = struct.unpack_from("<IHHQ", data, at)
        assert (magic, head) == (0xBA55ED50, 16)
        end, at = at + 16 + size, at + 16
        while at < end:
            fields = HEADER.unpack_from(data, at)
            found.append((fields[11], data[at + fields[2] :][: fields[4] or fields[3]], fields[13]))
            at += fields[2] + fields[3]
    return found


@pytest.mark.parametrize("processors", [1, 2, 5])
def test_bytes_are_those_of_the_codec_whoever_compresses(
    many: Path, tmp_path: Path, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    fatpatch.recompress(many, "zstd", level=LEVEL).save(tmp_path / "after")
    before, after = stored(many.read_bytes()), stored((tmp_path / "after").read_bytes())
    assert len(before) == len(after) == 72
    for (_, old, _), (flags, new, size) in zip(before, after, strict=True):
        assert new == zstandard.ZstdCompressor(level=LEVEL).compress(old)
        assert (flags & 0x8000, size) == (0x8000, len(old))


def test_an_estimate_says_so_and_holds_the_exact_sum(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = fatpatch.recompress(many, "zstd", level=LEVEL)
    assert exact.to_dict()["estimate"] is None
    assert exact.checks
    monkeypatch.setattr(estimate, "_BUDGET", 1 << 17)
    plan = fatpatch.recompress(many, "zstd", level=LEVEL, exact=False)
    document = plan.to_dict()
    jsonschema.validate(document, SCHEMA)
    told = document["estimate"]
    assert 4 <= told["compressed"] < told["images"] == 72
    assert plan.checks == ()
    sums = [sum(row["stored_then"] for row in each["targets"]) for each in (document, exact.to_dict())]
    assert 0 < abs(sums[0] - sums[1]) <= told["margin"] < sums[1] // 2
    assert abs(plan.size_after - exact.size_after) <= told["margin"]
    plan.save(tmp_path / "after")
    exact.save(tmp_path / "exact")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "exact").read_bytes()


def test_the_commands_say_it_too(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_BUDGET", 1 << 17)
    dry = ("recompress", many, "--codec", "zstd", "--level", LEVEL, "--dry-run")
    for line in (dry, ("inspect", many, "--what-if", f"compress=zstd-{LEVEL}")):
        told, whole = command(*line), command(*line, "--exact")
        assert "of 72 images compressed; all would take" in told.out
        assert "estimate" not in whole.out
    assert "checks passed" not in command(*dry).out
    assert "would shrink by about" in command(*dry).out
    assert "checks passed" in command(*dry, "--exact").out
    assert command("recompress", many, "--codec", "zstd", "-o", many.with_name("x"), "--exact").code == 2
    assert command("inspect", many, "--exact").code == 2


def test_what_is_known_without_compressing_is_exact(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_BUDGET", 1)
    assert fatpatch.recompress(many, "none", exact=False).to_dict()["estimate"] is None


def test_an_unreadable_image_leaves_its_module_alone(many: Path) -> None:
    good, bad = entry(code(1), kind=2, arch=75), packed(code(2), "zstd", kind=2, arch=80)
    bad = bad[:-200] + bytes(200)
    many.write_bytes(container(good, bad) + container(good, good))
    document = fatpatch.recompress(many, "zstd").to_dict()
    assert [module["module"] for module in document["modules"]] == ["many.fatbin!fatbin[1]"]
    assert any("left as it is" in note for note in document["notes"])


def test_few_tasks_are_under_way() -> None:
    """So many as the threads need, however many there are."""
    begun: list[int] = []
    results = in_threads(lambda number: begun.append(number) or number, iter(range(1000)))
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(begun) <= 10 + 3 * (os.cpu_count() or 1)
    results.close()
