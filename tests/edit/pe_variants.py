"""Unusual but loadable copies of a DLL, for the editor's tests. PE32+ only; the same input gives the same bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

_SECTION = struct.Struct("<8sIIIIIIHHI")
_READ_ONLY_DATA = 0x40000040
_SECURITY = 4
_DEBUG = 6


class _Offsets(NamedTuple):
    """File offsets of the headers' parts."""

    file_header: int
    optional: int
    security: int
    table: int
    sections: int


def _offsets(data: bytes | bytearray) -> _Offsets:
    signature = struct.unpack_from("<I", data, 0x3C)[0]
    count, optional_size = struct.unpack_from("<2xH12xH", data, signature + 4)
    optional = signature + 24
    if data[signature : signature + 4] != b"PE\0\0" or struct.unpack_from("<H", data, optional)[0] != 0x20B:
        raise ValueError("not a PE32+ file")
    return _Offsets(signature + 4, optional, optional + 112 + 8 * _SECURITY, optional + optional_size, count)


def checksum(data: bytes | bytearray) -> int:
    """The header's CheckSum: 16-bit words added with carry, the field itself as zero, plus the length."""
    at = _offsets(data).optional + 64
    zeroed = bytes(data[:at]) + bytes(4) + data[at + 4 :] + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"<{len(zeroed) // 2}H", zeroed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(data)


def _summed(data: bytearray) -> bytes:
    struct.pack_into("<I", data, _offsets(data).optional + 64, checksum(data))
    return bytes(data)


def signed(data: bytes) -> bytes:
    """A copy with a certificate table as Authenticode puts it at the end of the file; the signature in it is fake."""
    at = _offsets(data)
    if any(data[at.security : at.security + 8]):
        raise ValueError("already signed")
    signed_data = bytes.fromhex("06092a864886f70d010702")  # OBJECT IDENTIFIER pkcs7-signedData
    filler = b"\x04\x82\x02\x00" + bytes(index * 37 & 0xFF for index in range(0x200))
    body = signed_data + b"\xa0\x82" + struct.pack(">H", len(filler)) + filler
    content = b"\x30\x82" + struct.pack(">H", len(body)) + body
    content += bytes(-(8 + len(content)) % 8)
    table = struct.pack("<IHH", 8 + len(content), 0x200, 2) + content  # WIN_CERT_REVISION_2_0, WIN_CERT_TYPE_PKCS_SIGNED_DATA
    copy = bytearray(data) + bytes(-len(data) % 8)
    struct.pack_into("<II", copy, at.security, len(copy), len(table))  # a file offset, unlike in other directories
    return _summed(copy + table)


def with_debug(data: bytes) -> bytes:
    """A copy with a section behind all others that holds a debug directory: the name of a PDB, by address and by file offset."""
    at = _offsets(data)
    alignment, file_alignment = struct.unpack_from("<II", data, at.optional + 32)
    (image_size,) = struct.unpack_from("<I", data, at.optional + 56)
    copy = bytearray(data) + bytes(-len(data) % file_alignment)
    record = b"RSDS" + bytes(range(16)) + struct.pack("<I", 1) + b"ggml-cuda.pdb\0"
    row = struct.pack("<IIHHIIII", 0, 1, 0, 0, 2, len(record), image_size + 28, len(copy) + 28)  # IMAGE_DEBUG_TYPE_CODEVIEW
    content = row + record
    place = at.table + _SECTION.size * at.sections
    _SECTION.pack_into(copy, place, b".buildid", len(content), image_size, file_alignment, len(copy), 0, 0, 0, 0, _READ_ONLY_DATA)
    struct.pack_into("<H", copy, at.file_header + 2, at.sections + 1)
    struct.pack_into("<I", copy, at.optional + 56, image_size + alignment)
    struct.pack_into("<II", copy, at.optional + 112 + 8 * _DEBUG, image_size, len(row))
    return _summed(copy + content + bytes(-len(content) % file_alignment))


def without_header_room(data: bytes) -> bytes:
    """A copy with one-byte sections added until no further section header fits into SizeOfHeaders."""
    at = _offsets(data)
    if any(data[at.security : at.security + 8]):
        raise ValueError("a signed file: the added sections would lie behind its certificate")
    alignment, file_alignment = struct.unpack_from("<II", data, at.optional + 32)
    image_size, header_size = struct.unpack_from("<II", data, at.optional + 56)
    initialised = struct.unpack_from("<I", data, at.optional + 8)[0]
    copy = bytearray(data) + bytes(-len(data) % file_alignment)
    place, count = at.table + _SECTION.size * at.sections, at.sections
    while place + _SECTION.size <= header_size:
        if any(copy[place : place + _SECTION.size]):
            raise ValueError("something lies between the section table and the end of the headers")
        name = b".pad%d" % (count - at.sections)
        _SECTION.pack_into(copy, place, name, 1, image_size, file_alignment, len(copy), 0, 0, 0, 0, _READ_ONLY_DATA)
        copy += b"\x01" + bytes(file_alignment - 1)
        image_size += alignment
        initialised += file_alignment
        place += _SECTION.size
        count += 1
    struct.pack_into("<H", copy, at.file_header + 2, count)
    struct.pack_into("<I", copy, at.optional + 8, initialised)
    struct.pack_into("<I", copy, at.optional + 56, image_size)
    return _summed(copy)
