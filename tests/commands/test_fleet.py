"""``--gpu @FILE`` and ``--fleet NAME``: the GPUs of a list, in every command that judges."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from builders.environments import library
from conftest import ROOT, Run

from fatpatch.base.errors import InputError
from fatpatch.policy.policy import parse_policy

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

TOML = '[fleets]\nlab = ["GTX 1060", "RTX 3060"]\nnone = []\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x.so").write_bytes(library(61))
    (tmp_path / "fatpatch.toml").write_text(TOML)
    (tmp_path / "gpus.txt").write_text("# the lab\nGTX 1060\n\nRTX 3060  # new\n")
    return tmp_path


def test_the_fleet_of_the_policy(run: Run, folder: Path) -> None:
    done = run("doctor", "x.so", "--fleet", "lab", "--format", "json", cwd=folder)
    assert {(row["gpu"]["name"], row["outcome"]) for row in json.loads(done.stdout)["verdicts"]} == {
        ("GeForce GTX 1060", "runs"),
        ("GeForce RTX 3060", "will-not-run"),
    }
    by_file = run("doctor", "x.so", "--gpu", "@gpus.txt", "--format", "json", cwd=folder)
    assert by_file.stdout == done.stdout
    checked = run("check", "x.so", "--fleet", "lab", "--format", "json", cwd=folder)
    assert [row["key"] for row in json.loads(checked.stdout)["findings"]] == [
        row["key"]
        for row in json.loads(run("check", "x.so", "--gpu", "GTX 1060", "--gpu", "RTX 3060", "--format", "json", cwd=folder).stdout)[
            "findings"
        ]
    ]
    assert checked.returncode == 1
    audited = run("audit", "x.so", "--db", "x.sqlite", "--fleet", "lab", cwd=folder)
    assert "GTX 1060 (sm_61): 1 of 1 library" in audited.stderr
    assert "RTX 3060 (sm_86): 0 of 1 library" in audited.stderr


def test_what_is_no_fleet(run: Run, folder: Path) -> None:
    wrong = run("doctor", "x.so", "--fleet", "lap", cwd=folder)
    assert (wrong.returncode, "did you mean lab?" in wrong.stderr) == (2, True)
    assert run("doctor", "x.so", "--gpu", "@absent.txt", cwd=folder).returncode == 3
    (folder / "fatpatch.toml").unlink()
    (folder / ".git").mkdir()
    assert run("doctor", "x.so", "--fleet", "lab", cwd=folder).returncode == 2


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"\xff\xfe\x00", b"x\n" * (1 << 20)])
def test_lists_that_are_none(data: bytes, run: Run, folder: Path) -> None:
    (folder / "gpus.txt").write_bytes(data)
    assert run("doctor", "x.so", "--gpu", "@gpus.txt", cwd=folder).returncode == 3


def test_the_schema_and_the_reader_agree() -> None:
    schema = json.loads((ROOT / "fatpatch/policy/policy-1.schema.json").read_text())
    document = tomllib.loads(TOML)
    jsonschema.validate(document, schema)
    assert dict(parse_policy(document).fleets) == {"lab": ("GTX 1060", "RTX 3060"), "none": ()}
    for wrong in ({"fleets": []}, {"fleets": {"lab": "GTX 1060"}}, {"fleets": {"lab": [1]}}):
        with pytest.raises(InputError):
            parse_policy(wrong)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
