"""Real binaries: stubs against the PTX of the same library, modules against what an H100 answered, and what each file is known to do."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from conftest import ROOT, corpus_file, required

from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.cubin.bodies import cubin_bodies
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.ptx.bodies import ptx_bodies
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.hostcode.family import PER_TYPE
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.cubin_result import unlinked
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.loading import load
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.results import FileVerdict

pytestmark = pytest.mark.corpus
LIMIT = 192 << 20
H100 = Environment(find("sm_90"), driver("580.159.04"))
GGML = {  # library -> stubs by target: (proven, only the zero-trip path), of how many kernels (reference: stubs, section A)
    "libllamamodel-mainline-cuda.so": {"sm_52": (132, 120, 442), "sm_61": (81, 0, 442), "sm_70": (0, 0, 442)},
    "linux-x64-cuda/llama-addon.node": {"sm_52": (22, 80, 305), "sm_61": (0, 0, 305), "sm_70": (0, 0, 305)},
    "win-x64-cuda/llama-addon.node": {"sm_52": (22, 80, 305), "sm_61": (0, 0, 305), "sm_70": (0, 0, 305)},
    "libctransformers.so": {"sm_52": (0, 0, 71), "sm_61": (0, 0, 71), "sm_70": (0, 0, 71)},
    "ctransformers.dll": {"sm_52": (0, 0, 71), "sm_61": (0, 0, 71), "sm_70": (0, 0, 71)},
    "x86_64-linux-gnu.so": {"sm_52": (306, 0, 1623)},
}


@pytest.mark.parametrize("ending", GGML)
def test_stubs_are_those_of_the_ptx(ending: str) -> None:
    """Every class out of machine code equals the class of the PTX that it was compiled from: no stub too many, none missed."""
    found: dict[str, Counter[str]] = {}
    compared = 0
    with inspected(str(corpus_file(ending))) as node:
        for _, payload in payloads_below(node):
            reader = ImageReader(node.source, LIMIT)
            texts = {
                image.target.removeprefix("compute_"): ptx_bodies(reader.read(image).rstrip(b"\0"))
                for image in payload.images
                if image.kind == "ptx"
            }
            for image in payload.images:
                if image.kind == "sass":
                    bodies = cubin_bodies(reader.read(image))
                    found.setdefault(image.target, Counter()).update(bodies.values())
                    source = texts[image.target.removeprefix("sm_")]
                    assert {name: source[name] for name in bodies} == bodies, payload.locator
                    compared += len(bodies)
    assert {target: (counts["stub-trap"], counts["partial-nodata"], counts.total()) for target, counts in found.items()} == GGML[ending]
    assert compared == sum(total for _, _, total in GGML[ending].values())


def h100_modules() -> list[dict[str, Any]]:
    path = ROOT.parent / "shared/corpus/h100-verdicts.json"
    return json.loads(path.read_text())["modules"] if path.is_file() else []


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("member", sorted({module["member"] for module in h100_modules()}) or ["none"], ids=lambda name: name[-30:])
def test_modules_as_an_h100_answered(member: str) -> None:
    if member == "none":
        required("what an H100 answered")
    wanted = {module["sha256"]: module["h100"] for module in h100_modules() if module["member"] == member}
    compared = 0
    with inspected(str(corpus_file(member))) as node:
        for _, payload in payloads_below(node):
            data = node.source.read(payload.offset, payload.size)
            answer = wanted.get(sha256(data))
            if answer is None:
                continue
            compared += 1
            loading = load(node.source, payload, H100, LIMIT)
            assert (loading.result.error or loading.result.outcome or 0) == answer["rc"], payload.locator
            if answer.get("ptx_version"):
                assert [int(loading.image.target.split("_")[1].rstrip("a"))] == answer["ptx_version"], payload.locator
            if loading.image is not None and loading.image.kind == "sass" and loading.content is not None:
                data = loading.content.data
                assert data is not None
                codes = unlinked(Tables(data))
                used = {codes.get(name, 0) for name in cubin_bodies(data)} if Tables(data).identity.relocatable else {0}
                assert not answer.get("func_rc") or used == set(answer["func_rc"]), payload.locator
    assert compared or "win-x64" in member  # its answers are of another release of the same name


def judged(ending: str, gpu: str, version: str | None = None) -> FileVerdict:
    with inspected(str(corpus_file(ending))) as node:
        return Doctor(node, limit=LIMIT).judge(Environment(find(gpu), None if version is None else driver(version)))


def counts(found: FileVerdict) -> Counter[tuple[str, str | None, int | None]]:
    return Counter((module.verdict.verdict, module.verdict.target, module.verdict.cuda_error) for module in found.modules)


@pytest.mark.parametrize(
    ("ending", "gpu", "version", "expected"),
    [
        ("mainline-cuda.so", "GTX 1060", None, {("native", "sm_61", None): 28}),
        ("mainline-cuda.so", "RTX 3060", None, {("jit", "compute_70", None): 28}),
        ("mainline-cuda.so", "RTX 3060", "535.154", {("fails", "compute_70", 222): 28}),
        ("mainline-cuda.so", "GTX 750 Ti", None, {("fails", None, 209): 28}),
        ("libfaiss-6b43fd57.so", "H100", None, {("fails", None, 209): 178, ("empty", None, 209): 4}),
        ("libfaiss-6b43fd57.so", "RTX 3060", None, {("compatible", "sm_80", None): 178, ("empty", "sm_80", None): 4}),
        ("cuda118.so", "RTX 5090", None, {("jit", "compute_90", None): 5, ("empty", "compute_90", None): 2}),
        ("x86_64-linux-gnu.so", "H100", "580.95", {("jit", "compute_52", None): 57, ("empty", "compute_52", None): 3}),
    ],
)
def test_verdicts(ending: str, gpu: str, version: str | None, expected: dict[tuple[str, str | None, int | None], int]) -> None:
    assert counts(judged(ending, gpu, version)) == expected


def test_a_program_too_new_for_the_driver_says_so_whatever_it_loads() -> None:
    """Nothing in it is for a GTX 1060, and still the runtime of CUDA 12.1 fails first."""
    with inspected(str(corpus_file("libfaiss-6b43fd57.so"))) as node:
        doctor = Doctor(node, limit=LIMIT)
        doctor.judge(H100)  # what was asked before changes nothing
        found = doctor.judge(Environment(find("GTX 1060"), driver("470.42")))
    assert found.trouble is not None
    assert (found.trouble[0], "CUDA 12.1" in found.trouble[1]) == (35, True)


def test_a_stub_that_is_meant_for_all_near_devices() -> None:
    """Two kernels of bitsandbytes are dead in sm_86 and sm_89 alike and real in sm_90: no defect on 8.7."""
    found = judged("cuda118.so", "sm_87")
    assert (outcome_of(found), found.trouble and found.trouble[0]) == ("will-not-run", None), "x86-64 on a Jetson module"
    assert not [kernel for module in found.modules for kernel in module.verdict.defects]


def test_what_is_read_of_hosts() -> None:
    found = judged("mainline-cuda.so", "P100")
    host = found.modules[0].host
    assert (host.family.era, host.thresholds, host.read) == (PER_TYPE, (600, 610, 700), True)
    assert not found.mismatch  # the host takes the road of 6.0, the code is of 5.2: no body that it launches changes between them
    assert not [quant.quant for quant in found.quants if quant.broken]
    assert not judged("mainline-cuda.so", "RTX 3060").mismatch
    newer = judged("x86_64-linux-gnu.so", "H100").modules[0].host
    assert newer.family.uses_arch_list
    assert newer.decides_by(90) == 520


def test_compile_cost_of_a_real_library() -> None:
    found = judged("x86_64-linux-gnu.so", "H100")
    assert found.cost is not None
    assert 173 / 2 < found.cost.seconds < 173 * 2  # 173 s were measured on an H100's host (reference: load rules, D)
    assert found.cost.cache_bytes == pytest.approx(104e6, rel=0.05)
