"""``import fatpatch``: every public name, against what the commands say of the same files."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, SAMPLES, Run

import fatpatch

SCHEMAS = {path.name: path for path in (ROOT / "fatpatch").rglob("*.schema.json")}


def test_every_public_name_is_there_and_documented() -> None:
    for name in fatpatch.__all__:
        value = getattr(fatpatch, name)
        assert inspect.getdoc(value), name
    assert set(fatpatch.__all__) <= set(dir(fatpatch))
    with pytest.raises(AttributeError):
        fatpatch.no_such_name  # noqa: B018


def test_importing_costs_nothing() -> None:
    program = "import fatpatch, sys; print([name for name in sys.modules if name.startswith('fatpatch.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", [str(SAMPLES / "libkernels.so"), SAMPLES / "libkernels.so"])
def test_a_file(path: str | Path) -> None:
    with fatpatch.open(path) as file:
        assert (file.container, file.size, len(file.modules), len(file.images)) == ("elf", 66696, 1, 11)
        assert file.targets[:2] == ("sm_50", "sm_61")
        image = next(image for image in file.images if image.target == "sm_61")
        assert image.read() == (SAMPLES / "kernels.sm_61.cubin").read_bytes()
        assert (image.kind, image.codec) == ("sass", "lz4")
        assert {kernel.target for kernel in file.kernels(target="sm_9*")} == {"sm_90", "sm_90a"}
        assert {kernel.demangled for kernel in file.kernels(name="gather<float>")} == {
            "void gather<float>(float*, float const*, Big, unsigned char, double)"
        }
        reverse = next(file.kernels(target="sm_90", name="reverse"))
        assert (reverse.shared_bytes, reverse.facts.shared_bytes) == (512, 1536)
        assert "<caption>libkernels.so</caption>" in file._repr_html_()
    with pytest.raises(fatpatch.InputError, match="closed"):
        image.read()


def test_members_of_archives() -> None:
    with fatpatch.open(SAMPLES / "demo.llamafile") as file:
        assert "demo.llamafile!ggml-cuda.dll" in file.members
        assert [module.section for module in file.modules] == [".nv_fatb", ".nv_fatbin"]
        assert file.images[0].read()[:4] == b"\x7fELF"


@pytest.mark.parametrize("options", [(), ("--kernels",)])
def test_documents_are_those_of_inspect(run: Run, options: tuple[str, ...]) -> None:
    told = json.loads(run("inspect", SAMPLES / "demo.llamafile", "--format", "json", *options).stdout)["files"][0]
    with fatpatch.open(SAMPLES / "demo.llamafile") as file:
        mine = file.to_dict(kernels=bool(options))
    assert {**mine, "path": ""} == {**told, "path": ""}


def test_tables() -> None:
    pytest.importorskip("pyarrow")
    with fatpatch.open(SAMPLES / "kernels.fatbin") as file:
        table = file.to_arrow()
        assert table.num_rows == len(list(file.kernels()))
        assert table.column_names[:3] == ["locator", "target", "kernel"]


def test_doctor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "samples/demo.llamafile"
    monkeypatch.chdir(ROOT)
    verdict = fatpatch.doctor(path, "GTX 1060", "535.154")
    assert not verdict
    assert verdict.outcome == "abort"
    assert verdict.reason.startswith("WILL ABORT")
    assert any(remedy.works for remedy in verdict.remedies)
    assert verdict.report() + "\n" == run("doctor", path, "--gpu", "GTX 1060", "--driver", "535.154", cwd=ROOT).stdout
    told = json.loads(run("doctor", path, "--gpu", "GTX 1060", "--driver", "535.154", "--format", "json", cwd=ROOT).stdout)["files"][0]
    assert verdict.to_dict() == told
    with fatpatch.open(path) as file:
        assert fatpatch.doctor(file, "V100")
    with pytest.raises(fatpatch.InputError, match="RTX 9090"):
        fatpatch.doctor(path, "RTX 9090")


def test_check_and_diff() -> None:
    assert fatpatch.check(SAMPLES / "libkernels.so", require=["sm_61"], gpus=["GTX 1060"])
    failed = fatpatch.check([SAMPLES / "libkernels.so"], require=["sm_89"])
    assert not failed
    assert failed.findings[0].rule.startswith("FP")
    jsonschema.validate(failed.to_dict(), json.loads(SCHEMAS["check-1.schema.json"].read_text()))
    assert not fatpatch.diff(SAMPLES / "donor.so", SAMPLES / "donor.so")
    found = fatpatch.diff(SAMPLES / "donor.so", SAMPLES / "libkernels.so")
    assert found
    assert "|" in found.markdown()
    jsonschema.validate(found.to_dict(), json.loads(SCHEMAS["diff-1.schema.json"].read_text()))


def test_an_edit_is_planned_saved_and_taken_back(tmp_path: Path) -> None:
    original = (SAMPLES / "demo.llamafile").read_bytes()
    path = tmp_path / "demo.llamafile"
    path.write_bytes(original)
    plan = fatpatch.graft(path, donor=SAMPLES / "donor.dll", targets=["sm_61"])
    assert path.read_bytes() == original, "planning writes nothing"
    assert plan.size_after > plan.size_before == len(original)
    assert len(plan.checks) > 10
    jsonschema.validate(plan.to_dict(), json.loads(SCHEMAS["graft-1.schema.json"].read_text()))
    fixed = tmp_path / "fixed.llamafile"
    done = plan.save(fixed)
    assert done["output"] == str(fixed)
    assert fixed.stat().st_size == plan.size_after
    assert fatpatch.verify(fixed)
    assert not fatpatch.doctor(path, "GTX 1060")
    with pytest.raises(fatpatch.EditError, match="exists already"):
        plan.save(fixed)
    fatpatch.undo(fixed)
    assert fixed.read_bytes() == original
    plan.save()
    assert path.read_bytes() != original
    fatpatch.undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize(
    "make",
    [
        lambda path: fatpatch.prune(path, drop=["sm_50"], compact=True),
        lambda path: fatpatch.prune(path, gpus=["RTX 3060", "H100"], force=True),
        lambda path: fatpatch.recompress(path, "zstd", level=5),
        lambda path: fatpatch.expand(path),
    ],
)
def test_other_edits(make: object, tmp_path: Path) -> None:
    path = tmp_path / "libkernels.so"
    path.write_bytes((SAMPLES / "libkernels.so").read_bytes())
    plan = make(path)  # type: ignore[operator]
    jsonschema.validate(plan.to_dict(), json.loads(SCHEMAS["edit-1.schema.json"].read_text()))
    document = plan.save(tmp_path / "out.so") if plan.to_dict()["modules"] else None
    if document is not None:
        assert (tmp_path / "out.so").stat().st_size == document["size_after"]
        assert fatpatch.verify(tmp_path / "out.so", independent=True)


def test_refusals_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(fatpatch.EditError):
        fatpatch.prune(SAMPLES / "libkernels.so", keep=["sm_61"], drop=["sm_50"])
    with pytest.raises(fatpatch.EditError):
        fatpatch.graft(SAMPLES / "libkernels.so")
    with pytest.raises(fatpatch.InputError):
        fatpatch.open(tmp_path / "nothing")
    with pytest.raises(fatpatch.EditError):
        fatpatch.undo(SAMPLES / "libkernels.so")


def test_a_release_of_cuda_is_checked() -> None:
    with pytest.raises(fatpatch.InputError, match=r"expected a release such as 12\.6, got 'twelve'"):
        fatpatch.doctor(SAMPLES / "libkernels.so", "sm_61", cuda="twelve")


def test_verify_takes_a_link(tmp_path: Path) -> None:
    """The undo record lies beside the file that it leads to."""
    edited, link = tmp_path / "edited.so", tmp_path / "link.so"
    fatpatch.prune(SAMPLES / "libkernels.so", drop=["sm_61"]).save(edited)
    link.symlink_to(edited)
    checks = [check.name for check in fatpatch.verify(link).checks]
    assert checks == [check.name for check in fatpatch.verify(edited).checks]
    assert any("record" in name for name in checks)


def test_a_requirement_that_nothing_compiles_is_refused() -> None:
    with pytest.raises(fatpatch.InputError, match="no CUDA toolkit known here compiles sm_611"):
        fatpatch.check(SAMPLES / "libkernels.so", require=["sm_611"])
