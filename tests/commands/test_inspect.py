"""The inspect command as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import jsonschema
import pytest
from builders import archive, bundle, elf
from builders.fatbin import PTX, container, entry
from conftest import ROOT, SAMPLES, Run

SCHEMA = json.loads((ROOT / "fatpatch/scan/inspect-1.schema.json").read_text())
GOLDEN = ROOT / "tests/golden"


@pytest.mark.parametrize(
    "arguments", [("demo.llamafile",), ("kernels.fatbin", "--kernels"), ("kernels-1.0-py3-none-linux_x86_64.whl", "-v")]
)
def test_text_equals_golden(run: Run, arguments: tuple[str, ...]) -> None:
    """Set FATPATCH_UPDATE_GOLDEN=1 to write what is printed now; a missing file fails."""
    done = run("inspect", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    path = GOLDEN / (" ".join(arguments).replace("/", "_") + ".txt")
    if os.environ.get("FATPATCH_UPDATE_GOLDEN") == "1":
        path.write_text(done.stdout)
    assert done.stdout == path.read_text()


def test_json_follows_its_schema(run: Run) -> None:
    names = sorted(
        path.name
        for path in ROOT.joinpath("samples").iterdir()
        if path.suffix in {".so", ".dll", ".fatbin", ".whl", ".cubin", ".ptx", ".llamafile"}
    )
    for extra in ((), ("--kernels", "--sha256")):
        done = run("inspect", "--format", "json", *extra, *names)
        document = json.loads(done.stdout)
        jsonschema.validate(document, SCHEMA)
        assert done.returncode == 0
        assert [file["path"] for file in document["files"]] == names
        for file in document["files"]:
            assert (file["summary"]["kernels"] is None) == (not extra)
            assert file["summary"]["images"] > 0


def test_summary_counts_members(run: Run) -> None:
    file = json.loads(run("inspect", "--format", "json", "--kernels", "demo.llamafile").stdout)["files"][0]
    assert file["summary"] == {
        "fatbins": 2, "bundles": 0, "images": 6, "images_by_target": {"sm_60": 2, "sm_70": 2, "sm_75": 2}, "kernels": 7,
    }  # fmt: skip
    library = next(member for member in file["members"] if member["path"] == "ggml-cuda.dll")
    kernel = next(k for k in library["payloads"][0]["images"][0]["kernels"] if k["name"].startswith("_Z13mul_mat_vec_qILi1E"))
    assert kernel["demangled"] == "void mul_mat_vec_q<1, 32>(int const*, int const*, float*, int, int)"
    assert kernel["params"] == [{"offset": offset, "size": size} for offset, size in ((0, 8), (8, 8), (16, 8), (24, 4), (28, 4))]


def test_ndjson_has_one_line_a_file(run: Run) -> None:
    lines = run("inspect", "--format", "ndjson", "kernels.fatbin", "donor.so").stdout.splitlines()
    assert [json.loads(line)["file"]["path"] for line in lines] == ["kernels.fatbin", "donor.so"]


def test_csv(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("inspect", "--format", "csv", "kernels.fatbin").stdout)))
    assert [row["target"] for row in rows][:3] == ["sm_50", "sm_61", "sm_75"]
    rows = list(csv.DictReader(io.StringIO(run("inspect", "--format", "csv", "--kernels", "kernels.fatbin").stdout)))
    row = next(row for row in rows if row["kernel"] == "reverse" and row["target"] == "sm_75")
    assert (row["shared_bytes"], row["max_threads"], row["params"]) == ("512", "128", "0:8 8:4")


def test_filters(run: Run) -> None:
    missing = run("inspect", "--missing", "sm_50", "kernels.fatbin").stdout
    assert "only_new" in missing
    assert "reverse" not in missing
    chosen = run("inspect", "--kernel", "gather<float>", "--target", "sm_6*", "kernels.fatbin").stdout
    assert "gather<float>" in chosen
    assert "gather<double>" not in chosen
    assert "sm_75" not in chosen
    document = json.loads(run("inspect", "--format", "json", "--missing", "sm_50", "kernels.fatbin").stdout)
    assert document["files"][0]["summary"]["kernels"] == 1
    assert run("inspect", "--kernel", "(", "kernels.fatbin").returncode == 2


def test_no_gpu_code_says_what_was_looked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(elf.shared_object([(".text", b"\x90" * 64)]))
    done = run("inspect", "x.so", cwd=tmp_path)
    assert done.returncode == 0
    assert "no GPU code found (looked for: CUDA fatbins" in done.stdout


def test_unreadable_files(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "good.fatbin").write_bytes(container(entry(PTX)))
    (tmp_path / "empty").write_bytes(b"")
    done = run("inspect", "absent", "pipe", "pid:0", "good.fatbin", "empty", "--format", "json", cwd=tmp_path)
    assert done.returncode == 3
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert [file["path"] for file in document["files"]] == ["good.fatbin", "empty"]
    assert [error["locator"] for error in document["errors"]] == ["absent", "pipe", "pid:0"]
    assert done.stderr.count("fatpatch: error:") == 3
    assert "Traceback" not in done.stderr


def test_damage_is_exit_4_and_the_rest_is_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.fatbin").write_bytes(container(entry(PTX), size=4096))
    done = run("inspect", "x.fatbin", cwd=tmp_path)
    assert done.returncode == 4
    assert "compute_75" in done.stdout
    assert "x.fatbin!fatbin[0] at 0x8: payload size: expected at most" in done.stderr


def test_hostile_names_reach_no_terminal(run: Run, tmp_path: Path) -> None:
    evil = PTX.replace(b" k(", b" k\x1b[31m(").replace(b".version 8.4", b".version 8.4")
    library = elf.shared_object([(".nv_fatbin\x1b]0;owned\x07", container(entry(evil, options=b"-O3\x1b[2J\n")))])
    (tmp_path / "x.zip").write_bytes(archive.zip_file([(b"a\x1b[31m\n.so", library)]))
    for arguments in (("-v",), ("--kernels",), ("--format", "json", "--kernels"), ("--as", "raw", "-v")):
        done = run("inspect", *arguments, "x.zip", cwd=tmp_path)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\x07" not in done.stdout + done.stderr


def test_absolute_paths_are_not_printed(run: Run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.fatbin").write_bytes(container(entry(PTX)))
    done = run("inspect", "--format", "json", tmp_path / "a/x.fatbin", tmp_path / "b/x.fatbin")
    assert [file["path"] for file in json.loads(done.stdout)["files"]] == ["a/x.fatbin", "b/x.fatbin"]
    assert str(tmp_path) not in done.stdout


@pytest.mark.parametrize("kind", ["raw", "fatbin", "elf", "zip", "tar", "gguf", "ptx", "cubin", "bundle", "macho"])
def test_forced_kinds_never_crash(run: Run, kind: str) -> None:
    done = run("inspect", "--as", kind, "demo.llamafile")
    assert done.returncode in (0, 4)
    assert "Traceback" not in done.stderr


def test_output_is_stable(run: Run) -> None:
    first, second = (run("inspect", "--format", "json", "--kernels", "demo.llamafile").stdout for _ in range(2))
    assert first == second


def test_closed_pipe(run: Run) -> None:
    import subprocess
    import sys

    command = f"{sys.executable} -m fatpatch inspect --format json --kernels kernels.fatbin | head -c 10"
    done = subprocess.run(
        command, shell=True, cwd=ROOT / "samples", env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_targets_with_features_are_found_by_their_processor(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.plain([("gfx90a:xnack+", bundle.code_object(0x3F | 3 << 8)), ("gfx1030", bundle.code_object())]))
    assert "gfx90a:xnack+" in run("inspect", "--target", "gfx90a", path).stdout
    done = run("inspect", "--target", "gfx999", path)
    assert (done.returncode, "has no image for gfx999" in done.stderr, "gfx90a:xnack+, gfx1030" in done.stderr) == (3, True, True)


def test_offsets_of_amd_objects_lead_to_them(run: Run) -> None:
    file = json.loads(run("inspect", "libhipdemo.so", "--format", "json").stdout)["files"][0]
    data = (SAMPLES / "libhipdemo.so").read_bytes()
    images = [image for payload in file["payloads"] for image in payload["images"]]
    assert {data[image["offset"] : image["offset"] + 4] for image in images} == {b"\x7fELF"}
    file = json.loads(run("inspect", "hipdemo.dll", "--format", "json").stdout)["files"][0]
    assert [image["unpacked_offset"] % 4096 for image in file["payloads"][0]["images"]] == [0, 0, 0]


def test_resources_of_both_makers(run: Run) -> None:
    amd = run("inspect", "--resources", "hipdemo.dll").stdout
    assert "    gfx1030      4      -      8      0+0  256        0        16         32     1024   152  scale(float*, float, int)" in amd
    nvidia = run("inspect", "--resources", "kernels.sm_61.cubin").stdout
    assert "    sm_61           6     512      0       332          12      128   320  reverse" in nvidia


def test_a_lfs_pointer_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert "is a Git LFS pointer" in run("inspect", path).stderr


def test_no_kernel_matches_and_no_kernels_were_read(run: Run) -> None:
    assert "no kernel matches" in run("inspect", "--kernel", "nope", "libhipdemo.so").stdout
    assert "no kernel matches" in run("inspect", "--missing", "gfx1100", "libhipdemo.so").stdout


def test_a_file_of_a_folder_without_the_target_is_called_by_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    shutil.copy(SAMPLES / "demo.llamafile", tmp_path / "folder")
    done = run("inspect", "folder", "--target", "sm_61", cwd=tmp_path)
    assert done.returncode == 3
    assert "error: demo.llamafile: has no image for sm_61\n" in done.stderr
