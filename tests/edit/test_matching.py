"""Which image goes into which module, what is said when that is not clear, and usage errors of ``graft``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import elf
from builders.fatbin import container, entry

from fatpatch.commands import run as run_command

FIXTURES = Path(__file__).parent / "fixtures"
Done = subprocess.CompletedProcess
Graft = Callable[..., Done]


def data(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


A_90 = data("a.sm_90.cubin")


def cubin_entry(name: str, arch: int) -> bytes:
    return entry(data(name), kind=2, arch=arch, major=1, minor=8)


@pytest.fixture
def graft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Graft:
    """``fatpatch graft ARGS`` in a folder with all fixtures, in this process: one of its own takes longer than the work."""
    for path in FIXTURES.iterdir():
        if path.is_file():
            os.symlink(path, tmp_path / path.name)
    (tmp_path / "libab.so").unlink()
    (tmp_path / "libab.so").write_bytes(data("libab.so"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["fatpatch", "graft", *map(str, arguments)])
        return Done(arguments, run_command(), *capsys.readouterr())

    return call


def planned(done: Done) -> list[tuple[str, str, str]]:
    """(module, target, origin) of each graft of a run with --format json."""
    assert done.returncode == 0, done.stderr
    return [(item["module"], item["target"], item["origin"]) for item in json.loads(done.stdout)["grafted"]]


def dry(graft: Graft, *arguments: object) -> list[tuple[str, str, str]]:
    return planned(graft(*arguments, "--dry-run", "--format", "json"))


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/") + ".so", content)


# The rules


def test_exact_set_of_kernels(graft: Graft) -> None:
    found = dry(graft, "libab.so", "--cubin", "b.sm_90.cubin", "--cubin", "a.sm_90.cubin", "--ptx", "a.compute_75.ptx")
    assert found == [
        ("libab.so!.nv_fatbin!fatbin[1]", "sm_90", "b.sm_90.cubin"),
        ("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "a.sm_90.cubin"),
        ("libab.so!.nv_fatbin!fatbin[0]", "compute_75", "a.compute_75.ptx"),
    ]


def test_exact_beats_superset(graft: Graft, tmp_path: Path) -> None:
    """Module [1] has all kernels of the cubin, module [0] all but one: the cubin belongs to [1]."""
    with_ka4 = container(
        entry(data("a.compute_75.ptx").replace(b"ka2", b"ka4"), kind=1, arch=75), cubin_entry("a-with-ka4.sm_90.cubin", 90)
    )
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") + with_ka4)
    done = graft("x.fatbin", "--cubin", "a-with-ka4.sm_90.cubin", "--dry-run")
    assert done.returncode == 0
    assert "x.fatbin!fatbin[1]  sm_90 is there already" in done.stdout


def test_hash_normalised(graft: Graft) -> None:
    found = dry(graft, "libab.so", "--cubin", "other-folder.sm_90.cubin", "--rename-hash")
    assert found == [("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "other-folder.sm_90.cubin")]


def test_right_hash_beats_normalised(graft: Graft, tmp_path: Path) -> None:
    """Two files of one name in two folders: the kernels differ in the id only, and the id decides."""
    away = container(entry(data("other-folder.compute_75.ptx") + b"\0", arch=75, major=9, minor=0, options=b""))
    (tmp_path / "x.fatbin").write_bytes(away + data("a.fatbin"))
    assert dry(graft, "x.fatbin", "--cubin", "a.sm_90.cubin") == [("x.fatbin!fatbin[1]", "sm_90", "a.sm_90.cubin")]
    assert dry(graft, "x.fatbin", "--cubin", "other-folder.sm_90.cubin") == [("x.fatbin!fatbin[0]", "sm_90", "other-folder.sm_90.cubin")]


def test_unique_superset(graft: Graft) -> None:
    done = graft("libab.so", "--cubin", "a-with-ka4.sm_90.cubin", "--dry-run", "--format", "json")
    assert planned(done) == [("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "a-with-ka4.sm_90.cubin")]


@pytest.fixture
def twice(tmp_path: Path) -> str:
    """A file with module A twice."""
    (tmp_path / "twice.fatbin").write_bytes(data("a.fatbin") * 2)
    return "twice.fatbin"


@pytest.mark.parametrize("image", ["a.sm_90.cubin", "a-with-ka4.sm_90.cubin", "other-folder.sm_90.cubin"])
def test_ambiguous(image: str, graft: Graft, twice: str, tmp_path: Path) -> None:
    done = graft(twice, "--cubin", image, "-o", "out.fatbin")
    assert done.returncode == 6
    assert "fits 2 modules: twice.fatbin!fatbin[0], twice.fatbin!fatbin[1]" in done.stderr
    assert "--module" in done.stderr
    assert not (tmp_path / "out.fatbin").exists()


@pytest.mark.parametrize("pin", ["twice.fatbin!fatbin[1]", "fatbin[1]", "*[1]", "twice*1]"])
def test_module_picks(pin: str, graft: Graft, twice: str) -> None:
    assert dry(graft, twice, "--cubin", "a.sm_90.cubin", "--module", pin) == [("twice.fatbin!fatbin[1]", "sm_90", "a.sm_90.cubin")]


def test_module_with_a_pattern_for_several_modules_still_matches_by_kernels(graft: Graft) -> None:
    for pin in ("fatbin[*]", "*", "libab.so!.nv_fatbin!*"):
        found = dry(graft, "libab.so", "--cubin", "a.sm_90.cubin", "--module", pin)
        assert found == [("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "a.sm_90.cubin")]


def test_pattern_names_equal_modules(graft: Graft, twice: str) -> None:
    """Who names both of two equal modules means both."""
    found = dry(graft, twice, "--cubin", "a.sm_90.cubin", "--module", "fatbin[*]")
    assert [module for module, _, _ in found] == ["twice.fatbin!fatbin[0]", "twice.fatbin!fatbin[1]"]


def test_two_pins_for_two_images(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") * 2 + data("b.fatbin"))
    found = dry(graft, "x.fatbin", "--cubin", "a.sm_90.cubin", "--cubin", "b.sm_90.cubin", "--module", "fatbin[1]", "--module", "fatbin[2]")
    assert [module for module, _, _ in found] == ["x.fatbin!fatbin[1]", "x.fatbin!fatbin[2]"]


def test_unknown_module_lists_what_there_is(graft: Graft) -> None:
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "--module", "fatbin[7]", "--dry-run")
    assert done.returncode == 6
    assert "named fatbin[7]" in done.stderr
    assert "libab.so!.nv_fatbin!fatbin[0], libab.so!.nv_fatbin!fatbin[1]" in done.stderr


def test_nothing_to_graft_into(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(elf.shared_object([(".text", b"\x90" * 64)]))
    done = graft("x.so", "--cubin", "a.sm_90.cubin", "--dry-run")
    assert done.returncode == 6
    assert "holds no CUDA fatbin" in done.stderr


def test_images_without_kernels_need_a_module(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "x.ptx").write_bytes(b".version 8.0\n.target sm_90\n.address_size 64\n.global .u32 x;\n")
    done = graft("libab.so", "--ptx", "x.ptx", "--dry-run")
    assert done.returncode == 6
    assert "has no kernels" in done.stderr
    assert "--module" in done.stderr


@pytest.mark.parametrize("file", ["a.sm_75.cubin", "a.compute_75.ptx"])
def test_a_bare_image_becomes_a_fatbin(file: str, graft: Graft, tmp_path: Path) -> None:
    done = graft(file, "--cubin", "a.sm_90.cubin", "-o", "out.fatbin")
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "out.fatbin").read_bytes()
    assert made[:4] == b"\x50\xed\x55\xba"
    assert made.count(A_90) == made.count(data(file)) == 1


# Kernels in several modules


def test_a_kernel_in_another_module_is_told(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") + data("b-with-ka1.fatbin"))
    done = graft("x.fatbin", "--cubin", "a.sm_90.cubin", "--dry-run")
    assert done.returncode == 0
    (note,) = [line for line in done.stdout.splitlines() if "registered first" in line]
    assert note.startswith(
        "note: x.fatbin!fatbin[1] holds ka1 too and gets no sm_90: the CUDA runtime takes whichever module was registered first"
    )
    assert "error 209" in note


def test_no_such_note_when_every_module_is_covered(graft: Graft, tmp_path: Path) -> None:
    covered = container(cubin_entry("a.sm_90.cubin", 90))
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") + covered)
    done = graft("x.fatbin", "--cubin", "a.sm_90.cubin", "--module", "fatbin[0]", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "registered first" not in done.stdout
    assert "registered first" not in graft("libab.so", "--cubin", "a.sm_90.cubin", "--dry-run").stdout


# Donors


@pytest.fixture
def donor(tmp_path: Path) -> str:
    """A fatbin file with sm_90 of A, of B, and of a kernel that the library does not have."""
    stranger = data("a.compute_90.ptx").replace(b"ka1", b"xa1")
    (tmp_path / "donor.fatbin").write_bytes(
        container(cubin_entry("a.sm_90.cubin", 90))
        + container(cubin_entry("b.sm_90.cubin", 90), cubin_entry("b.sm_120.cubin", 120))
        + container(entry(stranger + b"\0", arch=90, major=9, minor=0, options=b""))
    )
    return "donor.fatbin"


def test_from_takes_the_target_alone(graft: Graft, donor: str) -> None:
    found = dry(graft, "libab.so", "--from", donor, "--target", "sm_90")
    assert found == [
        ("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "donor.fatbin!fatbin[0]!sm_90"),
        ("libab.so!.nv_fatbin!fatbin[1]", "sm_90", "donor.fatbin!fatbin[1]!sm_90"),
    ]


def test_from_reports_images_that_are_not_used(graft: Graft, donor: str) -> None:
    arguments = ("libab.so", "--from", donor, "--target", "sm_120", "--target", "compute_90", "--dry-run")
    done = graft(*arguments)
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("not used: ")]
    assert line.startswith(
        "not used: donor.fatbin!fatbin[2]!compute_90  fits no module: the nearest, libab.so!.nv_fatbin!fatbin[0], shares 2 of"
    )
    (skipped,) = json.loads(graft(*arguments, "--format", "json").stdout)["skipped"]
    assert (skipped["origin"], skipped["target"]) == ("donor.fatbin!fatbin[2]!compute_90", "compute_90")


def test_from_where_nothing_fits(graft: Graft, donor: str) -> None:
    done = graft("libab.so", "--from", donor, "--target", "compute_90", "--dry-run")
    assert done.returncode == 6
    assert "nothing to graft: donor.fatbin!" in done.stderr
    assert "fits no module" in done.stderr


def test_donor_without_the_target_lists_its_targets(graft: Graft, donor: str) -> None:
    done = graft("libab.so", "--from", donor, "--target", "sm_61", "--dry-run")
    assert done.returncode == 6
    assert "donor.fatbin: has no sm_61 image" in done.stderr
    assert "it has: sm_90, sm_120, compute_90" in done.stderr
    done = graft("libab.so", "--from", donor, "--target", "sm_90", "--target", "sm_61", "--dry-run")
    assert done.returncode == 6, "one target of several is missing"


def test_donor_that_is_a_library(graft: Graft, tmp_path: Path) -> None:
    assert graft("libab.so", "--cubin", "a.sm_90.cubin", "--cubin", "b.sm_90.cubin", "-o", "donor.so").returncode == 0
    found = dry(graft, "libab.so", "--from", "donor.so", "--target", "sm_90")
    assert [(module[-9:], origin) for module, _, origin in found] == [
        ("fatbin[0]", "donor.so!.nv_fatbin!fatbin[0]!sm_90"),
        ("fatbin[1]", "donor.so!.nv_fatbin!fatbin[1]!sm_90"),
    ]


def test_fatbin_gives_every_image(graft: Graft, donor: str) -> None:
    done = graft("libab.so", "--fatbin", donor, "--dry-run", "--format", "json")
    assert [target for _, target, _ in planned(done)] == ["sm_90", "sm_90", "sm_120"]
    assert [item["target"] for item in json.loads(done.stdout)["skipped"]] == ["compute_90"]


def test_fatbin_without_images(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "empty.fatbin").write_bytes(container())
    (tmp_path / "words.txt").write_text("no fatbin\n")
    for name in ("empty.fatbin", "words.txt"):
        done = graft("libab.so", "--fatbin", name, "--dry-run")
        assert done.returncode == 6
        assert done.stderr.startswith(f"fatpatch: error: {name}: "), "the donor is at fault, not the library"


def test_equal_modules_are_paired_in_order(graft: Graft, twice: str, tmp_path: Path) -> None:
    (tmp_path / "donor.fatbin").write_bytes(container(cubin_entry("a.sm_90.cubin", 90)) * 2)
    found = dry(graft, twice, "--from", "donor.fatbin", "--target", "sm_90")
    assert [(module, origin) for module, _, origin in found] == [
        ("twice.fatbin!fatbin[0]", "donor.fatbin!fatbin[0]!sm_90"),
        ("twice.fatbin!fatbin[1]", "donor.fatbin!fatbin[1]!sm_90"),
    ]


@pytest.mark.parametrize("letter", [b"C", b"c"], ids=["equal", "different"])
def test_more_equal_images_than_modules(letter: bytes, graft: Graft, tmp_path: Path) -> None:
    ours = cubin_entry("a.sm_90.cubin", 90)
    (tmp_path / "donor.fatbin").write_bytes(container(ours) + container(ours.replace(b"Cuda compilation", letter + b"uda compilation")))
    done = graft("libab.so", "--from", "donor.fatbin", "--target", "sm_90", "--dry-run")
    assert done.returncode == 6
    assert "fits 1 modules" not in done.stderr
    assert "donor.fatbin!fatbin[0]!sm_90" in done.stderr
    assert "donor.fatbin!fatbin[1]!sm_90" in done.stderr


def test_an_image_that_was_named_must_be_used(graft: Graft, donor: str) -> None:
    """Leaving images over is for donors; one given with --cubin is meant, whatever else is given."""
    done = graft("libab.so", "--cubin", "lacks-ka2.sm_90.cubin", "--from", donor, "--target", "sm_120", "--dry-run")
    assert done.returncode == 6
    assert "lacks-ka2.sm_90.cubin: fits no module" in done.stderr


# Archives


def test_an_image_goes_into_every_file_that_has_its_module(graft: Graft, tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"), two=data("libab.so"))
    found = dry(graft, "x.zip", "--cubin", "a.sm_90.cubin")
    assert [module for module, _, _ in found] == ["x.zip!one.so!.nv_fatbin!fatbin[0]", "x.zip!two.so!.nv_fatbin!fatbin[0]"]


@pytest.mark.parametrize("member", ["lib__one", "lib__two"])
def test_member_picks_by_its_whole_name(member: str, graft: Graft, tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", lib__one=data("libab.so"), lib__two=data("libab.so"), lib__more__lib__two=data("libab.so"))
    name = member.replace("__", "/") + ".so"
    images = ("--cubin", "a.sm_90.cubin", "--cubin", "b.sm_90.cubin")
    found = dry(graft, "x.zip", *images, "--member", name)
    assert [module for module, _, _ in found] == [f"x.zip!{name}!.nv_fatbin!fatbin[0]", f"x.zip!{name}!.nv_fatbin!fatbin[1]"]


def test_member_and_one_image_still_match_by_kernels(graft: Graft, tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"), two=data("libab.so"))
    found = dry(graft, "x.zip", "--cubin", "b.sm_90.cubin", "--member", "two.so")
    assert found == [("x.zip!two.so!.nv_fatbin!fatbin[1]", "sm_90", "b.sm_90.cubin")]


def test_member_and_module_both_hold(graft: Graft, tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"), two=data("libab.so"))
    found = dry(graft, "x.zip", "--cubin", "a.sm_90.cubin", "--member", "two.so", "--module", "fatbin[0]")
    assert found == [("x.zip!two.so!.nv_fatbin!fatbin[0]", "sm_90", "a.sm_90.cubin")]


def test_unknown_member(graft: Graft, tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"))
    done = graft("x.zip", "--cubin", "a.sm_90.cubin", "--member", "nope.so", "--dry-run")
    assert done.returncode == 6
    assert "nope.so" in done.stderr
    assert "*!nope.so!*" not in done.stderr, "the words of the user, not a pattern made of them"
    assert "x.zip!one.so!.nv_fatbin!fatbin[0]" in done.stderr


# Usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("libab.so", "--dry-run"), "give an image"),
        (("libab.so", "--from", "a.fatbin", "--dry-run"), "--from and --target go together"),
        (("libab.so", "--target", "sm_90", "--cubin", "a.sm_90.cubin", "--dry-run"), "--from and --target go together"),
        (("libab.so", "--cubin", "a.sm_90.cubin"), "name the output"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out.so", "--in-place"), "exclude each other"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "-o", "libab.so"), "use --in-place"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "-o", "./libab.so", "--overwrite"), "use --in-place"),
        (("--cubin", "a.sm_90.cubin", "--dry-run"), "Missing argument"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "--compress", "rar", "--dry-run"), "rar"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "--driver", "newest", "--dry-run"), "newest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_usage_errors(arguments: tuple[str, ...], words: str, graft: Graft, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    done = graft(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "libab.so").read_bytes() == data("libab.so")


@pytest.mark.parametrize("way", ["absolute", "real", "link"])
def test_output_that_names_the_file_itself(way: str, graft: Graft, tmp_path: Path) -> None:
    """However it is spelt: the file is changed only where --in-place says so."""
    (tmp_path / "link.so").symlink_to("libab.so")
    name = {"absolute": str(tmp_path / "libab.so"), "real": os.path.realpath("libab.so"), "link": "link.so"}[way]
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", name, "--overwrite")
    assert (tmp_path / "libab.so").read_bytes() == data("libab.so")
    assert done.returncode == 2
    assert "--in-place" in done.stderr


def test_output_that_exists(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "out.so").write_bytes(b"precious")
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out.so")
    assert done.returncode == 6
    assert "out.so: exists already" in done.stderr
    assert "--overwrite" in done.stderr
    assert (tmp_path / "out.so").read_bytes() == b"precious"
    assert graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out.so", "--overwrite").returncode == 0
    assert A_90 in (tmp_path / "out.so").read_bytes()
    assert (tmp_path / "libab.so").read_bytes() == data("libab.so")


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_output_that_is_a_folder(overwrite: tuple[str, ...], graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out", *overwrite)
    assert done.returncode in (2, 3, 6)
    assert "Traceback" not in done.stderr
    assert not os.listdir(tmp_path / "out")
    assert not [name for name in os.listdir(tmp_path) if "undo" in name or name.startswith(".")]


def test_missing_files(graft: Graft) -> None:
    done = graft("absent.so", "--cubin", "a.sm_90.cubin", "--dry-run")
    assert done.returncode == 3
    assert "absent.so: cannot open" in done.stderr
    done = graft("libab.so", "--cubin", "absent.cubin", "--dry-run")
    assert done.returncode == 3
    assert "absent.cubin: cannot open" in done.stderr
