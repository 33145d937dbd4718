"""Against what an H200 did: 435 real fatbins in four environments, and kernels that were launched (fixtures/h200)."""

from __future__ import annotations

import json
import lzma
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT

from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.rows import own_shared
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.gpus.selection import choose
from fatpatch.model.target import Target
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor

FOLDER = ROOT.parent / "shared/fixtures/h200"
LIMIT = 512 << 20
DEFAULT = Environment(find("H200"), driver("580.159.04"))
ENVIRONMENTS = {
    "default": DEFAULT,
    "force": DEFAULT._replace(force_ptx=True),
    "disable": DEFAULT._replace(disable_ptx=True),
    "eager": DEFAULT._replace(eager=True),
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (FOLDER / "modules.tar.xz").is_file():
        pytest.skip("no fixtures/h200")
    folder = tmp_path_factory.mktemp("h200")
    with tarfile.open(FOLDER / "modules.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def found_in(folder: Path, digest: str) -> Path:
    return next(path for path in folder.rglob(f"{digest[:16]}*") if path.is_file())


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_load_is_foretold(modules: Path, name: str) -> None:
    wrong, seen = [], 0
    for row in json.loads((FOLDER / "verdicts.json").read_text())["modules"]:
        measured = row["h200"].get(name)
        if measured is None:
            continue
        seen += 1
        said = predicted(found_in(modules, row["id"]), ENVIRONMENTS[name])
        late = measured["rc"] == 0 and measured.get("func_rc") and said in (200, 500)  # what a missing function shows
        if said != measured["rc"] and not late:
            wrong.append((row["id"], row["member"], measured, said))
    assert not wrong
    assert seen > 300


def predicted(path: Path, environment: Environment) -> int:
    """The CUresult of the module's load, or of its first function."""
    with inspected(str(path)) as node:
        (module,) = Doctor(node, limit=LIMIT).judge(environment).modules
    return module.verdict.cuda_error or 0


def test_static_shared_memory_is_what_the_driver_counts(modules: Path) -> None:
    """Of machine code that it loaded: the section's size, from sm_90 on without what the system reserves."""
    measured = json.loads(lzma.decompress((FOLDER / "kernels.json.xz").read_bytes()))["modules"]
    seen = 0
    for digest, rows in measured.items():
        shared = {row[0]: row[3][1] for row in rows if row[1] == 0}
        with inspected(str(found_in(modules, digest))) as node:
            for holder, payload in payloads_below(node):
                reader = ImageReader(holder.source, LIMIT)
                image = choose(payload.images, 90).image
                if image is None or image.kind != "sass" or not shared:
                    continue
                for row in read_image("sass", reader.read(image)).kernels:
                    if row[0] in shared and shared[row[0]] >= 0:
                        seen += 1
                        assert own_shared(row[2], Target(image.target).sm) == shared[row[0]], (digest, row[0])
    assert seen > 500
