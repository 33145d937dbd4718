"""The doctor command as a user runs it."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from builders import archive
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry, packed
from builders.gguf import text
from conftest import SAMPLES, Run
from doctor_documents import document


def headline(text: str) -> str:
    """The first paragraph as one line: it is wrapped to the width of a terminal."""
    return " ".join(line.strip() for line in text.split("\n\n", 1)[0].splitlines())


def one_line(text: str) -> str:
    """All words with one blank between them, commands as they would be typed."""
    return " ".join(text.replace(" \\\n", " ").split())


def model(types: list[int]) -> bytes:
    """A GGUF with one tensor of each type."""
    data = b"GGUF" + struct.pack("<IQQ", 3, len(types), 1) + text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    for index, code in enumerate(types):
        data += text(b"blk.%d.w" % index) + struct.pack("<IQQIQ", 2, 32, 32, code, 0)
    return data


@pytest.mark.parametrize(
    ("gpu", "code", "first"),
    [
        ("GTX 1060", 1, "WILL ABORT: demo.llamafile on GeForce GTX 1060 (compute capability 6.1), driver 525.60.13 to 580"),
        ("P100", 0, "WILL RUN: demo.llamafile on Tesla P100 (compute capability 6.0), driver 525.60.13 to 580"),
        ("RTX 2060", 0, "WILL RUN: demo.llamafile on GeForce RTX 2060 (compute capability 7.5), driver 525.60.13 or newer"),
        ("V100", 0, "WILL RUN: demo.llamafile on V100 (compute capability 7.0), driver 525.60.13 to 580"),
        ("RTX 4090", 1, "WILL NOT RUN: demo.llamafile on GeForce RTX 4090 (compute capability 8.9), any driver"),
        ("H100", 1, "WILL NOT RUN: demo.llamafile on H100 (compute capability 9.0), any driver"),
        ("RX 6800", 1, "NO CODE FOR THIS GPU: demo.llamafile on Radeon RX 6800 (gfx1030)"),
        ("Jetson Xavier NX", 1, "WILL NOT RUN: demo.llamafile on Jetson Xavier NX (compute capability 7.2), with its Jetson Linux"),
        ("sm_61", 1, "WILL ABORT: demo.llamafile on a GPU of compute capability 6.1, driver 525.60.13 to 580"),
    ],
)
def test_the_founding_case(run: Run, gpu: str, code: int, first: str) -> None:
    done = run("doctor", "demo.llamafile", "--gpu", gpu)
    assert (done.returncode, done.stderr) == (code, "")
    assert headline(done.stdout) == first


def test_the_words_for_the_founding_case(run: Run) -> None:
    out = one_line(run("doctor", "demo.llamafile", "--gpu", "1060").stdout)
    for words in (
        "With this model (Q8_0), 5 kernels",
        "do not work there (real in sm_70, sm_75):",
        "mul_mat_vec_q<1, 32> likely stub: it traps as soon as there is work",
        "mul_mat_q8_0<false> proven stub: every path ends in a trap",
        "CUDA kernel vec_dot_q8_0_q8_1_impl has no device code compatible with CUDA arch 600",
        "error 719",
        "no PTX: nothing can be compiled for this GPU",
        "fatpatch graft demo.llamafile --from OTHER --target sm_61 --member ggml-cuda.dll --member ggml-cuda.so -o fixed-demo.llamafile",
        "CUDA 12.9 is the last toolkit that can",
    ):
        assert words in out, words


def test_every_remedy_of_the_article_gets_a_true_answer(run: Run) -> None:
    found = document(run, "demo.llamafile", "--gpu", "1060", "--candidate", "donor.dll", code=1)
    remedies = {remedy["title"]: remedy for remedy in found["files"][0]["remedies"]}
    works = {title: remedy["works"] for title, remedy in remedies.items()}
    assert works == {
        "graft sm_61 from donor.dll": True,
        "rebuild from source": True,
        "let it recompile": True,
        "rebuild with -arch=native": True,
        "rebuild with -arch=all": True,
        "a model of another quantisation": True,
        "another release": None,
        "then delete the extracted copy": True,
        "rebuild with -arch=all-major": False,
        "CUDA_FORCE_PTX_JIT=1": False,
        "rebuild with GGML_CUDA_FORCE_MMQ": False,
        "HSA_OVERRIDE_GFX_VERSION": False,
    }
    assert "sm_60" in remedies["rebuild with -arch=all-major"]["why"]
    assert "0.4 to 0.8, 0.8.13 to 0.9.3" in remedies["another release"]["why"]
    assert "--member ggml-cuda.dll --member ggml-cuda.so" in remedies["graft sm_61 from donor.dll"]["command"]


def test_the_graft_that_it_recommends_cures(run: Run, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.llamafile"
    arguments = ("--member", "ggml-cuda.dll", "--member", "ggml-cuda.so")
    assert run("graft", "demo.llamafile", "--from", "donor.dll", "--target", "sm_61", *arguments, "-o", fixed).returncode == 0
    found = document(run, fixed, "--gpu", "GTX 1060")
    assert (found["files"][0]["verdict"], found["files"][0]["outcome"]) == ("native", "runs")
    assert {module["target"] for module in found["files"][0]["modules"]} == {"sm_61"}


@pytest.mark.parametrize(
    ("code", "name", "outcome"), [(1, "F16", "runs"), (8, "Q8_0", "abort"), (12, "Q4_K", "no-road"), (30, "BF16", "no-road")]
)
def test_the_model_decides_which_kernels_count(run: Run, tmp_path: Path, code: int, name: str, outcome: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(model([code, 0]))
    found = document(run, "demo.llamafile", "--gpu", "1060", "--model", path, code=outcome != "runs")["files"][0]
    assert found["model"]["tensor_types"] == {name: 1, "F32": 1}
    assert found["outcome"] == outcome
    assert sum(kernel["defect"] for kernel in found["modules"][0]["kernels"]) == (5 if name == "Q8_0" else 0)
    assert [row["type"] for row in found["unsupported_types"]] == ([name] if outcome == "no-road" else [])
    assert [(row["type"], row["works"]) for row in found["quantisations"]] == [("F16", True), ("F32", True), ("Q8_0", False)]


def test_json_of_one_module(run: Run) -> None:
    found = document(run, "demo.llamafile", "--gpu", "GTX 1060", "--driver", "552.22", code=1)
    assert found["gpu"] == {"name": "GeForce GTX 1060", "vendor": "nvidia", "target": "sm_61", "note": None}
    assert (found["driver"]["version"], found["driver"]["cuda"], found["driver"]["ptx"]) == ("552.22", "12.4", "8.4")
    module = found["files"][0]["modules"][0]
    assert module["locator"] == "demo.llamafile!ggml-cuda.dll!.nv_fatb!fatbin[0]"
    assert (module["verdict"], module["cuda_error"], module["target"]) == ("stub", None, "sm_60")
    assert module["not_loaded"] == [{"target": target, "why": "SASS for major version 7, the GPU is 6"} for target in ("sm_70", "sm_75")]
    bodies = [kernel["body"] for kernel in module["kernels"]]
    assert sorted(bodies) == ["partial-nodata"] * 3 + ["real"] * 2 + ["stub-trap"] * 2


@pytest.mark.parametrize(
    ("driver", "code", "error", "words"),
    [
        ("590.44", 1, 100, "no longer drives Pascal"),
        ("470.256", 1, 35, "needs 525.60.13"),
        ("535.154", 1, None, ""),
    ],
)
def test_drivers(run: Run, driver: str, code: int, error: int | None, words: str) -> None:
    found = document(run, "demo.llamafile", "--gpu", "1060", "--driver", driver, code=code)["files"][0]
    assert (found["trouble"] or {}).get("cuda_error") == error
    if error is not None:
        assert words in found["trouble"]["message"]
        assert {module["verdict"] for module in found["modules"]} == {"fails"}


def test_a_gpu_that_its_driver_does_not_know_yet(run: Run) -> None:
    found = document(run, "libkernels.so", "--gpu", "RTX 5090", "--driver", "535.154", code=1)["files"][0]
    assert found["trouble"]["cuda_error"] == 100
    assert "570" in found["trouble"]["message"]


def write(path: Path, *entries: bytes) -> Path:
    path.write_bytes(container(*entries))
    return path


def test_ptx_newer_than_the_driver(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "x.fatbin", entry(PTX, options=b""))
    found = document(run, path, "--gpu", "RTX 3060", "--driver", "535.154", code=1)["files"][0]
    assert (found["verdict"], found["modules"][0]["cuda_error"]) == ("fails", 222)
    assert found["remedies"][0] == {
        "title": "a newer driver", "command": None, "works": True, "why": "550.54.14 on Linux or 551.61 on Windows: compiles PTX 8.4",
    }  # fmt: skip
    assert document(run, path, "--gpu", "RTX 3060", "--driver", "550.90")["files"][0]["verdict"] == "jit"
    text_form = run("doctor", path, "--gpu", "RTX 3060", "--driver", "535.154").stdout
    assert "error 222, cudaErrorUnsupportedPtxVersion" in text_form


def test_zstd_and_an_old_driver(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "x.fatbin", packed(cubin(arch=86), "zstd", kind=2, arch=86))
    found = document(run, path, "--gpu", "RTX 3060", "--driver", "535.154", code=1)["files"][0]
    assert found["modules"][0]["cuda_error"] == 200
    assert "zstd" in found["remedies"][0]["why"]


def test_crash_and_hang(run: Run, tmp_path: Path) -> None:
    crash = write(tmp_path / "crash.fatbin", entry(PTX))
    assert run("doctor", crash, "--gpu", "H100").stdout.startswith("WILL CRASH: ")
    hang = write(tmp_path / "hang.fatbin", entry(cubin(arch=90), kind=2, arch=90), bytes(64))
    done = run("doctor", hang, "--gpu", "H100")
    assert done.stdout.startswith("WILL HANG: ")
    assert "walks in circles for ever" in done.stdout
    assert done.returncode == 4  # and the file is damaged


def test_environment_switches(run: Run) -> None:
    assert document(run, "libkernels.so", "--gpu", "RTX 3060")["files"][0]["modules"][0]["target"] == "sm_80"
    forced = document(run, "libkernels.so", "--gpu", "RTX 3060", "--force-ptx-jit", code=1)
    assert forced["files"][0]["modules"][0]["target"] == "compute_52"
    lacking = [kernel for kernel in forced["files"][0]["modules"][0]["kernels"] if kernel["defect"]]  # it is in sm_80, which is passed over
    assert [(kernel["name"], kernel["body"]) for kernel in lacking] == [("only_new", "missing")]
    assert forced["files"][0]["modules"][0]["cuda_error"] == 500
    assert forced["environment"]["CUDA_FORCE_PTX_JIT"] is True
    found = document(run, "libkernels.so", "--gpu", "sm_110", "--disable-ptx-jit", code=1)["files"][0]
    assert found["modules"][0]["cuda_error"] == 223


def test_a_fleet(run: Run) -> None:
    found = document(run, "demo.llamafile", "--gpu", "1060", "--gpu", "H100", "--gpu", "P100", code=1)
    assert [(row["gpu"]["target"], row["verdict"]) for row in found["verdicts"]] == [
        ("sm_61", "stub"),
        ("sm_90", "fails"),
        ("sm_60", "native"),
    ]
    done = run("doctor", "demo.llamafile", "--gpu", "all")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("demo.llamafile: 2 modules on ")
    assert run("doctor", "demo.llamafile", "--gpu", "all", "--driver", "535.154").stdout.splitlines()[0].endswith(" GPUs, driver 535.154")
    assert next(line for line in lines if "sm_61" in line).split()[-5:] == ["WILL", "ABORT", "-", "STUB", "sm_60"]
    assert done.returncode == 1
    everything = document(run, "demo.llamafile", "--gpu", "all", code=1)["verdicts"]
    assert {row["gpu"]["target"] for row in everything} >= {"sm_50", "sm_61", "sm_75", "sm_90", "sm_120"}
    assert not any(row["gpu"]["vendor"] == "amd" for row in everything)
    pascal = next(row for row in everything if row["gpu"]["target"] == "sm_61")
    assert "GeForce GTX 1060" in pascal["gpu"]["products"]


def test_two_files_side_by_side(run: Run) -> None:
    done = run("doctor", "demo.llamafile", "donor.dll", "--gpu", "1060")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "On GeForce GTX 1060 (compute capability 6.1):"
    rows = {line.split("  ")[0]: line for line in lines[2:] if line}
    assert rows["verdict"].split("  ")[-1].strip() == "WILL RUN"
    assert "sm_60 (2)" in rows["loaded"]
    assert rows["loaded"].endswith("sm_61 (1)")
    assert "demo.llamafile: sm_60 is binary-compatible SASS" in done.stdout


def test_wheel_and_bare_images(run: Run) -> None:
    assert document(run, "kernels-1.0-py3-none-linux_x86_64.whl", "--gpu", "A100")["files"][0]["verdict"] == "native"
    assert document(run, "kernels.sm_61.cubin", "--gpu", "1060")["files"][0]["verdict"] == "native"
    assert document(run, "kernels.sm_61.cubin", "--gpu", "H100", code=1)["files"][0]["modules"][0]["cuda_error"] == 209
    assert document(run, "kernels.compute_52.ptx", "--gpu", "H100")["files"][0]["verdict"] == "jit"


def test_what_cannot_be_read_is_never_fine(run: Run, tmp_path: Path) -> None:
    whole = (SAMPLES / "donor.dll").read_bytes()
    (tmp_path / "cut.dll").write_bytes(whole[: len(whole) // 2])
    done = run("doctor", tmp_path / "cut.dll", "--gpu", "1060")
    assert done.returncode in (1, 4)
    assert "WILL RUN" not in done.stdout
    (tmp_path / "words.txt").write_text("no code here")
    done = run("doctor", tmp_path / "words.txt", "--gpu", "1060")
    assert (done.returncode, done.stdout.splitlines()[0][:20]) == (1, "NO CODE FOR THIS GPU")
    assert run("doctor", tmp_path / "absent", "--gpu", "1060").returncode == 3
    both = document(run, tmp_path / "absent", SAMPLES / "donor.dll", "--gpu", "1060", code=3)
    assert len(both["files"]) == len(both["errors"]) == 1
    (tmp_path / "bad.zip").write_bytes(archive.zip_file([(b"a.fatbin", container(entry(cubin(arch=61), kind=2, arch=61), bytes(64)))]))
    assert run("doctor", tmp_path / "bad.zip", "--gpu", "1060").returncode == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--gpu", "RTX 9999 Turbo"), 2, "no GPU named"),
        (("--gpu", "Pascal"), 2, "is a generation"),
        (("--gpu", "1060", "--driver", "nonsense"), 2, "535.154"),
        (("--gpu", "gfx1030", "--hsa-override", "10.3"), 2, "10.3.0"),
        (("--gpu", "1060", "--model", "donor.dll"), 3, "is not a GGUF model"),
        (("--gpu", "1060", "--candidate", "MANIFEST.toml"), 3, "holds no GPU code"),
        ((), 2, "--gpu"),
    ],
)
def test_errors_say_what_to_do(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run("doctor", "demo.llamafile", *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert words in done.stderr


def test_names_from_files_are_escaped(run: Run, tmp_path: Path) -> None:
    name = "k\x1b[31m"
    path = write(tmp_path / "x.fatbin", entry(cubin(arch=61, kernels=(name,)), kind=2, arch=61))
    done = run("doctor", path, "--gpu", "1060", "-v")
    assert "\x1b" not in done.stdout + done.stderr
    assert document(run, path, "--gpu", "1060", code=1 if "WILL RUN" not in done.stdout else 0)


def test_an_output_is_the_same_every_time(run: Run, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "demo.llamafile", tmp_path / "demo.llamafile")
    first = run("doctor", tmp_path / "demo.llamafile", "--gpu", "all", "--format", "json").stdout
    assert first == run("doctor", "demo.llamafile", "--gpu", "all", "--format", "json", cwd=tmp_path).stdout
    assert str(tmp_path) not in first


@pytest.mark.parametrize(("gpu", "works", "loads"), [("RTX 2080", True, "sm_75"), ("H200", True, "sm_90a"), ("GTX 1060", False, None)])
def test_concatenated_entries_may_be_written_plainly(run: Run, tmp_path: Path, gpu: str, works: bool, loads: str | None) -> None:
    """What doctor promises of expand is what doctor says of its result."""
    file = tmp_path / "concatenated.fatbin"
    shutil.copy(SAMPLES / file.name, file)
    found = document(run, file, "--gpu", gpu, code=1)
    (remedy,) = (each for each in found["files"][0]["remedies"] if each["title"] == "write concatenated entries as plain ones")
    assert remedy["works"] is works
    assert (remedy["command"] is not None) is works
    if loads is not None:
        assert f"then loads {loads};" in remedy["why"]
    assert run("expand", file, "-o", tmp_path / "plain.fatbin").returncode == 0
    after = run("doctor", tmp_path / "plain.fatbin", "--gpu", gpu)
    assert after.returncode == (0 if works else 1)
    if loads is not None:
        assert f"The driver loads {loads}:" in after.stdout
