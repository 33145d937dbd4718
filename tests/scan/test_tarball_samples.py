"""The members of a .tgz by a few ranges against tarfile, and what samples of one say, against reading all of it."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest
from builders import elf
from named.index_server import index
from scan.test_samples import library, words

from fatpatch.base.source import Source
from fatpatch.scan import packed_tar
from fatpatch.scan.coverage import holders
from fatpatch.scan.packed_library import Budget
from fatpatch.scan.packed_tar import PackedTar, Ratios
from fatpatch.scan.tarball_samples import sampled_tarball
from fatpatch.scan.walk import inspected


def host(seed: int, size: int) -> bytes:
    """A library of host code alone."""
    return elf.shared_object([(".text", words(seed, size)), (".data", words(seed + 1, size // 8))])


def tar_of(members: dict[str, bytes], *, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive by tarfile."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as made:
        for name, data in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def listed(tar: bytes) -> list[tuple[str, int, int]]:
    """(name, header's offset, size) of each member by tarfile."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as made:
        return [(each.name, each.offset, each.size) for each in made]


def found_in(packed: bytes) -> tuple[list[tuple[str, int, int]] | None, int]:
    """The same by ranges, and how many bytes that took."""
    budget = Budget(1 << 30, 4096)
    members = PackedTar(Source.of(packed), budget, Ratios()).members()
    return None if members is None else [(each.name, each.at, each.size) for each in members], (1 << 30) - budget.left


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as large: less than in a release, so that tests are quick."""
    monkeypatch.setattr(packed_tar, "_LARGE", 4 << 20)


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    """Files as a package has them: small ones, libraries of host code, a large library with modules, and libraries behind it."""
    texts = {f"dist/{number}.js": f"export const x{number} = {number};\n".encode() * 50 for number in range(5)}
    plain = {f"bins/libcpu{number}.so": host(10 * number, 400_000 + 40_000 * number) for number in range(3)}
    large = {"bins/libgpu.so": library([(61, 75, 86)] * 60, 40_000)}
    behind = {f"bins/libend{number}.so": host(900 + number, 300_000 + 50_000 * number) for number in range(2)}
    return {**texts, **plain, **large, **behind}


@pytest.fixture(scope="module")
def tgz(members: dict[str, bytes]) -> bytes:
    return gzip.compress(tar_of(members), 6)


def targets(root: object) -> list[tuple[str, list[tuple[str, ...]]]]:
    return [(each.path, [tuple(image.target for image in payload.images) for payload in each.payloads]) for each in holders(root)]  # type: ignore[arg-type]


def test_members_by_ranges(members: dict[str, bytes], tgz: bytes) -> None:
    assert len(members["bins/libgpu.so"]) > packed_tar._LARGE, "so large that its end is found from the end of the archive"
    found, fetched = found_in(tgz)
    assert found == listed(gzip.decompress(tgz))
    assert fetched < len(tgz) // 5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_members_in_any_order(members: dict[str, bytes], order: int) -> None:
    names = list(members)
    random.Random(order).shuffle(names)
    tar = tar_of({name: members[name] for name in names})
    found, _ = found_in(gzip.compress(tar, 9))
    assert found is None or found == listed(tar)


def test_samples_say_what_all_of_it_says(tgz: bytes, tmp_path: Path) -> None:
    found = sampled_tarball(Source.of(tgz), "k.tgz", Ratios())
    assert found is not None
    assert found.modules == 60
    assert 6 <= found.sampled < 30
    (tmp_path / "k.tgz").write_bytes(tgz)
    with inspected(str(tmp_path / "k.tgz")) as whole:
        assert targets(found.root) == targets(whole) == [("package/bins/libgpu.so", [("sm_61", "sm_75", "sm_86")] * 60)]


def test_a_package_without_gpu_code() -> None:
    tar = tar_of({f"bins/libcpu{number}.so": host(10 * number, 400_000) for number in range(3)})
    found = sampled_tarball(Source.of(gzip.compress(tar, 6)), "k.tgz", Ratios())
    assert found is not None
    assert (found.root.members, found.sampled, found.modules) == ((), 0, 0)


def test_an_archive_in_a_library_does_not_mislead(members: dict[str, bytes]) -> None:
    """Headers with right checksums lie near where the next member must begin."""
    inner = tar_of({"evil/libgpu.so": library([(90,)] * 4, 8_000), "evil/a.txt": b"x" * 3000})
    for place in (0, 40_000, 200_000):
        text = words(5, 500_000)
        text = text[: len(text) - place] + inner + text[len(text) - place :]
        made = {**members, "bins/libcpu1.so": elf.shared_object([(".text", text)]), "data.bin": words(3, 300_000) + inner}
        tar = tar_of(made)
        found, _ = found_in(gzip.compress(tar, 6))
        assert found is None or found == listed(tar)


def test_what_is_not_understood_is_read_whole(members: dict[str, bytes], tgz: bytes) -> None:
    long = {f"{'deep/' * 30}libcpu.so": host(1, 400_000), **members}
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert found_in(gzip.compress(tar_of(long, format=format), 6))[0] is None
    tar = gzip.decompress(tgz)
    two = gzip.compress(tar[: len(tar) // 1024 * 512]) + gzip.compress(tar[len(tar) // 1024 * 512 :])
    cut = tgz[: len(tgz) // 2]
    longer = tgz[:-4] + (len(tar) + 512).to_bytes(4, "little")
    nested = gzip.compress(tar_of({**members, "bins/more.zip": words(8, 90_000)}), 6)
    for data in (two, cut, longer, nested, b"", tgz[:20], b"\x1f\x8b\x08" + bytes(400_000), random.Random(1).randbytes(400_000)):
        assert sampled_tarball(Source.of(data), "x.tgz", Ratios()) is None


def test_a_damaged_tarball_has_no_other_targets(tgz: bytes) -> None:
    for seed in range(3):
        chance, hurt = random.Random(seed), bytearray(tgz)
        for _ in range(100):
            hurt[chance.randrange(len(hurt))] ^= 1 << chance.randrange(8)
        found = sampled_tarball(Source.of(bytes(hurt)), "x.tgz", Ratios())
        assert found is None or {each for _, rows in targets(found.root) for row in rows for each in row} <= {"sm_61", "sm_75", "sm_86"}


def test_a_bomb_is_bounded() -> None:
    tar = tar_of({"bins/libzero.so": elf.shared_object([(".text", bytes(100 << 20))]), "bins/libcpu.so": host(1, 400_000)})
    assert found_in(gzip.compress(tar, 6))[0] in (None, listed(tar))


def test_releases_of_an_npm_package_fetch_samples(members: dict[str, bytes], tmp_path: Path) -> None:
    from fatpatch.base.limits import Limits
    from fatpatch.gpus.devices import find
    from fatpatch.index.database import Database
    from fatpatch.index.projects import projects
    from fatpatch.index.releases import ReleaseReader
    from fatpatch.named.unit import NamingChoices
    from fatpatch.verdicts.environment import Environment

    plain = {name: data for name, data in members.items() if "gpu" not in name}
    versions = {"@k/linux-x64": plain, "@k/linux-x64-cuda": members}
    with index() as shop:
        for name, files in versions.items():
            shop.package(name, {"1.0.0": files})
        shop.package("k", {"1.0.0": {"package.json": b"{}"}}, {"1.0.0": dict.fromkeys(versions, "1.0.0")})
        size = sum(len(data) for path, data in shop.files.items() if path.startswith("/tarballs"))
        project = projects(["npm:k"], ["npm:k"], NamingChoices(index_url=shop.url), prereleases=False)[0]
        database = Database(str(tmp_path / "x.sqlite"), create=True)
        asked = [Environment(find(gpu)) for gpu in ("GTX 1060", "RTX 3060", "H100")]
        answers = []
        for samples in (True, True, False):
            before = sum(sent for path, sent in shop.sent.items() if path.startswith("/tarballs"))
            found = ReleaseReader(database, Limits(), lambda *_: None, samples=samples).judged(project.releases[0], asked)
            sent = sum(sent for path, sent in shop.sent.items() if path.startswith("/tarballs")) - before
            answers.append((found.answers, found.sampled is not None, found.kept, sent, found.fetched))
        database.close()
    first, second, whole = answers
    assert [each.works for each in first[0]] == [True, True, False]
    assert first[0] == second[0] == whole[0], "samples say what all of it says"
    assert first[1:3] == (True, False)
    assert first[3] == first[4] < size // 4
    assert second[1:] == (True, True, 0, 0), "nothing is fetched again"
    assert whole[3] >= size
