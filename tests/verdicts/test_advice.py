"""What doctor says beside the verdict: operations in words, libraries that must be there, remedies that this user can follow."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from builders import elf, pe
from builders.cubin import cubin
from builders.fatbin import container, entry
from conftest import Run

from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.hostcode.beside import libraries_beside
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.operations import OTHER, operations
from fatpatch.verdicts.remedies import remedies

PTX = b".version %s\n.target sm_%d\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n.reg .b64 %%r;\nst.global.u64 [%%r], %%r;\nret;\n}\n\0"


def fatbin(*archs: int, kernels: tuple[str, ...] = ("k",)) -> bytes:
    return container(*(entry(cubin(arch=arch, kernels=kernels), kind=2, major=1, minor=7, arch=arch) for arch in archs))


def advice(path: Path, gpu: str, version: str | None = None) -> dict[str, tuple[bool | None, str]]:
    with inspected(str(path), name=path.name) as node:
        doctor = Doctor(node, limit=1 << 27)
        found = doctor.judge(Environment(find(gpu), None if version is None else driver(version)))
        return {row.title: (row.works, f"{row.command or ''} {row.why}") for row in remedies(doctor, found, path.name, ())}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"_Z9flash_fwdILi128EEv", "_Z16flash_fwd_hdim128v"}, "attention for head size 128"),
        ({"fmha_cutlassF_f16_aligned_64x64_rf_sm80_hdim64"}, "attention for head size 64"),
        ({"sm90_gemm_s8_s8_s32"}, "int8 matrix multiplication"),
        ({"sgemm_kernel", "hgemm_kernel", "s8_gemm"}, "matrix multiplication"),
        ({"_Z10moe_alignv"}, "mixture of experts"),
        ({"zpotrf_kernel"}, "linear algebra"),
        ({"_Z3foov"}, OTHER),
    ],
)
def test_operations_in_words(names: set[str], words: str) -> None:
    (row,) = operations([frozenset(names)], str)
    assert row.words == words
    assert row.kernel in names


def test_operations_are_counted_and_the_known_ones_come_first() -> None:
    rows = operations([frozenset({"foo"})] * 5 + [frozenset({"flash_fwd"})] * 2 + [frozenset()], str)
    assert [(row.words, row.modules) for row in rows] == [("attention", 2), (OTHER, 5)]


def test_the_report_names_what_fails(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    modules = [fatbin(75, 90)] * 3 + [fatbin(86, 100, kernels=("flash_fwd_hdim128",))]
    path.write_bytes(elf.shared_object([(".nv_fatbin", b"".join(modules))]))
    out = run("doctor", path, "--gpu", "H100").stdout
    assert "What has no code for this GPU, by the names of its kernels:" in out
    assert "attention for head size 128     1 module  flash_fwd_hdim128" in out


@pytest.mark.parametrize(
    ("name", "sections", "expected"),
    [
        ("libx.so", [(".dynstr", b"\0libcublas.so.12\0libc.so.6\0"), (".rodata", b"libcudnn.so.9\0")], [("libcublas.so.12", True), ("libcudnn.so.9", False)]),
        ("libx.so", [(".rodata", b"mylibcublas.so.12x\0libcuda.so.1\0")], []),
        ("libcublas.so.12", [(".dynstr", b"\0libcublasLt.so.12\0libcublas.so.12\0")], [("libcublasLt.so.12", True)]),
        ("libx.so", [(".rodata", b"libnvrtc.so\0libnvrtc.so.12\0")], [("libnvrtc.so.12", False)]),
    ],
)  # fmt: skip
def test_libraries_by_name(name: str, sections: list[tuple[str, bytes]], expected: list[tuple[str, bool]], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(elf.shared_object(sections))
    with inspected(str(tmp_path / name)) as node:
        assert [(each.name, each.imported) for each in libraries_beside(node)] == expected


def test_a_missing_dll_is_named_with_its_package(run: Run, tmp_path: Path) -> None:
    """CTranslate2#1630: cublas64_12.dll is not in the wheel, and the program says only that a DLL is missing."""
    path = tmp_path / "x-1.0-py3-none-win_amd64.whl"
    library = pe.dll([(b".nv_fatb", fatbin(86)), (b".rdata", b"cublas64_12.dll\0cudnn64_8.dll\0")])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/x.dll", library)
        archive.writestr("x/cudnn64_8.dll", pe.dll([(b".text", b"\xc3")]))
    out = " ".join(run("doctor", path, "--gpu", "RTX 3060").stdout.split())
    assert "Loads libraries that are not in this file: cublas64_12.dll (pip install nvidia-cublas-cu12)." in out


def test_a_toolkit_is_advised_only_if_the_driver_runs_its_programs(tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", fatbin(90))]))
    assert "13." not in advice(path, "A100", "525.105.17")["rebuild with -arch=all"][1]
    assert (
        "CUDA 12.9 is the last toolkit whose programs driver 525.105.17 runs"
        in advice(path, "A100", "525.105.17")["rebuild from source"][1]
    )
    assert "CUDA 13" in advice(path, "A100", "580.65.06")["rebuild with -arch=all"][1]


def test_ptx_that_is_too_new_is_compiled_now(tmp_path: Path) -> None:
    """ctransformers#162: PTX 8.1 on driver 525; ptxas 12.9 makes sm_80 code of it."""
    path = tmp_path / "libx.so"
    text = entry(PTX % (b"8.1", 70), kind=1, major=8, minor=1, arch=70, options=b"")
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(text))]))
    works, words = advice(path, "A100", "525.105.17")["compile its PTX now"]
    assert works
    assert "fatpatch graft libx.so --retarget sm_80 -o OUT" in words
    assert "1 of 1 kernels" in words
    assert "compile its PTX now" not in advice(path, "A100", "530.30.02")


def test_both_obstacles_have_remedies(tmp_path: Path) -> None:
    """node-llama-cpp#545: no code for a V100, and a driver that is too old for the program."""
    path = tmp_path / "libx.so"
    head = container(*(entry(cubin(arch=arch), kind=2, major=1, minor=7, arch=arch) for arch in (86, 89)))
    path.write_bytes(elf.shared_object([(".nv_fatbin", head)]))
    titles = advice(path, "V100", "550.54.15")
    assert any(title.startswith("rebuild") for title in titles)


@pytest.mark.parametrize(
    ("member", "title", "words"),
    [
        ("nvidia/cudnn/lib/libcudnn_ops.so.9", "an older release", 'pip install "nvidia-cudnn-cu12<9.11"'),
        ("torch/lib/libtorch_cuda.so", "rebuild it (PyTorch)", 'TORCH_CUDA_ARCH_LIST="6.1" python setup.py bdist_wheel'),
    ],
)
def test_remedies_by_who_ships_it(member: str, title: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "nvidia_cudnn_cu12-9.14.0.64-py3-none-manylinux_2_27_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, elf.shared_object([(".nv_fatbin", fatbin(75, 90))]))
    rows = advice(path, "GTX 1060")
    assert words in rows[title][1]
    assert not any("nvcc" in why for _, why in rows.values())


def test_of_operations_that_as_many_kernels_compute_the_first_of_the_table_counts() -> None:
    for number in range(40):  # sets have another order in each process, and for other names
        found = operations([frozenset({f"topk_{number}", f"gemm_{number}", f"unnamed_{number}"})], str)
        assert [(row.words, row.kernel) for row in found] == [("matrix multiplication", f"gemm_{number}")]
        assert [row.words for row in operations([frozenset({f"x{number}", f"sort{number}"})], str)] == ["sorting and selection"]
