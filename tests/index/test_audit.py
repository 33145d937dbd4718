"""``audit``: one index of many files, the same however the work is shared, ended and taken up; ``query`` asks it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, browser
from builders import bundle, elf
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry, packed
from conftest import ROOT, SAMPLES
from remote.server import Handler, serving

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.index.database import TABLES, Database
from fatpatch.index.record import Examined, FileRows, KnownState
from fatpatch.index.run import audit, location_of
from fatpatch.remote.inputs import Input

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def library(index: int) -> bytes:
    """One of many: some share images, some are of AMD, some broken, some hold nothing."""
    arch = (61, 75, 86, 90)[index % 4]
    image = cubin(arch=arch, kernels=(f"kernel_{index % 7}", "common"))
    match index % 6:
        case 0:
            return elf.shared_object([(".hip_fatbin", bundle.plain([("gfx1030", bundle.code_object(kernels=(f"k{index % 3}",)))]))])
        case 1:
            return b"no GPU code in here" * (index + 1)
        case 2:
            blob = packed(image, "zstd", kind=2, major=1, minor=7, arch=arch)
            return elf.shared_object([(".nv_fatbin", container(blob[:-20] + bytes(20), entry(PTX, options=b"")))])
        case _:
            stored = packed(image, "lz4", kind=2, major=1, minor=7, arch=arch)
            return elf.shared_object([(".nv_fatbin", container(stored, entry(PTX, options=b"")))])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for index in range(200):
        path = folder / f"{index // 20:02}/lib{index:03}.so"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(library(index))
    for name in ("demo.llamafile", "kernels-1.0-py3-none-linux_x86_64.whl", "libhipdemo.so"):
        (folder / name).write_bytes((SAMPLES / name).read_bytes())
    (folder / "gone.so").symlink_to("nowhere")
    return folder


def rows(path: Path) -> list[tuple[Any, ...]]:
    index = Database(str(path), create=False)
    try:
        return list(index.dump())
    finally:
        index.close()


@pytest.fixture(scope="module")
def reference(many: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "one.sqlite"
    done = run("audit", many, "--db", path, "-j", 1)
    assert done.returncode == 3  # the link leads nowhere
    assert "204 files: 203 read" in done.stderr
    assert "1 could not be read" in done.stderr
    return path


def test_processes_give_the_same_index(run: Run, many: Path, reference: Path, tmp_path: Path) -> None:
    assert run("audit", many, "--db", tmp_path / "two.sqlite", "-j", 2).returncode == 3
    assert rows(tmp_path / "two.sqlite") == rows(reference)


def test_shards_merged_give_the_same_index(run: Run, many: Path, reference: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"{number}.sqlite" for number in (1, 2, 3, 4)]
    for number, part in enumerate(parts, 1):
        run("audit", many, "--db", part, "--shard", f"{number}/4", "-j", 1)
    assert run("db", "merge", tmp_path / "all.sqlite", *parts).returncode == 0
    assert rows(tmp_path / "all.sqlite") == rows(reference)
    assert run("db", "merge", tmp_path / "all.sqlite", *parts).returncode == 0
    assert rows(tmp_path / "all.sqlite") == rows(reference)


def test_lists_give_the_same_index(run: Run, many: Path, reference: Path, tmp_path: Path) -> None:
    names = sorted(str(path) for path in many.rglob("*") if not path.is_dir())
    (tmp_path / "list").write_text("# a comment\n\n" + "\n".join(names) + "\n")
    assert run("audit", "--files-from", tmp_path / "list", "--db", tmp_path / "x.sqlite").returncode == 3
    assert rows(tmp_path / "x.sqlite") == rows(reference)


def test_a_second_run_reads_nothing(run: Run, many: Path, reference: Path, tmp_path: Path) -> None:
    before = rows(reference)
    done = run("audit", many, "--db", reference, "--ndjson")
    assert "0 read, 203 unchanged, 1 could not be read" in done.stderr  # the link that leads nowhere has no state
    assert [json.loads(line)["location"] for line in done.stdout.splitlines()] == [str(many / "gone.so")]
    assert rows(reference) == before


def test_killed_and_taken_up(run: Run, many: Path, reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    command = [sys.executable, "-m", "fatpatch", "audit", str(many), "--db", str(path), "-j", "1"]
    for delay in (0.35, 0.5, 0.7, 1.0):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run("audit", many, "--db", path).returncode == 3
    assert rows(path) == rows(reference)


def test_what_changes_is_read_again(run: Run, tmp_path: Path) -> None:
    folder, path = tmp_path / "files", tmp_path / "x.sqlite"
    folder.mkdir()
    (folder / "a.so").write_bytes(library(3))
    (folder / "b.so").write_bytes(library(4))
    assert run("audit", folder, "--db", path).returncode == 0
    (folder / "b.so").write_bytes(library(5))
    os.utime(folder / "b.so", ns=(1, 1))
    second = run("audit", folder, "--db", path).stderr
    assert "1 read, " in second  # with the rate where it took more than a second
    assert " 1 unchanged" in second
    assert run("audit", folder, "--db", tmp_path / "fresh.sqlite").returncode == 0
    assert rows(path) == rows(tmp_path / "fresh.sqlite")  # nothing is left of what was in b.so
    again = run("audit", folder, "--db", path, "--again").stderr
    assert "2 read, " in again
    assert " 0 unchanged" in again
    assert rows(path) == rows(tmp_path / "fresh.sqlite")


def test_copies_cost_nothing(run: Run, tmp_path: Path) -> None:
    for name in ("a.so", "b.so", "c.so"):
        (tmp_path / name).write_bytes(library(3))
    assert run("audit", tmp_path / "a.so", tmp_path / "b.so", tmp_path / "c.so", "--db", tmp_path / "x.sqlite").returncode == 0
    counts = {table: sum(row[0] == table for row in rows(tmp_path / "x.sqlite")) for table in TABLES}
    assert (counts["location"], counts["artifact"], counts["image"]) == (3, 1, 2)


def test_addresses(run: Run, tmp_path: Path) -> None:
    data = (SAMPLES / "demo.llamafile").read_bytes()
    with serving(data) as server:
        url = f"{server.url}/demo.llamafile?sig=s3cret"
        assert run("audit", url, "--db", tmp_path / "x.sqlite").returncode == 0
        asked = len(server.seen)
        assert "0 read, 1 unchanged" in run("audit", url, "--db", tmp_path / "x.sqlite").stderr
        assert len(server.seen) == asked + 1  # the ETag is the same
    assert "s3cret" not in "".join(map(str, rows(tmp_path / "x.sqlite")))
    there = [row[2:] for row in rows(tmp_path / "x.sqlite") if row[0] in ("entry", "image", "kernel", "verdict")]
    run("audit", "demo.llamafile", "--db", tmp_path / "y.sqlite")
    assert [row[2:] for row in rows(tmp_path / "y.sqlite") if row[0] in ("entry", "image", "kernel", "verdict")] == there


def ask(run: Run, index: Path, *question: str) -> list[dict[str, Any]]:
    done = run("query", "--db", index, *question, "--format", "json")
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def test_questions(run: Run, tmp_path: Path) -> None:
    index = tmp_path / "x.sqlite"
    assert run("audit", ".", "--db", index).returncode == 0
    demo = {row["target"]: row["modules"] for row in ask(run, index, "targets") if row["file"] == "demo.llamafile!ggml-cuda.dll"}
    assert demo == {"sm_60": 1, "sm_70": 1, "sm_75": 1}
    lacking = {row["file"] for row in ask(run, index, "lacks", "sm_61")}
    assert "demo.llamafile!ggml-cuda.so" in lacking
    assert not lacking & {"donor.so", "libkernels.so", "libhipdemo.so"}
    assert {row["file"]: row["outcome"] for row in ask(run, index, "fails", "GTX 1060")}["demo.llamafile!ggml-cuda.dll"] == "abort"
    assert "donor.so" in {row["file"] for row in ask(run, index, "runs", "GTX 1060")}
    assert {row["file"] for row in ask(run, index, "runs", "RX 6800")} == {"hipdemo.dll", "libhipdemo.so"}
    sizes = [row["size"] for row in ask(run, index, "largest", "5")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 5
    assert all(row["files"] > 1 for row in ask(run, index, "duplicates"))
    assert {row["file"]: row["stubs"] for row in ask(run, index, "stubs")} == {
        "demo.llamafile!ggml-cuda.dll": 5,
        "demo.llamafile!ggml-cuda.so": 5,
    }
    assert ask(run, index, "errors") == []
    assert ask(run, index, "--sql", "SELECT count(*) AS n FROM location WHERE path LIKE '%.dll'") == [{"n": 2}]
    text = run("query", "--db", index, "lacks", "sm_61")
    assert text.stdout.splitlines()[0].split() == ["file", "targets"]
    assert run("query", "--db", index, "largest", "3", "--format", "csv").stdout.count("\n") == 4


def test_kernels_equal_those_of_inspect(run: Run, tmp_path: Path) -> None:
    assert run("audit", "libkernels.so", "--db", tmp_path / "x.sqlite").returncode == 0
    found = {
        (row["sha256"], row["name"]): (row["registers"], row["shared_bytes"], row["code_size"])
        for row in ask(run, tmp_path / "x.sqlite", "--sql", "SELECT image AS sha256, * FROM kernel")
    }
    document = json.loads(run("inspect", "libkernels.so", "--kernels", "--sha256", "--format", "json").stdout)
    expected = {
        (image["sha256"], kernel["name"]): (kernel["registers"], kernel["shared_bytes"], kernel["code_size"])
        for payload in document["files"][0]["payloads"]
        for image in payload["images"]
        for kernel in image["kernels"] or ()
    }
    assert found == expected


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["audit", "--db", "x.sqlite"], 2),
        (["audit", "a.so", "--db", "x.sqlite", "--shard", "3/2"], 2),
        (["audit", "a.so", "--db", "x.sqlite", "--shard", "x"], 2),
        (["audit", "--files-from", "none", "--db", "x.sqlite"], 3),
        (["audit", "a.so", "--db", "no/such/folder/x.sqlite"], 3),
        (["query", "--db", "none.sqlite", "targets"], 3),
        (["query", "--db", "a.so", "targets"], 3),
        (["query", "--db", "other.sqlite", "targets"], 4),
        (["audit", "a.so", "--db", "other.sqlite"], 4),
        (["query", "--db", "newer.sqlite", "targets"], 5),
        (["query", "--db", "good.sqlite"], 2),
        (["query", "--db", "good.sqlite", "nothing"], 2),
        (["query", "--db", "good.sqlite", "lacks"], 2),
        (["query", "--db", "good.sqlite", "fails", "no such GPU"], 3),
        (["query", "--db", "good.sqlite", "largest", "many"], 3),
        (["query", "--db", "good.sqlite", "--sql", "SELECT nothing FROM nowhere"], 3),
        (["query", "--db", "good.sqlite", "--sql", "DELETE FROM location"], 3),
        (["query", "--db", "good.sqlite", "--sql", "DROP TABLE location"], 3),
        (["db", "merge", "out.sqlite", "a.so"], 3),
    ],
)
def test_mistakes(run: Run, tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "a.so").write_bytes(library(3))
    assert run("audit", "a.so", "--db", "good.sqlite", cwd=tmp_path).returncode == 0
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE location (x)")
    (tmp_path / "newer.sqlite").write_bytes((tmp_path / "good.sqlite").read_bytes())
    with sqlite3.connect(tmp_path / "newer.sqlite") as newer:
        newer.execute("PRAGMA user_version = 2")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert rows(tmp_path / "good.sqlite")


def test_hostile_names(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for name in (b"bad\xff.so", b"a\x1b[31m\n.so", b"quote'\".so"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(library(3))
    assert run("audit", folder, "--db", tmp_path / "x.sqlite").returncode == 0
    assert "3 unchanged" in run("audit", folder, "--db", tmp_path / "x.sqlite").stderr
    for form in ("text", "csv", "json"):
        done = run("query", "--db", tmp_path / "x.sqlite", "targets", "--format", form)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout


def test_a_file_that_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried alone, then it is one that cannot be read; the others are there."""
    for name in ("a.so", "killer.so", "z.so"):
        (tmp_path / name).write_bytes(library(3))
    import fatpatch.index.run as module

    monkeypatch.setattr(module, "examine", _deadly)
    index = Database(str(tmp_path / "x.sqlite"), create=True)
    inputs = [Input(str(tmp_path / name), name, named=True) for name in ("a.so", "killer.so", "z.so")]
    summary = audit(inputs, index, Limits(), jobs=2, on_done=lambda found, done, total: None)
    index.close()
    assert (summary.files, summary.unreadable) == (3, 1)
    found = {row[1]: row[-1] for row in rows(tmp_path / "x.sqlite") if row[0] == "location"}
    assert [message for path, message in found.items() if "killer" in path] == ["reading it killed the process"]
    assert [message for path, message in found.items() if "killer" not in path] == [None, None]


def _deadly(task: Any, limits: Limits) -> Examined:
    if "killer" in task.path:
        os.kill(os.getpid(), signal.SIGKILL)
    return Examined(task.location, task.state, FileRows("elf", (), (), (), (), (), ()), None)


def test_state_is_asked_for(tmp_path: Path) -> None:
    index = Database(str(tmp_path / "x.sqlite"), create=True)
    nothing = FileRows("elf", (), (), (), (), (), ())
    index.store(Examined("a", KnownState(1, 2, None, 9), nothing, None))
    index.store(Examined("b", KnownState(1, None, None, 9), nothing, None))
    index.store(Examined("c", KnownState(1, 2, None, 9), None, "broken"))
    assert index.knows("a", KnownState(1, 2, None, 9))
    assert not index.knows("a", KnownState(1, 3, None, 9))
    assert not index.knows("a", KnownState(2, 2, None, 9))
    assert not index.knows("a", KnownState(1, 2, None, 10))  # more may be unpacked now
    assert not index.knows("b", KnownState(1, None, None, 9))  # nothing by which a change would be seen
    assert not index.knows("c", KnownState(1, 2, None, 9))  # what failed is tried again
    index.close()
    with pytest.raises(FatpatchError):
        Database(str(tmp_path), create=True)


def test_exports(run: Run, reference: Path, tmp_path: Path) -> None:
    import csv

    import pyarrow.parquet as parquet

    assert run("query", "--db", reference, "--export", "csv", "-o", tmp_path / "csv").returncode == 0
    assert run("query", "--db", reference, "--export", "parquet", "-o", tmp_path / "pq").returncode == 0
    for table, columns in TABLES.items():
        expected = [tuple("" if value is None else str(value) for value in row[1:]) for row in rows(reference) if row[0] == table]
        with (tmp_path / f"csv/{table}.csv").open(newline="") as stream:
            header, *lines = csv.reader(stream)
        assert (tuple(header), sorted(map(tuple, lines))) == (columns, sorted(expected))
        read = parquet.read_table(tmp_path / f"pq/{table}.parquet").to_pylist()
        assert sorted(tuple("" if value is None else str(value) for value in row.values()) for row in read) == sorted(expected)
    one = tmp_path / "answer.csv"
    assert run("query", "--db", reference, "targets", "--export", "csv", "-o", one).returncode == 0
    assert one.read_text().startswith("file,target,modules,stored\n")
    assert run("query", "--db", reference, "targets", "--export", "csv", "-o", one).returncode == 6
    assert run("query", "--db", reference, "targets", "--export", "csv", "-o", one, "--overwrite").returncode == 0
    assert run("query", "--db", reference, "targets", "--export", "csv").returncode == 2


def test_page(run: Run, many: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("audit", many, "--db", tmp_path / "x.sqlite", "--html", page).returncode == 3
    text = page.read_text()
    assert text.count("<script") == 2
    assert "lib000.so" in text
    assert "no GPU code" not in text
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with browser() as opened:
        opened.open(page)
        assert "170 of 170 libraries" in opened.ask("document.getElementById('count').textContent")
        opened.type("#filter", "demo.llamafile!ggml-cuda.dll")
        cells = opened.ask(
            "[...document.querySelectorAll('#heat tbody tr')].filter(r => r.children.length > 1).map(r => [...r.children].map(c => c.textContent))"
        )
        heads = opened.ask("[...document.querySelectorAll('#heat thead button')].map(b => b.dataset.name)")
        assert dict(zip(heads, cells[0], strict=True))["sm_61"] == "will abort"
        opened.choose("#only", "good")
        assert opened.ask("document.getElementById('count').textContent").startswith("0 of")
        assert opened.messages == []


# What an attack on the index found


@pytest.fixture
def small(run: Run, tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one.so").write_bytes(library(5))
    index = tmp_path / "small.sqlite"
    assert run("audit", tmp_path / "files", "--db", index, "-j", 1).returncode == 0
    return index


def test_a_file_that_failed_is_tried_again(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    for _ in range(2):
        done = run("audit", folder, "--db", tmp_path / "x.sqlite")
        assert done.returncode == 3
        assert "1 could not be read" in done.stderr


def test_raising_the_limit_reads_again(run: Run, tmp_path: Path) -> None:
    first = run("audit", "libkernels.so", "--db", tmp_path / "x.sqlite", "--max-image-size", "1K")
    assert "1 read (1 in part)" in first.stderr
    second = run("audit", "libkernels.so", "--db", tmp_path / "x.sqlite").stderr
    assert "1 read, " in second  # with the rate where it took more than a second
    assert " 0 unchanged" in second


def test_a_question_reads_only(run: Run, small: Path, tmp_path: Path) -> None:
    before = rows(small)
    for statement in (
        f"VACUUM INTO '{tmp_path}/copy'", f"ATTACH '{tmp_path}/other' AS x", "BEGIN EXCLUSIVE", "CREATE TEMP TABLE t (a)",
        "DELETE FROM location", "PRAGMA journal_mode = DELETE", "SELECT load_extension('x')",
    ):  # fmt: skip
        done = run("query", "--db", small, "--sql", statement)
        assert done.returncode == 3, statement
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "other").exists()
    assert rows(small) == before
    assert run("query", "--db", small, "--sql", " ").returncode == 2


def test_a_question_without_end_can_be_ended(small: Path) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"
    process = subprocess.Popen([sys.executable, "-m", "fatpatch", "query", "--db", str(small), "--sql", endless], cwd=ROOT)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_what_is_more_than_an_index_is_refused(run: Run, small: Path, tmp_path: Path) -> None:
    for name, statement in {
        "view": "CREATE VIEW v AS SELECT 1",
        "trigger": "CREATE TRIGGER t AFTER INSERT ON location BEGIN DELETE FROM verdict; END",
        "table": "CREATE TABLE more (a)",
        "column": "ALTER TABLE location ADD COLUMN more",
    }.items():
        path = tmp_path / f"{name}.sqlite"
        path.write_bytes(small.read_bytes())
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        for command in (["query", "targets"], ["audit", str(tmp_path / "files")]):
            done = run(command[0], *command[1:], "--db", path)
            assert done.returncode == 4, (name, done.stderr)
            assert "other tables" in done.stderr
        assert run("db", "merge", tmp_path / "out.sqlite", path).returncode == 4
        assert not (tmp_path / "out.sqlite").exists()


def test_damaged_indexes(run: Run, small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    for at in range(4096, len(data), 9000):
        path = tmp_path / "damaged.sqlite"
        path.write_bytes(data[:at] + b"\xff" * 3000 + data[at + 3000 :])
        for command in (["query", "targets"], ["audit", str(tmp_path / "files"), "--again", "--html", str(tmp_path / "page.html")]):
            done = run(command[0], *command[1:], "--db", path)
            assert done.returncode in (0, 3, 4), done.stderr
            assert "internal error" not in done.stderr
    strange = tmp_path / "strange.sqlite"
    strange.write_bytes(data)
    with sqlite3.connect(strange) as connection:
        connection.execute("UPDATE verdict SET outcome = 'no such'")
    connection.close()
    assert run("audit", tmp_path / "files", "--db", strange, "--html", tmp_path / "page.html").returncode == 4


def test_an_index_in_a_folder_that_may_not_be_written(run: Run, small: Path) -> None:
    from fatpatch.index import database

    connection = database._read_only(str(small))
    connection.close()
    immutable = sqlite3.connect(f"file:{small}?mode=ro&immutable=1", uri=True)
    assert immutable.execute("SELECT count(*) FROM location").fetchone() == (1,)
    immutable.close()


def test_two_audits_make_one_index(tmp_path: Path, many: Path) -> None:
    command = [sys.executable, "-m", "fatpatch", "audit", str(many), "--db", str(tmp_path / "both.sqlite"), "-j", "1"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 3, told  # the link that leads nowhere
        assert "cannot be used" not in told
    assert len([row for row in rows(tmp_path / "both.sqlite") if row[0] == "location"]) == 204


def test_outputs_do_not_take_the_place_of_the_index(run: Run, small: Path, tmp_path: Path) -> None:
    before = small.read_bytes()
    assert run("audit", tmp_path / "files", "--db", small, "--html", small).returncode == 6
    assert run("query", "--db", small, "targets", "--export", "csv", "-o", small, "--overwrite").returncode == 2
    os.mkfifo(tmp_path / "pipe")
    assert run("query", "--db", small, "targets", "--export", "csv", "-o", tmp_path / "pipe", "--overwrite").returncode == 6
    assert small.read_bytes() == before
    assert run("db", "merge", small, small).returncode == 3
    assert run("audit", tmp_path / "files", "--db", ":memory:").returncode == 3


def test_a_circle_of_links_hides_nothing(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "one.so").write_bytes(library(5))
    (folder / "circle").symlink_to("circle")
    done = run("audit", folder, "--db", tmp_path / "x.sqlite", "--ndjson")
    assert "1 read" in done.stderr
    assert "Too many levels" in done.stdout


def test_odd_lists(run: Run, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"\xef\xbb\xbflibkernels.so\na\0b\n")
    done = run("audit", "--files-from", odd, "--db", tmp_path / "x.sqlite")
    assert "1 read" in done.stderr
    done = run("audit", "--files-from", "/dev/zero", "--db", tmp_path / "y.sqlite")
    assert done.returncode == 3
    assert "too long" in done.stderr


def test_names_that_look_alike(tmp_path: Path) -> None:
    names = [b"\xff\xfe.so", b"\\udcff\\udcfe.so", b"plain\\x.so"]
    paths = [os.fsdecode(name) for name in names]
    stores = [
        "s3://b/x#1.so", "s3://b/x#2.so", "abfs://c1@account/x.so", "abfs://c2@account/x.so",
        "https://u:p@host/x?a=1", "https://host/x?a=2", "https://host/x",
    ]  # fmt: skip
    found = [location_of(Input(path, path, named=True)) for path in (*paths, *stores)]
    shown = [each.encode("utf-8", "backslashreplace") for each in found]
    assert len(set(shown)) == len(shown)
    assert not any("c1@" in each or "u:p" in each for each in found)
    assert location_of(Input("./a//b", "", named=True)) == "a/b"


def test_columns_of_ones_own(run: Run, small: Path) -> None:
    def said(statement: str, form: str) -> str:
        done = run("query", "--db", small, "--sql", statement, "--format", form)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "\x1b" not in said('SELECT 1 AS "\x1b[31mred"', "text")
    assert json.loads(said("SELECT 1 AS a, 2 AS a, 9e999 AS b", "json")) == [{"a": 1, "a_2": 2, "b": None}]
    assert "x" * 3000 in said(f"SELECT '{'x' * 3000}'", "csv")
    assert run("query", "--db", small, "lacks", "%").returncode == 3


def test_being_told_to_end(tmp_path: Path) -> None:
    """No worker outlives its parent, whether that was asked to end or killed."""

    def slow(handler: Handler, number: int) -> bool:
        time.sleep(20)
        return False

    for number in (signal.SIGTERM, signal.SIGKILL):
        with serving(b"x" * 1000, slow) as server:
            files = [f"{server.url}/{index}.so" for index in range(8)]
            command = [sys.executable, "-m", "fatpatch", "audit", *files, "--db", str(tmp_path / f"{number}.sqlite"), "-j", "2"]
            process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
            while len(server.seen) < 2:
                time.sleep(0.05)
            process.send_signal(number)
            process.communicate(timeout=10)  # a worker that lives on would keep the pipe open
            assert process.returncode in (130, -signal.SIGKILL)
