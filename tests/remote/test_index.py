"""Simple indexes: the wheels of a project, from a server or a folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLES
from remote.server import Handler, serving

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.remote.index import wheels

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WHEEL = (SAMPLES / "kernels-1.0-py3-none-linux_x86_64.whl").read_bytes()
HTML = b"""<!doctype html><a href="../../files/kernels-1.0-py3-none-linux_x86_64.whl#sha256=00">x</a>
<a href="/files/kernels-1.1-py3-none-linux_x86_64.whl">y</a> <a href="kernels-1.1.tar.gz">z</a> <a>nothing</a>
<a href="other_name-1.0-py3-none-any.whl">other</a> <a href="http://[bad">bad</a>"""
JSON = {"files": [{"url": "/files/kernels-1.0-py3-none-linux_x86_64.whl"}, {"url": "kernels-1.0.tar.gz"}]}


def answering(page: bytes) -> Callable[[Handler, int], bool]:
    def answer(handler: Handler, number: int) -> bool:
        if handler.path.endswith(".whl"):
            return False
        handler.head(200, len(page))
        handler.wfile.write(page)
        return True

    return answer


def test_html() -> None:
    with serving(WHEEL, answering(HTML)) as server:
        found = wheels(f"{server.url}/simple", "Kernels")
        assert found == [f"{server.url}/files/kernels-{version}-py3-none-linux_x86_64.whl" for version in ("1.0", "1.1")]
        assert server.seen[0][0] == "/simple/kernels/"
        assert wheels(f"{server.url}/simple/", "kernels==1.1") == found[1:]
        with pytest.raises(InputError, match="no wheel"):
            wheels(f"{server.url}/simple/", "kernels==2.0")


def test_json(run: Run, tmp_path: Path) -> None:
    with serving(WHEEL, answering(json.dumps(JSON).encode())) as server:
        done = run("audit", "kernels", "--index", f"{server.url}/simple", "--db", tmp_path / "x.sqlite")
        assert (done.returncode, "1 file: 1 read" in done.stderr) == (0, True)
        answer = json.loads(run("query", "--db", tmp_path / "x.sqlite", "runs", "1060", "--format", "json").stdout)
        assert [row["file"].rpartition("/")[2] for row in answer] == ["libkernels.so"]


@pytest.mark.parametrize("page", [b"{", b'{"files": 5}', b'{"files": [5]}', b"\xff\xfe", b"", b"[" * 100_000])
def test_other_pages(page: bytes) -> None:
    with serving(WHEEL, answering(page)) as server, pytest.raises(FatpatchError):
        wheels(f"{server.url}/simple", "kernels")


@pytest.mark.parametrize("name", ["", "../x", "a b", "x==", "x" * 500, "-x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="name of a project"):
        wheels("/tmp", name)


def test_folders(run: Run, tmp_path: Path) -> None:
    for folder in (tmp_path / "flat", tmp_path / "tree/kernels"):
        folder.mkdir(parents=True)
        (folder / "kernels-1.0-py3-none-linux_x86_64.whl").write_bytes(WHEEL)
        (folder / "readme.txt").write_text("x")
    assert len(wheels(str(tmp_path / "flat"), "kernels")) == 1
    assert len(wheels(str(tmp_path / "tree"), "Kernels==1.0")) == 1
    done = run("audit", "kernels", "--index", tmp_path / "tree", "--db", tmp_path / "x.sqlite")
    assert (done.returncode, "1 file: 1 read" in done.stderr) == (0, True)
    assert run("audit", "kernels", "--index", tmp_path / "none", "--db", tmp_path / "x.sqlite").returncode == 3
