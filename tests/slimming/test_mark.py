"""What the readers say of a slimmed file: for which GPUs it was kept. A mark that does not fit the file says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, SAMPLES
from edit.elf_builder import fatpatch
from slimming.test_slim import GPU, environment, libraries, slim, wheel

__all__ = ["libraries"]
WORDS = "built for sm_61 only (slimmed for GeForce GTX 1080 on "


def flat(text: str) -> str:
    return " ".join(text.split())


def schema(path: str) -> dict[str, object]:
    return dict(json.loads((ROOT / path).read_text()))


@pytest.mark.parametrize("options", [(), ("--no-undo",)], ids=["undo", "no-undo"])
def test_of_an_environment(tmp_path: Path, libraries: list[Path], options: tuple[str, ...]) -> None:
    env, site = environment(tmp_path, libraries)
    slim(env, "--for", GPU, "--in-place", *options)
    assert "nothing to do" in slim(env, "--for", GPU, "--in-place", *options).out
    path = site / "kernels/0/libplain.so"
    assert WORDS in fatpatch("inspect", path).out
    assert WORDS in flat(fatpatch("doctor", path, "--gpu", "T4").out)
    assert WORDS in flat(fatpatch("check", path, "--require", "sm_61").out)
    assert WORDS not in fatpatch("inspect", site / "kernels/0/libother.so").out
    page = tmp_path / "page.html"
    assert fatpatch("report", path, "-o", page).code == 0
    assert WORDS in flat(page.read_text())
    found = json.loads(fatpatch("inspect", path, "--format", "json").out)
    jsonschema.validate(found, schema("fatpatch/scan/inspect-1.schema.json"))
    assert found["files"][0]["slimmed"]["targets"] == ["sm_61"]
    judged = json.loads(fatpatch("doctor", path, "--gpu", GPU, "--format", "json").out)
    jsonschema.validate(judged, schema("fatpatch/verdicts/doctor-2.schema.json"))
    assert judged["files"][0]["slimmed"][0]["gpus"] == ["GeForce GTX 1080"]
    checked = json.loads(fatpatch("check", path, "--require", "sm_61", "--format", "json").out)
    jsonschema.validate(checked, schema("fatpatch/policy/check-1.schema.json"))
    assert checked["files"][0]["slimmed"][0].startswith(WORDS)
    path.write_bytes(libraries[0].read_bytes())  # as an installer would
    assert WORDS not in fatpatch("inspect", path).out


def test_of_a_wheel_and_of_a_plain_folder(tmp_path: Path, libraries: list[Path]) -> None:
    slim(wheel(tmp_path, libraries), "--for", GPU, "-o", tmp_path / "out")
    (made,) = (tmp_path / "out").iterdir()
    assert WORDS in fatpatch("inspect", made).out
    folder = tmp_path / "plain/lib"
    folder.mkdir(parents=True)
    (folder / "libplain.so").write_bytes(libraries[0].read_bytes())
    slim(tmp_path / "plain", "--drop", "sm_75", "--strip-lto", "--in-place", "--no-undo")
    shown = fatpatch("inspect", folder / "libplain.so").out
    assert "built without sm_75, code for link-time optimization (slimmed on " in shown
    assert fatpatch("undo", tmp_path / "plain").code == 6
    assert "slimmed on " in fatpatch("inspect", folder / "libplain.so").out


def test_of_a_file_alone(tmp_path: Path, libraries: list[Path]) -> None:
    """Its mark lies beside it: for another GPU's run it is replaced, and undo removes it."""
    path = tmp_path / "libplain.so"
    path.write_bytes(libraries[0].read_bytes())
    out = tmp_path / "out.so"
    slim(path, "--for", GPU, "-o", out)
    assert WORDS in fatpatch("inspect", out).out
    assert WORDS in flat(fatpatch("doctor", out, "--gpu", "T4").out)
    assert not list(tmp_path.glob("libplain.so.*"))
    slim(path, "--for", GPU, "--in-place")
    assert WORDS in fatpatch("inspect", path).out
    assert fatpatch("undo", path).code == 0
    assert path.read_bytes() == libraries[0].read_bytes()
    assert "slimmed" not in fatpatch("inspect", path).out
    assert sorted(each.name for each in tmp_path.iterdir()) == ["libplain.so", "out.so", "out.so.fatpatch-slim.json"]


@pytest.mark.parametrize("text", ["[", "[]", '{"schema": 3}', '{"schema": "fatpatch.slimmed/1", "files": []}', "\0", "9" * 5000])
def test_a_broken_mark_says_nothing(tmp_path: Path, libraries: list[Path], text: str) -> None:
    env, site = environment(tmp_path, libraries[:1])
    for place in (env, site, site / "kernels-1.0.dist-info"):
        (place / "fatpatch-slim.json").write_text(text)
    answer = fatpatch("inspect", site / "kernels/0/libplain.so")
    assert answer.code == 0, answer
    assert "slimmed" not in answer.out


def test_kernels_of_other_gpus_alone_are_no_alarm(tmp_path: Path) -> None:
    """A kernel that only removed images held was never loaded on the GPU that is kept (NCCL has such): see same_verdicts.py."""
    (tmp_path / "site").mkdir()
    path = tmp_path / "site/libkernels.so"
    whole = json.loads(fatpatch("inspect", SAMPLES / "libkernels.so", "--format", "json").out)["files"][0]["summary"]["images_by_target"]
    path.write_bytes((SAMPLES / "libkernels.so").read_bytes())
    before = json.loads(fatpatch("doctor", path, "--gpu", GPU, "--format", "json").out)["files"][0]
    slim(tmp_path / "site", "--for", GPU, "--in-place")
    after = json.loads(fatpatch("doctor", path, "--gpu", GPU, "--format", "json").out)["files"][0]
    kept = json.loads(fatpatch("inspect", path, "--format", "json").out)["files"][0]["summary"]["images_by_target"]
    assert set(kept) < set(whole)
    assert (after["verdict"], after["outcome"], after["trouble"]) == (before["verdict"], before["outcome"], before["trouble"])
