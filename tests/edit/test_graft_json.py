"""``graft --format json`` follows its schema, which ships in the package, and holds what the text says."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, SAMPLES

from fatpatch import __version__
from fatpatch.commands import run as run_command

SCHEMA = json.loads((ROOT / "fatpatch/edit/graft/graft-1.schema.json").read_text())
CONTRACT = ("schema", "output", "grafted", "skipped", "checks", "undo")  # design, section 3
FIXTURES = Path(__file__).parent / "fixtures"
A_90, B_90 = ("--cubin", FIXTURES / "a.sm_90.cubin"), ("--cubin", FIXTURES / "b.sm_90.cubin")
Graft = Callable[..., dict[str, Any]]


@pytest.fixture
def graft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Graft:
    """The document of a graft, validated."""
    (tmp_path / "libab.so").write_bytes((FIXTURES / "libab.so").read_bytes())
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["fatpatch", "graft", *map(str, arguments), "--format", "json"])
        code = run_command()
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        document = json.loads(out)
        jsonschema.validate(document, SCHEMA)
        assert set(CONTRACT) <= set(document)
        assert all(check["ok"] and check["detail"] == "" for check in document["checks"])
        return document

    return call


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema"]["const"] == SCHEMA["$id"] == "fatpatch.graft/1"


def test_written(graft: Graft, tmp_path: Path) -> None:
    document = graft("libab.so", *A_90, *B_90, "-o", "out.so")
    assert document["tool_version"] == __version__
    assert (document["output"], document["undo"]) == ("out.so", "fatpatch undo out.so")
    assert document["size_before"] == os.path.getsize("libab.so")
    assert document["size_after"] == os.path.getsize("out.so")
    first, second = document["grafted"]
    assert (first["module"], first["target"], first["kind"], first["origin"]) == (
        "libab.so!.nv_fatbin!fatbin[0]", "sm_90", "sass", "a.sm_90.cubin",
    )  # fmt: skip
    assert (second["module"], second["kernels"], second["replaced"], second["forced"]) == ("libab.so!.nv_fatbin!fatbin[1]", 2, False, [])
    assert (first["before"]["error"], first["after"]["target"], first["device"]) == (209, "sm_90", "9.0")
    assert first["tactic"]
    assert len(document["checks"]) > 5
    assert document["skipped"] == document["present"] == document["members"] == []


def test_the_same_document_twice(graft: Graft) -> None:
    assert graft("libab.so", *A_90, "-o", "out.so") == graft("libab.so", *A_90, "-o", "out.so", "--overwrite")


def test_dry_run_says_what_would_be(graft: Graft, tmp_path: Path) -> None:
    planned = graft("libab.so", *A_90, "--dry-run")
    assert (planned["output"], planned["undo"]) == (None, None)
    assert os.listdir(tmp_path) == ["libab.so"]
    written = graft("libab.so", *A_90, "-o", "out.so")
    copied = [check for check in written["checks"] if check["name"] != "old bytes unchanged outside the plan"]
    assert len(copied) == len(written["checks"]) - 1, "what was not copied is not compared"
    assert {**written, "output": None, "undo": None, "checks": copied} == planned


def test_in_place(graft: Graft) -> None:
    document = graft("libab.so", *A_90, "--in-place")
    assert (document["output"], document["undo"]) == ("libab.so", "fatpatch undo libab.so")
    assert document["size_after"] == os.path.getsize("libab.so")


def test_names_are_quoted_for_a_shell(graft: Graft) -> None:
    name = "it's $(here).so"
    document = graft("libab.so", *A_90, "-o", name)
    assert document["output"] == name
    assert document["undo"] == "fatpatch undo 'it'\"'\"'s $(here).so'"


def test_present_and_nothing_to_do(graft: Graft, tmp_path: Path) -> None:
    document = graft("libab.so", "--cubin", FIXTURES / "a.sm_75.cubin", "-o", "out.so")
    assert document["present"] == [{"module": "libab.so!.nv_fatbin!fatbin[0]", "target": "sm_75"}]
    assert (document["grafted"], document["checks"], document["output"], document["undo"]) == ([], [], None, None)
    assert document["size_after"] == document["size_before"]
    assert os.listdir(tmp_path) == ["libab.so"]


def test_replaced(graft: Graft, tmp_path: Path) -> None:
    data = (FIXTURES / "a.sm_75.cubin").read_bytes().replace(b"Cuda compilation tools", b"CUDA compilation tools")
    (tmp_path / "other.cubin").write_bytes(data)
    (item,) = graft("libab.so", "--cubin", "other.cubin", "--replace", "-o", "out.so")["grafted"]
    assert item["replaced"]
    assert item["before"]["target"] == item["after"]["target"] == "sm_75"


def test_forced(graft: Graft) -> None:
    (item,) = graft("libab.so", "--cubin", FIXTURES / "without-ga.sm_90.cubin", "--force", "-o", "out.so")["grafted"]
    assert item["forced"] == ["lacks 1 of 2 variables: ga"]


def test_skipped_of_a_donor(graft: Graft) -> None:
    document = graft("libab.so", *A_90, "--from", SAMPLES / "kernels.fatbin", "--target", "sm_75", "--dry-run")
    (skipped,) = document["skipped"]
    assert (skipped["origin"], skipped["target"]) == ("kernels.fatbin!fatbin[0]!sm_75", "sm_75")
    assert skipped["reason"].startswith("fits no module")


def test_ptx_and_warnings(graft: Graft) -> None:
    document = graft("libab.so", "--ptx", FIXTURES / "a.compute_75.ptx", "--driver", "535.154", "-o", "out.so")
    (item,) = document["grafted"]
    assert (item["kind"], item["target"]) == ("ptx", "compute_75")
    assert "error 222" in document["notes"][0]


def test_archive_members(graft: Graft, tmp_path: Path) -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.write("libab.so", "lib/ab.so")
    document = graft("x.zip", *A_90, "-o", "y.zip")
    assert [member["locator"] for member in document["members"]] == ["x.zip!lib/ab.so"]
    assert document["grafted"][0]["module"] == "x.zip!lib/ab.so!.nv_fatbin!fatbin[0]"


@pytest.mark.parametrize("name", ["demo.llamafile", "donor.dll"])
def test_samples(name: str, graft: Graft) -> None:
    document = graft(SAMPLES / name, "--from", SAMPLES / "donor.dll", "--target", "sm_61", "--dry-run")
    assert len(document["grafted"]) + len(document["present"]) == 1
    assert not [value for value in json.dumps(document).split('"') if value.startswith("/")], "no absolute path"


def test_bare_fatbin(graft: Graft) -> None:
    document = graft(FIXTURES / "a.fatbin", *A_90, "-o", "out.fatbin")
    assert document["grafted"][0]["module"] == "a.fatbin!fatbin[0]"


def test_refusal_prints_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "fatpatch",
        "graft",
        FIXTURES / "libab.so",
        "--cubin",
        FIXTURES / "two-more.sm_90.cubin",
        "-o",
        tmp_path / "x",
        "--format",
        "json",
    ]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    assert run_command() == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert "crashes the host process" in err


def test_several_extracted_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--extracted may change several files: one JSON document, or one a line, but no documents that run together over many lines."""
    monkeypatch.chdir(tmp_path)
    for name in ("first.so", "second.so"):
        (tmp_path / name).write_bytes((FIXTURES / "libab.so").read_bytes())
    monkeypatch.setattr("fatpatch.commands.graft.command.extracted_copies", lambda *_: ["first.so", "second.so"])
    command = ["fatpatch", "graft", "x.llamafile", *A_90, "--extracted", "--format", "json"]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    assert run_command() == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["output"] for document in documents] == ["first.so", "second.so"]
    for document in documents:
        jsonschema.validate(document, SCHEMA)
