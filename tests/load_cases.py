"""The 543 fatbins of the load-case fixtures with what an H100 made of them."""

from __future__ import annotations

import json
import re
import struct
import tarfile
from pathlib import Path
from typing import Any

from conftest import ROOT, required

from fatpatch.base.errors import FatpatchError
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.tree import ImageEntry

CASES = ROOT.parent / "shared/fixtures/load-cases"


def load_cases(folder: Path) -> list[tuple[dict[str, Any], Path]]:
    """(case, its file), unpacked into a folder."""
    if not CASES.is_dir():
        required(f"load cases in {CASES}")
    with tarfile.open(CASES / "cases.tar.xz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            (folder / member.name).write_bytes(content.read())
    cases = json.loads((CASES / "cases.json").read_text())["cases"]
    assert len(cases) == 543
    return [(case, folder / case["file"]) for case in cases]


def holds(kind: str, data: bytes, mark: int) -> bool:
    """Whether an image writes a mark: as a decimal number in PTX, as an immediate operand in machine code."""
    text = re.search(rb"(?<!\d)%d(?!\d)" % mark, data) if "ptx" in kind else None
    return text is not None if "ptx" in kind else struct.pack("<I", mark) in data


def fits(one: ImageEntry, ptx_version: int, binary_version: int) -> bool:
    number = int(re.findall(r"\d+", one.target)[0])
    return number == ptx_version and (one.kind != "sass" or number == binary_version)


def witnesses(case: dict[str, Any], images: tuple[ImageEntry, ...], reader: ImageReader) -> list[ImageEntry]:
    """The images that can have given the answer: those with most of the marks; else those whose versions were reported."""
    marks = {values[0] for values in case.get("marks", {}).values()} - {0}
    scores = []
    for one in images:
        try:
            data = reader.read(one)
        except FatpatchError:
            data = b""
        scores.append(sum(holds(one.kind, data, mark) for mark in marks))
    if best := max(scores):
        return [one for one, score in zip(images, scores, strict=True) if score == best]
    reported = {(function["ptx_version"], function["binary_version"]) for function in case.get("functions", ())}
    assert len(reported) < 2
    return [one for one in images if all(fits(one, *versions) for versions in reported)]
