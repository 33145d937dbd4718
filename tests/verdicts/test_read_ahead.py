"""What workers read ahead changes no verdict, and is what the judge would have read."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
from builders.cubin import cubin
from builders.fatbin import container, entry, packed

from fatpatch.gpus.fleet import every_target
from fatpatch.scan.coverage import holders, payloads_below
from fatpatch.scan.walk import inspected
from fatpatch.verdicts import document, read_ahead
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.library_facts import listed, read_whole

LIMIT = 1 << 26
HEAD = b".version 8.4\n.target sm_%d\n.address_size 64\n"
ENVIRONMENTS = [Environment(device) for device, _ in every_target() if device.vendor == "nvidia"]


def text(arch: int, body: bytes) -> bytes:
    return HEAD % arch + b".visible .entry k(.param .u64 p)\n{\n" + body + b"\nret;\n}\n\0"


def fatbins() -> bytes:
    real, stub = b"st.global.u32 [%rd1], 1;", b"trap;"
    cut = packed(text(80, real), "zstd", arch=80)
    modules = [
        container(packed(text(52, stub), "lz4", arch=52), packed(text(70, real), "zstd", arch=70)),
        container(entry(cubin(arch=86), kind=2, arch=86), packed(text(75, real), "zstd", arch=75)),
        container(cut[:-40] + bytes(40), entry(text(61, real)[:-20], arch=61)),  # damaged, and cut
        container(packed(text(90, b"call.uni f, (a);"), "zstd", arch=90)),
        container(packed(text(60, b"{"), "zstd", arch=60)),
    ]
    return b"".join(module + bytes(-len(module) % 8) for module in modules)


def verdicts(path: Path) -> list[object]:
    with inspected(str(path)) as node:
        doctor = Doctor(node, limit=LIMIT)
        doctor.read_ahead(ENVIRONMENTS)
        return [document.fleet_row(doctor.judge(environment), "x", ()) for environment in ENVIRONMENTS]


@pytest.fixture(params=["fatbins", "bare images"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Fatbins back to back, or an archive of cubins and PTX texts, two of them damaged."""
    if request.param == "fatbins":
        path = tmp_path / "x.fatbin"
        path.write_bytes(fatbins())
        return path
    path = tmp_path / "x.zip"
    members = {f"{arch}.cubin": cubin(arch=arch, kernels=(f"k{arch}",)) for arch in (75, 80, 86, 90)}
    members |= {"70.ptx": text(70, b"st.global.u32 [%rd1], 1;"), "cut.cubin": cubin(arch=80)[:-40], "cut.ptx": text(61, b"{")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_no_verdict_changes(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = verdicts(library)
    adopted: list[str] = []
    adopt = FactsReader.adopt

    def noting(self: FactsReader, *given: object) -> bool:
        adopted.append(given[2].locator)  # type: ignore[attr-defined]
        return adopt(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(FactsReader, "adopt", noting)
    monkeypatch.setattr(read_ahead, "PARALLEL_FROM", 0)
    monkeypatch.setattr(read_ahead.os, "cpu_count", lambda: 2)
    assert verdicts(library) == alone
    assert len(adopted) == len(set(adopted)) >= 5


def test_a_worker_reads_what_the_judge_would(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "PARALLEL_FROM", 0)
    monkeypatch.setattr(read_ahead.os, "cpu_count", lambda: 2)
    with inspected(str(library)) as node:
        pairs = list(payloads_below(node))
        ahead, alone = FactsReader(LIMIT, node.size), FactsReader(LIMIT, node.size)
        read_ahead.read_ahead(pairs, ENVIRONMENTS, ahead)
        images = [
            (holder.source, image) for holder, payload in pairs for image in payload.images if ahead.opened.known(holder.source, image)
        ]
        random.Random(1).shuffle(images)
        assert images
        for source, image in images:
            assert ahead.facts(source, image) == alone.facts(source, image)


def test_small_files_start_no_process(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "in_order", lambda *given, **options: pytest.fail("a pool was started"))
    assert len(verdicts(library)) == len(ENVIRONMENTS)


def test_all_bodies_of_a_library_are_what_this_process_reads(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page and diff say of kernels, with workers and without."""
    monkeypatch.setattr(read_ahead.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(read_ahead, "PARALLEL_FROM", 1)
    found = []
    with inspected(str(library)) as node:
        for jobs in (1, 2):
            for holder in holders(node):
                reader = FactsReader(LIMIT, holder.size)
                whole = read_whole(listed(holder, "", "x"), holder, reader, jobs=jobs)
                images = [image for payload in holder.payloads for image in payload.images if image.readable]
                found.append((jobs, holder.locator, whole, [reader.facts(holder.content, image).bodies for image in images]))
    half = len(found) // 2
    assert half
    assert [each[1:] for each in found[:half]] == [each[1:] for each in found[half:]]
