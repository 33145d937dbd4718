"""Fatbins that no wrapper leads to: emptied where they are. Their bytes are read here by struct alone, and readelf looks at the rest."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
import zstandard
from builders.fatbin import container, entry
from conftest import SAMPLES
from edit.elf_builder import Host, build, cubin, fatpatch
from edit.test_elf import tool
from edit.test_prune import pruned, sha256, two_archs

HEADER = struct.Struct("<HHIQIIHHIIIQQQ")
SECTIONS = (".cask_resource", ".ldata", "__nv_relfatbin", ".rodata.tables")


def images(*archs: int) -> bytes:
    return container(*(entry(cubin(SAMPLES, arch), kind=2, arch=arch, major=1, minor=7) for arch in archs))


def hidden(folder: Path, section: str) -> Path:
    """A library with one fatbin that a wrapper names, and three that nothing names: the middle one has nothing for sm_61."""
    lines = [f'.section {section},"a",@progbits', ".balign 16", '.ascii "a table of its own"', ".balign 16"]
    for number, archs in enumerate(((75, 61, 70), (75, 70), (61,))):
        (folder / f"hidden{number}").write_bytes(images(*archs))
        lines.append(f'.incbin "{folder}/hidden{number}"')
    lines.append('.ascii "what lies behind"')
    return build(Host("hidden", extra="\n".join(lines) + "\n"), folder, (images(61, 75),))


def chain(data: bytes, at: int) -> list[tuple[int, int, bytes]]:
    """(kind, arch, header and payload) of each entry of the container at an offset, by its sizes alone."""
    magic, version, head, size = struct.unpack_from("<IHHQ", data, at)
    assert (magic, version, head) == (0xBA55ED50, 1, 16)
    found, end, at = [], at + 16 + size, at + 16
    while at < end:
        fields = HEADER.unpack_from(data, at)
        length = fields[2] + fields[3]
        found.append((fields[0], fields[8], data[at : at + length]))
        at += length
    assert at == end
    return found


def places(path: Path, data: bytes) -> list[int]:
    return [data.index((path.parent / f"hidden{number}").read_bytes()) for number in range(3)]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("options", [(), ("--no-undo",)], ids=["undo", "no-undo"])
def test_emptied_where_they_are(section: str, options: tuple[str, ...], tmp_path: Path) -> None:
    path = hidden(tmp_path, section)
    before = path.read_bytes()
    after = tmp_path / "after.so"
    told = pruned(path, "--for", "GTX 1080", *options, "-o", after)
    assert "keep their places" in told
    data = after.read_bytes()
    assert len(data) == len(before)
    for at, kinds in zip(places(path, before), ([0, 2, 0], [0, 0], [2]), strict=True):
        old, new = chain(before, at), chain(data, at)
        assert data[at : at + 16] == before[at : at + 16]
        assert [kind for kind, _, _ in new] == kinds
        for kind, arch, raw in new:
            if kind:
                assert (kind, arch, raw) in old
            else:
                assert raw[:64] == struct.pack("<HHIQ", 0, 0x0101, 64, len(raw) - 64) + bytes(48)
                assert not any(raw[64:])
    for needle in (b"a table of its own", b"what lies behind"):
        assert data.index(needle) == before.index(needle)
    assert tool("readelf", "-lSdrW", after).stdout == tool("readelf", "-lSdrW", path).stdout
    if sys.platform == "linux":
        assert after.stat().st_blocks * 512 <= path.stat().st_blocks * 512 - 4 * 4096
    if not options:
        assert fatpatch("undo", after).code == 0
        assert sha256(after) == sha256(path)


def test_readers_know_fillers(tmp_path: Path) -> None:
    path, after = hidden(tmp_path, ".cask_resource"), tmp_path / "after.so"
    pruned(path, "--for", "GTX 1080", "-o", after)
    document = json.loads(fatpatch("inspect", after, "--format", "json").out)
    (file,) = document["files"]
    assert file["diagnostics"] == []
    assert file["summary"]["images_by_target"] == {"sm_61": 3}
    assert [payload["fillers"]["entries"] for payload in file["payloads"]] == [0, 2, 2, 0]
    sizes = [payload["fillers"]["size"] for payload in file["payloads"]]
    lengths = [len(entry(cubin(SAMPLES, arch), kind=2)) for arch in (75, 70)]
    assert sizes == [0, sum(lengths), sum(lengths), 0]
    shown = fatpatch("inspect", after).out
    assert "images were removed in place: 4 fillers" in shown
    assert "1 fatbin holds nothing else" in shown
    assert "unknown" not in shown
    assert fatpatch("verify", after).code == 0
    again = fatpatch("prune", after, "--for", "GTX 1080", "-o", tmp_path / "again.so")
    assert "nothing to do" in again.out


def test_doctor_says_the_same_of_the_gpu_that_is_kept(tmp_path: Path) -> None:
    path, after = hidden(tmp_path, ".cask_resource"), tmp_path / "after.so"
    pruned(path, "--for", "GTX 1080", "-o", after)
    verdicts = [json.loads(fatpatch("doctor", each, "--gpu", "GTX 1080", "--format", "json").out)["files"][0] for each in (path, after)]
    assert verdicts[0]["verdict"] == verdicts[1]["verdict"]
    rows = [[(row["target"], row["cuda_error"]) for row in found["modules"]] for found in verdicts]
    assert rows[0] == rows[1]
    assert fatpatch("doctor", after, "--gpu", "T4").code == 1


def test_an_entry_that_is_no_filler_is_shown(tmp_path: Path) -> None:
    """Kind 0 with anything else in its header is unknown, as before."""
    odd = tmp_path / "odd.fatbin"
    odd.write_bytes(container(entry(bytes(64), kind=0, arch=0, flags=0, major=0, minor=0), entry(bytes(64), kind=0, arch=75)))
    found = json.loads(fatpatch("inspect", odd, "--format", "json").out)["files"][0]
    assert found["payloads"][0]["fillers"] == {"entries": 1, "size": 128}
    assert [image["kind"] for image in found["payloads"][0]["images"]] == ["unknown"]
    assert any("unknown kind" in item["message"] for item in found["diagnostics"])


def test_code_that_refers_to_a_fatbin_keeps_it_in_place(tmp_path: Path) -> None:
    """Without --compact nothing need move: every image that stays is where it was."""
    extra = '.section .text,"ax",@progbits\n.globl taker\ntaker: movl fatbin2-64(%rip), %eax\nret\n'
    before = build(Host("referred", modules=3, extra=extra), tmp_path, two_archs(SAMPLES))
    assert fatpatch("prune", before, "--keep", "sm_75", "--compact", "-o", tmp_path / "x").code == 6
    told = pruned(before, "--keep", "sm_75", "-o", tmp_path / "after.so")
    assert "all fatbins keep their places" in told
    old, new = before.read_bytes(), (tmp_path / "after.so").read_bytes()
    at = old.index(b"\x50\xed\x55\xba\1\0\x10\0")
    assert [kind for kind, _, _ in chain(new, at)] == [0, 0, 2]
    assert chain(new, at)[2] == chain(old, at)[2]


@pytest.mark.parametrize("section", [".cask_resource", ".ldata"])
def test_recompressed_where_they_are(section: str, tmp_path: Path) -> None:
    """Each entry keeps its offset, a filler takes what became free, and zstandard unpacks the same bytes."""
    code = [cubin(SAMPLES, 61) + bytes(3 << 12), cubin(SAMPLES, 75) + bytes(2 << 12)]
    (tmp_path / "table").write_bytes(container(*(entry(data, kind=2, arch=arch) for data, arch in zip(code, (61, 75), strict=True))))
    lines = f'.section {section},"a",@progbits\n.balign 16\n.incbin "{tmp_path}/table"\n.ascii "what lies behind"\n'
    path = build(Host("hidden", extra=lines), tmp_path, (images(61, 75),))
    before, after = path.read_bytes(), tmp_path / "after.so"
    answer = fatpatch("recompress", path, "--codec", "zstd", "-o", after)
    assert answer.code == 0, answer
    data = after.read_bytes()
    at = before.index((tmp_path / "table").read_bytes())
    old, new = chain(before, at), chain(data, at)
    assert data[at : at + 16] == before[at : at + 16]
    assert [kind for kind, _, _ in new] == [2, 0, 2, 0]
    assert len(new[0][2]) + len(new[1][2]) == len(old[0][2])
    for (_, _, raw), content in zip((new[0], new[2]), code, strict=True):
        fields = HEADER.unpack_from(raw)
        assert zstandard.ZstdDecompressor().decompress(raw[fields[2] :][: fields[4]]) == content
        assert fields[-1] == len(content)
    for _, _, raw in (new[1], new[3]):
        assert raw[:64] == struct.pack("<HHIQ", 0, 0x0101, 64, len(raw) - 64) + bytes(48)
        assert not any(raw[64:])
    assert data.index(b"what lies behind") == before.index(b"what lies behind")
    assert fatpatch("verify", after).code == 0
    assert fatpatch("undo", after).code == 0
    assert after.read_bytes() == before
