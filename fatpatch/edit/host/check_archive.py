"""What must hold of a zip, wheel or APE after members of it were replaced (reference: llamafile, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.limits import Limits
from fatpatch.base.overlay import same_bytes
from fatpatch.base.source import Source
from fatpatch.binfmt.zip import read as zip_reader
from fatpatch.binfmt.zip.sums import sum_problems
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import Member, Node
from fatpatch.scan.walk import located

_DESCRIPTOR = 0x8


def archive_checks(old_node: Node, new_node: Node, edited: set[str], *, rebuilt: bool) -> Iterator[CheckResult]:
    """Members, their places and headers, and the bytes of those that were replaced (``edited``: their locators).

    In an archive written anew the others have moved, and each is compared byte for byte.
    """
    before, after = _members(old_node), _members(new_node)
    others = {where: member for where, member in before.items() if where not in edited}
    moved = [f"{where} has changed its place or size" for where, member in others.items() if after.get(where) != member]
    yield check_of("same members in the same order", [] if list(before) == list(after) else ["the list of members has changed"])
    if rebuilt:
        yield check_of("other members byte-identical", _content_problems(old_node.content, new_node.content, others, after))
    else:
        yield check_of("other members unchanged", moved)
    if list(before) == list(after):
        changed = [(before[where], after[where]) for where in sorted(edited)]
        pairs = [(before[where], after[where]) for where in before] if rebuilt else changed
        yield check_of("alignment and packing kept", _placing_problems(pairs))
        yield check_of("local headers agree with the directory", _header_problems(new_node.content, [new for _, new in changed]))
        yield check_of("check sums of replaced members right", sum_problems(new_node.content, [new for _, new in changed], Limits()))


def _content_problems(old: Source, new: Source, before: Mapping[str, Member], after: Mapping[str, Member]) -> Iterator[str]:
    for where, member in before.items():
        now = after.get(where)
        if now is None or now._replace(offset=0, header_offset=0) != member._replace(offset=0, header_offset=0):
            yield f"{where} has another size or check sum"
        elif not same_bytes(old.slice(member.offset, member.stored_size), new.slice(now.offset, now.stored_size)):
            yield f"{where} has other bytes"


def _members(node: Node) -> dict[str, Member]:
    return {where: member for member, where in located(node.layout.members, node.locator)}


def _placing_problems(pairs: list[tuple[Member, Member]]) -> Iterator[str]:
    for old, new in pairs:
        if old.method != new.method:
            yield f"{new.name} was {old.method}, is {new.method}"
        if new.method == Codec.STORED:
            alignment = next((each for each in (0x10000, 0x4000, 0x1000) if old.offset % each == 0), 1)
            if new.offset % alignment:
                yield f"{new.name} was aligned to {alignment:#x}, is at {new.offset:#x}"


def _header_problems(source: Source, members: list[Member]) -> Iterator[str]:
    for member in members:
        local = zip_reader.LOCAL.unpack(source.read(member.header_offset, zip_reader.LOCAL.size))
        extra = source.read(member.header_offset + zip_reader.LOCAL.size + local[9], local[10])
        stored, size, _ = zip_reader.zip64_values(extra, local[7], local[8], 0)
        if local[2] & _DESCRIPTOR:
            yield f"{member.name} announces a data descriptor"
        if (stored, size, local[6]) != (member.stored_size, member.size, member.crc32):
            yield f"{member.name}: sizes or check sum differ from the directory's"
