"""One layer: its archive unpacked, its libraries taken out of it, and written anew with other bytes for some files.

Every other byte of the archive is carried over as it is: order, owners, times, extended attributes, whiteouts.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from typing import IO, Final, cast

from fatpatch.base.errors import FormatError, VerifyError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.model.kinds import Codec
from fatpatch.scan.ledgers import LIBRARY
from fatpatch.slimming.image.store import plain, refuse_too_large

_RECORD: Final = lazy_pattern(r"(?:\A|/)[^/]+\.dist-info/RECORD\Z")
_CONDA: Final = lazy_pattern(r"(?:\A|/)conda-meta/[^/]+\.json\Z")
_HEADS: Final = (b"\x7fELF", b"MZ")
_PROGRAM: Final = 1 << 20
_MAX_MEMBERS: Final = 2_000_000
_STEP: Final = 1 << 20
_LEVEL: Final = {Codec.GZIP: 6, Codec.ZSTD: 9}


class LayerArchive(NamedTuple):
    """A layer: the plain archive in the file ``path``, by which codec it is stored, and its members in order."""

    path: str
    codec: Codec | None
    members: tuple[tarfile.TarInfo, ...]

    @property
    def libraries(self) -> list[tarfile.TarInfo]:
        """Files that may hold GPU code: by their names, or because they are large programs."""
        with open(self.path, "rb") as stream:
            return [each for each in self.members if each.isreg() and each.size and not each.issparse() and _is_code(each, stream)]

    @property
    def ledgers(self) -> list[tarfile.TarInfo]:
        """RECORD of distributions, and documents of conda-meta."""
        return [each for each in self.members if each.isreg() and (_RECORD.search(each.name) or _CONDA.search(each.name))]


class NewLayer(NamedTuple):
    """A layer that was written: its stored bytes, their digest, and that of the plain archive."""

    path: str
    digest: str
    diff_id: str
    size: int


def _is_code(each: tarfile.TarInfo, stream: IO[bytes]) -> bool:
    if not LIBRARY.search(each.name) and not (each.mode & 0o111 and each.size >= _PROGRAM):
        return False
    stream.seek(each.offset_data)
    head = stream.read(4)
    return head.startswith(_HEADS) or not (each.name.endswith(".exe") or each.mode & 0o111)


def opened_layer(stored: str, path: str, shown: str) -> LayerArchive | None:
    """A stored layer, unpacked into the file ``path`` where it is compressed; None when it is no tar archive (an attestation, say)."""
    with open(stored, "rb") as stream:
        head = stream.read(4)
    codec = Codec.GZIP if head[:2] == b"\x1f\x8b" else Codec.ZSTD if head == b"\x28\xb5\x2f\xfd" else None
    try:
        if codec is None:
            path = stored
        else:
            with _reader(stored, codec) as source, open(path, "xb") as sink:
                while data := source.read(_STEP):
                    refuse_too_large(len(data), os.path.dirname(path), shown)
                    sink.write(data)
        with tarfile.open(path, "r:") as archive:
            members = []
            for each in archive:
                members.append(each)
                if len(members) > _MAX_MEMBERS:
                    raise FormatError(f"has more than {_MAX_MEMBERS} files", locator=shown)
    except tarfile.ReadError:
        return None
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise FormatError(f"a layer cannot be unpacked: {error}", locator=shown) from error
    return LayerArchive(path, codec, tuple(members))


def _reader(path: str, codec: Codec | None) -> IO[bytes]:
    if codec == Codec.GZIP:
        return cast(IO[bytes], gzip.open(path, "rb"))
    if codec == Codec.ZSTD:
        import zstandard

        unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return cast(IO[bytes], unpacker.stream_reader(open(path, "rb"), read_across_frames=True))
    return open(path, "rb")


def take_out(layer: LayerArchive, member: tarfile.TarInfo, path: str) -> str:
    """The bytes of a member as a file of their own; their SHA-256 in hexadecimal."""
    found, left = hashlib.sha256(), member.size
    with open(layer.path, "rb") as source, open(path, "xb") as sink:
        source.seek(member.offset_data)
        while left and (data := source.read(min(_STEP, left))):
            found.update(data)
            sink.write(data)
            left -= len(data)
    return found.hexdigest()


def content_of(layer: LayerArchive, member: tarfile.TarInfo) -> bytes:
    """The bytes of a small member."""
    with open(layer.path, "rb") as source:
        source.seek(member.offset_data)
        return source.read(member.size)


def written(layer: LayerArchive, changed: Mapping[int, str], added: Mapping[int, Sequence[tuple[str, bytes]]], path: str) -> NewLayer:
    """Write the layer into ``path`` with other bytes (files) for members by their index, and files added behind some.

    VerifyError when what was written does not read as planned.
    """
    bare = f"{path}.tar"
    with open(layer.path, "rb") as source, open(bare, "xb") as sink:
        at = 0
        for index in sorted({*changed, *added}):
            member = layer.members[index]
            behind = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            _copy(source, sink, at, member.offset if index in changed else behind)
            if index in changed:
                with open(changed[index], "rb") as content:
                    _put(sink, member, content, os.path.getsize(changed[index]))
            for name, data in added.get(index, ()):
                _put_bytes(sink, member, name, data)
            at = behind
        _copy(source, sink, at, os.path.getsize(layer.path))
    _verify(layer, bare, changed, added)
    diff_id = _digest(bare)
    if layer.codec:
        _compress(bare, path, layer.codec)
        with _reader(path, layer.codec) as again:
            if _hash(again) != diff_id:
                raise VerifyError("a layer does not unpack to what was written, nothing was written", locator=path)
        os.unlink(bare)
    else:
        os.rename(bare, path)
    return NewLayer(path, _digest(path), diff_id, os.path.getsize(path))


def _copy(source: IO[bytes], sink: IO[bytes], start: int, end: int) -> None:
    source.seek(start)
    left = end - start
    while left > 0 and (data := source.read(min(_STEP, left))):
        sink.write(data)
        left -= len(data)


def _put(sink: IO[bytes], like: tarfile.TarInfo, content: IO[bytes], size: int, name: str | None = None) -> None:
    info = copy.copy(like)
    info.size = size
    info.pax_headers = {
        key: value for key, value in like.pax_headers.items() if key not in ("size", "path") or (key == "path" and not name)
    }
    if name is not None:
        info.name = name
    sink.write(info.tobuf(tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    shutil.copyfileobj(content, sink, _STEP)
    sink.write(bytes(-size % tarfile.BLOCKSIZE))


def _put_bytes(sink: IO[bytes], like: tarfile.TarInfo, name: str, data: bytes) -> None:
    _put(sink, like, io.BytesIO(data), len(data), name)


def _compress(source: str, to: str, codec: Codec) -> None:
    with open(source, "rb") as stream, open(to, "xb") as raw:
        if codec == Codec.ZSTD:
            import zstandard

            zstandard.ZstdCompressor(level=_LEVEL[codec]).copy_stream(stream, raw, size=os.path.getsize(source))
            return
        with gzip.GzipFile("", "wb", _LEVEL[codec], raw, mtime=0) as sink:
            shutil.copyfileobj(stream, sink, _STEP)


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return _hash(stream)


def _hash(stream: IO[bytes]) -> str:
    found = hashlib.sha256()
    while data := stream.read(_STEP):
        found.update(data)
    return f"sha256:{found.hexdigest()}"


def _verify(layer: LayerArchive, bare: str, changed: Mapping[int, str], added: Mapping[int, Sequence[tuple[str, bytes]]]) -> None:
    """Read the new archive: the same members in the same order with all that their headers say, but the sizes of those that changed."""
    planned: list[tuple[object, ...]] = []
    for index, member in enumerate(layer.members):
        planned.append(_facts(member, os.path.getsize(changed[index]) if index in changed else member.size))
        planned += [_facts(member, len(data), name) for name, data in added.get(index, ())]
    with tarfile.open(bare, "r:") as archive, open(layer.path, "rb") as old, open(bare, "rb") as new:
        found = list(archive)
        if [_facts(each, each.size) for each in found] != planned:
            raise VerifyError("a layer has other files than planned, nothing was written", locator=bare)
        position = 0
        for index, member in enumerate(layer.members):
            each = found[position]
            position += 1 + len(added.get(index, ()))
            if index in changed:
                with open(changed[index], "rb") as content:
                    same = _same(content, 0, new, each.offset_data, each.size)
            else:
                same = _same(old, member.offset_data, new, each.offset_data, each.size) if each.isreg() else True
            if not same:
                raise VerifyError(f"{plain(each.name)!a} in a layer is not as planned, nothing was written", locator=bare)


def _facts(member: tarfile.TarInfo, size: int, name: str | None = None) -> tuple[object, ...]:
    headers = {key: value for key, value in member.pax_headers.items() if key not in ("size", "path")}
    return (
        name or member.name,
        member.type,
        size,
        member.mode,
        member.uid,
        member.gid,
        member.uname,
        member.gname,
        member.mtime,
        member.linkname,
        tuple(sorted(headers.items())),
    )


def _same(first: IO[bytes], first_at: int, second: IO[bytes], second_at: int, size: int) -> bool:
    first.seek(first_at)
    second.seek(second_at)
    while size > 0:
        step = min(_STEP, size)
        if first.read(step) != second.read(step):
            return False
        size -= step
    return True
