"""Zips for the tests of edits: built byte by byte, with everything a real one may have, and read by a reader of their own."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

APE_MAGIC = b"MZqFpD='\n"
FULL32 = 0xFFFFFFFF
STAMP = (2024, 1, 1, 0, 0, 0)
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")


class Entry(NamedTuple):
    """A member to write. ``descriptor``: sizes behind the data only; ``zip64``: forced records; ``room``: free bytes behind the data."""

    name: str
    data: bytes
    method: int = 0
    extra: bytes = b""
    central_extra: bytes = b""
    align: int = 1
    descriptor: bool = False
    zip64: bool = False
    room: int = 0


class Row(NamedTuple):
    """A member as the directory and its local header tell it, raw."""

    name: str
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    header_at: int
    data_at: int
    extra: bytes
    local_flags: int
    local_crc: int
    local_stored: int
    local_size: int
    local_extra: bytes

    @property
    def sizes_agree(self) -> bool:
        return (self.crc, self.stored, self.size) == (self.local_crc, self.local_stored, self.local_size)


def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs ``fatpatch ARGS`` without a process of its own."""
    from fatpatch.commands import run

    def call(*args: object) -> subprocess.CompletedProcess[str]:
        command = ["fatpatch", *map(str, args)]
        monkeypatch.setattr(sys, "argv", command)
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = run()
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    return call


def build(entries: Sequence[Entry], *, prefix: bytes = b"", comment: bytes = b"", zip64: bool = False, junk: bytes = b"") -> bytes:
    """A whole zip; ``zip64``: with zip64 end records though nothing needs them; ``junk`` follows the end."""
    data, directory = bytearray(prefix), b""
    for entry in entries:
        raw, name, crc = deflated(entry.data) if entry.method == 8 else entry.data, entry.name.encode(), zlib.crc32(entry.data)
        flags, wide = 8 if entry.descriptor else 0, struct.pack("<HHQQ", 1, 16, len(entry.data), len(raw)) if entry.zip64 else b""
        extra = wide + entry.extra
        data += bytes(-(len(data) + _LOCAL.size + len(name) + len(extra)) % entry.align)
        at = len(data)
        sizes = (FULL32, FULL32) if entry.zip64 else (len(raw), len(entry.data))
        known = (0, 0, 0) if entry.descriptor else (crc, *sizes)
        data += _LOCAL.pack(b"PK\3\4", 45 if entry.zip64 else 20, flags, entry.method, 0, 0x5821, *known, len(name), len(extra))
        data += name + extra + raw
        if entry.descriptor:
            data += struct.pack("<4sIII", b"PK\7\x08", crc, len(raw), len(entry.data))
        data += bytes(entry.room)
        wide = struct.pack("<HHQQQ", 1, 24, len(entry.data), len(raw), at) if entry.zip64 else b""
        extra = wide + entry.central_extra
        directory += _CENTRAL.pack(
            b"PK\1\2", 0x0314, 45 if entry.zip64 else 20, flags, entry.method, 0, 0x5821, crc, *sizes, len(name), len(extra), 0, 0, 0,
            0o100644 << 16, FULL32 if entry.zip64 else at,
        ) + name + extra  # fmt: skip
    at, count = len(data), len(entries)
    return bytes(data) + directory + end_records(at, len(directory), count, comment, zip64=zip64) + junk


def sparse(path: Path, entry: Entry, size: int, model: bytes, *, prefix: bytes = b"", room: int = 0) -> None:
    """A zip of about ``size`` bytes that is nearly all hole: big.gguf, which starts with ``model``, then ``entry`` at 64 KiB, zip64."""
    big_at = 0x10000 if prefix else 0
    entry_at = (size - len(entry.data) - room - 0x1000) & ~0xFFFF
    header_at = entry_at - _LOCAL.size - len(entry.name)
    big_size = header_at - big_at - _LOCAL.size - 8 - 20
    central = b""
    with path.open("wb") as sink:
        sink.write(prefix)
        for name, at, crc, length, data in (
            ("big.gguf", big_at, 0, big_size, model),
            (entry.name, header_at, zlib.crc32(entry.data), len(entry.data), entry.data),
        ):
            wide = struct.pack("<HHQQ", 1, 16, length, length) if name != entry.name else b""
            sizes = (FULL32, FULL32) if wide else (length, length)
            sink.seek(at)
            sink.write(_LOCAL.pack(b"PK\3\4", 45, 0, 0, 0, 0x5821, crc, *sizes, len(name), len(wide)) + name.encode() + wide + data)
            extra = struct.pack("<HHQQQ", 1, 24, length, length, at)
            central += _CENTRAL.pack(
                b"PK\1\2", 0x032D, 45, 0, 0, 0, 0x5821, crc, FULL32, FULL32, len(name), len(extra), 0, 0, 0, 0o100644 << 16, FULL32
            ) + name.encode() + extra  # fmt: skip
        directory_at = entry_at + len(entry.data) + room
        sink.seek(directory_at)
        sink.write(central + end_records(directory_at, len(central), 2, zip64=True))


def end_records(at: int, size: int, count: int, comment: bytes = b"", *, zip64: bool = False) -> bytes:
    """The end records of a directory at ``at``."""
    result = b""
    if zip64:
        result = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
        result += struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    return result + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, FULL32 if zip64 else at, len(comment)) + comment


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def rows(data: bytes) -> dict[str, Row]:
    """Every member of the directory that the last end record names; offsets from byte 0."""
    end = data.rindex(b"PK\5\6")
    count, size, at = struct.unpack_from("<HII", data, end + 10)
    if data[end - 20 : end - 16] == b"PK\6\7":
        end64 = struct.unpack_from("<Q", data, end - 12)[0]
        assert data[end64 : end64 + 4] == b"PK\6\6"
        count, size, at = struct.unpack_from("<QQQ", data, end64 + 32)
    result, stop = {}, at + size
    for _ in range(count):
        magic, _, _, flags, method, _, _, crc, stored, length, name_size, extra_size, comment_size, _, _, _, header_at = (
            _CENTRAL.unpack_from(data, at)
        )
        assert magic == b"PK\1\2"
        at += _CENTRAL.size
        name, extra = data[at : at + name_size].decode(), data[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        length, stored, header_at = _widened(extra, length, stored, header_at)
        magic, _, local_flags, _, _, _, local_crc, local_stored, local_size, name_size, extra_size = _LOCAL.unpack_from(data, header_at)
        assert magic == b"PK\3\4"
        data_at = header_at + _LOCAL.size + name_size + extra_size
        assert data[header_at + _LOCAL.size : data_at - extra_size].decode() == name
        local_extra = data[data_at - extra_size : data_at]
        local_size, local_stored = _widened(local_extra, local_size, local_stored)
        result[name] = Row(
            name, flags, method, crc, stored, length, header_at, data_at, extra, local_flags, local_crc, local_stored, local_size, local_extra
        )  # fmt: skip
    assert at == stop
    return result


def _widened(extra: bytes, *values: int) -> tuple[int, ...]:
    fields = extra_fields(extra)
    wide = list(struct.unpack(f"<{len(fields.get(1, b'')) // 8}Q", fields.get(1, b"")))
    return tuple(wide.pop(0) if value == FULL32 and wide else value for value in values)


def extra_fields(extra: bytes) -> dict[int, bytes]:
    """Extra fields by their id."""
    result, at = {}, 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        result[kind] = extra[at + 4 : at + 4 + size]
        at += 4 + size
    return result


def record_row(name: str, data: bytes) -> str:
    """The line of a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def wheel(library: bytes, *, name: str = "kernels", method: int = zipfile.ZIP_DEFLATED, more: dict[str, bytes] | None = None) -> bytes:
    """A wheel with one library among other members, and a RECORD that pip accepts."""
    info = f"{name}-1.0.dist-info"
    members = {
        f"{name}/__init__.py": b'"""Sample."""\n' * 20,
        f"{name}/libgpu.so": library,
        f"{name}/data.bin": bytes(range(256)) * 40,
        f"{name}/odd, name.txt": b"a comma\n",
        **(more or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    }
    record = "".join(record_row(f'"{each}"' if "," in each else each, data) for each, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for each, data in members.items():
            archive.writestr(zipfile.ZipInfo(each, STAMP), data, method)
    return sink.getvalue()
