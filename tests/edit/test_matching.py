"""Which image goes into which module, and what is raised when that is not clear."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from builders import elf
from builders.fatbin import container, entry

import fatpatch
from fatpatch import EditError, FatpatchError, Plan

FIXTURES = Path(__file__).parent / "fixtures"


def data(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


A_90 = data("a.sm_90.cubin")


def cubin_entry(name: str, arch: int) -> bytes:
    return entry(data(name), kind=2, arch=arch, major=1, minor=8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder has all fixtures, and a library to graft into."""
    for path in FIXTURES.iterdir():
        if path.is_file():
            os.symlink(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)


def grafted(plan: Plan) -> list[tuple[str, str, str]]:
    """(module, target, origin) of each graft."""
    return [(item["module"], item["target"], item["origin"]) for item in plan.to_dict()["grafted"]]


def planned(file: str, **options: Any) -> list[tuple[str, str, str]]:
    return grafted(fatpatch.graft(file, **options))


def refused(file: str, **options: Any) -> FatpatchError:
    with pytest.raises(EditError) as caught:
        fatpatch.graft(file, **options)
    return caught.value


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/") + ".so", content)


# The rules


def test_exact_set_of_kernels() -> None:
    found = planned("libab.so", cubins=["b.sm_90.cubin", "a.sm_90.cubin"], ptx="a.compute_75.ptx")
    assert found == [
        ("libab.so!.nv_fatbin!fatbin[1]", "sm_90", "b.sm_90.cubin"),
        ("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "a.sm_90.cubin"),
        ("libab.so!.nv_fatbin!fatbin[0]", "compute_75", "a.compute_75.ptx"),
    ]


def test_exact_beats_superset(tmp_path: Path) -> None:
    """Module [1] has all kernels of the cubin, module [0] all but one: the cubin belongs to [1]."""
    with_ka4 = container(
        entry(data("a.compute_75.ptx").replace(b"ka2", b"ka4"), kind=1, arch=75), cubin_entry("a-with-ka4.sm_90.cubin", 90)
    )
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") + with_ka4)
    plan = fatpatch.graft("x.fatbin", cubins="a-with-ka4.sm_90.cubin")
    assert plan.to_dict()["present"] == [{"module": "x.fatbin!fatbin[1]", "target": "sm_90"}]


def test_hash_normalised() -> None:
    found = planned("libab.so", cubins="other-folder.sm_90.cubin", rename_hash=True)
    assert found == [("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "other-folder.sm_90.cubin")]


def test_right_hash_beats_normalised(tmp_path: Path) -> None:
    """Two files of one name in two folders: the kernels differ in the id only, and the id decides."""
    away = container(entry(data("other-folder.compute_75.ptx") + b"\0", arch=75, major=9, minor=0, options=b""))
    (tmp_path / "x.fatbin").write_bytes(away + data("a.fatbin"))
    assert planned("x.fatbin", cubins="a.sm_90.cubin") == [("x.fatbin!fatbin[1]", "sm_90", "a.sm_90.cubin")]
    assert planned("x.fatbin", cubins="other-folder.sm_90.cubin") == [("x.fatbin!fatbin[0]", "sm_90", "other-folder.sm_90.cubin")]


def test_unique_superset() -> None:
    found = planned("libab.so", cubins="a-with-ka4.sm_90.cubin")
    assert found == [("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "a-with-ka4.sm_90.cubin")]


@pytest.fixture
def twice(tmp_path: Path) -> str:
    """A file with module A twice."""
    (tmp_path / "twice.fatbin").write_bytes(data("a.fatbin") * 2)
    return "twice.fatbin"


@pytest.mark.parametrize("image", ["a.sm_90.cubin", "a-with-ka4.sm_90.cubin", "other-folder.sm_90.cubin"])
def test_ambiguous(image: str, twice: str, tmp_path: Path) -> None:
    error = refused(twice, cubins=image)
    assert "fits 2 modules: twice.fatbin!fatbin[0], twice.fatbin!fatbin[1]" in error.message
    assert "--module" in str(error.hint)


@pytest.mark.parametrize("pin", ["twice.fatbin!fatbin[1]", "fatbin[1]", "*[1]", "twice*1]"])
def test_module_picks(pin: str, twice: str) -> None:
    assert planned(twice, cubins="a.sm_90.cubin", modules=[pin]) == [("twice.fatbin!fatbin[1]", "sm_90", "a.sm_90.cubin")]


def test_module_with_a_pattern_for_several_modules_still_matches_by_kernels() -> None:
    for pin in ("fatbin[*]", "*", "libab.so!.nv_fatbin!*"):
        found = planned("libab.so", cubins="a.sm_90.cubin", modules=[pin])
        assert found == [("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "a.sm_90.cubin")]


def test_pattern_names_equal_modules(twice: str) -> None:
    """Who names both of two equal modules means both."""
    found = planned(twice, cubins="a.sm_90.cubin", modules=["fatbin[*]"])
    assert [module for module, _, _ in found] == ["twice.fatbin!fatbin[0]", "twice.fatbin!fatbin[1]"]


def test_two_pins_for_two_images(tmp_path: Path) -> None:
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") * 2 + data("b.fatbin"))
    found = planned("x.fatbin", cubins=["a.sm_90.cubin", "b.sm_90.cubin"], modules=["fatbin[1]", "fatbin[2]"])
    assert [module for module, _, _ in found] == ["x.fatbin!fatbin[1]", "x.fatbin!fatbin[2]"]


def test_unknown_module_lists_what_there_is() -> None:
    error = refused("libab.so", cubins="a.sm_90.cubin", modules=["fatbin[7]"])
    assert "named fatbin[7]" in error.message
    assert "libab.so!.nv_fatbin!fatbin[0], libab.so!.nv_fatbin!fatbin[1]" in str(error.hint)


def test_nothing_to_graft_into(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(elf.shared_object([(".text", b"\x90" * 64)]))
    assert "holds no CUDA fatbin" in refused("x.so", cubins="a.sm_90.cubin").message


def test_images_without_kernels_need_a_module(tmp_path: Path) -> None:
    (tmp_path / "x.ptx").write_bytes(b".version 8.0\n.target sm_90\n.address_size 64\n.global .u32 x;\n")
    error = refused("libab.so", ptx="x.ptx")
    assert "has no kernels" in error.message
    assert "--module" in str(error.hint)


@pytest.mark.parametrize("file", ["a.sm_75.cubin", "a.compute_75.ptx"])
def test_a_bare_image_becomes_a_fatbin(file: str, tmp_path: Path) -> None:
    fatpatch.graft(file, cubins="a.sm_90.cubin").save("out.fatbin")
    made = (tmp_path / "out.fatbin").read_bytes()
    assert made[:4] == b"\x50\xed\x55\xba"
    assert made.count(A_90) == made.count(data(file)) == 1


# Kernels in several modules


def test_a_kernel_in_another_module_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") + data("b-with-ka1.fatbin"))
    (note,) = [note for note in fatpatch.graft("x.fatbin", cubins="a.sm_90.cubin").notes if "registered first" in note]
    assert note.startswith(
        "x.fatbin!fatbin[1] holds ka1 too and gets no sm_90: the CUDA runtime takes whichever module was registered first"
    )
    assert "error 209" in note


def test_no_such_note_when_every_module_is_covered(tmp_path: Path) -> None:
    covered = container(cubin_entry("a.sm_90.cubin", 90))
    (tmp_path / "x.fatbin").write_bytes(data("a.fatbin") + covered)
    for plan in (
        fatpatch.graft("x.fatbin", cubins="a.sm_90.cubin", modules=["fatbin[0]"]),
        fatpatch.graft("libab.so", cubins="a.sm_90.cubin"),
    ):
        assert not any("registered first" in note for note in plan.notes)


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


def test_from_takes_the_target_alone(donor: str) -> None:
    found = planned("libab.so", donor=donor, targets=["sm_90"])
    assert found == [
        ("libab.so!.nv_fatbin!fatbin[0]", "sm_90", "donor.fatbin!fatbin[0]!sm_90"),
        ("libab.so!.nv_fatbin!fatbin[1]", "sm_90", "donor.fatbin!fatbin[1]!sm_90"),
    ]


def test_from_reports_images_that_are_not_used(donor: str) -> None:
    plan = fatpatch.graft("libab.so", donor=donor, targets=["sm_120", "compute_90"])
    (skipped,) = plan.to_dict()["skipped"]
    assert (skipped["origin"], skipped["target"]) == ("donor.fatbin!fatbin[2]!compute_90", "compute_90")
    assert skipped["reason"].startswith("fits no module: the nearest, libab.so!.nv_fatbin!fatbin[0], shares 2 of")


def test_from_where_nothing_fits(donor: str) -> None:
    error = refused("libab.so", donor=donor, targets=["compute_90"])
    assert "nothing to graft: donor.fatbin!" in error.message
    assert "fits no module" in error.message


def test_donor_without_the_target_lists_its_targets(donor: str) -> None:
    for targets in (["sm_61"], ["sm_90", "sm_61"]):
        error = refused("libab.so", donor=donor, targets=targets)
        assert (error.locator, error.message) == ("donor.fatbin", "has no sm_61 image")
        assert "it has: sm_90, sm_120, compute_90" in str(error.hint)


def test_donor_that_is_a_library(tmp_path: Path) -> None:
    fatpatch.graft("libab.so", cubins=["a.sm_90.cubin", "b.sm_90.cubin"]).save("donor.so")
    found = planned("libab.so", donor="donor.so", targets=["sm_90"])
    assert [(module[-9:], origin) for module, _, origin in found] == [
        ("fatbin[0]", "donor.so!.nv_fatbin!fatbin[0]!sm_90"),
        ("fatbin[1]", "donor.so!.nv_fatbin!fatbin[1]!sm_90"),
    ]


def test_fatbin_gives_every_image(donor: str) -> None:
    plan = fatpatch.graft("libab.so", fatbins=donor)
    assert [target for _, target, _ in grafted(plan)] == ["sm_90", "sm_90", "sm_120"]
    assert [item["target"] for item in plan.to_dict()["skipped"]] == ["compute_90"]


def test_fatbin_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty.fatbin").write_bytes(container())
    (tmp_path / "words.txt").write_text("no fatbin\n")
    for name in ("empty.fatbin", "words.txt"):
        assert refused("libab.so", fatbins=name).locator == name, "the donor is at fault, not the library"


def test_equal_modules_are_paired_in_order(twice: str, tmp_path: Path) -> None:
    (tmp_path / "donor.fatbin").write_bytes(container(cubin_entry("a.sm_90.cubin", 90)) * 2)
    found = planned(twice, donor="donor.fatbin", targets=["sm_90"])
    assert [(module, origin) for module, _, origin in found] == [
        ("twice.fatbin!fatbin[0]", "donor.fatbin!fatbin[0]!sm_90"),
        ("twice.fatbin!fatbin[1]", "donor.fatbin!fatbin[1]!sm_90"),
    ]


@pytest.mark.parametrize("letter", [b"C", b"c"], ids=["equal", "different"])
def test_more_equal_images_than_modules(letter: bytes, tmp_path: Path) -> None:
    ours = cubin_entry("a.sm_90.cubin", 90)
    (tmp_path / "donor.fatbin").write_bytes(container(ours) + container(ours.replace(b"Cuda compilation", letter + b"uda compilation")))
    error = refused("libab.so", donor="donor.fatbin", targets=["sm_90"])
    assert "fits 1 modules" not in error.message
    assert "donor.fatbin!fatbin[0]!sm_90" in error.message
    assert "donor.fatbin!fatbin[1]!sm_90" in error.message


def test_an_image_that_was_named_must_be_used(donor: str) -> None:
    """Leaving images over is for donors; one given with --cubin is meant, whatever else is given."""
    error = refused("libab.so", cubins="lacks-ka2.sm_90.cubin", donor=donor, targets=["sm_120"])
    assert "lacks-ka2.sm_90.cubin: fits no module" in str(error)


# Archives


def test_an_image_goes_into_every_file_that_has_its_module(tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"), two=data("libab.so"))
    found = planned("x.zip", cubins="a.sm_90.cubin")
    assert [module for module, _, _ in found] == ["x.zip!one.so!.nv_fatbin!fatbin[0]", "x.zip!two.so!.nv_fatbin!fatbin[0]"]


@pytest.mark.parametrize("member", ["lib__one", "lib__two"])
def test_member_picks_by_its_whole_name(member: str, tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", lib__one=data("libab.so"), lib__two=data("libab.so"), lib__more__lib__two=data("libab.so"))
    name = member.replace("__", "/") + ".so"
    found = planned("x.zip", cubins=["a.sm_90.cubin", "b.sm_90.cubin"], members=[name])
    assert [module for module, _, _ in found] == [f"x.zip!{name}!.nv_fatbin!fatbin[0]", f"x.zip!{name}!.nv_fatbin!fatbin[1]"]


def test_member_and_one_image_still_match_by_kernels(tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"), two=data("libab.so"))
    found = planned("x.zip", cubins="b.sm_90.cubin", members=["two.so"])
    assert found == [("x.zip!two.so!.nv_fatbin!fatbin[1]", "sm_90", "b.sm_90.cubin")]


def test_member_and_module_both_hold(tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"), two=data("libab.so"))
    found = planned("x.zip", cubins="a.sm_90.cubin", members=["two.so"], modules=["fatbin[0]"])
    assert found == [("x.zip!two.so!.nv_fatbin!fatbin[0]", "sm_90", "a.sm_90.cubin")]


def test_unknown_member(tmp_path: Path) -> None:
    archive(tmp_path / "x.zip", one=data("libab.so"))
    error = refused("x.zip", cubins="a.sm_90.cubin", members=["nope.so"])
    assert "nope.so" in error.message
    assert "*!nope.so!*" not in error.message, "the words of the user, not a pattern made of them"
    assert "x.zip!one.so!.nv_fatbin!fatbin[0]" in str(error.hint)
