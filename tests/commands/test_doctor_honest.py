"""What doctor says at the edges of what it knows, and of what a file, a GPU and a driver can do together."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry
from conftest import SAMPLES, Run
from doctor_documents import document


def ptx(*kernels: str, version: str = "8.4", target: int = 75) -> bytes:
    """PTX whose kernels store a number."""
    bodies = "".join(
        f".visible .entry {name}(.param .u64 p)\n{{\nld.param.u64 %rd1, [p];\nst.global.u32 [%rd1], 7;\nret;\n}}\n" for name in kernels
    )
    return f".version {version}\n.target sm_{target}\n.address_size 64\n{bodies}".encode() + b"\0"


def write(path: Path, *entries: bytes) -> Path:
    path.write_bytes(container(*entries))
    return path


def test_no_driver_is_new_enough_and_old_enough(run: Run, tmp_path: Path) -> None:
    """PTX 9.1 needs branch 590; 580 is the last that drives a GTX 1060: whatever is installed, it does not run."""
    path = write(tmp_path / "x.fatbin", entry(ptx("k", version="9.1", target=52), arch=52, major=9, minor=1, options=b""))
    done = run("doctor", path, "--gpu", "1060")
    assert done.returncode == 1
    assert done.stdout.startswith("WILL NOT RUN: ")
    assert done.stdout.splitlines()[0].endswith("driver 580")
    assert "is of the last branch that drives this GPU" in done.stdout
    assert "none does both: it needs 590" in done.stdout
    found = document(run, path, "--gpu", "1060", code=1)
    assert (found["driver"], found["files"][0]["judged_driver"]) == (None, "580")
    assert found["files"][0]["modules"][0]["cuda_error"] == 222
    assert document(run, path, "--gpu", "RTX 3060")["files"][0]["judged_driver"] is None
    both = run("doctor", path, SAMPLES / "libkernels.so", "--gpu", "1060").stdout
    assert "x.fatbin" in both.splitlines()[2]


@pytest.mark.parametrize("gpu", ["sm_90", "sm_100"])
def test_machine_code_for_other_devices_lends_no_kernels(run: Run, tmp_path: Path, gpu: str) -> None:
    """A kernel that only sm_80 code has is no loss on other generations, which compile the PTX."""
    path = write(tmp_path / "x.fatbin", entry(ptx("k"), options=b""), entry(cubin(arch=80, kernels=("k", "more")), kind=2, arch=80))
    assert document(run, path, "--gpu", gpu)["files"][0]["outcome"] == "runs"


def test_a_missing_kernel_is_no_failed_load(run: Run, tmp_path: Path) -> None:
    sass = entry(cubin(arch=80, kernels=("k",)), kind=2, arch=80)
    path = write(tmp_path / "x.fatbin", sass, entry(ptx("k", "more", target=86), arch=86, options=b""))
    found = document(run, path, "--gpu", "sm_86", code=1)["files"][0]
    assert (found["outcome"], found["modules"][0]["target"]) == ("fails-in-part", "sm_80")
    assert {kernel["name"]: kernel["body"] for kernel in found["modules"][0]["kernels"]}["more"] == "missing"
    out = run("doctor", path, "--gpu", "sm_86").stdout
    assert "The driver loads sm_80: " in out
    assert "1 kernel is not in it" in " ".join(out.split())
    assert "Loading fails" not in out


@pytest.mark.parametrize(
    ("name", "option", "code", "error"),
    [
        ("kernels.compute_52.ptx", "--disable-ptx-jit", 1, 223),  # an H100 with driver 580 answers so, with either variable
        ("kernels.compute_52.ptx", "--force-ptx-jit", 0, None),
        ("kernels.sm_61.cubin", "--force-ptx-jit", 0, None),
        ("kernels.sm_61.cubin", "--disable-ptx-jit", 0, None),
    ],
)
def test_switches_and_bare_images(run: Run, name: str, option: str, code: int, error: int | None) -> None:
    found = document(run, name, "--gpu", "1060", option, code=code)["files"][0]
    assert found["modules"][0]["cuda_error"] == error


def test_jetson_has_drivers_of_its_own(run: Run) -> None:
    done = run("doctor", "kernels.compute_52.ptx", "--gpu", "Jetson Nano", "--driver", "580")
    words = " ".join(done.stdout.split())
    assert ", with its Jetson Linux " in words
    assert "Jetson Linux brings its own driver, which is not judged; the code needs one of CUDA 12" in words


def test_what_was_measured(run: Run, tmp_path: Path) -> None:
    def measured(*arguments: object) -> bool:
        return bool(document(run, *arguments)["files"][0]["modules"][0]["measured"])

    assert measured("libkernels.so", "--gpu", "sm_90")
    assert measured("libkernels.so", "--gpu", "sm_90", "--driver", "580.65.06")
    assert not measured("libkernels.so", "--gpu", "sm_90", "--driver", "550.54.14")
    assert measured("kernels.sm_90a.cubin", "--gpu", "sm_90")
    assert not measured("libkernels.so", "--gpu", "sm_80")
    hang = write(tmp_path / "hang.fatbin", entry(cubin(arch=90), kind=2, arch=90), bytes(64))
    done = run("doctor", hang, "--gpu", "sm_80", "--driver", "470")
    assert "by NVIDIA's published rules" in done.stdout


def test_a_bare_cubin_of_another_target(run: Run) -> None:
    out = run("doctor", "kernels.sm_61.cubin", "--gpu", "sm_60").stdout
    assert "sm_61 is all there is, but that does not run on 6.0" in out
    assert "Tegra" not in out
    assert "published rules" not in run("doctor", "kernels.sm_61.cubin", "--gpu", "sm_90").stdout


def test_trouble_says_nothing_of_quantisations(run: Run) -> None:
    found = document(run, "demo.llamafile", "--gpu", "1060", "--driver", "590.44", code=1)["files"][0]
    assert (found["quantisations"], found["unsupported_types"]) == ([], [])


@pytest.mark.parametrize(("gpu", "agrees"), [("1060", False), ("P100", True), ("H100", None)])
def test_whether_host_and_code_agree(run: Run, gpu: str, agrees: bool | None) -> None:
    found = document(run, "demo.llamafile", "--gpu", gpu, code=0 if agrees else 1)["files"][0]
    assert [row["agrees"] for row in found["host"]] == [agrees] * len(found["host"])
    assert all("__cuda" in word or "kernels" in word or "string" in word for row in found["host"] for word in row["evidence"])


def test_a_table_of_gpus_names_the_circumstances(run: Run) -> None:
    found = document(run, "libkernels.so", "--gpu", "gfx1030", "--gpu", "sm_90", "--driver", "550.54.14", "--eager", code=1)
    assert found["driver"]["version"] == "550.54.14"
    assert found["environment"]["CUDA_MODULE_LOADING"] == "EAGER"
    found = document(run, "libkernels.so", "--gpu", "gfx1031", "--hsa-override", "10.3.0", code=1)
    assert found["environment"]["HSA_OVERRIDE_GFX_VERSION"] == "10.3.0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu", "sm_90", "--hsa-override", "10.3.0"), "--hsa-override is for AMD GPUs"),
        (("--gpu", "gfx90a", "--driver", "535.154"), "are for NVIDIA GPUs"),
        (("--gpu", "gfx90a", "--force-ptx-jit"), "are for NVIDIA GPUs"),
    ],
)
def test_options_that_would_do_nothing(run: Run, arguments: tuple[str, ...], words: str) -> None:
    done = run("doctor", "libkernels.so", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_files_are_named_as_their_user_named_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("nothing")
    (tmp_path / "x.fatbin").write_bytes(container(entry(PTX, options=b"")))
    for option in ("--model", "--candidate"):
        done = run("doctor", "x.fatbin", "--gpu", "1060", option, "text.so", cwd=tmp_path)
        assert done.returncode == 3
        assert done.stderr.startswith("fatpatch: error: text.so: ")


def test_a_wheel_keeps_the_name_that_installers_read(run: Run) -> None:
    found = document(run, "kernels-1.0-py3-none-linux_x86_64.whl", "--gpu", "sm_110", "--disable-ptx-jit", code=1)["files"][0]
    command = next(row["command"] for row in found["remedies"] if row["title"].startswith("graft"))
    assert command.endswith("--in-place")
    assert "fixed-" not in command


def test_reasons_that_are_left_out_are_counted(run: Run, tmp_path: Path) -> None:
    texts = [entry(ptx("k", target=target), arch=target, options=b"") for target in (50, 52, 60, 70, 75, 80, 90, 100, 120)]
    path = write(tmp_path / "x.fatbin", entry(cubin(arch=60), kind=2, arch=60), *texts)
    short = run("doctor", path, "--gpu", "sm_35").stdout
    assert "and others, for 2 more reasons (-v shows all)" in short
    assert "PTX for 12.0 and up" not in short
    assert "PTX for 12.0 and up" in run("doctor", path, "--gpu", "sm_35", "-v").stdout


def test_machine_code_for_many_majors_is_one_line(run: Run, tmp_path: Path) -> None:
    archs = (50, 60, 70, 80, 90, 100, 110, 120)
    path = write(tmp_path / "x.fatbin", *(entry(cubin(arch=arch), kind=2, arch=arch) for arch in archs))
    words = " ".join(run("doctor", path, "--gpu", "sm_35").stdout.split())
    assert "sm_50, sm_60, sm_70, sm_80, sm_90, sm_100, sm_110, sm_120: SASS for other major versions, the GPU is 3" in words


@pytest.mark.parametrize(
    ("gpu", "driver", "first"),
    [
        ("RTX 2060", None, "CANNOT TELL"),  # its sm_75 code is there, in a form that drivers up to 580 were seen to ignore
        ("RTX 2060", "595", "CANNOT TELL"),
        ("RTX 2060", "580.65.06", "WILL NOT RUN"),
        ("RTX 3060", None, "WILL NOT RUN"),  # none of it is for 8.6
        ("GTX 1060", None, "WILL NOT RUN"),
    ],
)
def test_concatenated_entries(run: Run, gpu: str, driver: str | None, first: str) -> None:
    done = run("doctor", "concatenated.fatbin", "--gpu", gpu, *(() if driver is None else ("--driver", driver)))
    assert done.stdout.startswith(f"{first}: ")
    assert done.returncode == 1
    assert ("no newer one was asked" in done.stdout) is (first == "CANNOT TELL")


def test_a_demand_that_stands_in_the_way(run: Run) -> None:
    found = document(run, "libkernels.so", "--gpu", "sm_110", "--disable-ptx-jit", code=1)["files"][0]
    assert {row["title"]: row["works"] for row in found["remedies"]}["without CUDA_DISABLE_PTX_JIT"] is True


@pytest.mark.parametrize(
    ("gpu", "value", "outcome"), [("gfx1031", "10.3.0", "runs"), ("gfx1151", "11.0.0", "not-promised"), ("gfx1030", "9.0.0", "may-fail")]
)
def test_overrides_are_trusted_as_far_as_is_known(run: Run, tmp_path: Path, gpu: str, value: str, outcome: str) -> None:
    from builders.bundle import code_object, plain

    target = {"10.3.0": "gfx1030", "11.0.0": "gfx1100", "9.0.0": "gfx900"}[value]
    path = tmp_path / "x.hipfb"
    mach = {"gfx1030": 0x36, "gfx1100": 0x41, "gfx900": 0x2C}[target]
    path.write_bytes(plain([(target, code_object(mach))]))
    found = document(run, path, "--gpu", gpu, "--hsa-override", value, code=outcome != "runs")["files"][0]
    assert (found["verdict"], found["outcome"]) == ("native", outcome)


def test_jetson_whose_last_driver_is_too_old(run: Run) -> None:
    """PTX of CUDA 12.9 on a module whose Jetson Linux ends with CUDA 10.2."""
    done = run("doctor", "kernels.compute_52.ptx", "--gpu", "Jetson Nano")
    assert (done.returncode, done.stdout[:18]) == (1, "WILL PROBABLY RUN:")
    assert "the last for this module is of CUDA 10.2" in done.stdout


def test_commands_can_be_typed(run: Run, tmp_path: Path) -> None:
    """Names with spaces, and a donor that is called as the result would be."""
    (tmp_path / "my lib.llamafile").write_bytes((SAMPLES / "demo.llamafile").read_bytes())
    (tmp_path / "fixed-my lib.llamafile").write_bytes((SAMPLES / "donor.dll").read_bytes())
    arguments = ("my lib.llamafile", "--gpu", "1060", "--candidate", "fixed-my lib.llamafile", "--format", "json")
    remedies = json.loads(run("doctor", *arguments, cwd=tmp_path).stdout)["files"][0]["remedies"]
    command = next(row["command"] for row in remedies if row["title"].startswith("graft"))
    done = run(*shlex.split(command)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "grafted-my lib.llamafile").is_file()


def test_candidates_of_one_file_alone(run: Run) -> None:
    for arguments in (("demo.llamafile", "libkernels.so", "--gpu", "1060"), ("demo.llamafile", "--gpu", "all")):
        done = run("doctor", *arguments, "--candidate", "donor.dll")
        assert (done.returncode, done.stdout) == (2, "")
        assert "one FILE on one GPU" in done.stderr


def test_a_broken_archive_in_a_wheel_is_not_about_gpu_code(run: Run, tmp_path: Path) -> None:
    from builders import archive

    path = tmp_path / "x.zip"
    code = container(entry(cubin(arch=61), kind=2, arch=61))
    path.write_bytes(archive.zip_file([(b"k.fatbin", code), (b"tests/broken.zip", b"PK\3\4" + bytes(60))]))
    done = run("doctor", path, "--gpu", "sm_61")
    assert (done.returncode, done.stdout[:9]) == (0, "WILL RUN:")


def test_what_was_not_counted_is_no_zero(run: Run) -> None:
    lines = run("doctor", "kernels.sm_61.cubin", "kernels.sm_90a.cubin", "--gpu", "1060").stdout.splitlines()
    assert next(line for line in lines if line.startswith("kernels ")).split()[-1] == "-"
