"""``report``: the page is whole without a network, holds what the file holds, and no name in it can become markup or script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import elf
from builders.archive import zip_file
from builders.cubin import cubin
from builders.fatbin import container, entry, packed
from conftest import SAMPLES

from fatpatch.api.contents import contents
from fatpatch.api.gate import PolicyRequest, policy_for
from fatpatch.base.limits import Limits
from fatpatch.base.source import Source
from fatpatch.binfmt.unpack import Workspace
from fatpatch.model.tree import Member
from fatpatch.remote.inputs import Input

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HOSTILE = "k</script><script>alert(1)</script><!--\u2028"
VOID = {"meta", "input", "br", "rect"}


class Outline(HTMLParser):
    """Checks that elements close in order, and collects what a page would load and run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert not any(name.startswith("on") or name == "style" for name in values), values
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("src", "href", "data", "action") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.text).append(data)


def read(page: Path) -> tuple[str, Outline, dict[str, Any]]:
    text = page.read_text("utf-8")
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith("#") and link[1:] in outline.ids for link in outline.links)
    data = json.loads(outline.scripts[0])
    assert isinstance(data, dict)
    return text, outline, data


def made(run: Run, tmp_path: Path, *arguments: object, code: int = 0) -> Path:
    page = tmp_path / "page.html"
    done = run("report", *arguments, "-o", page, "--overwrite")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return page


def library(*modules: bytes) -> bytes:
    return elf.shared_object([(".nv_fatbin", b"".join(modules))])


def sass(arch: int, *kernels: str) -> bytes:
    return entry(cubin(arch=arch, kernels=kernels or ("k",)), kind=2, major=1, minor=7, arch=arch)


def test_the_policy_names_its_own_style_and_script_only(run: Run, tmp_path: Path) -> None:
    text, outline, _ = read(made(run, tmp_path, SAMPLES / "demo.llamafile"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    hashes = re.findall(r"sha256-[^&']+", policy[1])
    style, script = outline.styles[0], outline.scripts[1]
    expected = [f"sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}" for part in (style, script)]
    assert hashes == expected
    assert policy[1].startswith("default-src &#39;none&#39;;")
    assert "unsafe" not in policy[1]
    assert len(outline.scripts) == 2
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", text.lower().replace("http-equiv", ""))


def test_it_holds_what_the_file_holds(run: Run, tmp_path: Path) -> None:
    text, outline, data = read(made(run, tmp_path, SAMPLES / "demo.llamafile"))
    first = data["holders"][0]
    assert [holder["name"].rpartition(" ")[2] for holder in data["holders"]] == ["ggml-cuda.dll", "ggml-cuda.so"]
    assert first["targets"] == ["sm_60", "sm_70", "sm_75"]
    assert len(first["kernels"]) == 7
    stubs = [name for name, cells in first["kernels"] if cells[0][4] == 2]
    assert len(stubs) == 5
    assert all("mul_mat" in name for name in stubs)
    members = json.loads(run("inspect", "demo.llamafile", "--format", "json").stdout)["files"][0]["members"]
    listed = next(member for member in members if member["path"] == "ggml-cuda.dll")["payloads"][0]["images"]
    assert [size for _, _, size in first["stored"]] == [image["stored_size"] for image in listed]
    words = " ".join(" ".join(outline.text).split())
    assert "will abort 63 products: GTX 10 series (sm_61)" in words
    assert "5 of its kernels do not work there" in text
    assert "there is no policy" in text


def test_two_files_and_a_policy(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text('require = ["sm_86"]\n')
    text, _, data = read(
        made(run, tmp_path, SAMPLES / "donor.so", SAMPLES / "kernels.fatbin", "--policy", policy, "--title", "Two <b>files")
    )
    assert len(data["holders"]) == 2
    assert "<title>Two &lt;b&gt;files: GPU code</title>" in text
    assert text.count("FP101") == 2


def test_amd(run: Run, tmp_path: Path) -> None:
    text, _, data = read(made(run, tmp_path, SAMPLES / "libhipdemo.so"))
    assert data["holders"][0]["targets"] == ["gfx906", "gfx1030", "gfx1100"]
    assert "Radeon RX 6800" in text


def test_hostile_names(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "lib<img src=x>&.so"
    path.write_bytes(library(container(sass(75, HOSTILE))))
    text, outline, data = read(made(run, tmp_path, path))
    assert len(outline.scripts) == 2
    assert "<img" not in text
    assert "<script>alert" not in text
    assert data["holders"][0]["kernels"][0][0].startswith("k</script><script>alert(1)")
    assert "\\u2028" in data["holders"][0]["kernels"][0][0]  # escaped for the eye, too


def test_nothing_inside(run: Run, tmp_path: Path) -> None:
    """A wrong path must not end in a page that looks fine."""
    done = run("report", SAMPLES / "MANIFEST.toml", "-o", tmp_path / "page.html")
    assert (done.returncode, "no file holds GPU code" in done.stderr) == (3, True)
    assert not (tmp_path / "page.html").exists()
    assert run("diff", "MANIFEST.toml", "MANIFEST.toml").returncode == 3


def test_a_page_is_not_written_over(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    done = run("report", SAMPLES / "kernels.fatbin", "-o", page)
    assert done.returncode == 6
    assert page.read_text() == "mine"
    assert run("report", SAMPLES / "kernels.fatbin", "-o", tmp_path / "no/such/page.html").returncode == 3


def test_what_cannot_be_read_is_on_the_page(run: Run, tmp_path: Path) -> None:
    assert run("report", tmp_path / "gone.so", "-o", tmp_path / "page.html").returncode == 3
    assert not (tmp_path / "page.html").exists()
    bad = packed(cubin(arch=75), "zstd", kind=2, major=1, minor=7)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/bad.so").write_bytes(library(container(bad[:-20] + bytes(20), sass(90))))
    whole = library(container(sass(75)))
    (tmp_path / "files/cut.so").write_bytes(whole[: len(whole) // 2])
    text, _, data = read(made(run, tmp_path, tmp_path / "files", code=4))
    assert len(data["holders"]) == 1
    assert text.count("FP002") >= 2
    assert "sm_75" in text


def test_a_packed_member_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate, whose findings are on the page, is held against the file that is open already."""
    unpacked: list[int] = []

    def counted(workspace: Workspace, source: Source, member: Member, *more: Any) -> Iterator[bytes]:
        unpacked.append(member.size)
        return pieces_of(workspace, source, member, *more)

    pieces_of = Workspace._pieces_of
    monkeypatch.setattr(Workspace, "_pieces_of", counted)
    library = (SAMPLES / "libkernels.so").read_bytes()
    (tmp_path / "kernels.zip").write_bytes(zip_file([(b"a.so", library)], method=8))
    inputs = [Input(str(tmp_path / "kernels.zip"), "kernels.zip", named=True)]
    policy = policy_for(PolicyRequest(require=("sm_60",)), None, look=False)
    found = contents(inputs, policy, Limits(), jobs=1, on_read=lambda *_: None)
    assert [finding.rule for finding in found.findings if finding.level == "error"] == ["FP101"]
    assert unpacked == [len(library)]


def test_the_same_page_every_time(run: Run, tmp_path: Path) -> None:
    first = made(run, tmp_path, SAMPLES / "donor.so").read_bytes()
    assert made(run, tmp_path, SAMPLES / "donor.so").read_bytes() == first
    assert str(SAMPLES).encode() not in first


def test_diff(run: Run, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.llamafile"
    assert run("graft", SAMPLES / "demo.llamafile", "--from", SAMPLES / "donor.dll", "--target", "sm_61", "-o", fixed).returncode == 0
    text, _, data = read(made(run, tmp_path, "--diff", SAMPLES / "demo.llamafile", fixed))
    assert data["mode"] == "diff"
    (file,) = data["holders"]
    assert file["targets"] == ["sm_60", "sm_61", "sm_70", "sm_75"]
    assert all(cells[1][0] is None and cells[1][1] for _, cells in file["kernels"])
    assert "adds GTX 10 series: 63 products; added sm_61" in text
    assert "--kernels" not in text
    same, _, none = read(made(run, tmp_path, "--diff", fixed, fixed))
    assert none["holders"] == []
    assert "the same GPU code" in same


@pytest.mark.parametrize("arguments", [("--diff", "kernels.fatbin"), ("--diff", "donor.so", "donor.dll", "--policy", "x"), ()])
def test_usage(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run("report", *arguments, "-o", tmp_path / "page.html").returncode == 2
