"""Deflate streams entered in the middle, and what samples of a large wheel say, against reading all of it."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry
from named.index_server import index

from fatpatch.base.source import Source
from fatpatch.binfmt.deflate import DeflatePart, from_middle, from_start
from fatpatch.scan.entry_headers import header_at
from fatpatch.scan.samples import sampled
from fatpatch.scan.spread import spread
from fatpatch.scan.walk import inspected


def words(seed: int, size: int) -> bytes:
    """Bytes that deflate packs to about two thirds, as machine code does."""
    chance = random.Random(seed)
    table = [chance.randbytes(8) for _ in range(400)]
    return b"".join(table[int(chance.random() ** 2 * 400)] if chance.random() < 0.5 else chance.randbytes(8) for _ in range(size // 8))


def packed(data: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def test_a_stream_from_its_middle() -> None:
    data = words(1, 1 << 20)
    stream = packed(data)
    for share in (0.1, 0.4, 0.7):
        at = int(len(stream) * share)
        part = from_middle(stream[at : at + (160 << 10)])
        assert part is not None
        known = [index for index in range(0, len(part.data) - 24, 8) if part.known(index, index + 24)]
        assert len(known) > 1000
        unique = next(index for index in known if data.count(part.data[index : index + 24]) == 1)
        begin = data.find(part.data[unique : unique + 24]) - unique
        assert all(data[begin + index : begin + index + 24] == part.data[index : index + 24] for index in known), "what is known is right"
    end = from_middle(stream[-(128 << 10) :])
    assert end is not None
    assert end.ended
    last = data[-len(end.data) :]
    assert all(last[index] == end.data[index] for index in range(len(end.data)) if end.data[index] == end.other[index])


def test_a_stream_with_stored_blocks_from_its_middle() -> None:
    """What is stored begins at a byte, and the block before it ends at any bit."""
    chance = random.Random(5)
    data = b"".join(words(index, 8 << 10) + chance.randbytes(60 << 10) for index in range(24))
    stream = packed(data)
    entered = 0
    for at in range(100_000, 700_000, 60_000):
        part = from_middle(stream[at : at + (160 << 10)])
        assert part is not None
        assert part.start < 64 << 10
        place = next(index for index in range(40_000, len(part.data) - 64) if part.known(index, index + 64))
        begin = data.index(part.data[place : place + 64]) - place
        pairs = zip(part.data, part.other, data[begin : begin + len(part.data)], strict=True)
        assert all(one == true for one, two, true in pairs if one == two), "what is known is right"
        entered += part.known(len(part.data) - 1000, len(part.data))
    assert entered > 8


def test_modules_in_runs_are_not_taken_for_those_of_the_first_run() -> None:
    runs = [(61, 75, 86)] * 20 + [(90,)] * 20 + [(75, 86, 90)] * 14
    found = sampled(Source.of(wheel(runs, 60_000)), "runs")
    if found is None:
        return  # read whole: too few of them were found in too many places
    (node,) = found.root.members
    read = [[image.target for image in payload.images] for payload in node.payloads]
    right = sum(targets == [f"sm_{arch}" for arch in archs] for targets, archs in zip(read, runs, strict=True))
    assert right >= 51, "what was not read is as the module beside it"


def test_the_kind_of_an_entry_that_is_not_known_is_by_its_version() -> None:
    """SASS has version 1.7 there, PTX the version of its language; the lower number comes first."""
    for kind, minor, major in ((2, 7, 1), (1, 6, 8), (1, 0, 3)):
        data = entry(bytes(200), kind=kind, major=major, minor=minor, arch=75)
        header = header_at(DeflatePart(b"\0" + data[1:], b"\xff" + data[1:], 0, False), 0)
        assert header is not None
        assert header.kind == kind


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"\xff" * 5000, random.Random(2).randbytes(50_000), b"\x04" * 200_000])
def test_what_is_no_stream(data: bytes) -> None:
    part = from_middle(data)
    assert part is None or len(part.data) <= 32 * len(data)
    assert len(from_start(data, 100)) <= 100


def test_a_bomb_is_bounded() -> None:
    part = from_middle(packed(bytes(200 << 20)))
    assert part is None or len(part.data) <= 32 * (1 << 20)


def library(archs: list[tuple[int, ...]], size: int) -> bytes:
    """A library with a module for each tuple, each image of about ``size`` bytes; its wrappers are relocated as linkers do it."""
    modules, starts, base = b"", [], 0x10000
    for number, targets in enumerate(archs):
        images = [
            entry(cubin(arch=arch) + words(number * 100 + arch, size + 8 * number), kind=2, major=1, minor=7, arch=arch) for arch in targets
        ]
        starts.append(len(modules))
        modules += container(*images)
    fatbins = 128 + -(-24 * len(archs) // 16) * 16
    wrappers = fatbins + -(-len(modules) // 16) * 16
    rows = [(base + wrappers + 24 * number + 8, 8, base + fatbins + start) for number, start in enumerate(starts)]
    relocations = b"".join(struct.pack("<QQq", *row) for row in rows)
    segment = b"".join(elf.wrapper(0) for _ in archs)
    made = elf.shared_object([(".rela.dyn", relocations), (".nv_fatbin", modules), (".nvFatBinSegment", segment)], base=base)
    assert made.index(modules[:64]) == fatbins
    return made


def wheel(archs: list[tuple[int, ...]], size: int = 60_000) -> bytes:
    """A wheel with a library of such modules."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("k/libk.so", library(archs, size))
        made.writestr("k/__init__.py", "x = 1\n")
    return stream.getvalue()


def test_samples_say_what_all_of_it_says(tmp_path: Path) -> None:
    targets = (52, 61, 75, 86, 90)
    data = wheel([targets] * 32)
    assert len(data) > 5 << 20
    found = sampled(Source.of(data), "k.whl")
    assert found is not None
    assert found.modules == 32
    assert 6 <= found.sampled <= 32
    (tmp_path / "k.whl").write_bytes(data)
    with inspected(str(tmp_path / "k.whl")) as whole:
        every = {tuple(image.target for image in payload.images) for member in whole.members for payload in member.payloads}
    some = {tuple(image.target for image in payload.images) for member in found.root.members for payload in member.payloads}
    assert some == every == {tuple(f"sm_{arch}" for arch in targets)}


def test_what_samples_do_not_stand_for() -> None:
    assert sampled(Source.of(wheel([(61, 75)] * 3)), "small") is None, "a small wheel is read whole"
    mixed = [(61, 75, 86), (75, 86), (61, 86), (86, 90)] * 25
    assert sampled(Source.of(wheel(mixed, 40_000)), "mixed") is None, "modules for different targets, one beside the other"
    assert sampled(Source.of(b"no zip"), "x") is None
    assert sampled(Source.of(b""), "x") is None


def test_a_damaged_wheel_is_read_whole() -> None:
    data = bytearray(wheel([(61, 75, 86, 90)] * 24))
    for seed in range(3):
        chance = random.Random(seed)
        hurt = bytearray(data)
        for _ in range(200):
            hurt[chance.randrange(len(hurt))] ^= 1 << chance.randrange(8)
        found = sampled(Source.of(bytes(hurt)), "x")
        assert found is None or {image.target for member in found.root.members for payload in member.payloads for image in payload.images} <= {
            "sm_61", "sm_75", "sm_86", "sm_90",
        }  # fmt: skip


def test_which_alternatives_stand_for_all() -> None:
    assert spread(["a/lib_cuda118.so", "a/lib_cuda126.so", "a/lib_cuda121.so", "a/other.so"]) == [0, 1, 3]
    assert spread(["lib_cuda118.so", "lib_rocm64.so", "lib_cuda132.so", "lib_rocm71.so", "lib_rocm72.so"]) == [0, 1, 2, 4]
    assert spread([]) == []


def test_releases_fetch_samples(tmp_path: Path) -> None:
    from fatpatch.base.limits import Limits
    from fatpatch.gpus.devices import find
    from fatpatch.index.database import Database
    from fatpatch.index.projects import python_project
    from fatpatch.index.releases import ReleaseReader
    from fatpatch.named.unit import NamingChoices
    from fatpatch.verdicts.environment import Environment

    with index() as shop:
        shop.project("k", ["k-1.0-py3-none-any.whl"])
        shop.files["/files/k-1.0-py3-none-any.whl"] = data = wheel([(61, 75, 86)] * 60)
        project = python_project("k", NamingChoices(index_url=f"{shop.url}/simple"), prereleases=False)
        database = Database(str(tmp_path / "x.sqlite"), create=True)
        reader = ReleaseReader(database, Limits(), lambda *_: None)
        asked = [Environment(find(gpu)) for gpu in ("GTX 1060", "H100")]
        found = reader.judged(project.releases[0], asked)
        assert [each.works for each in found.answers] == [True, False]
        assert found.sampled is not None
        assert found.fetched < len(data) // 2
        amd = reader.judged(project.releases[0], [Environment(find("RX 6700 XT"))])
        assert (amd.sampled, amd.answers[0].outcome) == (None, "no-code"), "AMD code is in no sample"
        database.close()
