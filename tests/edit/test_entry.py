"""Entries made by fatpatch are, byte for byte, those that NVIDIA's nvFatbin makes of the same image; cuobjdump reads them.

What differs, and why that is right:
- the text of PTX: nvFatbin drops comments and blanks in front of lines, fatpatch stores what it is given. So the text compared is one that has been
  through nvFatbin, which leaves it alone the second time;
- compressed bytes, with the two fields that hold their length (stored size, compressed size): encoders differ. They must decompress to the same;
- the host bits of the flags (0x10 Linux, 0x20 macOS, 0x40 Windows): fatpatch takes those of the neighbours, nvFatbin those of ``-host``. Given the
  same host they are equal, and nothing else is allowed to differ.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lz4.block
import pytest
import zstandard
from builders.fatbin import concatenated, container, entry, packed
from conftest import SAMPLES, required

from fatpatch.commands import run as run_command
from fatpatch.edit.payload.entry import entry_bytes
from fatpatch.edit.payload.new_image import ImageToAdd, cubin_image, ptx_image
from fatpatch.gpucode.signature import signature_of

pytestmark = pytest.mark.oracle
FIXTURES = Path(__file__).parent / "fixtures"
LIMIT = 1 << 26
LINUX, WINDOWS = 0x10, 0x40
HOSTS = {"linux": LINUX, "mac": 0x20, "windows": WINDOWS}
LIBRARIES = {"12.9": ("nvfatbin/lib/libnvfatbin.so.12", "nvidia-nvfatbin-cu12"), "13.5": ("cu13/lib/libnvfatbin.so.13", "nvidia-nvfatbin")}
FIELDS = struct.Struct("<HHIQIIHHIIIQQQ")
CUBINS = {
    "61": SAMPLES / "kernels.sm_61.cubin",
    "75": FIXTURES / "a.sm_75.cubin",
    "90": FIXTURES / "a.sm_90.cubin",
    "90a": FIXTURES / "a.sm_90a.cubin",
    "90a of 12.9": SAMPLES / "kernels.sm_90a.cubin",
    "100": FIXTURES / "b.sm_100.cubin",
    "100f": SAMPLES / "kernels.sm_100f.cubin",
    "120": FIXTURES / "b.sm_120.cubin",
}
TEXTS = ("75", "90", "90a", "100", "100a", "100f", "120f")


class Header(NamedTuple):
    """The 64 bytes, by offset (reference: CUDA fatbin, section 2)."""

    kind: int
    version: int
    header_size: int
    stored_size: int
    compressed_size: int
    options_offset: int
    minor: int
    major: int
    arch: int
    identifier_offset: int
    identifier_length: int
    flags: int
    key: int
    uncompressed_size: int


def header_of(data: bytes) -> Header:
    return Header(*FIELDS.unpack_from(data))


class NvFatbin:
    """NVIDIA's library: the independent maker of fatbins."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    def make(self, images: Sequence[tuple[str, bytes]], *options: str, identifier: bytes | None = None, text: bytes | None = None) -> bytes:
        """A fatbin of (architecture, image); ``text`` are the ptxas options of PTX."""
        handle, words = ctypes.c_void_p(), [option.encode() for option in ("-64", *options)]
        codes = [self.library.nvFatbinCreate(ctypes.byref(handle), (ctypes.c_char_p * len(words))(*words), ctypes.c_size_t(len(words)))]
        for arch, data in images:
            size = ctypes.c_size_t(len(data))
            if data[:4] == b"\x7fELF":
                codes.append(self.library.nvFatbinAddCubin(handle, data, size, arch.encode(), identifier))
            else:
                codes.append(
                    self.library.nvFatbinAddPTX(handle, data + b"\0", ctypes.c_size_t(len(data) + 1), arch.encode(), identifier, text)
                )
        length = ctypes.c_size_t()
        codes.append(self.library.nvFatbinSize(handle, ctypes.byref(length)))
        buffer = ctypes.create_string_buffer(length.value)
        codes.append(self.library.nvFatbinGet(handle, buffer))
        assert not any(codes), codes
        self.library.nvFatbinDestroy(ctypes.byref(handle))
        return buffer.raw

    def entry(self, arch: str, data: bytes, *options: str, **more: bytes | None) -> bytes:
        """The one entry of a fatbin of one image, not compressed unless the options say so."""
        made = self.make([(arch, data)], *(options or ("-compress=false",)), **more)
        assert struct.unpack_from("<IHHQ", made) == (0xBA55ED50, 1, 16, len(made) - 16)
        return made[16:]


@pytest.fixture(params=LIBRARIES)
def nvfatbin(request: pytest.FixtureRequest) -> NvFatbin:
    name, package = LIBRARIES[request.param]
    for folder in sys.path:
        path = Path(folder) / "nvidia" / name
        if path.is_file():
            return NvFatbin(path)
    required(f"libnvfatbin {request.param}: pip install {package}")
    raise AssertionError


def cubin(name: str) -> tuple[str, bytes, ImageToAdd]:
    """Architecture, bytes and new_image of a cubin."""
    return name.split()[0], CUBINS[name].read_bytes(), cubin_image(str(CUBINS[name]), LIMIT)


def ptx(arch: str, nvfatbin: NvFatbin, folder: Path) -> tuple[bytes, ImageToAdd]:
    """PTX for an architecture, as nvFatbin stores it, and its new_image."""
    text = (FIXTURES / "a.compute_90.ptx").read_bytes().replace(b".target sm_90", b".target sm_" + arch.encode())
    stored = nvfatbin.entry(arch, text)
    text = stored[header_of(stored).header_size :].rstrip(b"\0")
    path = folder / "given.ptx"
    path.write_bytes(text)
    return text, ptx_image(str(path), LIMIT)


@pytest.mark.parametrize("name", CUBINS)
def test_cubin_entry(name: str, nvfatbin: NvFatbin) -> None:
    """Kind, sizes, ABI version, number, suffix and Mercury flags, options block with .nv.compat, padding: all of it."""
    arch, data, new_image = cubin(name)
    made = entry_bytes(new_image, codec="none", host=LINUX, relocatable=False)
    assert header_of(made) == header_of(nvfatbin.entry(arch, data))
    assert made == nvfatbin.entry(arch, data)


@pytest.mark.parametrize("name", ["100", "100f", "120"])
def test_mercury_block(name: str, nvfatbin: NvFatbin) -> None:
    """The block exists, so that the equality above is not one of two absences."""
    arch, data, _ = cubin(name)
    header = header_of(nvfatbin.entry(arch, data))
    assert header.flags & 0x1000000
    assert header.options_offset == 64
    assert header.header_size > 72


@pytest.mark.parametrize("options", [None, "", "-O3", "-O1 -maxrregcount=20"])
@pytest.mark.parametrize("arch", TEXTS)
def test_ptx_entry(arch: str, options: str | None, nvfatbin: NvFatbin, tmp_path: Path) -> None:
    """Without options the block is there all the same: a driver crashes without it."""
    text, new_image = ptx(arch, nvfatbin, tmp_path)
    given = None if options is None else options.encode()
    expected = nvfatbin.entry(arch, text, text=given)
    made = entry_bytes(new_image._replace(options=options), codec="none", host=LINUX, relocatable=False)
    assert header_of(made) == header_of(expected)
    assert made == expected
    assert header_of(made).header_size >= 80


@pytest.mark.parametrize("length", range(8))
def test_padding(length: int, nvfatbin: NvFatbin, tmp_path: Path) -> None:
    """Text of every length modulo 8: a NUL and zeros to a multiple of 8."""
    text, _ = ptx("90", nvfatbin, tmp_path)
    text = text.replace(b"ka1", b"ka1" + b"x" * length)
    path = tmp_path / "longer.ptx"
    path.write_bytes(text)
    made = entry_bytes(ptx_image(str(path), LIMIT), codec="none", host=LINUX, relocatable=False)
    assert made == nvfatbin.entry("90", text)


@pytest.mark.parametrize("identifier", ["a.cu", "seven77", "eight888", "folder/some_longer_name.cu"])
@pytest.mark.parametrize("kind", ["cubin", "ptx"])
def test_identifier(identifier: str, kind: str, nvfatbin: NvFatbin, tmp_path: Path) -> None:
    """Images of a donor keep the name of their source."""
    if kind == "cubin":
        arch, data, new_image = cubin("100")
    else:
        arch, (data, new_image) = "90", ptx("90", nvfatbin, tmp_path)
    expected = nvfatbin.entry(arch, data, identifier=identifier.encode(), text=b"-O3" if kind == "ptx" else None)
    new_image = new_image._replace(identifier=identifier, options="-O3" if kind == "ptx" else None)
    assert entry_bytes(new_image, codec="none", host=LINUX, relocatable=False) == expected


@pytest.mark.parametrize("host", HOSTS)
def test_host_bits(host: str, nvfatbin: NvFatbin) -> None:
    arch, data, new_image = cubin("90")
    made = entry_bytes(new_image, codec="none", host=HOSTS[host], relocatable=False)
    assert made == nvfatbin.entry(arch, data, "-compress=false", f"-host={host}")


def test_host_bits_are_those_of_the_neighbours(nvfatbin: NvFatbin, graft: Callable[..., bytes]) -> None:
    for host in HOSTS:
        data = CUBINS["75"].read_bytes()
        made = graft(nvfatbin.make([("75", data)], "-compress=false", f"-host={host}"), "--cubin", CUBINS["90"])
        assert [header_of(item).flags & 0x70 for item in entries_of(made)] == [HOSTS[host]] * 2


def test_debug_flag(nvfatbin: NvFatbin) -> None:
    """A donor's flag is kept. A cubin file does not say it: nvFatbin too goes by its option -g alone."""
    arch, data, new_image = cubin("90")
    made = entry_bytes(new_image._replace(debug=True), codec="none", host=LINUX, relocatable=False)
    assert made == nvfatbin.entry(arch, data, "-compress=false", "-g")


def test_ptx_for_a_relocatable_module(nvfatbin: NvFatbin, tmp_path: Path) -> None:
    """nvcc's own words, two blanks included (reference: CUDA fatbin, section 2)."""
    text, new_image = ptx("75", nvfatbin, tmp_path)
    made = entry_bytes(new_image, codec="none", host=LINUX, relocatable=True)
    assert made == nvfatbin.entry("75", text, text=b"--compile-only  ")


# Codecs


def decompressed(data: bytes) -> bytes:
    """The payload of an entry, by the packages themselves."""
    header = header_of(data)
    stored = data[header.header_size :][: header.stored_size]
    blob = stored[: header.compressed_size]
    if header.flags & 0x2000:
        assert stored[header.compressed_size :].strip(b"\0") == b""
        return lz4.block.decompress(blob, uncompressed_size=header.uncompressed_size)
    if header.flags & 0x8000:
        assert zstandard.get_frame_parameters(blob).content_size == header.uncompressed_size
        return zstandard.ZstdDecompressor().decompress(blob)
    return stored


MODES = {"lz4": "speed", "zstd": "balance"}


@pytest.mark.parametrize("codec", MODES)
@pytest.mark.parametrize("name", ["75", "90a", "100f", "ptx"])
def test_compressed_entry(name: str, codec: str, nvfatbin: NvFatbin, tmp_path: Path) -> None:
    if name == "ptx":
        arch, (data, new_image) = "90", ptx("90", nvfatbin, tmp_path)
        content = data + b"\0"
    else:
        arch, data, new_image = cubin(name)
        content = data
    expected = nvfatbin.entry(arch, data, "-compress=true", "-compress-all", f"-compress-mode={MODES[codec]}")
    made = entry_bytes(new_image, codec=codec, host=LINUX, relocatable=False)
    mine, theirs = header_of(made), header_of(expected)
    assert mine.flags & 0xF000 == {"lz4": 0x2000, "zstd": 0x8000}[codec]
    encoded = {"stored_size": 0, "compressed_size": 0}
    assert mine._replace(**encoded) == theirs._replace(**encoded)
    assert made[64 : mine.header_size] == expected[64 : theirs.header_size]
    assert decompressed(made) == decompressed(expected) == content
    assert mine.uncompressed_size == len(content)
    assert mine.stored_size == len(made) - mine.header_size == (mine.compressed_size + 7) // 8 * 8


def test_what_does_not_shrink_is_stored(tmp_path: Path) -> None:
    noise = b"// " + b"".join(hashlib.sha256(bytes([number])).hexdigest().encode()[::3] for number in range(2)) + b"\n"
    text = b".version 8.0\n.target sm_75\n" + noise
    new_image = ImageToAdd("x", "ptx", "compute_75", lambda: text, signature_of("ptx", text))
    for codec in MODES:
        made = entry_bytes(new_image, codec=codec, host=LINUX, relocatable=False)
        header = header_of(made)
        if header.flags & 0xF000:
            assert header.compressed_size < header.uncompressed_size == len(text) + 1
        else:
            assert made == entry_bytes(new_image, codec="none", host=LINUX, relocatable=False)
            assert (header.compressed_size, header.uncompressed_size) == (0, 0)


# Whole fatbins


def entries_of(fatbin: bytes) -> list[bytes]:
    """The entries of a fatbin that fill it exactly."""
    magic, version, header_size, size = struct.unpack_from("<IHHQ", fatbin)
    assert (magic, version, header_size, size) == (0xBA55ED50, 1, 16, len(fatbin) - 16)
    at, found = 16, []
    while at < len(fatbin):
        header = header_of(fatbin[at:])
        end = at + header.header_size + header.stored_size
        found.append(fatbin[at:end])
        at = end
    assert at == len(fatbin)
    return found


@pytest.fixture
def graft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """The fatbin that ``fatpatch graft`` makes of another."""
    monkeypatch.chdir(tmp_path)

    def call(fatbin: bytes, *arguments: object) -> bytes:
        Path("in.fatbin").write_bytes(fatbin)
        command = ["fatpatch", "graft", "in.fatbin", *map(str, arguments), "-o", "out.fatbin", "--overwrite"]
        monkeypatch.setattr(sys, "argv", command)
        assert run_command() == 0
        return Path("out.fatbin").read_bytes()

    return call


def test_whole_fatbin_equals_one_made_by_it(nvfatbin: NvFatbin, graft: Callable[..., bytes], tmp_path: Path) -> None:
    """New machine code first, then what was there, new PTX last."""
    images = {arch: CUBINS[arch].read_bytes() for arch in ("75", "90", "90a")}
    text, _ = ptx("90", nvfatbin, tmp_path)
    host = nvfatbin.make([("75", images["75"])], "-compress=false")
    donors = ("--cubin", CUBINS["90"], "--cubin", CUBINS["90a"], "--ptx", tmp_path / "given.ptx", "--compress", "none")
    expected = [("90", images["90"]), ("90a", images["90a"]), ("75", images["75"]), ("90", text)]
    assert graft(host, *donors) == nvfatbin.make(expected, "-compress=false")


def test_nvcc_and_nvfatbin_agree_on_the_host_file(nvfatbin: NvFatbin) -> None:
    assert (FIXTURES / "a.fatbin").read_bytes() == nvfatbin.make([("75", CUBINS["75"].read_bytes())], "-compress=false")


@pytest.mark.parametrize("codec", ["none", *MODES])
def test_cuobjdump_lists_and_extracts_it(codec: str, oracle: Path, graft: Callable[..., bytes], tmp_path: Path) -> None:
    text = FIXTURES / "a.compute_90.ptx"
    donors = ("--cubin", CUBINS["90"], "--cubin", CUBINS["90a"], "--ptx", text, "--compress", codec)
    graft((FIXTURES / "a.fatbin").read_bytes(), *donors)
    path = tmp_path / "out.fatbin"
    listing = cuobjdump(oracle, tmp_path, "-lelf", path) + cuobjdump(oracle, tmp_path, "-lptx", path)
    assert re.findall(r"out\.\d+\.(sm_\w+\.\w+)", listing) == ["sm_90.cubin", "sm_90a.cubin", "sm_75.cubin", "sm_90.ptx"]
    cuobjdump(oracle, tmp_path, "-xelf", "all", path)
    cuobjdump(oracle, tmp_path, "-xptx", "all", path)
    given = [CUBINS["90"], CUBINS["90a"], CUBINS["75"]]
    assert [(tmp_path / name).read_bytes() for name in extracted(tmp_path, "cubin")] == [each.read_bytes() for each in given]
    assert [(tmp_path / name).read_bytes() for name in extracted(tmp_path, "ptx")] == [text.read_bytes()]
    assert ("compressed" in cuobjdump(oracle, tmp_path, path)) == (codec != "none")


def cuobjdump(oracle: Path, folder: Path, *arguments: object) -> str:
    done = subprocess.run([oracle, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def extracted(folder: Path, suffix: str) -> list[str]:
    """Names of extracted files in the order of the entries."""
    return sorted((path.name for path in folder.glob(f"out.*.{suffix}")), key=lambda name: int(name.split(".")[1]))


# Neighbours of every codec, by a builder that shares nothing with fatpatch


def elf_entry(codec: str, name: str = "75", arch: int = 75) -> bytes:
    fields = {"kind": 2, "arch": arch, "major": 1, "minor": 8}
    data = CUBINS[name].read_bytes()
    return entry(data, **fields) if codec == "none" else packed(data, codec, **fields)


@pytest.mark.parametrize(("codec", "taken"), [("none", 0), ("lz4", 0x2000), ("zstd", 0x8000), ("zlib", 0x2000), ("lz4-frame", 0x2000)])
def test_new_images_take_the_codec_of_their_neighbours(codec: str, taken: int, graft: Callable[..., bytes]) -> None:
    """Of a codec that fatpatch does not write they take LZ4, which every driver reads. Old entries stay as they are."""
    text = (FIXTURES / "a.compute_75.ptx").read_bytes() + b"\0"
    fields = {"major": 9, "minor": 0, "options": b"-O3"}
    old = [elf_entry(codec), entry(text, **fields) if codec == "none" else packed(text, codec, **fields)]
    first, *kept, last = entries_of(graft(container(*old), "--cubin", CUBINS["90"], "--ptx", FIXTURES / "a.compute_90.ptx"))
    assert kept == old
    assert header_of(first).flags & 0xF000 == header_of(last).flags & 0xF000 == taken
    assert decompressed(first) == CUBINS["90"].read_bytes()
    assert decompressed(last).rstrip(b"\0") == (FIXTURES / "a.compute_90.ptx").read_bytes()


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd", "zlib", "lz4-frame"])
def test_donors_of_every_codec(codec: str, graft: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "donor.fatbin").write_bytes(container(elf_entry(codec, "90", 90)))
    first, second = entries_of(graft((FIXTURES / "a.fatbin").read_bytes(), "--from", "donor.fatbin", "--target", "sm_90"))
    assert first == elf_entry("none", "90", 90)
    assert second == entries_of((FIXTURES / "a.fatbin").read_bytes())[0]


def test_concatenated_entries_give_images_and_keep_their_own_bytes(graft: Callable[..., bytes], tmp_path: Path) -> None:
    """As a donor, and as a neighbour."""
    blob = concatenated([(2, 90, 0x11, CUBINS["90"].read_bytes()), (2, 75, 0x11, CUBINS["75"].read_bytes())])
    (tmp_path / "donor.fatbin").write_bytes(container(blob))
    first, _ = entries_of(graft((FIXTURES / "a.fatbin").read_bytes(), "--from", "donor.fatbin", "--target", "sm_90"))
    assert first[64:].startswith(CUBINS["90"].read_bytes())
    only_75 = concatenated([(2, 75, 0x11, CUBINS["75"].read_bytes())])
    made = entries_of(graft(container(only_75), "--cubin", CUBINS["90"], "--compress", "none"))
    assert made == [elf_entry("none", "90", 90), only_75]


def test_replaced_images_stay_at_their_place(graft: Callable[..., bytes]) -> None:
    other = CUBINS["90"].read_bytes().replace(b"Cuda compilation tools", b"CUDA compilation tools")
    entry_90 = entry(other, kind=2, arch=90, major=1, minor=8)
    text = (FIXTURES / "a.compute_75.ptx").read_bytes() + b"\0"
    old = [elf_entry("none"), entry_90, entry(text, major=9, minor=0, options=b"")]
    made = entries_of(graft(container(*old), "--cubin", CUBINS["90"], "--replace"))
    assert made == [old[0], elf_entry("none", "90", 90), old[2]]
