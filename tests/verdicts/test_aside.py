"""What says nothing about a device: modules without kernels, other generations' modules, link input in a package."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry

from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.names import generations_named
from fatpatch.verdicts.nvidias import is_nvidias
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.results import FileVerdict

LIMIT = 1 << 27


_RETURNS = bytes.fromhex("4d790000000000000000800300ea0f00") * 24
"""EXIT alone."""


def fatbin(*archs: int, kernels: tuple[str, ...] = ("k",), hollow: tuple[int, ...] = ()) -> bytes:
    """A module for some GPUs; its kernels are empty in the images for those ``hollow``."""
    bodies = {arch: _RETURNS if arch in hollow else bytes(0x180) for arch in archs}
    images = ((cubin(arch=arch, kernels=kernels, body=bodies[arch]), arch) for arch in archs)
    return container(*(entry(image, kind=2, major=1, minor=7, arch=arch) for image, arch in images))


def text(version: str, arch: int, kernel: str) -> bytes:
    """A module of PTX alone whose kernel stores."""
    body = b"\n{\n.reg .b64 %r;\nst.global.u64 [%r], %r;\nret;\n}\n"
    head = f".version {version}\n.target sm_{arch}\n.address_size 64\n.visible .entry {kernel}(.param .u64 p)".encode()
    major, minor = map(int, version.split("."))
    return container(entry(head + body + b"\0", kind=1, major=major, minor=minor, arch=arch, options=b""))


def judged(path: Path, gpu: str, version: str | None = None) -> FileVerdict:
    with inspected(str(path)) as node:
        return Doctor(node, limit=LIMIT).judge(Environment(find(gpu), None if version is None else driver(version)))


def library(path: Path, *modules: bytes) -> Path:
    path.write_bytes(elf.shared_object([(".nv_fatbin", b"".join(modules))]))
    return path


def test_a_module_without_kernels_is_no_alarm(tmp_path: Path) -> None:
    empty = library(tmp_path / "libx.so", fatbin(75, 90, kernels=()), fatbin(86))
    assert outcome_of(judged(empty, "RTX 3060")) == "runs"
    missing = library(tmp_path / "liby.so", fatbin(75, 90), fatbin(86))
    assert outcome_of(judged(missing, "RTX 3060")) == "fails-in-part", "one with a kernel is an alarm"


@pytest.mark.parametrize(("name", "expected"), [("libcutensor.so.2", "runs"), ("libmine.so", "may-fail-in-part")])
def test_libraries_that_pick_modules_by_gpu(name: str, expected: str, tmp_path: Path) -> None:
    """A module for 7.5 and 9.0 alone, between others that load on 8.0: by design in NVIDIA's libraries, forgotten elsewhere."""
    path = library(tmp_path / name, fatbin(80), fatbin(80), fatbin(80), fatbin(75, 90))
    assert outcome_of(judged(path, "A100")) == expected


@pytest.mark.parametrize(("hollow", "expected"), [((100, 120), "runs"), ((120,), "may-fail-in-part"), ((), "may-fail-in-part")])
def test_code_that_does_nothing_is_not_for_a_gpu(hollow: tuple[int, ...], expected: str, tmp_path: Path) -> None:
    """lmdeploy 0.18: its GEMM for 8.0 to 8.9 is built for 10.0 and 12.0, too, and empty there; modules for 9.0 alone have one of their own."""
    every = fatbin(70, 80, 86, 89, 90, 100, 120)
    path = library(tmp_path / "libmine.so", *[every] * 5, fatbin(90), fatbin(80, 86, 89, 100, 120, hollow=hollow))
    assert outcome_of(judged(path, "H100")) == expected


ELL = "_ZN7cutlass6KernelINS_4gemm6kernel7EllGemmINS1_{}EEEvNT_6ParamsE"


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("libcusparse.so.12", ELL.format("12MmaPipelined"), ("runs", "runs")),
        ("libcusparse.so.12", "_ZN7cutlass6KernelINS_4gemm6kernel4GemmINS1_12MmaPipelinedEEEvNT_6ParamsE", ("runs", "fails-in-part")),
        ("libmine.so", ELL.format("12MmaPipelined"), ("runs", "fails-in-part")),
    ],
)
def test_the_same_template_for_the_device_alone(name: str, own: str, expected: tuple[str, str], tmp_path: Path) -> None:
    """cuSPARSE 12.5: EllGemm in modules for 7.0, 7.5, 8.0 and 8.6 alone, and one with PTX 8.8 for the rest, which driver 535 refuses."""
    rest = text("8.8", 61, ELL.format("13MmaMultistage"))
    path = library(tmp_path / name, fatbin(61, 86, 90), fatbin(80, kernels=(own,)), rest)
    assert (outcome_of(judged(path, "RTX 3060")), outcome_of(judged(path, "RTX 3060", "535.154.05"))) == expected


def test_what_a_default_target_left_is_not_compiled(tmp_path: Path) -> None:
    """cuSPARSELt 0.8: 72 MB of compute_52 beside sm_52 and sm_80, in a library for 8.0 and newer."""
    left = container(fatbin(52, 80, kernels=("k2",))[16:], text("8.8", 52, "k2")[16:])
    path = library(tmp_path / "libcusparseLt.so.0", fatbin(80, 90), fatbin(80, 90), left)
    found = judged(path, "H100")
    assert (outcome_of(found), len(found.elsewhere), found.cost) == ("runs", 1, None)
    used = library(tmp_path / "libcusparse.so.0", fatbin(52, 90), fatbin(80, 90), left)
    assert len(judged(used, "H100").elsewhere) == 0, "the library is made for 5.2"


def test_what_a_default_target_left_does_not_make_a_library_run(tmp_path: Path) -> None:
    path = library(tmp_path / "libcusparseLt.so.0", fatbin(52), *[fatbin(80)] * 120)
    assert outcome_of(judged(path, "GTX 980")) == "will-not-run"
    assert outcome_of(judged(path, "A100")) == "runs"


def test_names_of_nvidias_libraries() -> None:
    for path in ("nvidia/npp/lib/libnppc.so.12", "cutensor\\bin\\cutensor.dll", "x/libcublasLt.so.12", "bin/cublas64_12.dll"):
        assert is_nvidias(path), path
    for path in ("x/libmycublas.so", "torch/lib/libtorch_cuda.so", "bitsandbytes/libbitsandbytes_cuda126.so"):
        assert not is_nvidias(path), path


def test_a_package_of_link_input_alone(tmp_path: Path) -> None:
    """A static library in a wheel: nothing loads it, so nothing fails."""
    member = elf.shared_object([("__nv_relfatbin", fatbin(86))])
    data = bytearray(member)
    data[16] = 1  # ET_REL
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lib/device.o", bytes(data))
    found = judged(path, "RTX 3060")
    assert (outcome_of(found), bool(found.for_linkers)) == ("no-code", True)


def test_a_static_library_that_loads_says_nothing_of_the_rest(tmp_path: Path) -> None:
    """xgboost 1.6.2 on a Tesla K80: only its copy of NCCL has code for 3.5, and its own kernels are missing (error 209)."""
    path = tmp_path / "libxgboost.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", fatbin(52, 70) * 20), ("__nv_relfatbin", fatbin(35) * 30)]))
    assert outcome_of(judged(path, "Tesla K80")) in ("fails-in-part", "may-fail-in-part")
    assert not judged(path, "Tesla K80").elsewhere


def test_code_for_tegra_alone_is_for_tegra(tmp_path: Path) -> None:
    """cuFFT 11.4 has modules of sm_87 alone: an RTX 4090 would load them, and its program never asks it to."""
    path = library(tmp_path / "libcufft.so.11", fatbin(89), fatbin(89), fatbin(87))
    found = judged(path, "RTX 4090")
    assert (outcome_of(found), len(found.elsewhere)) == ("runs", 1)


def test_what_is_not_loaded_need_not_be_read(tmp_path: Path) -> None:
    path = library(tmp_path / "libx.so", fatbin(75, 100), fatbin(75, 100))
    with inspected(str(path)) as node:
        doctor = Doctor(node, limit=LIMIT)
        doctor.reader.problems["libx.so!.nv_fatbin!fatbin[0]!sm_100"] = "unpacks to more than the limit"
        assert outcome_of(doctor.judge(Environment(find("T4"), None))) == "runs"
        assert outcome_of(doctor.judge(Environment(find("B200"), None))) == "not-read"


@pytest.mark.parametrize("gpu", ["Jetson AGX Thor", "DGX Spark", "GH200", "GB200", "Jetson Orin Nano"])
def test_boards_with_arm_processors(gpu: str, tmp_path: Path) -> None:
    device = find(gpu)
    assert device.arch is not None
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", fatbin(device.arch))], machine=62))
    assert outcome_of(judged(path, gpu)) == "will-not-run"
    path.write_bytes(elf.shared_object([(".nv_fatbin", fatbin(device.arch))], machine=183))
    assert outcome_of(judged(path, gpu)) == "runs"


def test_kernels_of_a_project_that_left_a_gpu_out(tmp_path: Path) -> None:
    """open3d 0.18 on a GTX 980: static libraries have sm_50, its own kernels begin at sm_60, by a list that no module with sm_50 shares."""
    own, static = fatbin(60, 70, 72, 75, 80, 86), fatbin(35, 50, 60, 61, 70, 75, 80, 86)
    path = library(tmp_path / "pybind.so", *[own] * 4, *[static] * 9)
    assert outcome_of(judged(path, "GTX 980")) == "may-fail-in-part"
    assert outcome_of(judged(path, "RTX 3060")) == "runs"


def test_fewer_targets_of_the_same_build_are_a_choice(tmp_path: Path) -> None:
    """torch's attention kernels begin at sm_80, in a build whose other kernels have sm_75, too."""
    path = library(tmp_path / "libtorch_cuda.so", *[fatbin(75, 80, 86, 90, 100, 120)] * 9, *[fatbin(80, 86, 90, 100, 120)] * 4)
    assert outcome_of(judged(path, "T4")) == "runs"


def test_a_probe_that_does_nothing_asks_nothing_of_the_driver(tmp_path: Path) -> None:
    """cuBLASLt 12.9: 147 bytes of PTX 8.8 with an empty kernel, on a driver that compiles PTX up to 8.2."""
    ptx = b".version 8.8\n.target sm_52\n.address_size 64\n.visible .entry nop()\n{\nret;\n}\n\0"
    probe = container(entry(ptx, kind=1, major=8, minor=8, arch=52, options=b""))
    path = library(tmp_path / "libcublasLt.so.12", probe, fatbin(75), fatbin(75))
    with inspected(str(path)) as node:
        found = Doctor(node, limit=LIMIT).judge(Environment(find("T4"), driver("535.154.05")))
    assert outcome_of(found) == "runs"
    assert not any("PTX" in need.why for need in found.needs)


def test_variants_of_another_generation_are_not_compiled(tmp_path: Path) -> None:
    """cutensor 2.8: cutlass_sm75_ kernels with PTX, beside sm_80 code that loads as it is."""
    old = text("8.0", 75, "cutlass_sm75_gemm")
    path = library(tmp_path / "libcutensor.so.2", fatbin(80), old)
    found = judged(path, "RTX 3060")
    assert (outcome_of(found), len(found.elsewhere), found.cost) == ("runs", 1, None)
    mine = judged(library(tmp_path / "libmine.so", fatbin(80), old), "RTX 3060")
    assert len(mine.elsewhere) == 0, "only NVIDIA's libraries are known to pick so"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cutlass_sm75_tensorop_gemm", {7}),
        ("_Z6kernel_cc90ILi3EEvv", {9}),
        ("fmha_cutlassB_bf16_aligned_64x64_k128_sm80", {8}),
        ("_ZN7cutlass7Kernel2INS_4gemm6kernel4GemmINS_4arch4Sm80ENS3_5Sm100EEEEEvv", {8, 10}),
        ("_Z12transform_14Small80", set()),
        ("transform_kernel", set()),
        ("access_cc", set()),
    ],
)
def test_generations_in_names(name: str, expected: set[int]) -> None:
    assert generations_named(name) == expected


@pytest.mark.parametrize(
    ("called", "expected"),
    [(b"__nvJitLinkAddData_12_9", ("runs", 1)), (b"cuLinkAddData", ("runs", 1)), (b"cuLaunchKernel", ("fails-in-part", 0))],
)
def test_link_input_with_code_for_others(called: bytes, expected: tuple[str, int], tmp_path: Path) -> None:
    """cuSPARSE 12.5 on a GTX 980: lto_50 beside relocatable sm_60 code, for nvJitLink, which the library calls; 11.7 calls the driver's."""
    part = container(
        entry(bytes(64), kind=8, major=1, minor=0, arch=50, options=b""), entry(cubin(arch=60), kind=2, major=1, minor=7, arch=60)
    )
    path = tmp_path / "libcusparse.so.12"
    path.write_bytes(elf.shared_object([(".nv_fatbin", fatbin(50) + part), (".dynstr", b"\0" + called + b"\0")]))
    found = judged(path, "GTX 980")
    assert (outcome_of(found), len(found.for_linkers)) == expected
