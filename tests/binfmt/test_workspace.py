"""Members unpacked to temporary files: small ones share one, each can be read, and what is released goes."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest

from fatpatch.base.errors import FatpatchError, FormatError, LimitError
from fatpatch.base.limits import Limits
from fatpatch.base.source import Source
from fatpatch.binfmt import unpack
from fatpatch.binfmt.unpack import Workspace
from fatpatch.binfmt.zip import read as zip_reader
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import Member

SIZES = (0, 5, 70_000, (1 << 20) + 1, 9)


def archive() -> tuple[Source, tuple[Member, ...]]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for number, size in enumerate(SIZES):
            made.writestr(f"m{number}", content(number, size))
    source = Source.of(stream.getvalue())
    return source, zip_reader.read(source, "some.zip", Diagnostics()).members


def content(number: int, size: int) -> bytes:
    return bytes((number + at * at) % 251 for at in range(size))


def test_each_member_is_read_while_others_come_and_go() -> None:
    source, members = archive()
    workspace = Workspace(Limits(), source.size)
    kept = []
    for number, member in enumerate(members):
        workspace.release(workspace.open(source, member))
        kept.append(workspace.open(source, member))
        for earlier, opened in enumerate(kept):
            assert opened.read(0, opened.size) == content(earlier, SIZES[earlier])
        assert workspace.crc32(source, member) == zlib.crc32(content(number, SIZES[number])) == member.crc32
    assert len({opened.path for opened in kept}) == 2  # the large one has a file of its own
    workspace.close()


def test_what_was_begun_is_not_unpacked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source, members = archive()
    workspace = Workspace(Limits(), source.size)
    begun = [workspace.begin(source, member) for member in members]
    assert [each.head for each in begun] == [content(number, size)[:4096] for number, size in enumerate(SIZES)]

    def again(*_: object, **__: object) -> None:
        raise AssertionError("unpacked again")

    monkeypatch.setattr(unpack, "pieces", again)
    for number, (member, each) in enumerate(zip(members, begun, strict=True)):
        opened = workspace.open(source, member, each)
        assert opened.read(0, opened.size) == content(number, SIZES[number])
    workspace.close()


def test_what_cannot_be_begun_says_why_when_it_is_opened() -> None:
    source, members = archive()
    workspace = Workspace(Limits(), source.size)
    for broken, message in (
        (members[2]._replace(method="method 99"), "not read"),
        (members[2]._replace(offset=members[2].offset + 1), "damaged"),
        (members[2]._replace(stored_size=members[2].stored_size // 2), "unpacks to|ends before"),
        (members[2]._replace(size=members[2].size - 1), "unpacks to more"),
    ):
        begun = workspace.begin(source, broken)
        with pytest.raises(FatpatchError, match=message):
            workspace.open(source, broken, begun)
    stored = members[0]._replace(method="stored", stored_size=30, size=30)
    assert workspace.begin(source, stored).head == source.read(stored.offset, 30)
    workspace.close()


def test_a_window_of_a_small_member_is_not_taken_for_it() -> None:
    source, members = archive()
    workspace = Workspace(Limits(), source.size)
    opened = workspace.open(source, members[2])
    workspace.release(opened.slice(60_000, 10_000))
    assert opened.read(0, opened.size) == content(2, SIZES[2])
    workspace.release(opened)
    again = workspace.open(source, members[4])
    assert (again.base, again.read(0, 9)) == (0, content(4, 9))
    workspace.close()


@pytest.mark.parametrize("size", [4, 6])
def test_another_size_than_announced(size: int) -> None:
    source, members = archive()
    workspace = Workspace(Limits(), source.size)
    wrong = members[1]._replace(size=size)
    for read in (workspace.open, workspace.crc32):
        with pytest.raises(FormatError):
            read(source, wrong)
    with pytest.raises(LimitError):
        workspace.crc32(source, members[1]._replace(size=1 << 60))
    workspace.close()
