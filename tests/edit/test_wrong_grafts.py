"""Every wrong image is refused before a byte is written, in words that say what it would do at run time (reference: graft, section D)."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from builders import elf
from builders.fatbin import container, entry
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

import fatpatch
from fatpatch import EditError, FatpatchError, FormatError, Plan
from fatpatch.commands import run as run_command
from fatpatch.edit.payload.hashes import rename_hashes, renames_between

FIXTURES = Path(__file__).parent / "fixtures"
MODULE_A, MODULE_B = "libab.so!.nv_fatbin!fatbin[0]", "libab.so!.nv_fatbin!fatbin[1]"
HOME, AWAY = b"e31db8fc", b"53548cad"  # ids of the two folders that fixtures/build.py compiles in
Graft = Callable[..., Plan]
Refused = Callable[..., FatpatchError]


def data(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


PTX = data("a.compute_75.ptx")
SWAPPED = ("fatbin[1]",)  # module B


def with_long_section(name: bytes, size: int, cubin: bytes) -> bytes:
    """A cubin one of whose sections claims to be longer than the file."""
    table = struct.unpack_from("<Q", cubin, 40)[0]
    index = [section.name for section in ELFFile(io.BytesIO(cubin)).iter_sections()].index(name.decode())
    at = table + 64 * index + 32  # sh_size
    return cubin[:at] + struct.pack("<Q", size) + cubin[at + 8 :]


INTO_A = ("fatbin[0]",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the library to graft into, and nothing else."""
    (tmp_path / "libab.so").write_bytes(data("libab.so"))
    return tmp_path


@pytest.fixture
def graft(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Graft:
    """The plan of a graft in that folder; ``image`` is given by the name of its fixture, or as bytes."""
    gifts = folder.parent / (folder.name + "-gifts")
    gifts.mkdir()
    monkeypatch.chdir(folder)

    def call(kind: str, *images: str | bytes, file: str = "libab.so", **options: Any) -> Plan:
        paths = []
        for number, image in enumerate(images):
            path = FIXTURES / image if isinstance(image, str) else gifts / f"gift{number}"
            if isinstance(image, bytes):
                path.write_bytes(image)
            paths.append(path)
        return fatpatch.graft(file, **{kind: paths}, **options)

    return call


@pytest.fixture
def refused(graft: Graft, folder: Path) -> Callable[..., FatpatchError]:
    """The error of a graft that is refused, with all words in it, and an untouched folder."""

    def call(
        kind: str, *images: str | bytes, words: Sequence[str] = (), error: type[FatpatchError] = EditError, **options: Any
    ) -> FatpatchError:
        with pytest.raises(error) as caught:
            graft(kind, *images, **options)
        told = f"{caught.value}\n{caught.value.hint}"
        assert [word for word in words if word not in told] == [], told
        assert os.listdir(folder) == ["libab.so"]
        assert (folder / "libab.so").read_bytes() == data("libab.so")
        return caught.value

    return call


def replaced(old: bytes, new: bytes, text: bytes = PTX) -> bytes:
    assert text.count(old) > 0
    return text.replace(old, new)


def without_kernel(name: bytes) -> bytes:
    """The PTX of module A without one kernel."""
    text, count = re.subn(rb"(?:\t// \.globl\t\w+\n)?\.visible \.entry " + name + rb"\((?:.|\n)*?\n}\n", b"", PTX)
    assert count == 1
    return text


class Wrong(NamedTuple):
    """A wrong image, how it is given, and what the refusal says: what is wrong and what would happen."""

    kind: str
    image: str | bytes
    words: tuple[str, ...]
    modules: tuple[str, ...] = ()
    error: type[FatpatchError] = EditError


NEVER = {
    "two parameters more": Wrong(
        "cubins", "two-more.sm_90.cubin", (MODULE_A, "ka2 takes 5 parameters in 24 bytes, the module's 3 in 16", "crashes the host process")
    ),
    "one parameter fewer": Wrong(
        "cubins", "one-fewer.sm_90.cubin", (MODULE_A, "ka2 takes 2 parameters in 12 bytes, the module's 3 in 16", "wrong arguments, silently")
    ),
    "other offsets": Wrong(
        "cubins", "other-offsets.sm_90.cubin", (MODULE_A, "ka2 has its 3 parameters at other offsets", "wrong arguments, silently")
    ),
    "constant of 8 bytes": Wrong(
        "cubins", "ca-8-bytes.sm_90.cubin", (MODULE_A, "ca has 8 bytes, the module's 4", "numbers are wrong, silently")
    ),
    "constant of 2 bytes": Wrong("cubins", "ca-2-bytes.sm_90.cubin", (MODULE_A, "ca has 2 bytes, the module's 4", "copy fails (error 1)")),
    "another folder": Wrong(
        "cubins", "other-folder.sm_90.cubin", (MODULE_A, "another build folder's id", AWAY.decode(), HOME.decode(), "error 500", "--rename-hash")
    ),
    "another folder, PTX": Wrong("ptx", "other-folder.compute_75.ptx", (MODULE_A, "another build folder's id", "error 500", "--rename-hash")),
    "relocatable": Wrong("cubins", "relocatable.sm_90.cubin", ("is relocatable", "error 200 or 500")),
    "relocatable, module named": Wrong(
        "cubins", "relocatable.sm_90.cubin", (MODULE_A, "is relocatable (-rdc=true), the module is linked", "error 200 or 500", "nvcc -dlink"), INTO_A
    ),
    "truncated": Wrong("cubins", data("a.sm_90.cubin")[:-1024], ("section headers end at", "the cubin at 0x19e8"), error=FormatError),
    "truncated in its program headers, which come last": Wrong("cubins", data("a.sm_90.cubin")[:-100], ("program headers end at",), error=FormatError),
    "code past its end": Wrong("cubins", with_long_section(b".text.ka1", 6000, data("a.sm_90.cubin")), ("a section ends at",), error=FormatError),
    "cut inside its header": Wrong("cubins", data("a.sm_90.cubin")[:40], ("ELF header cut short",)),
    "empty": Wrong("cubins", b"", ("an empty file",)),
    "host library": Wrong("cubins", elf.shared_object([(".text", b"\x90" * 64)]), ("expected e_machine 190 (CUDA), got machine 62", "--from")),
    "fatbin given as cubin": Wrong("cubins", "a.fatbin", ("is a fatbin, not a cubin", "--fatbin")),
    "PTX given as cubin": Wrong("cubins", "a.compute_75.ptx", ("expected a cubin (7f454c46)",)),
    "cubin given as PTX": Wrong("ptx", "a.sm_90.cubin", ("expected PTX text that starts with .version",)),
    "sm_75 code labelled sm_90": Wrong(
        "fatbins",
        container(entry(data("a.sm_75.cubin"), kind=2, arch=90, major=1, minor=8)),
        ("is labelled sm_90, but the cubin is sm_75", "error 300", "no other image"),
    ),
    "byte order mark": Wrong("ptx", b"\xef\xbb\xbf" + PTX, ("byte order mark", "error 218")),
    "32-bit PTX": Wrong("ptx", replaced(b".address_size 64", b".address_size 32"), (".address_size 32", "error 218")),
    "PTX without .version": Wrong("ptx", replaced(b".version 9.0\n", b""), ("expected PTX text that starts with .version",)),
    "PTX without .target": Wrong("ptx", replaced(b".target sm_75\n", b""), (".target sm_NN",)),
    "PTX, a parameter more": Wrong(
        "ptx",
        replaced(b"\t.param .u32 ka2_param_2\n", b"\t.param .u32 ka2_param_2,\n\t.param .u32 ka2_param_3\n"),
        (MODULE_A, "ka2 takes 4 parameters in 20 bytes, the module's 3 in 16", "crashes the host process"),
    ),
    "PTX, a parameter fewer": Wrong(
        "ptx", replaced(b",\n\t.param .u32 ka2_param_2\n", b"\n"), (MODULE_A, "ka2 takes 2 parameters in 12 bytes", "wrong arguments, silently")
    ),
    "PTX, constant of 8 bytes": Wrong(
        "ptx", replaced(b".const .align 4 .u32 ca", b".const .align 8 .u64 ca"), (MODULE_A, "ca has 8 bytes, the module's 4", "silently")
    ),
    "PTX, variable of 40 bytes": Wrong(
        "ptx", replaced(b".global .align 4 .u32 ga;", b".global .align 4 .b8 ga[40];"), (MODULE_A, "ga has 40 bytes, the module's 4")
    ),
}  # fmt: skip

SURVIVABLE = {
    "lacks a kernel": Wrong(
        "cubins", "lacks-ka2.sm_90.cubin", ("lacks 1 of 3 kernels: ka2", "error 500, never a fallback to another image", "--force"), INTO_A
    ),
    "kernel under another name": Wrong(
        "cubins", "renamed-ka2.sm_90.cubin", ("lacks 1 of 3 kernels: ka2", "error 500, never a fallback to another image", "--force"), INTO_A
    ),
    "lacks a variable": Wrong(
        "cubins", "without-ga.sm_90.cubin", (MODULE_A, "lacks 1 of 2 variables: ga", "gives error 500", "--force")
    ),
    "PTX lacks a kernel": Wrong("ptx", without_kernel(b"ka2"), ("lacks 1 of 3 kernels: ka2", "error 500", "--force"), INTO_A),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_refused_forced_or_not(name: str, refused: Refused) -> None:
    wrong = NEVER[name]
    for force in (False, True):
        refused(wrong.kind, wrong.image, words=wrong.words, error=wrong.error, modules=wrong.modules, force=force)


@pytest.mark.parametrize("name", SURVIVABLE)
def test_survivable_ones_go_with_force(name: str, graft: Graft, refused: Refused, folder: Path) -> None:
    wrong = SURVIVABLE[name]
    refused(wrong.kind, wrong.image, words=wrong.words, modules=wrong.modules)
    plan = graft(wrong.kind, wrong.image, modules=wrong.modules, force=True)
    plan.save("out.so")
    (row,) = plan.to_dict()["grafted"]
    assert row["forced"][0].startswith(wrong.words[0] if wrong.words[0] != MODULE_A else wrong.words[1])
    assert (folder / "libab.so").read_bytes() == data("libab.so")


@pytest.mark.parametrize("image", ["lacks-ka2.sm_90.cubin", "renamed-ka2.sm_90.cubin"])
def test_without_a_kernel_it_fits_no_module(image: str, refused: Refused) -> None:
    nearest = f"fits no module: the nearest, {MODULE_A}, shares 2 of its 3 kernels and would lose ka2"
    for force in (False, True):
        refused("cubins", image, words=(nearest, "error 500", "never a fallback", "--module"), force=force)


def test_cubins_of_two_modules_swapped(refused: Refused) -> None:
    words = ("a.sm_90.cubin", f"the nearest, {MODULE_B}, shares 0 of its 2 kernels")
    refused("cubins", "a.sm_90.cubin", "b.sm_90.cubin", words=words, modules=SWAPPED)
    refused("cubins", "a.sm_90.cubin", words=(MODULE_B, "lacks 2 of 2 kernels: kb1, kb2", "error 500", "cb, gb"), modules=SWAPPED)
    refused("cubins", "b.sm_90.cubin", words=(MODULE_A, "lacks 3 of 3 kernels", "error 500", "ca, ga"), modules=INTO_A)


def test_each_problem_has_its_line(refused: Refused) -> None:
    """Line breaks are line breaks, not the two characters that stand for one."""
    message = refused("cubins", "a.sm_90.cubin", modules=SWAPPED).message
    assert "\\n" not in message
    assert message.count("a.sm_90.cubin (sm_90): lacks") == 2


def test_force_does_not_carry_the_other_problems_along(refused: Refused) -> None:
    """An image with one survivable and one deadly problem stays out, and nothing suggests --force."""
    text = replaced(b",\n\t.param .u32 ka2_param_2\n", b"\n", replaced(b"ga", b"gx"))
    error = refused("ptx", text, words=("lacks 1 of 2 variables: ga", "wrong arguments, silently"), modules=INTO_A, force=True)
    assert "--force grafts" not in str(error.hint)


@pytest.mark.parametrize("option", ["--dry-run", "--in-place", "-o"])
def test_refused_by_every_destination(
    option: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a user sees of it."""
    monkeypatch.chdir(folder)
    arguments = ["graft", "libab.so", "--cubin", str(FIXTURES / "two-more.sm_90.cubin"), option, *(["out.so"] if option == "-o" else [])]
    monkeypatch.setattr(sys, "argv", ["fatpatch", *arguments])
    assert run_command() == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fatpatch: error: ")
    assert "crashes the host" in err
    assert os.listdir(folder) == ["libab.so"]


def test_one_wrong_image_keeps_the_right_ones_out(refused: Refused) -> None:
    refused("cubins", "b.sm_90.cubin", "two-more.sm_90.cubin", words=("two-more.sm_90.cubin", "crashes the host"))


def test_ptx_that_no_known_driver_compiles(graft: Graft) -> None:
    """A version from the future: the note says so, and what the driver would answer."""
    (note,) = [note for note in graft("ptx", replaced(b".version 9.0", b".version 9.9")).notes if "PTX 9.9" in note]
    assert "not known here or newer" not in note
    assert "error 222" in note


def another_build(name: str) -> bytes:
    """The same code in other bytes: the note about its compiler differs."""
    return replaced(b"Cuda compilation tools", b"CUDA compilation tools", data(name))


def test_duplicates_need_replace(graft: Graft, refused: Refused, folder: Path) -> None:
    image = another_build("a.sm_75.cubin")
    for force in (False, True):
        words = (MODULE_A, "has a sm_75 image already", "not documented", "--replace puts this one in its place")
        refused("cubins", image, words=words, force=force)
    plan = graft("cubins", image, replace=True)
    plan.save("out.so")
    assert [(row["target"], row["replaced"]) for row in plan.to_dict()["grafted"]] == [("sm_75", True)]
    made = (folder / "out.so").read_bytes()
    assert made.count(image) == 1
    assert made.count(data("a.sm_75.cubin")) == 0
    assert made.count(data("b.sm_75.cubin")) == 1


def test_replacing_does_not_excuse_a_wrong_image(graft: Graft) -> None:
    """Compared with the image it replaces when there is no other."""
    text = replaced(b".target sm_75", b".target sm_90", replaced(b",\n\t.param .u32 ka2_param_2\n", b"\n"))
    graft("ptx", "a.compute_90.ptx").save("first.so")
    with pytest.raises(EditError, match="ka2 takes 2 parameters"):
        graft("ptx", text, file="first.so", replace=True)
    place = b"\x04\x17\x0c\0" + struct.pack("<IHH", 0, 2, 12)  # KPARAM_INFO: the third parameter, at offset 12
    moved = b"\x04\x17\x0c\0" + struct.pack("<IHH", 0, 2, 20)
    with pytest.raises(EditError, match="ka2 takes 3 parameters in 24 bytes, the module's 3 in 16"):
        graft("cubins", replaced(place, moved, data("a.sm_75.cubin")), replace=True)


def test_the_same_image_again_is_no_duplicate(graft: Graft) -> None:
    plan = graft("cubins", "a.sm_75.cubin")
    assert plan.to_dict()["grafted"] == []
    assert plan.to_dict()["present"] == [{"module": MODULE_A, "target": "sm_75"}]
    assert plan.size_after == plan.size_before


def test_two_images_for_one_place(refused: Refused) -> None:
    for other in ("a.sm_90.cubin", "a-with-ka4.sm_90.cubin", "without-ga.sm_90.cubin"):
        words = ("two images are sm_90 for one module", MODULE_A, "only one image a target and module")
        refused("cubins", "a.sm_90.cubin", other, words=words)


# --rename-hash


def images_of(fatbin: bytes) -> dict[tuple[int, int], bytes]:
    """Payload by kind and SM number of an uncompressed fatbin, read with nothing of fatpatch."""
    magic, _, header_size, size = struct.unpack_from("<IHHQ", fatbin)
    assert magic == 0xBA55ED50
    at, found = header_size, {}
    while at < header_size + size:
        kind, _, head, length = struct.unpack_from("<HHIQ", fatbin, at)
        (arch,) = struct.unpack_from("<I", fatbin, at + 28)
        found[kind, arch] = fatbin[at + head : at + head + length]
        at += head + length
    return found


def names_of(cubin: bytes) -> tuple[list[str], list[str]]:
    """Section names and symbol names by pyelftools."""
    file = ELFFile(io.BytesIO(cubin))
    sections = [section.name for section in file.iter_sections()]
    tables = [section for section in file.iter_sections() if isinstance(section, SymbolTableSection)]
    return sections, [symbol.name for table in tables for symbol in table.iter_symbols()]


def test_renamed_cubin_has_the_names_of_the_library(graft: Graft, folder: Path, oracle: Path) -> None:
    (folder / "a.fatbin").write_bytes(data("a.fatbin"))
    graft("cubins", "other-folder.sm_90.cubin", rename_hash=True, file="a.fatbin").save("out.fatbin")
    images = images_of((folder / "out.fatbin").read_bytes())
    made = images[2, 90]
    assert images[2, 75] == images_of(data("a.fatbin"))[2, 75]
    assert len(made) == len(data("other-folder.sm_90.cubin"))
    assert names_of(made) == names_of(data("a.sm_90.cubin"))
    assert AWAY not in made
    assert made == data("a.sm_90.cubin"), "compiled in the library's folder it has these very bytes"
    kernels = kernels_by_oracle(oracle, folder / "out.fatbin")
    assert len(kernels) == 6
    assert len(set(kernels)) == 3


def kernels_by_oracle(oracle: Path, path: Path) -> list[str]:
    done = subprocess.run([oracle, "-all", "-res-usage", path], capture_output=True, text=True, check=True)
    return re.findall(r"Function (\S+):", done.stdout + done.stderr)


def test_renamed_ptx_has_the_names_of_the_library(graft: Graft, folder: Path) -> None:
    graft("ptx", "other-folder.compute_75.ptx", rename_hash=True, codec="none").save("out.so")
    made = (folder / "out.so").read_bytes()
    assert made.count(PTX + b"\0") == 1
    assert AWAY not in made


def test_rename_hash_changes_nothing_that_fits_already(graft: Graft, folder: Path) -> None:
    graft("cubins", "a.sm_90.cubin", rename_hash=True).save("out.so")
    assert (folder / "out.so").read_bytes().count(data("a.sm_90.cubin")) == 1


def test_rename_hash_does_not_excuse_the_rest(refused: Refused) -> None:
    text = replaced(b",\n\t.param .u32 ka2_param_2\n", b"\n", data("other-folder.compute_75.ptx"))
    refused("ptx", text, words=("ka2 takes 2 parameters", "wrong arguments, silently"), rename_hash=True, force=True)


def test_ids_are_swapped_at_once() -> None:
    given = ["_ZN27_GLOBAL__N__11111111_4_x_cu2k1Ev", "_ZN27_GLOBAL__N__22222222_4_y_cu2k2Ev"]
    wanted = ["_ZN27_GLOBAL__N__22222222_4_x_cu2k1Ev", "_ZN27_GLOBAL__N__11111111_4_y_cu2k2Ev"]
    renames = renames_between(given, wanted)
    assert rename_hashes("\0".join(given).encode(), renames) == "\0".join(wanted).encode()


def test_an_id_that_would_have_to_become_two_is_refused() -> None:
    given = ["_ZN27_GLOBAL__N__11111111_4_x_cu2k1Ev", "_ZN27_GLOBAL__N__11111111_4_x_cu2k2Ev"]
    wanted = ["_ZN27_GLOBAL__N__22222222_4_x_cu2k1Ev", "_ZN27_GLOBAL__N__33333333_4_x_cu2k2Ev"]
    with pytest.raises(EditError, match="both"):
        renames_between(given, wanted)
    with pytest.raises(EditError, match="any of 2 kernels"):
        renames_between(given[:1], [wanted[0], "_ZN27_GLOBAL__N__33333333_4_x_cu2k1Ev"])


@pytest.mark.parametrize("name", [b"k\n2", b"!\n2"])
@pytest.mark.parametrize("modules", [(), INTO_A])
def test_names_out_of_files_make_no_lines_of_their_own(name: bytes, modules: tuple[str, ...], graft: Graft, folder: Path) -> None:
    hostile = replaced(b"\0ka2\0", b"\0" + name + b"\0", data("a.sm_75.cubin"))
    (folder / "x.fatbin").write_bytes(container(entry(hostile, kind=2, major=1, minor=8)))
    with pytest.raises(EditError) as caught:
        graft("cubins", "lacks-ka2.sm_90.cubin", modules=modules, file="x.fatbin")
    assert all(line.startswith("  ") for line in caught.value.message.splitlines()[1:]), caught.value.message
