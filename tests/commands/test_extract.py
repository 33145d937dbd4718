"""The extract command: what it writes, and where it never writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from builders import archive, bundle, elf
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry, packed
from conftest import Run

CUBIN = cubin()
SO = elf.shared_object([(".nv_fatbin", container(packed(CUBIN, "zstd", kind=2, major=1, minor=7), packed(PTX, "lz4")))])


def index(folder: Path) -> dict[str, dict[str, object]]:
    return {row["path"]: row for row in json.loads((folder / "index.json").read_text())["files"]}


def test_images_are_unpacked_and_indexed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(SO)
    done = run("extract", "x.so", "-d", "out", cwd=tmp_path)
    assert done.returncode == 0
    rows = index(tmp_path / "out")
    assert sorted(rows) == ["nv_fatbin.fatbin0.compute_75.ptx", "nv_fatbin.fatbin0.sm_75.cubin"]
    assert (tmp_path / "out/nv_fatbin.fatbin0.sm_75.cubin").read_bytes() == CUBIN
    assert (tmp_path / "out/nv_fatbin.fatbin0.compute_75.ptx").read_bytes() == PTX.rstrip(b"\0")
    row = rows["nv_fatbin.fatbin0.sm_75.cubin"]
    assert row["locator"] == "x.so!.nv_fatbin!fatbin[0]!sm_75"
    assert row["sha256"] == hashlib.sha256(CUBIN).hexdigest()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*sorted(["index.json", *rows])]


def test_filters(run: Run, tmp_path: Path) -> None:
    cases = {
        ("--target", "sm_6*"): 2,
        ("--kind", "ptx"): 0,
        ("--select", "ggml-cuda.dll!.nv_fatb!fatbin[0]!sm_75"): 1,
        ("--select", "ggml-cuda.so"): 3,
        ("--kind", "fatbin"): 2,
        ("--kind", "member"): 9,
    }
    for number, (arguments, count) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        done = run("extract", "demo.llamafile", "-d", folder, *arguments)
        assert done.returncode == (0 if count else 1), done.stderr
        assert len(index(folder) if count else list(folder.iterdir())) == count, arguments
        assert ("nothing matched" in done.stderr) is (count == 0)


def test_whole_fatbins_and_members_are_verbatim(run: Run, tmp_path: Path, samples: Path) -> None:
    run("extract", "demo.llamafile", "-d", tmp_path, "--kind", "fatbin", "--kind", "member")
    library = (tmp_path / "members/ggml-cuda.so").read_bytes()
    whole = (tmp_path / "ggml-cuda.so/nv_fatbin.fatbin0.fatbin").read_bytes()
    assert whole in library
    assert library in (samples / "demo.llamafile").read_bytes()
    assert run("inspect", tmp_path / "ggml-cuda.so/nv_fatbin.fatbin0.fatbin").returncode == 0


def test_nothing_is_overwritten_unless_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(SO)
    (tmp_path / "out").mkdir()
    precious = tmp_path / "out/nv_fatbin.fatbin0.sm_75.cubin"
    precious.write_text("precious")
    done = run("extract", "x.so", "-d", "out", cwd=tmp_path)
    assert (done.returncode, precious.read_text()) == (6, "precious")
    assert "--overwrite" in done.stderr
    assert run("extract", "x.so", "-d", "out", "--overwrite", cwd=tmp_path).returncode == 0
    assert precious.read_bytes() == CUBIN
    assert run("extract", "x.so", "-d", "out", cwd=tmp_path).returncode == 6


def test_hostile_names_stay_inside(run: Run, tmp_path: Path) -> None:
    names = [
        b"../../up.so",
        b"/etc/abs.so",
        b"a/../../../b.so",
        b"..",
        b"con.so",
        b"x" * 5000,
        b"a\x1b\n.so",
        b"C:\\windows\\c.so",
        b"dup.so",
        b"DUP.so",
        b"index.json",
    ]
    (tmp_path / "x.zip").write_bytes(archive.zip_file([(name, SO) for name in names]))
    out = tmp_path / "deep/out"
    done = run("extract", "x.zip", "-d", out, "--kind", "sass", "--kind", "member", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.zip"]
    assert all(out in path.parents for path in written)
    assert len(written) == 2 * len(names) + 1
    assert len({str(path).lower() for path in written}) == len(written)


def test_links_in_the_folder_are_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(archive.zip_file([(b"a.so", SO)]))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.so").symlink_to(tmp_path / "elsewhere")
    done = run("extract", "x.zip", "-d", "out", cwd=tmp_path)
    assert done.returncode == 6
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "x.so").write_bytes(SO)
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2/nv_fatbin.fatbin0.sm_75.cubin").symlink_to(tmp_path / "target")
    assert run("extract", "x.so", "-d", "out2", "--overwrite", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "target").exists()


def test_damage_is_said_and_the_rest_written(run: Run, tmp_path: Path) -> None:
    data = bytearray(container(packed(PTX, "zstd"), entry(PTX, arch=80)))
    data[16 + 64 + 20 : 16 + 64 + 40] = b"\xff" * 20
    (tmp_path / "x.fatbin").write_bytes(bytes(data))
    done = run("extract", "x.fatbin", "-d", "out", cwd=tmp_path)
    assert done.returncode == 4
    assert list(index(tmp_path / "out")) == ["fatbin0.compute_80.ptx"]
    assert "x.fatbin!fatbin[0]!compute_75" in done.stderr


def test_objects_of_a_kernel_pack_lie_by_library(run: Run, tmp_path: Path) -> None:
    objects = {"lib/one.so": {"gfx1030": bundle.code_object()}, "lib/two.so": {"gfx1030": bundle.code_object()}}
    (tmp_path / "x.kpack").write_bytes(bundle.kpack(objects, zstd=True))
    assert run("extract", tmp_path / "x.kpack", "-d", tmp_path / "out").returncode == 0
    assert sorted(index(tmp_path / "out")) == ["lib/one.so/gfx1030.hsaco", "lib/two.so/gfx1030.hsaco"]
