"""``retarget``: acceptance as recorded with ptxas 12.9, the traps for the unwary, a verdict on each kernel, and what is made of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders.fatbin import container, entry
from conftest import ROOT, corpus_file, required
from edit.elf_builder import Host, build, fatbins_in_memory, fatpatch

from fatpatch.base.errors import LimitError, ToolError
from fatpatch.gpucode.cubin.bodies import cubin_bodies
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.ptx.bodies import ptx_bodies
from fatpatch.retargeting import ptxas as ptxas_module
from fatpatch.retargeting.cautions import cautions
from fatpatch.retargeting.ptxas import Ptxas, find_ptxas, kept_options
from fatpatch.retargeting.rewrites import REWRITES, rewritten
from fatpatch.retargeting.text import Text, for_target

SCHEMA = json.loads((ROOT / "fatpatch/commands/retarget/retarget-1.schema.json").read_text())
FIXTURES = ROOT.parent / "shared/fixtures/stubs"


@pytest.fixture(scope="module")
def ptxas() -> Ptxas:
    try:
        found = find_ptxas()
    except ToolError:
        required("ptxas: pip install -e '.[nvidia]'")
        raise
    if found.release != "12.9":
        required(f"ptxas 12.9, found {found.release}")
    return found


def expected() -> dict[str, Any]:
    path = FIXTURES / "expected.json"
    found: dict[str, Any] = json.loads(path.read_text())["retarget_ptxas_12.9"] if path.is_file() else {}
    return found


def told(path: Path, *arguments: object) -> dict[str, Any]:
    answer = fatpatch("retarget", path, *arguments, "--format", "json")
    document: dict[str, Any] = json.loads(answer.out)
    assert answer.code == (0 if any(module["size"] for module in document["modules"]) else 1), answer
    jsonschema.validate(document, SCHEMA)
    return document


def kernels(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {kernel["name"]: kernel for module in document["modules"] for kernel in module["kernels"]}


@pytest.mark.parametrize("key", expected() or ["the fixtures"])
def test_acceptance_is_as_recorded(key: str, ptxas: Ptxas) -> None:
    if not expected():
        required(f"retarget fixtures in {FIXTURES}")
    name, target = key.split("->")
    rejected = expected()[key]["rejected"]
    found = kernels(told(FIXTURES / name, "--to", target, "--no-rewrite"))
    assert {kernel: row["why"] for kernel, row in found.items() if row["class"] == 5}.keys() == rejected.keys()
    for kernel, words in rejected.items():
        assert found[kernel]["why"] == words or "'X'" in words


def fixture_host(folder: Path, *texts: str) -> Path:
    """A library with the fixtures' PTX, and nothing else."""
    if not expected():
        required(f"retarget fixtures in {FIXTURES}")
    parts = [
        entry((FIXTURES / f"retarget.{each}.ptx").read_bytes() + b"\0", kind=1, arch=int(each.split("_")[1]), options=b"") for each in texts
    ]
    return build(Host("shared"), folder, (container(*parts),))


def test_traps_for_the_unwary(ptxas: Ptxas, tmp_path: Path) -> None:
    """Two levels above the GPU agree in everything: that proves nothing for one below them."""
    path = fixture_host(tmp_path, "compute_80", "compute_90")
    found = kernels(told(path, "--to", "sm_61", "--allow", "unverified"))
    assert found["r_stub_high"]["class"] == 4
    assert found["r_shape"]["class"] == 3
    assert "above the GPU too" in found["r_shape"]["why"]
    assert any("some lanes of a warp" in words for words in found["r_shfl_div"]["cautions"])
    assert not any("some lanes of a warp" in words for words in found["r_shfl"]["cautions"])
    assert any("takes a lock" in words for words in found["r_lanelock"]["cautions"])
    assert not any("takes a lock" in words for words in found["r_plain"]["cautions"])
    assert any("ex2 and rcp" in words for words in found["r_tanh"]["cautions"])
    assert not any(row["taken"] for row in found.values())
    found = kernels(told(path, "--to", "sm_86", "--source", "compute_80"))  # below it: what a driver would compile
    assert {row["class"] for name, row in found.items() if name != "r_stub_high"} == {1}


def test_named_kernels_go_in(ptxas: Ptxas, tmp_path: Path) -> None:
    path = fixture_host(tmp_path, "compute_80")
    document = told(path, "--to", "sm_61", "--kernel", "r_plain", "--kernel", "r_shape", "-o", tmp_path / "out")
    taken = {name for name, row in kernels(document).items() if row["taken"]}
    assert taken == {"r_plain", "r_shape"}
    (module,) = document["modules"]
    made = (tmp_path / "out" / module["file"]).read_bytes()
    assert read_image("sass", made).target == "sm_61"
    bodies = cubin_bodies(made)
    assert {name for name, body in bodies.items() if body == "real"} == taken
    assert {body for name, body in bodies.items() if name not in taken} == {"stub-trap"}
    assert json.loads((tmp_path / "out" / "index.json").read_text()) == document
    assert fatpatch("retarget", path, "--to", "sm_61", "--kernel", "nobody").code == 6
    assert fatpatch("retarget", path, "--to", "sm_61", "--kernel", "r_plain", "-o", tmp_path / "out").code == 6  # the folder is taken
    document = told(path, "--to", "sm_61", "--kernel", "r_plain", "--as", "ptx", "-o", tmp_path / "text")
    text = (tmp_path / "text" / document["modules"][0]["file"]).read_bytes()
    assert b".target sm_61" in text
    assert {name for name, body in ptx_bodies(text).items() if body == "real"} == {"r_plain"}


def test_nothing_to_take(ptxas: Ptxas, tmp_path: Path) -> None:
    path = fixture_host(tmp_path, "compute_80")
    answer = fatpatch("retarget", path, "--to", "sm_61")
    assert answer.code == 1
    assert "no image was compiled" in answer.out
    assert "nvcc -gencode arch=compute_61,code=sm_61" in answer.out
    assert fatpatch("graft", path, "--retarget", "sm_61", "-o", tmp_path / "x").code == 6
    for target, code in (("compute_61", 6), ("sm_999", 6), ("RX 6800", 2), ("nonsense", 2), ("sm_35", 8), ("GTX 1060", 1)):
        assert fatpatch("retarget", path, "--to", target).code == code, target
    answer = fatpatch("retarget", path, "--to", "sm_61", "--source", "compute_75")
    assert answer.code == 6
    assert "there is PTX for compute_80" in answer.err
    assert fatpatch("retarget", ROOT / "samples/donor.so", "--to", "sm_75").code == 6  # no PTX at all


def test_without_ptxas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas_module, "_candidates", list)
    answer = fatpatch("retarget", ROOT / "samples/libkernels.so", "--to", "sm_61")
    assert answer.code == 8
    assert "pip install 'fatpatch[nvidia]'" in answer.err


SOURCE = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry same(.param .u64 out) { .reg .b64 %d1; .reg .b32 %r1; ld.param.u64 %d1, [out]; mov.u32 %r1, 7; st.global.u32 [%d1], %r1; ret; }
.visible .entry other(.param .u64 out) { .reg .b64 %d1; .reg .b32 %r1; ld.param.u64 %d1, [out]; mov.u32 %r1, 1; st.global.u32 [%d1], %r1; ret; }
"""


def levels(folder: Path, *changes: tuple[int, bytes, bytes]) -> Path:
    """A library with one PTX for each (level, what of SOURCE, by what)."""
    parts = [
        entry(SOURCE.replace(b"sm_70", b"sm_%d" % arch).replace(old, new) + b"\0", kind=1, arch=arch, options=b"")
        for arch, old, new in changes
    ]
    return build(Host("shared"), folder, (container(*parts),))


def test_identical_needs_a_level_below(ptxas: Ptxas, tmp_path: Path) -> None:
    path = levels(tmp_path, (50, b"mov.u32 %r1, 1", b"mov.u32 %r1, 2"), (70, b"", b""), (80, b"", b""))
    found = kernels(told(path, "--to", "sm_61"))
    assert {name: row["class"] for name, row in found.items()} == {"same": 1, "other": 3}
    answer = fatpatch("graft", path, "--retarget", "sm_61", "-o", tmp_path / "x")
    assert answer.code == 6  # "other" runs today, compiled from compute_50
    assert "would be traps" in answer.err
    assert fatpatch("graft", path, "--retarget", "sm_61", "--kernel", "nobody", "-o", tmp_path / "x").code == 6
    assert fatpatch("graft", path, "--retarget", "RX 6800", "-o", tmp_path / "x").code == 2
    answer = fatpatch("graft", path, "--retarget", "GTX 1060", "--kernel", "other", "-o", tmp_path / "named")
    assert answer.code == 0
    assert "UNVERIFIED: 1 kernels" in answer.out + answer.err
    (module,) = fatbins_in_memory((tmp_path / "named").read_bytes())
    made = next(each for each in module if (each.kind, each.arch) == (2, 61))
    assert cubin_bodies(made.data) == {"same": "real", "other": "real"}
    assert fatpatch("graft", path, "--retarget", "sm_61", "-o", tmp_path / "x", "--force").code == 0
    (module,) = fatbins_in_memory((tmp_path / "x").read_bytes())
    made = next(each for each in module if (each.kind, each.arch) == (2, 61))
    assert cubin_bodies(made.data) == {"same": "real", "other": "stub-trap"}
    assert fatpatch("undo", tmp_path / "x").code == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b".visible .entry same", b".visible .entry same"),
        (b"{ .reg .b64 %d1;", b"{ // a comment with { braces\n .loc 1 2 3\n\t.reg  .b64   %d1;"),
    ],
    ids=["nothing", "layout"],
)
def test_layout_makes_no_difference(old: bytes, new: bytes, ptxas: Ptxas) -> None:
    assert Text(SOURCE).essence("same") == Text(SOURCE.replace(old, new)).essence("same")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"mov.u32 %r1, 7", b"mov.u32 %r1, 8"),
        (b".visible .entry same(.param .u64 out)", b".visible .entry same(.param .u64 out) .maxntid 64"),
        (b".visible .entry same(.param .u64 out)", b".visible .entry same(.param .u64 out, .param .u32 n)"),
    ],
    ids=["code", "bounds", "parameters"],
)
def test_what_makes_a_difference(old: bytes, new: bytes) -> None:
    assert Text(SOURCE).essence("same") != Text(SOURCE.replace(old, new)).essence("same")


def test_callees_and_data_count() -> None:
    def text(value: int, size: int) -> Text:
        return Text(
            SOURCE.replace(b"mov.u32 %r1, 7;", b"call (%r1), inner; mov.u32 %r1, table;").replace(
                b".visible .entry same",
                b".shared .align 4 .b8 table[%d];\n.func (.reg .b32 %%a) inner { mov.u32 %%a, %d; ret; }\n.visible .entry same"
                % (size, value),
            )
        )

    assert text(1, 4).essence("same") == text(1, 4).essence("same")
    assert text(1, 4).essence("same") != text(2, 4).essence("same")
    assert text(1, 4).essence("same") != text(1, 8).essence("same")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b".global .u64 table[1] = {inner};", b""),
        (b".alias outer, inner;", b""),
        (
            b".global .align 4 .b8 numbers[60000] = {" + b"1, " * 59999 + b"1};",
            b".global .align 4 .b8 numbers[60000] = {" + b"1, " * 59999 + b"2};",
        ),
        (b".global .u32 one; .global .u32 numbers = 1;", b".global .u32 one; .global .u32 numbers = 2;"),
    ],
    ids=["pointer in data", "alias", "long data", "two on a line"],
)
def test_everything_named_counts(first: bytes, second: bytes) -> None:
    """A function that is reached by its address, data of any length, declarations on one line."""

    def text(value: int, data: bytes) -> Text:
        function = b".func (.reg .b32 %%a) inner(.reg .b32 %%x)\n{ add.s32 %%a, %%x, %d; ret; }\n" % value
        body = b"mov.u64 %d1, table; mov.u32 %r1, numbers; mov.u32 %r1, outer;"
        return Text(SOURCE.replace(b".visible .entry same", function + data + b"\n.visible .entry same").replace(b"mov.u32 %r1, 7;", body))

    assert text(1, first).essence("same") == text(1, first).essence("same")
    assert text(1, first).essence("same") != text(2 if not second else 1, second or first).essence("same")


def test_calls_through_pointers_prove_nothing() -> None:
    body = b"mov.u64 %d1, inner; call (%r1), %d1, (%r1), proto;"
    assert Text(SOURCE.replace(b"mov.u32 %r1, 7;", body)).calls_by_pointer("same")
    assert not Text(SOURCE).calls_by_pointer("same")


def test_two_definitions_on_a_line() -> None:
    """Lines mean nothing in PTX."""
    apart, joined = Text(SOURCE), Text(SOURCE.replace(b"ret; }\n.visible .entry other", b"ret; } .visible .entry other"))
    assert joined.entries.keys() == apart.entries.keys()
    assert all(joined.essence(name) == apart.essence(name) for name in apart.entries)


def test_names_with_dollars() -> None:
    first, second = (Text(SOURCE.replace(b"mov.u32 %r1, 7", b"mov.u32 %r1, t$" + name)) for name in (b"a", b"b"))
    assert first.essence("same") != second.essence("same")


def test_a_huge_cubin_is_refused(ptxas: Ptxas) -> None:
    with pytest.raises(LimitError):
        ptxas.assemble(SOURCE + b"\n.visible .global .align 1 .b8 big[600000000]={1};\n", "sm_70")


def test_interruption_ends_at_once(tmp_path: Path, ptxas: Ptxas) -> None:
    path = corpus_file("libllamamodel-mainline-cuda.so")
    command = [sys.executable, "-m", "fatpatch", "retarget", str(path), "--to", "sm_61", "--source", "compute_70"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130  # the whole run takes minutes
    assert list(tmp_path.iterdir()) == []


def test_version_is_lowered(ptxas: Ptxas) -> None:
    text = SOURCE.replace(b".version 7.0", b".version 9.1")
    answer = ptxas.assemble(text, "sm_70")
    assert answer.newest == "8.8"
    assert ptxas.assemble(for_target(text, "sm_70", answer.newest), "sm_70").cubin is not None


def test_options_of_an_entry() -> None:
    assert kept_options("-O1 -maxrregcount=20  ") == ["-O1", "-maxrregcount=20"]
    assert kept_options("--compile-only  ") == ["--compile-only"]
    for hostile in (
        "-o /tmp/x",
        "--output-file=/tmp/x",
        "@/etc/passwd",
        "-arch=sm_20",
        "--options-file /etc/passwd",
        "-O1; rm -rf x",
        "-O1 -o x",
    ):
        assert not any(word.startswith(("-o", "--out", "@", "-arch", "--options")) or "/" in word for word in kept_options(hostile)), (
            hostile
        )


def test_a_kernel_with_a_broken_function(ptxas: Ptxas, tmp_path: Path) -> None:
    """What a function of the text cannot do, its callers cannot do; the others go on."""
    broken = b".func (.reg .b32 %a) sleepy { nanosleep.u32 20; mov.u32 %a, 1; ret; }\n.visible .entry same"
    path = levels(tmp_path, (70, b".visible .entry same", broken))
    data = SOURCE.replace(b".visible .entry same", broken).replace(b"mov.u32 %r1, 7;", b"call (%r1), sleepy;")
    path = build(Host("shared"), tmp_path, (container(entry(data + b"\0", kind=1, arch=70, options=b"")),))
    found = kernels(told(path, "--to", "sm_61"))
    assert found["same"]["class"] == 5
    assert "calls sleepy" in found["same"]["why"]
    assert found["other"]["class"] == 3


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda each: each.name)
def test_rewrites_assemble(rewrite: Any, ptxas: Ptxas) -> None:
    """Guarded and not, in place and not. Their numbers were compared on a GPU: tests/gpu/tanh.py."""
    body = b"""{ .reg .f32 %f<4>; .reg .pred %p1; .reg .b64 %d1; ld.param.u64 %d1, [out]; ld.global.f32 %f1, [%d1];
        setp.gt.f32 %p1, %f1, 0f00000000; tanh.approx.f32 %f2, %f1; @%p1 tanh.approx.f32 %f2, %f2; @!%p1 tanh.approx.f32 %f1, %f2;
        add.f32 %f2, %f1, %f2; st.global.f32 [%d1], %f2; ret; }"""
    new, used = rewritten(body, 61)
    assert used == (rewrite,)
    assert b"tanh.approx" not in new
    assert rewritten(body, 75) == (body, ())
    for code, arch in ((new, 61), (body, 75)):
        text = b".version 7.0\n.target sm_%d\n.address_size 64\n.visible .entry k(.param .u64 out) %s\n" % (arch, code)
        answer = ptxas.assemble(text, f"sm_{arch}")
        assert answer.cubin is not None, answer.complaints


def test_cautions_for_newer_gpus_are_few() -> None:
    header, body = b".entry k() .maxntid 32", b"activemask.b32 %r1; shfl.sync.bfly.b32 %r2, %r1, 1, 31, 3;"
    assert [*cautions(b"", header, body, 70)] == []
    assert len([*cautions(b"", header, body, 61)]) == 1
    assert "launch bounds" in next(iter(cautions(b"", b".entry k()", b"", 90)))


@pytest.mark.slow
@pytest.mark.corpus
def test_gpt4all_from_70_to_61(ptxas: Ptxas, tmp_path: Path) -> None:
    """361 of 442 accepted, 81 rejected for wmma, 20 with another shape; what is called identical is as the file's own sm_61 has it."""
    path = corpus_file("libllamamodel-mainline-cuda.so")
    document = told(path, "--to", "sm_61", "--source", "compute_70", "-o", tmp_path / "out")
    found = kernels(document)
    counts = Counter(row["class"] for row in found.values())
    assert len(found) == 442
    assert counts[5] == 81
    assert {("WMMA" in row["why"]) for row in found.values() if row["class"] == 5} == {True}
    assert counts[3] == 20
    assert all(name.startswith("_Z") and "mul_mat_q" in name for name, row in found.items() if row["class"] == 3)
    assert counts[1] + counts[2] == 341
    assert counts[1] >= 250
    assert fatpatch("extract", path, "-d", tmp_path / "own", "--target", "sm_61").code == 0
    own: dict[str, tuple[Any, ...]] = {}
    for cubin in (tmp_path / "own").rglob("*.cubin"):
        own |= {row[0]: row for row in read_image("sass", cubin.read_bytes()).kernels}
    compared = same_size = 0
    for module in document["modules"]:
        if module["file"] is None:
            continue
        rows = {row[0]: row for row in read_image("sass", (tmp_path / "out" / module["file"]).read_bytes()).kernels}
        for kernel in module["kernels"]:
            if kernel["class"] == 1:
                ours, theirs = rows[kernel["name"]], own[kernel["name"]]
                assert (ours[2], ours[5], ours[6]) == (theirs[2], theirs[5], theirs[6]), kernel["name"]
                compared += 1
                same_size += ours[7] == theirs[7]
    assert compared == counts[1]
    assert same_size > 0.85 * compared  # another release of ptxas made the file's own


def test_a_compiled_result_reads_back(ptxas: Ptxas, tmp_path: Path) -> None:
    """cuobjdump's reader agrees with what is made."""
    path = levels(tmp_path, (50, b"", b""), (70, b"", b""))
    document = told(path, "--to", "sm_61", "-o", tmp_path / "out")
    assert {row["class"] for row in kernels(document).values()} == {1}
    made = tmp_path / "out" / document["modules"][0]["file"]
    listing = subprocess.run(["readelf", "-hsW", made], capture_output=True, text=True, check=False).stdout
    assert "same" in listing
    assert "NVIDIA CUDA" in listing


def test_modules_that_lack_the_target(ptxas: Ptxas, tmp_path: Path) -> None:
    """Code for the target in another module is no hindrance; "auto" is no name of a GPU."""
    text = SOURCE.replace(b"sm_70", b"sm_52")
    lacking = container(entry(text + b"\0", kind=1, arch=52, options=b""))
    (cubin_there,) = (answer.cubin for answer in [ptxas.assemble(text.replace(b"same", b"different"), "sm_61")])
    assert cubin_there is not None
    having = container(entry(cubin_there, kind=2, arch=61))
    path = build(Host("shared", modules=2), tmp_path, (having, lacking))
    answer = fatpatch("graft", path, "--retarget", "sm_61", "-o", tmp_path / "x")
    assert answer.code == 6
    assert "has sm_61 code in 1 module already" in answer.err
    assert fatpatch("graft", path, "--retarget", "sm_61", "--module", "*fatbin[1]", "-o", tmp_path / "x").code == 0
    made = fatbins_in_memory((tmp_path / "x").read_bytes())
    assert [[each.arch for each in module if each.kind == 2] for module in made] == [[61], [61]]
    for words in (("graft", path, "--retarget", "auto", "-o", tmp_path / "y"), ("retarget", path, "--to", " AUTO")):
        answer = fatpatch(*words)
        assert answer.code == 2, answer
        assert "DRIVE" not in answer.out + answer.err
