"""The driver's choice: equal to what an H100 answered to 543 files, and to NVIDIA's rules for other devices."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from load_cases import load_cases, witnesses

from fatpatch.gpucode.content import ImageReader
from fatpatch.gpus.selection import LoadChoice, choose, promised
from fatpatch.model.tree import ImageEntry
from fatpatch.scan.walk import inspected

KINDS = {"sm": ("sass", 2), "compute": ("ptx", 1), "lto": ("lto", 8), "reloc": ("reloc-ptx", 0x40), "index": ("index", 0x20)}
KINDS |= {"unknown": ("unknown", 0x10), "tile": ("tileir", 0x80), "filler": ("unknown", 0x7777)}

# What decides these is in the payload, the options block or the container's own header, where choose() never looks.
EXCLUDED = {
    "compressed data damaged, or its sizes wrong": (
        r"codec (deflate|zstdtrail)|[cu]size|lz4 usize|corrupt|flag zstd on raw|zstd data (no flag|flags)",
        40,
    ),
    "payload of another kind than the header says": (r"kind (0x8|1 with cubin|2 with PTX)|kind 0x40 (alone|cubin)", 8),
    "container version, header size or payload size": (r"container (version|hdr size|size|incl)", 11),
    "entry size cut, zero or too large": (r"s90 (size|really truncated)", 10),
    "options block of the PTX": (r"p90 options", 7),
    "PTX text: .version, .target, .address_size, syntax": (
        r"version|p1.*label|32-bit|no \.target|target|.* text \.target|.*broken p75",
        18,
    ),
    "symbols that do not resolve, or clash": (r"(EAGER )?(ET_REL|rdc PTX) e3|kind 0x40 two", 4),
}


def image(target: str, flags: int = 0x11, **fields: Any) -> ImageEntry:
    prefix, number = target.split("_")
    kind, code = KINDS[prefix]
    flags |= {"a": 0x100000, "f": 0x200000}.get(number[-1], 0)
    made = ImageEntry(
        "", kind, f"compute_{number}" if prefix == "reloc" else target, "9.0", "none", 8, 8, 0, 64, 8, flags=flags, kind_code=code
    )
    return made._replace(**fields)


def chosen(targets: str, device: int, **switches: bool) -> str | int | None:
    """The target that is chosen, or the error."""
    choice = choose([image(target) for target in targets.split()], device, **switches)
    assert (choice.image is None) != (choice.error is None)
    return choice.image.target if choice.image is not None else choice.error


def predict(case: dict[str, Any], images: tuple[ImageEntry, ...]) -> LoadChoice:
    switches = {key.replace("FORCE_JIT", "FORCE_PTX_JIT").replace("DISABLE_JIT", "DISABLE_PTX_JIT") for key in case["env"]}
    return choose(images, 90, force_ptx="CUDA_FORCE_PTX_JIT" in switches, disable_ptx="CUDA_DISABLE_PTX_JIT" in switches)


def reason_of(case: dict[str, Any], choice: LoadChoice) -> str:
    """Why the case may differ; what the driver logged must fit the choice all the same."""
    log = case.get("jit_log", "")
    if "ptxas" in log:
        assert choice.image is not None, case
        assert choice.image.kind == "ptx", case
    if "Uncompress failed" in log:
        assert choice.image is not None, case
        assert choice.image.compression != "none", case
    found = [reason for reason, (pattern, _) in EXCLUDED.items() if re.match(pattern, case["name"])]
    assert len(found) == 1, (case, choice, found)
    return found[0]


def compare(case: dict[str, Any], path: Path) -> str:
    with inspected(str(path)) as node:
        if not node.payloads or node.payloads[0].kind != "fatbin":
            return "not a fatbin"
        images = node.payloads[0].images
        choice = predict(case, images)
        assert choice.measured
        answer = case["cu_result"] if case["outcome"] == "returned" else case["outcome"]
        if answer != (choice.error or 0):
            return reason_of(case, choice)
        if choice.image is None:
            return "agree: error"
        able = witnesses(case, images, ImageReader(node.source, 1 << 26))
        assert choice.image in able, (case, choice)
        return "agree: only image" if len(images) == 1 else "agree: image" if len(able) == 1 else "agree: one of several alike"


def test_agrees_with_an_h100(tmp_path: Path) -> None:
    cases = load_cases(tmp_path)
    counts = Counter(compare(case, path) for case, path in cases)
    expected = {reason: count for reason, (_, count) in EXCLUDED.items()}
    agree = {key: counts.pop(key) for key in list(counts) if key.startswith("agree")}
    assert counts == expected | {"not a fatbin": 12}
    assert sum(agree.values()) == 433
    assert agree == {"agree: error": 62, "agree: image": 220, "agree: only image": 146, "agree: one of several alike": 5}


@pytest.mark.parametrize(
    ("targets", "device", "expected"),
    [
        ("sm_60 sm_70 compute_75", 61, "sm_60"),  # GTX 1060
        ("sm_60 sm_61 sm_70", 61, "sm_61"),
        ("sm_62 compute_60", 61, "compute_60"),
        ("sm_75 compute_75", 61, 209),
        ("sm_52 compute_52", 61, "compute_52"),
        ("sm_80 sm_86 compute_89", 89, "sm_86"),
        ("sm_89 sm_80", 86, "sm_80"),
        ("sm_80 sm_86 sm_87", 89, "sm_86"),  # 87 is a Tegra part: not promised
        ("sm_60 sm_61", 62, "sm_61"),
        ("sm_70", 75, "sm_70"),
        ("sm_81 compute_80", 89, "compute_80"),  # no such number
        ("sm_91 sm_9 compute_85 compute_1", 90, 209),
        ("sm_90a compute_90a sm_90", 100, 209),
        ("sm_90a", 90, "sm_90a"),
        ("sm_100a compute_100a compute_90a compute_80", 103, "compute_80"),
        ("sm_100f sm_100", 103, "sm_100f"),
        ("sm_100 sm_103f sm_103a", 103, "sm_103a"),
        ("sm_100 sm_103f sm_103", 103, "sm_103f"),
        ("sm_103f compute_103f", 100, 209),
        ("compute_100f compute_90", 103, "compute_100f"),
        ("compute_100f compute_90", 110, "compute_90"),
        ("compute_100f compute_90", 120, "compute_90"),
        ("sm_120f", 121, "sm_120f"),
        ("sm_101f compute_90", 103, "compute_90"),  # the part now called 110
        ("sm_90f compute_80f", 90, 209),
        ("compute_120 compute_120f compute_120a compute_120", 120, "compute_120a"),
        ("compute_120 compute_120f compute_120", 120, "compute_120f"),
        ("sm_130 sm_125 compute_125", 131, "sm_130"),  # newer than the table
    ],
)
def test_other_devices(targets: str, device: int, expected: str | int) -> None:
    assert chosen(targets, device) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("", 209),
        ("lto_90", 209),
        ("lto_90 compute_75", "compute_75"),
        ("unknown_90 sm_90", "sm_90"),
        ("compute_75 unknown_90", 999),
        ("unknown_75 compute_75", "compute_75"),
        ("index_90 sm_80", 999),
        ("index_0 compute_75", "compute_75"),
        ("reloc_75 sm_80", "compute_75"),
        ("reloc_100", 209),
        ("tile_0 filler_0 sm_90", "sm_90"),
        ("sm_90 lto_0", 999),
        ("sm_90 compute_4294967295", 999),
        ("sm_90 unknown_0", 999),
    ],
)
def test_other_kinds(targets: str, expected: str | int) -> None:
    assert chosen(targets, 90) == expected


def test_ties() -> None:
    plain, mercury, second = image("sm_90"), image("sm_90", 0x1000011), image("sm_90", 0x13)
    assert choose([mercury, plain, second], 90).image is plain
    assert choose([second, plain], 90).image is second
    assert choose([plain, image("sm_90a", 0x1000011)], 90).image.target == "sm_90a"
    low, high = (image(f"compute_{number}") for number in (75, 90))
    assert choose([low, low._replace(offset=1)], 90).image is low
    assert choose([high._replace(offset=1), high], 90).image is high
    accelerated = image("compute_90a")
    assert choose([accelerated, image("compute_90a"), high], 90).image is accelerated


def test_environment() -> None:
    assert chosen("sm_90 compute_75", 90, force_ptx=True) == "compute_75"
    assert chosen("sm_90", 90, force_ptx=True) == 209
    assert chosen("sm_90 compute_75", 90, disable_ptx=True) == "sm_90"
    assert chosen("sm_80 compute_75", 90, disable_ptx=True) == 223
    assert chosen("sm_90 compute_75", 90, force_ptx=True, disable_ptx=True) == 223
    assert not choose([image("sm_90")], 90, force_ptx=True, disable_ptx=True).measured
    assert not choose([image("sm_86")], 89).measured


def test_headers_that_cannot_be_unpacked() -> None:
    assert choose([image("sm_90", 0x18011, compression="zstd")], 90).error == 999
    assert choose([image("sm_90", 0x10011)], 90).error is None
    tight = image("compute_90", 0x1011, compression="zlib")
    assert choose([tight], 90).error == 999
    assert choose([tight._replace(stored_size=16)], 90).error is None


def test_concatenated_entries_are_ignored() -> None:
    inner = image("sm_90", within=(0, 8))
    choice = choose([inner], 90)
    assert (choice.image, choice.error) == (None, 209)
    assert "concatenated" in choice.reason
    assert choose([inner, image("compute_75")], 90).image.target == "compute_75"


def test_reasons() -> None:
    assert "only sm_80, sm_86" in choose([image("sm_80"), image("sm_86"), image("sm_80")], 90).reason
    assert "between desktop GPUs only" in choose([image("sm_61")], 62).reason
    assert "only LTO" in choose([image("lto_90")], 90).reason


def test_promise() -> None:
    assert [arch for arch in (50, 60, 61, 62, 70) if promised(arch, 61)] == [60, 61]
    assert [arch for arch in (60, 61, 62) if promised(arch, 62)] == [62]
    assert [arch for arch in (100, 101, 103, 110) if promised(arch, 103)] == [100, 103]
