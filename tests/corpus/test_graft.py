"""Grafts into real shipped libraries, one module and all of them, looked at with other tools than ours."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import lief
import pytest
from conftest import Run, corpus_file, corpus_path, corpus_rows

from fatpatch.edit.payload.new_image import images_from
from fatpatch.gpucode.content import ImageReader
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.walk import inspected

pytestmark = pytest.mark.corpus
CASES = {  # member: (an SM number the file has, one that it lacks and that differs in the cubin's e_flags alone)
    "libllamamodel-mainline-cuda.so": (61, 62),
    "linux-x64-cuda/llama-addon.node": (61, 62),
    "win-x64-cuda/llama-addon.node": (61, 62),
    "libfaiss-6b43fd57.so": (80, 87),
}
ROWS = {member: row for row in corpus_rows() for member in CASES if str(row["member"]).endswith(member)}
MEMBERS = sorted(ROWS)
ELF = [member for member in MEMBERS if not member.startswith("win")]


def relabelled(cubin: bytes, arch: int) -> bytes:
    """The cubin for another SM number, by test code alone: bits 0 to 7 of e_flags in the old layout, 8 to 23 in the new."""
    flags = struct.unpack_from("<I", cubin, 48)[0]
    flags = flags & ~0xFF | arch if cubin[7] == 0x33 else flags & ~0xFFFF00 | arch << 8
    return cubin[:48] + struct.pack("<I", flags) + cubin[52:]


def donor_images(path: Path, old: int, new: int) -> Iterator[bytes]:
    with inspected(str(path)) as node:
        for holder, payload in payloads_below(node):
            assert holder.source is not None
            reader = ImageReader(holder.source, 1 << 30)
            for image in payload.images:
                if image.target == f"sm_{old}":
                    yield relabelled(reader.read(image), new)


def donor_fatbin(path: Path, images: Iterator[bytes], arch: int) -> int:
    """A bare fatbin of plain entries, made with struct; how many."""
    entries = []
    for data in images:
        padded = data + bytes(-len(data) % 8)
        entries.append(struct.pack("<HHIQIIHHIIIQQQ", 2, 0x101, 64, len(padded), 0, 0, data[8], 1, arch, 0, 0, 0x11, 0, 0) + padded)
    path.write_bytes(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, sum(map(len, entries))) + b"".join(entries))
    return len(entries)


def targets(run: Run, path: Path) -> dict[str, int]:
    done = run("inspect", "--format", "json", path)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout)["files"][0]["summary"]["images_by_target"])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.slow) if "faiss" in each else each for each in MEMBERS])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Path, int, int]:
    member = str(request.param)
    path = corpus_path(ROWS[member])
    old, new = CASES[member]
    donor = tmp_path / "donor.fatbin"
    donor_fatbin(donor, donor_images(path, old, new), new)
    return member, path, donor, old, new


@pytest.mark.parametrize("member", ["libbitsandbytes_cuda118.so", "libbitsandbytes_cuda130.so", "libllamamodel-mainline-cuda.so"])
def test_every_real_image_can_be_given(member: str) -> None:
    """Linked and relocatable cubins and PTX of real libraries are whole in the eyes of what reads donors."""
    with inspected(str(corpus_file(member))) as node:
        given = images_from(node, (), 1 << 30, shown=member)
        images = [image for _, payload in payloads_below(node) for image in payload.images if image.kind in ("sass", "ptx")]
    assert len(given) == len(images) > 0
    assert {image.signature.relocatable for image in given} >= ({True, False} if "bitsandbytes" in member else {False})


def test_every_module(run: Run, case: tuple[str, Path, Path, int, int], tmp_path: Path) -> None:
    member, path, donor, old, new = case
    before, out = targets(run, path), tmp_path / path.name
    done = run("graft", path, "--from", donor, "--target", f"sm_{new}", "-o", out, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert all(check["ok"] for check in result["checks"])
    assert len(result["checks"]) >= 13
    grafted = len(result["grafted"])
    assert grafted + len(result["skipped"]) == before[f"sm_{old}"]
    assert all("no kernels" in skipped["reason"] for skipped in result["skipped"])
    assert targets(run, out) == {**before, f"sm_{new}": grafted}
    look_at(member, out)
    undone = run("undo", out)
    assert undone.returncode == 0, undone.stderr
    assert sha256(out) == sha256(path)


def test_one_module(run: Run, case: tuple[str, Path, Path, int, int], tmp_path: Path) -> None:
    member, path, _, old, new = case
    with inspected(str(path)) as node:
        largest = max(node.payloads, key=lambda payload: payload.size)
        place = next(index for index, payload in enumerate(node.payloads) if payload is largest)
    cubin, out = tmp_path / "one.cubin", tmp_path / path.name
    cubin.write_bytes(list(donor_images(path, old, new))[place])
    done = run("graft", path, "--cubin", cubin, "--module", largest.locator, "-o", out)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert targets(run, out)[f"sm_{new}"] == 1
    look_at(member, out)
    old_bytes, new_bytes = path.read_bytes(), out.read_bytes()
    changed = sum(1 for at in range(0, len(old_bytes), 64) if old_bytes[at : at + 64] != new_bytes[at : at + 64])
    assert changed * 64 < largest.size + 0x4000, "only the old place of the fatbin and a few headers change"


def look_at(member: str, path: Path) -> None:
    """Tools of others read the result without a complaint, and leave it whole when they change it."""
    if member.startswith("win"):
        listing = subprocess.run(["objdump", "-x", path], capture_output=True, text=True, check=True)
        assert ".nv_fatb" in listing.stdout
        pe = lief.PE.parse(str(path))
        assert [section.name for section in pe.sections].count(".nv_fatb") == 2
        assert pe.optional_header.sizeof_image % pe.optional_header.section_alignment == 0
        assert pe.optional_header.checksum in (0, pe.compute_checksum())
        return
    listing = subprocess.run(["readelf", "-lSW", path], capture_output=True, text=True, check=True)
    assert listing.stderr == ""
    assert listing.stdout.count(" .nv_fatbin ") >= 2
    elf = lief.ELF.parse(str(path))
    loads = [segment.virtual_address for segment in elf.segments if segment.type == lief.ELF.Segment.TYPE.LOAD]
    assert loads == sorted(loads)


@pytest.mark.parametrize("member", ELF)
def test_strip_and_patchelf(run: Run, member: str, tmp_path: Path) -> None:
    path, (old, new) = corpus_path(ROWS[member]), CASES[member]
    donor, out = tmp_path / "donor.fatbin", tmp_path / path.name
    donor_fatbin(donor, donor_images(path, old, new), new)
    assert run("graft", path, "--from", donor, "--target", f"sm_{new}", "-o", out).returncode == 0
    wanted = targets(run, out)
    tools = [["strip"], ["patchelf", "--set-rpath", "$ORIGIN/elsewhere"]]
    for tool in tools:
        if shutil.which(tool[0]) is None:
            continue
        copy = tmp_path / f"{tool[0]}.so"
        shutil.copy2(out, copy)
        done = subprocess.run([*tool, str(copy)], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert targets(run, copy) == wanted
        assert run("verify", copy).returncode == 0


@pytest.mark.oracle
@pytest.mark.parametrize("member", ELF)
def test_cuobjdump_lists_everything(run: Run, oracle: Path, member: str, tmp_path: Path) -> None:
    path, (old, new) = corpus_path(ROWS[member]), CASES[member]
    donor, out = tmp_path / "donor.fatbin", tmp_path / path.name
    donor_fatbin(donor, donor_images(path, old, new), new)
    assert run("graft", path, "--from", donor, "--target", f"sm_{new}", "-o", out, "--cuobjdump").returncode == 0
    listing = subprocess.run([oracle, "-lelf", out], capture_output=True, text=True, check=True).stdout
    wanted = targets(run, out)
    for target, count in wanted.items():
        if target.startswith("sm_"):
            assert listing.count(f".{target}.cubin") == count
    assert wanted[f"sm_{new}"] > 0
