"""``releases``: which releases of a project run, what is opened and fetched for that, and what the index keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders.environments import library
from conftest import ROOT, Run
from named.index_server import Shop, index

from fatpatch.base.errors import FormatError
from fatpatch.verdicts.header_record import tree_of

SCHEMA = json.loads((ROOT / "fatpatch/commands/releases/releases-1.schema.json").read_text())
GPUS = ("--gpu", "GTX 1060", "--gpu", "RTX 3060", "--gpu", "RTX 5090")
ARCHS = {"1.0": (52, 61), "1.1": (61, 75), "2.0": (61, 75, 86), "2.1": (75, 86), "3.0": (86, 120), "3.1": (86, 120), "4.0rc1": (120,)}
RUNS = {
    "3.1": (False, True, True), "3.0": (False, True, True), "2.1": (False, True, False), "2.0": (True, True, False),
    "1.1": (True, False, False), "1.0": (True, False, False),
}  # fmt: skip


@pytest.fixture
def shop() -> Iterator[Shop]:
    with index() as found:
        names = [f"kernels-{version}-py3-none-any.whl" for version in ARCHS]
        found.project("kernels", names)
        for name, archs in zip(names, ARCHS.values(), strict=True):
            found.wheel(name, {"kernels/k.so": library(*archs), "kernels/weights.bin": b"x" * (1 << 20)})
        yield found


def asked(run: Run, shop: Shop, tmp_path: Path, *more: str) -> dict[str, Any]:
    done = run("releases", "pypi:kernels", *GPUS, "--index", f"{shop.url}/simple", "--db", tmp_path / "x.sqlite", "--format", "json", *more)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    return document["projects"][0]


def answers(project: dict[str, Any]) -> dict[str, tuple[bool, ...]]:
    return {row["version"]: tuple(each["runs"] for each in row["answers"]) for row in project["releases"]}


def fetched(shop: Shop) -> int:
    return sum(size for path, size in shop.sent.items() if path.endswith(".whl"))


def test_every_release_and_nothing_twice(run: Run, shop: Shop, tmp_path: Path) -> None:
    first = asked(run, shop, tmp_path)
    assert answers(first) == RUNS
    assert list(answers(first)) == ["3.1", "3.0", "2.1", "2.0", "1.1", "1.0"], "newest first, without pre-releases"
    assert first["newest"] == ["2.0", "3.1", "3.1"]
    assert max(row["fetched"] for row in first["releases"]) < 300_000, "the weights are not fetched"
    before = fetched(shop)
    again = asked(run, shop, tmp_path)
    assert (answers(again), fetched(shop)) == (RUNS, before), "the second run fetches nothing of any wheel"
    assert all(row["known"] for row in again["releases"])
    other = run("releases", "kernels", "--gpu", "H100", "--index", f"{shop.url}/simple", "--db", tmp_path / "x.sqlite")
    assert (other.returncode, fetched(shop)) == (1, before), "nor for another GPU"
    assert "NO RELEASE RUNS: pypi:kernels on H100" in other.stdout
    asked(run, shop, tmp_path, "--again")
    assert fetched(shop) > before


def test_newest_stops_where_every_gpu_has_one(run: Run, shop: Shop, tmp_path: Path) -> None:
    found = asked(run, shop, tmp_path, "--newest")
    assert (list(answers(found)), found["newest"]) == (["3.1", "3.0", "2.1", "2.0"], ["2.0", "3.1", "3.1"])
    assert answers(asked(run, shop, tmp_path, "--pre", "--last", "1")) == {"4.0rc1": (False, False, True)}


def test_bisection_opens_few_and_says_the_same(run: Run, tmp_path: Path) -> None:
    with index() as shop:
        names = [f"kernels-1.{minor}-py3-none-any.whl" for minor in range(64)]
        shop.project("kernels", names)
        for minor, name in enumerate(names):
            archs = [*((61,) if minor < 41 else ()), *((86,) if minor >= 10 else ()), *((120,) if minor >= 57 else ()), 90]
            shop.wheel(name, {"kernels/k.so": library(*archs)})
        found = asked(run, shop, tmp_path, "--bisect", "--last", "64")
        assert answers(found) == {f"1.{minor}": (minor < 41, minor >= 10, minor >= 57) for minor in reversed(range(64))}
        assert sum(not row["assumed"] for row in found["releases"]) <= 22


def test_what_cannot_be_read(run: Run, shop: Shop, tmp_path: Path) -> None:
    del shop.files["/files/kernels-3.1-py3-none-any.whl"]
    shop.files["/files/kernels-3.0-py3-none-any.whl"] = b"PK\x03\x04 no zip"
    found = asked(run, shop, tmp_path)
    rows = {row["version"]: row for row in found["releases"]}
    assert rows["3.1"]["error"] == "404 Not Found"
    assert not any(each["runs"] for each in rows["3.0"]["answers"])
    assert found["newest"] == ["2.0", "2.1", None]
    assert run("releases", "pypi:absent", "--gpu", "H100", "--index", f"{shop.url}/simple", "--db", tmp_path / "x.sqlite").returncode == 3
    assert run("releases", "pypi:kernels==1.0", "--gpu", "H100", "--db", tmp_path / "x.sqlite").returncode == 3
    assert run("releases", "pypi:kernels", "--gpu", "no such", "--db", tmp_path / "x.sqlite").returncode == 2


def test_text_and_markdown(run: Run, shop: Shop, tmp_path: Path) -> None:
    common = ("pypi:kernels", *GPUS, "--index", f"{shop.url}/simple", "--db", tmp_path / "x.sqlite")
    text = run("releases", *common).stdout
    assert "2.0 RUNS: pypi:kernels on GeForce GTX 1060 (compute capability 6.1): pip install kernels==2.0" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    table = run("releases", *common, "--format", "markdown").stdout.splitlines()
    assert table == [
        "| pypi:kernels | GTX 1060 | RTX 3060 | RTX 5090 |",
        "|---|---|---|---|",
        "| 3.0 to 3.1 | no | yes | yes |",
        "| 2.1 | no | yes | no |",
        "| 2.0 | yes | yes | no |",
        "| 1.0 to 1.1 | yes | no | no |",
    ]


def test_files_urls_and_npm(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.so").write_bytes(library(90))
    (tmp_path / "old.so").write_bytes(library(61))
    with index() as shop:
        shop.files["/files/v2.so"] = library(61, 90)
        done = run("releases", f"{shop.url}/files/v2.so", tmp_path / "new.so", tmp_path / "old.so", "--gpu", "GTX 1060", "--db", tmp_path / "x.sqlite",
                   "--format", "json")  # fmt: skip
        project = json.loads(done.stdout)["projects"][0]
        assert answers(project) == {"v2.so": (True,), "new.so": (False,), "old.so": (True,)}
        (tmp_path / "new.so").write_bytes(library(61, 75))
        changed = run("releases", tmp_path / "new.so", "--gpu", "GTX 1060", "--db", tmp_path / "x.sqlite")
        assert changed.returncode == 0, "a file that changed is read again"
        shop.package("kernels", {"1.0.0": {"k.node": library(61)}, "1.10.0": {"k.node": library(90)}, "1.9.0": {"k.node": library(61, 90)}})
        npm = run("releases", "npm:kernels", "--gpu", "GTX 1060", "--index", shop.url, "--db", tmp_path / "x.sqlite", "--format", "json")
        assert answers(json.loads(npm.stdout)["projects"][0]) == {"1.10.0": (False,), "1.9.0": (True,), "1.0.0": (True,)}


def test_an_index_with_releases_is_an_index(run: Run, shop: Shop, tmp_path: Path) -> None:
    """audit uses it on, it can be merged, exported and queried."""
    asked(run, shop, tmp_path)
    assert run("audit", "libkernels.so", "--db", tmp_path / "x.sqlite").returncode == 0
    assert run("audit", "libkernels.so", "--db", tmp_path / "y.sqlite").returncode == 0
    merged = run("db", "merge", tmp_path / "y.sqlite", tmp_path / "x.sqlite")
    assert merged.returncode == 0, merged.stderr
    rows = run("query", "--db", tmp_path / "y.sqlite", "--sql", "SELECT count(*) FROM release", "--format", "csv")
    assert rows.stdout.split()[-1] == "6", rows.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"libraries": [3], "unread": []}',
        '{"libraries": [{"path": "x", "container": "elf", "detail": "", "modules": [[99999999, 1, 2, 3, 4, 5, 6, 7, []]]}], "unread": []}',
        "[" * 100_000,
    ],
)
def test_records_that_are_none(text: str) -> None:
    with pytest.raises(FormatError):
        tree_of(text, "x")


def test_doctor_names_the_release(run: Run, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = ("--index", f"{shop.url}/simple")
    done = run("doctor", "pypi:kernels", "--gpu", "GTX 1060", "--releases", *index)
    assert done.returncode == 1
    assert "pip install kernels==2.0" in done.stdout, done.stdout + done.stderr
    document = json.loads(run("doctor", "pypi:kernels", "--gpu", "H100", "--releases", "--format", "json", *index).stdout)
    rows = {row["title"]: row for row in document["files"][0]["remedies"]}
    assert (rows["another release"]["works"], rows["another release"]["command"]) == (False, None)
    assert (tmp_path / "cache/fatpatch/releases.sqlite").is_file()
    gone = run("doctor", "pypi:kernels", "--gpu", "GTX 1060", *index)
    assert "another release" not in gone.stdout, "only when it is asked for"


@pytest.mark.parametrize(
    ("shown", "project"),
    [
        ("pypi:xgboost==2.1.0/xgboost-2.1.0-py3-none-any.whl", "xgboost"),
        ("dist/torch-2.9.0+cu128-cp311-cp311-linux_x86_64.whl", "torch"),
        ("nvidia-cublas-cu12 12.9.1", "nvidia-cublas-cu12"),
        ("libx.so", None),
        ("pid:12 python3", None),
        ("other files", None),
    ],
)
def test_the_project_of_a_name(shown: str, project: str | None) -> None:
    from fatpatch.api.releases import project_of

    assert project_of(shown) == project
