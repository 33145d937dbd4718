"""Equal to LLVM's own tools wherever they can read: metadata of every code object, ids and bytes of bundles."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from conftest import SAMPLES, corpus_path, corpus_rows
from oracle import llvm

from fatpatch.gpucode.code_object.read import read_code_object
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.scan.walk import inspected

pytestmark = pytest.mark.oracle
READELF = llvm.tool("llvm-readelf")
CLANG, BUNDLER, OBJDUMP = llvm.tool("clang"), llvm.tool("clang-offload-bundler"), llvm.tool("llvm-objdump")
SAMPLE_NAMES = ("libhipdemo.so", "hipdemo.dll", "hipdemo.gfx1031.hsaco")
HIP_ROWS = [row for row in corpus_rows() if "bundles" in row["expected"]]
TARGETS = ("gfx1030", "gfx90a:xnack+", "gfx1100", "gfx9-generic")
SOURCES = ("hipdemo", "hipsum")
LIMIT = 256 << 20


def needed(tool: str | None, name: str) -> str:
    if tool is None:
        pytest.skip(f"{name} is not installed")
    return tool


def by_readelf(kernel: dict[str, object]) -> tuple[object, ...]:
    names = (
        ".symbol", ".vgpr_count", ".group_segment_fixed_size", ".private_segment_fixed_size", ".max_flat_workgroup_size", ".agpr_count",
        ".sgpr_count", ".vgpr_spill_count", ".sgpr_spill_count", ".kernarg_segment_size", ".kernarg_segment_align", ".wavefront_size",
    )  # fmt: skip
    arguments = kernel[".args"]
    assert isinstance(arguments, list)
    return (
        *(kernel.get(name) for name in names),
        tuple((each[".offset"], each[".size"], each[".value_kind"], each.get(".name")) for each in arguments),
    )


def by_us(row: KernelFacts) -> tuple[object, ...]:
    name, registers, shared, local, _, threads, _, _, amd = row
    assert amd is not None
    return (f"{name}.kd", registers, shared, local, threads, *amd[:7], tuple(tuple(each) for each in amd.arguments))


@pytest.mark.parametrize("path", [SAMPLES / name for name in SAMPLE_NAMES] + HIP_ROWS, ids=lambda value: str(value)[-30:])
def test_metadata_of_every_code_object(tmp_path: Path, path: object) -> None:
    readelf = needed(READELF, "llvm-readelf")
    file = path if isinstance(path, Path) else corpus_path(path)
    copy = tmp_path / "object.hsaco"
    count = 0
    with inspected(str(file)) as node:
        reader = ImageReader(node.source, LIMIT)
        for payload in node.payloads:
            for image in payload.images:
                data = reader.read(image)
                copy.write_bytes(data)
                expected = list(map(by_readelf, llvm.kernels_by_readelf(copy, readelf)))
                assert list(map(by_us, read_code_object(data).kernels)) == expected
                count += len(expected)
    assert count


def compiled(folder: Path, *options: str, name: str = "hipdemo", version: str = "3") -> Path:
    clang = needed(CLANG if CLANG and "llvm-22" in CLANG else None, "clang 22")
    output = folder / f"{name}{len(list(folder.iterdir()))}.o"
    archs = [f"--offload-arch={target}" for target in TARGETS]
    flags = ("-x", "hip", "-nogpuinc", "-nogpulib", "-Os", "--std=c++17", "-fPIC", "--no-default-config")
    source = SAMPLES / f"src/{name}.hip"
    command = [clang, *flags, *archs, *options, f"-cuid={name}", "-c", source, "-o", output]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COMPRESSED_BUNDLE_FORMAT_VERSION": version})
    return output


@pytest.mark.parametrize("version", ["3", "2"])
@pytest.mark.parametrize("options", [(), ("--offload-compress",), ("--offload-new-driver",)], ids=lambda value: " ".join(value) or "plain")
def test_bundles_of_clang(tmp_path: Path, options: tuple[str, ...], version: str) -> None:
    """Several translation units in one object; ids as clang-offload-bundler lists them, bytes as it takes them out."""
    objects = [compiled(tmp_path, *options, name=name, version=version) for name in SOURCES]
    linked = tmp_path / "both.o"
    subprocess.run(["ld", "-r", *map(str, objects), "-o", linked], check=True)
    bundler, objcopy = needed(BUNDLER, "clang-offload-bundler"), needed(llvm.tool("llvm-objcopy"), "llvm-objcopy")
    with inspected(str(linked)) as node:
        assert not node.diagnostics
        assert [len(payload.images) for payload in node.payloads] == [len(TARGETS)] * 2
        assert {payload.version for payload in node.payloads} == {int(version) if "--offload-compress" in options else None}
        reader = ImageReader(node.source, LIMIT)
        digests = [{image.identifier: hashlib.sha256(reader.read(image)).hexdigest() for image in each.images} for each in node.payloads]
    for path, found in zip(objects, digests, strict=True):
        bare = tmp_path / "bundle"
        subprocess.run([objcopy, f"--dump-section=.hip_fatbin={bare}", path], check=True)
        listed = subprocess.run([bundler, "--list", "--type=o", f"--input={bare}"], check=True, capture_output=True, text=True)
        assert {name for name in listed.stdout.split() if not name.startswith("host")} == set(found)
        for number, identity in enumerate(found):
            output = tmp_path / f"out{number}"
            command = [bundler, "--unbundle", "--type=o", f"--targets={identity}", f"--input={bare}", f"--output={output}"]
            subprocess.run(command, check=True, capture_output=True)
            assert hashlib.sha256(output.read_bytes()).hexdigest() == found[identity]


@pytest.mark.parametrize("options", [(), ("--offload-new-driver",)], ids=["entry sections", "offload binaries"])
def test_relocatable_device_code_of_clang(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = compiled(tmp_path, "-fgpu-rdc", *options)
    with inspected(str(path)) as node:
        assert not node.diagnostics
        images = [image for payload in node.payloads for image in payload.images]
        assert sorted(image.target for image in images) == sorted(TARGETS)
        assert {image.kind for image in images} == {"bitcode"}
        heads = {ImageReader(node.source, LIMIT).read(image)[:4] for image in images}
    assert heads == {b"BC\xc0\xde"}
