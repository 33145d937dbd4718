"""What a graft is told to change: the image that a GPU loads before and after, and the warnings.

The expected choices are those of an H100 (reference: load rules, section 0; graft, sections C and F), written down by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from builders.fatbin import container, entry, packed
from conftest import SAMPLES

from fatpatch.commands import run as run_command

FIXTURES = Path(__file__).parent / "fixtures"
OLD_DRIVER = "535.154"  # CUDA 12.2, PTX 8.2
H100_DRIVER = "580.159.04"  # CUDA 13.0, PTX 9.0
FLAGS = {"": 0x11, "a": 0x100011, "f": 0x200011}
Graft = Callable[..., dict[str, Any]]


def data(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def ptx_text(arch: str, version: str = "9.0") -> bytes:
    """The PTX of module A for another target and of another version."""
    text = data("a.compute_90.ptx").replace(b".target sm_90", f".target sm_{arch}".encode())
    return text.replace(b".version 9.0", f".version {version}".encode())


def ptx(arch: str, version: str = "9.0", codec: str | None = None) -> bytes:
    """An entry with it."""
    major, minor = map(int, version.split("."))
    number, suffix = arch.rstrip("af"), arch.lstrip("0123456789")
    fields: dict[str, Any] = {"arch": int(number), "flags": FLAGS[suffix], "major": major, "minor": minor, "options": b""}
    text = ptx_text(arch, version) + b"\0"
    return entry(text, **fields) if codec is None else packed(text, codec, **fields)


def sass(arch: str) -> bytes:
    """An entry with a cubin of module A; the driver goes by the entry header alone, and so does the told choice."""
    content = data({"75": "a.sm_75.cubin", "90": "a.sm_90.cubin", "90a": "a.sm_90a.cubin"}.get(arch, "a.sm_90.cubin"))
    if arch not in ("75", "90", "90a"):
        content = content[:49] + bytes([int(arch)]) + content[50:]  # e_flags, the SM number
    return entry(content, kind=2, arch=int(arch.rstrip("af")), flags=FLAGS[arch.lstrip("0123456789")], major=1, minor=8)


@pytest.fixture
def graft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Graft:
    """The document of ``graft x.fatbin IMAGE --dry-run`` into a fatbin of the entries."""
    monkeypatch.chdir(tmp_path)

    def call(entries: Sequence[bytes], *arguments: object) -> dict[str, Any]:
        Path("x.fatbin").write_bytes(container(*entries))
        command = ["fatpatch", "graft", "x.fatbin", *map(str, arguments), "--dry-run", "--format", "json"]
        monkeypatch.setattr(sys, "argv", command)
        code = run_command()
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


class Told(NamedTuple):
    """GPU, image or error before, image or error after."""

    device: str
    before: str | int
    after: str | int


def told(document: dict[str, Any]) -> Told:
    (item,) = document["grafted"]
    before, after = (item[name]["target"] or item[name]["error"] for name in ("before", "after"))
    return Told(item["device"], before, after)


def warnings(document: dict[str, Any]) -> str:
    return "\n".join(document["notes"])


SM_90 = ("--cubin", FIXTURES / "a.sm_90.cubin")
SM_90A = ("--cubin", FIXTURES / "a.sm_90a.cubin")

CHOICES = {
    "nothing before": ([sass("75")], SM_90, Told("9.0", 209, "sm_90")),
    "compiled before": ([sass("75"), ptx("75")], SM_90, Told("9.0", "compute_75", "sm_90")),
    "compiled before, highest PTX": ([ptx("75"), ptx("80"), ptx("90")], SM_90, Told("9.0", "compute_90", "sm_90")),
    "other major before": ([sass("80"), sass("86"), sass("89")], SM_90, Told("9.0", 209, "sm_90")),
    "plain before accelerated": ([sass("90")], SM_90A, Told("9.0", "sm_90", "sm_90a")),
    "accelerated wins over plain": ([sass("90a")], SM_90, Told("9.0", "sm_90a", "sm_90a")),
    "empty fatbin with PTX of a newer GPU": ([sass("75"), ptx("100")], SM_90, Told("9.0", 209, "sm_90")),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_choice_for_a_cubin(name: str, graft: Graft) -> None:
    entries, image, expected = CHOICES[name]
    document = graft(entries, *image, "--driver", H100_DRIVER)
    assert told(document) == expected
    lost = expected.after != document["grafted"][0]["target"]
    assert ("not this image" in warnings(document)) == lost
    assert document["notes"] == [] or lost


def test_plain_image_where_an_accelerated_one_wins(graft: Graft) -> None:
    document = graft([sass("75"), sass("90a")], *SM_90)
    assert "a GPU of compute capability 9.0 loads sm_90a, not this image" in warnings(document)


def test_unmeasured_gpus_are_told_by_the_published_rule(graft: Graft, tmp_path: Path) -> None:
    """A cubin for 8.6 serves 8.9 too; what is told is for the very GPU of the cubin."""
    path = tmp_path / "a.cubin"
    content = data("a.sm_90.cubin")
    path.write_bytes(content[:49] + b"\x59" + content[50:])
    document = graft([sass("86")], "--cubin", path)
    (item,) = document["grafted"]
    assert told(document) == Told("8.9", "sm_86", "sm_89")
    assert not item["after"]["measured"]
    assert graft([sass("75")], *SM_90)["grafted"][0]["after"]["measured"]


# PTX


def given(tmp_path: Path, arch: str, version: str = "9.0") -> tuple[str, Path]:
    path = tmp_path / f"given.{arch}.ptx"
    path.write_bytes(ptx_text(arch, version))
    return "--ptx", path


PTX_CHOICES = {
    "no machine code for it": ([sass("75")], "90", Told("9.0", 209, "compute_90")),
    "machine code for its own number": ([sass("90")], "90", Told("10.0", 209, "compute_90")),
    "machine code of its major": ([sass("75")], "75", Told("8.0", 209, "compute_75")),
    "over lower PTX": ([sass("75"), ptx("75")], "90", Told("9.0", "compute_75", "compute_90")),
    "a variant over plain": ([ptx("90")], "90a", Told("9.0", "compute_90", "compute_90a")),
}


@pytest.mark.parametrize("name", PTX_CHOICES)
def test_choice_for_ptx(name: str, graft: Graft, tmp_path: Path) -> None:
    """PTX is told for the lowest GPU that compiles it, as that is what it was given for."""
    entries, arch, expected = PTX_CHOICES[name]
    document = graft(entries, *given(tmp_path, arch), "--driver", H100_DRIVER)
    assert told(document) == expected
    assert document["notes"] == []


def test_ptx_that_no_gpu_would_take(graft: Graft, tmp_path: Path) -> None:
    entries = [sass("90"), ptx("100")]
    document = graft(entries, *given(tmp_path, "90"), "--driver", H100_DRIVER)
    assert told(document) == Told("9.0", "sm_90", "sm_90")
    assert "a GPU of compute capability 9.0 loads sm_90, not this image" in warnings(document)


def test_ptx_newer_than_the_driver(graft: Graft, tmp_path: Path) -> None:
    image = given(tmp_path, "90", "8.3")
    text = warnings(graft([sass("75")], *image, "--driver", OLD_DRIVER))
    assert "driver 535.154 compiles PTX up to 8.2, this is 8.3" in text
    assert "error 222" in text


@pytest.mark.parametrize("version", ["8.2", "7.8", "6.0"])
def test_ptx_that_the_driver_knows(version: str, graft: Graft, tmp_path: Path) -> None:
    assert graft([sass("75")], *given(tmp_path, "90", version), "--driver", OLD_DRIVER)["notes"] == []


@pytest.mark.parametrize(
    ("version", "cuda", "linux"), [("9.0", "13.0", "580.65.06"), ("8.4", "12.4", "550.54.14"), ("8.0", "12.0", "525.60.13")]
)
def test_without_a_driver_the_least_one_is_named(version: str, cuda: str, linux: str, graft: Graft, tmp_path: Path) -> None:
    text = warnings(graft([sass("75")], *given(tmp_path, "90", version)))
    assert f"PTX {version} needs a driver that knows it: CUDA {cuda}, {linux} on Linux" in text


def test_machine_code_has_no_driver_warning(graft: Graft) -> None:
    assert graft([sass("75")], *SM_90, "--driver", OLD_DRIVER)["notes"] == []


def test_newer_ptx_is_still_chosen(graft: Graft, tmp_path: Path) -> None:
    """The driver takes the a variant whatever its version, and fails with 222 instead of falling back (measured)."""
    entries = [sass("75"), ptx("90a", "9.9"), ptx("100")]
    text = warnings(graft(entries, *given(tmp_path, "90"), "--driver", H100_DRIVER))
    assert "the driver takes compute_90a of PTX 9.9" in text
    assert "knows 9.0: error 222, no fallback" in text
    assert "compute capability 9.0" in text


def test_newer_ptx_is_still_chosen_on_the_gpu_of_the_target(graft: Graft, tmp_path: Path) -> None:
    """Though another GPU (10.0) would take the new image, 9.0 is what compute_90 names, and there 222 stays."""
    entries = [sass("75"), ptx("90a", "9.9")]
    text = warnings(graft(entries, *given(tmp_path, "90"), "--driver", H100_DRIVER))
    assert "compute_90a of PTX 9.9" in text
    assert "error 222" in text


def test_replacing_newer_ptx_cures_222(graft: Graft, tmp_path: Path) -> None:
    document = graft([sass("75"), ptx("90", "9.9")], *given(tmp_path, "90"), "--replace", "--driver", H100_DRIVER)
    assert told(document) == Told("9.0", "compute_90", "compute_90")
    assert document["notes"] == []
    assert document["grafted"][0]["replaced"]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_neighbours_change_no_choice(codec: str, graft: Graft) -> None:
    assert told(graft([sass("75"), ptx("75", codec=codec)], *SM_90)) == Told("9.0", "compute_75", "sm_90")


def test_an_old_entry_may_lack_what_new_ones_must_have(graft: Graft) -> None:
    """An options block, in PTX: without one a driver crashes, if it takes that entry. It was so before, and stays."""
    assert told(graft([sass("75"), entry(ptx_text("75") + b"\0", major=9, minor=0)], *SM_90)) == Told("9.0", "compute_75", "sm_90")


def test_concatenated_entries_are_warned_of(graft: Graft) -> None:
    """A driver up to 580 ignores them, so the graft alone is what it sees."""
    entries = [(SAMPLES / "concatenated.fatbin").read_bytes()[16:]]
    document = graft(entries, "--cubin", SAMPLES / "kernels.sm_100f.cubin")
    assert told(document) == Told("10.0", 209, "sm_100f")
    assert "concatenated entries, which drivers up to 580 ignore" in warnings(document)


# In words


def test_text_says_the_same(graft: Graft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    graft([sass("75")], *SM_90)
    monkeypatch.setattr(sys, "argv", ["fatpatch", "graft", "x.fatbin", *map(str, SM_90), "-o", "out.fatbin"])
    assert run_command() == 0
    assert "; compute capability 9.0 loaded nothing (error 209), now loads sm_90\n" in capsys.readouterr().out
    monkeypatch.setattr(
        sys, "argv", ["fatpatch", "graft", "out.fatbin", *map(str, given(tmp_path, "90", "9.9")), "--driver", OLD_DRIVER, "-o", "b"]
    )
    assert run_command() == 0
    out = capsys.readouterr().out
    assert "; compute capability 10.0 loaded nothing (error 209), now loads compute_90\n" in out
    assert "note: driver 535.154 compiles PTX up to 8.2, this is 9.9: error 222 on every GPU that needs it\n" in out
