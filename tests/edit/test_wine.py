"""A DLL under Wine: its wrappers lead to the entries that the library reports, also when it is relocated, before and after a graft."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SAMPLES, Run
from edit.elf_builder import cubin, demo_member, fatpatch
from edit.pe_variants import checksum, signed, without_header_room
from edit.test_pe import GRAFTS, Made, make
from edit.wine import Entry, WineError, build_loader, entries_on_disk, listed, load, wine_available

VARIANTS = {"plain": bytes, "signed": signed, "without header room": without_header_room}


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not wine_available():
        pytest.skip("needs Wine and mingw-w64: apt-get install wine64 wine gcc-mingw-w64-x86-64")
    return build_loader(tmp_path_factory.mktemp("loader"))


@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_wrappers_lead_to_the_entries_of_the_file(variant: str, moved: bool, loader: Path, samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "donor.dll"
    path.write_bytes(VARIANTS[variant]((samples / "donor.dll").read_bytes()))
    loaded = load(loader, path, moved=moved)
    assert loaded.resolved
    assert [fatbin[:3] for fatbin in loaded.fatbins] == [(0, 1, True)]
    assert listed(loader, path, moved=moved) == entries_on_disk(path) == entries_on_disk(samples / "donor.dll")


def test_a_wrapper_without_its_relocation_is_found_out(loader: Path, samples: Path, tmp_path: Path) -> None:
    data = bytearray((samples / "donor.dll").read_bytes())
    block = data.index(b"\x00\x40\0\0\x0c\0\0\0\x08\xa0\0\0")  # .reloc: page 0x4000, 12 bytes, a DIR64 at 8, padding
    data[block + 8 : block + 10] = bytes(2)
    path = tmp_path / "donor.dll"
    path.write_bytes(data)
    assert listed(loader, path) == entries_on_disk(path)
    with pytest.raises(WineError, match="outside the image"):
        listed(loader, path, moved=True)


def test_entries_on_disk_are_those_of_the_command(samples: Path, run: Run) -> None:
    payloads = json.loads(run("inspect", "donor.dll", "--format", "json").stdout)["files"][0]["payloads"]
    images = [image for payload in payloads if payload["wrapper"] for image in payload["images"]]
    found = entries_on_disk(samples / "donor.dll")
    assert [(entry.kind, entry.flags, entry.stored_size) for entry in found] == [
        (image["kind_code"], image["flags"], image["stored_size"]) for image in images
    ]
    assert [(entry.wrapper, entry.kind, entry.arch) for entry in found] == [(0, 2, 61)]
    assert isinstance(found[0], Entry)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_sound(variant: str, samples: Path) -> None:
    original = (samples / "donor.dll").read_bytes()
    made = VARIANTS[variant](original)
    assert made == VARIANTS[variant](original)
    at = int.from_bytes(original[0x3C:0x40], "little") + 24 + 64
    assert int.from_bytes(made[at : at + 4], "little") == checksum(made)


@pytest.fixture(scope="module", params=GRAFTS, ids=lambda graft: graft.name)
def made(request: pytest.FixtureRequest, loader: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp("grafted"))


@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
def test_wrappers_of_a_grafted_dll_lead_to_the_new_image(made: Made, moved: bool, loader: Path, samples: Path) -> None:
    loaded = load(loader, made.after, moved=moved)
    assert loaded.resolved
    assert [fatbin[:3] for fatbin in loaded.fatbins] == [(0, 1, True)]
    assert [entry.arch for entry in loaded.entries] == list(made.graft.archs)
    assert list(loaded.entries) == entries_on_disk(made.after)
    old = {entry.arch: entry for entry in entries_on_disk(made.before)}
    if "replaced" not in made.graft.name:
        assert set(old.values()) < set(loaded.entries)
    if "packed" not in made.graft.name:
        sums = {entry.arch: entry.byte_sum for entry in loaded.entries}
        assert sums[61] == sum(cubin(samples, 61))


@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
def test_a_compacted_dll_is_loaded(moved: bool, loader: Path, tmp_path: Path) -> None:
    path, after = tmp_path / "demo.dll", tmp_path / "after.dll"
    path.write_bytes(demo_member(SAMPLES, "ggml-cuda.dll"))
    assert fatpatch("prune", path, "--keep", "sm_70", "--compact", "-o", after).code == 0
    assert after.stat().st_size < path.stat().st_size - 20_000
    assert [each for each in listed(loader, path, moved=moved) if each.arch == 70] == listed(loader, after, moved=moved)
    assert listed(loader, after, moved=moved) == entries_on_disk(after)
