"""Equal to NVIDIA's own tool wherever it can read: resources of every kernel, bytes of every image."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from conftest import SAMPLES, corpus_path, corpus_rows

from fatpatch.gpucode.content import ImageReader
from fatpatch.scan.survey import survey
from fatpatch.scan.walk import inspected

pytestmark = pytest.mark.oracle
SAMPLE_NAMES = ("kernels.fatbin", "libkernels.so", "donor.so", "concatenated.fatbin", "kernels.sm_61.cubin", "kernels.sm_90a.cubin")
# It stops midway on valid files (reference: real binaries), or reads nothing of them; the rest of the corpus it reads whole.
READABLE = [
    row
    for row in corpus_rows()
    if row["expected"].get("container") == "elf" and "fatbins" in row["expected"] and "cupti" not in row["member"]
]
_FUNCTION = re.compile(r"Function (\S+):\s*\n?\s*REG:(\d+) STACK:(\w+) SHARED:(\d+) LOCAL:\d+((?: CONSTANT\[\d+\]:\d+)*)")
LIMIT = 192 << 20


def resources(text: str) -> list[tuple[object, ...]]:
    rows = []
    for name, registers, stack, shared, banks in _FUNCTION.findall(text):
        constant = tuple(sorted((int(bank), int(size)) for bank, size in re.findall(r"CONSTANT\[(\d+)\]:(\d+)", banks)))
        rows.append((name, int(registers), None if stack == "UNKNOWN" else int(stack), int(shared), constant))
    return sorted(rows, key=str)


def own_resources(path: Path) -> list[tuple[object, ...]]:
    with inspected(str(path)) as node:
        return sorted(
            (
                (row[0], row[1], row[3], row[2], row[4])
                for image, finding in survey([node], limit=LIMIT)
                if image.kind == "sass"
                for row in finding.rows or ()
            ),
            key=str,
        )


def compare_resources(oracle: Path, path: Path) -> int:
    done = subprocess.run([oracle, "-all", "-res-usage", path], capture_output=True, text=True, check=False)
    expected = resources(done.stdout + done.stderr)
    found = own_resources(path)
    assert done.returncode == 0, done.stderr[-300:]
    kernels = {row[0] for row in found}
    others = [row for row in expected if row[0] not in kernels]
    assert [row for row in expected if row[0] in kernels] == found
    assert not any(bank == 0 for row in others for bank, _ in row[4]), "it lists device functions too: they have no parameters"
    return len(found)


@pytest.mark.parametrize("name", SAMPLE_NAMES)
def test_resources_of_samples(oracle: Path, name: str) -> None:
    assert compare_resources(oracle, SAMPLES / name) > 3


@pytest.mark.corpus
@pytest.mark.parametrize("row", READABLE, ids=lambda row: Path(row["member"]).name)
def test_resources_of_the_corpus(oracle: Path, row: dict[str, object]) -> None:
    assert compare_resources(oracle, corpus_path(row)) >= row["expected"]["kernels"]


def digests(folder: Path, suffix: str) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob(f"*.{suffix}"))


def compare_bytes(oracle: Path, path: Path, folder: Path) -> None:
    for option in ("-xelf", "-xptx"):
        subprocess.run([oracle, "-all", option, "all", path], cwd=folder, capture_output=True, check=False)
    own: dict[str, list[str]] = {"cubin": [], "ptx": []}
    with inspected(str(path)) as node:
        for payload in node.payloads:
            reader = ImageReader(node.source, LIMIT)
            for image in payload.images:
                data = reader.read(image)
                suffix = "cubin" if image.kind == "sass" else "ptx"
                own[suffix].append(hashlib.sha256(data if suffix == "cubin" else data.split(b"\0", 1)[0]).hexdigest())
    for suffix, found in own.items():
        assert sorted(found) == digests(folder, suffix)


@pytest.mark.parametrize("name", ["kernels.fatbin", "libkernels.so", "donor.so", "concatenated.fatbin"])
def test_bytes_of_samples(oracle: Path, tmp_path: Path, name: str) -> None:
    compare_bytes(oracle, SAMPLES / name, tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize("row", [row for row in READABLE if row["size"] < 40_000_000], ids=lambda row: Path(row["member"]).name)
def test_bytes_of_the_corpus(oracle: Path, tmp_path: Path, row: dict[str, object]) -> None:
    compare_bytes(oracle, corpus_path(row), tmp_path)


@pytest.mark.parametrize("name", ["donor.dll", "demo.llamafile", "kernels-1.0-py3-none-linux_x86_64.whl"])
def test_carved_fatbins_are_read_by_it(oracle: Path, tmp_path: Path, name: str) -> None:
    """It says "no device code" of these files; every fatbin carved out of them it reads, with the same kernels."""
    whole = subprocess.run([oracle, "-lelf", SAMPLES / name], capture_output=True, text=True, check=False)
    assert whole.returncode != 0
    with inspected(str(SAMPLES / name)) as node:
        holders = [node, *node.members]
        for holder in holders:
            for number, payload in enumerate(holder.payloads):
                path = tmp_path / f"{number}.fatbin"
                path.write_bytes(b"".join(holder.source.chunks(payload.offset, payload.size)))
                assert compare_resources(oracle, path) > 3
