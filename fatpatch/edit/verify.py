"""The soundness of a file as it is: every container, fatbin and image read whole, and its record, if it was edited."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.errors import FatpatchError, UnsupportedError
from fatpatch.base.limits import Limits
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.binfmt.pe.authenticode import PeSignature, signature_of
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.binfmt.zip.sums import sum_problems
from fatpatch.edit.host.check_elf import segment_problems
from fatpatch.edit.host.check_pe import section_problems
from fatpatch.edit.host.pe_seal import checksum_field
from fatpatch.edit.host.second_reader import opinion, second_opinion
from fatpatch.edit.transaction import undo_file
from fatpatch.edit.transaction.undo import original
from fatpatch.model.kinds import HOSTS, Codec, ContainerKind
from fatpatch.model.tree import Node, Payload
from fatpatch.scan.coverage import all_diagnostics, members_below
from fatpatch.scan.survey import complaint_of, survey


def soundness(path: str, node: Node, limits: Limits) -> Iterator[CheckResult]:
    """Every check of a file and of what it holds, in the order in which they would matter."""
    errors = [f"{item.locator}: {item.message}" for item in all_diagnostics(node) if item.level == "error"]
    yield check_of("containers and fatbins whole", errors)
    yield check_of("images unpack and agree with their labels", _image_problems(node, limits))
    nodes = (*members_below(node), node)
    if hosts := [each for each in nodes if each.container in HOSTS and each.payloads]:
        yield check_of("host files sound", (problem for each in hosts for problem in _host_problems(each)))
    signed = [(each, signature) for each in nodes if (signature := _signature(each)) is not None]
    if signed:
        broken = (f"{each.locator}: {signature.words()}" for each, signature in signed if signature.holds is False)
        yield check_of("Authenticode digests right", broken)
    if archives := [each for each in nodes if each.member_count]:
        yield check_of("check sums of archive members right", (problem for each in archives for problem in _member_problems(each, limits)))
    if os.path.lexists(undo_file.path_beside(path)):
        yield check_of("as its undo record says", _record_problems(path, node))


def independently(path: str, node: Node) -> Iterator[CheckResult]:
    """What LIEF says of the programs in a file, and, where an undo record tells the original, of what the edits changed in them."""
    hosts = [each for each in (*members_below(node), node) if each.container in HOSTS and each.payloads]
    yield from map(opinion, hosts)
    if not os.path.lexists(undo_file.path_beside(path)):
        return
    try:
        with original(path) as old:
            olds = {each.locator: each for each in (*members_below(old), old)}
            for each in hosts:
                if each.locator in olds:
                    yield second_opinion(olds[each.locator], each, _moves(olds[each.locator], each))
    except FatpatchError as error:
        yield check_of("the original read from the undo record", [error.message])


def _moves(old: Node, new: Node) -> dict[int, int]:
    """Where payloads are now, by where they were: edits keep their number and order of wrappers."""
    if len(old.payloads) != len(new.payloads):
        return {}
    return {before.offset: after.offset for before, after in zip(_by_wrapper(old), _by_wrapper(new), strict=True)}


def _by_wrapper(node: Node) -> list[Payload]:
    return sorted(node.payloads, key=lambda each: each.offset if each.wrapper is None else each.wrapper.offset)


def _signature(node: Node) -> PeSignature | None:
    return signature_of(node.source) if node.container == ContainerKind.PE and node.source is not None else None


def _image_problems(node: Node, limits: Limits) -> Iterator[str]:
    for image, finding in survey([node], limit=limits.image, detail=False):
        complaint = complaint_of(image, finding)
        if complaint is not None:
            yield f"{complaint.locator}: {complaint.message}"


def _host_problems(node: Node) -> Iterator[str]:
    try:
        if node.container == ContainerKind.ELF:
            elf = ElfFile(node.content, node.locator)
            yield from (f"{node.locator}: {problem}" for problem in segment_problems(elf))
        else:
            pe = PeFile(node.content, node.locator)
            yield from (f"{node.locator}: {problem}" for problem in section_problems(pe))
            said, real = checksum_field(pe)
            if said not in (0, real):
                yield f"{node.locator}: checksum {said:#x}, expected {real:#x}"
    except UnsupportedError:
        return  # objects and other machines: nothing that fatpatch edits
    except FatpatchError as error:
        yield f"{node.locator}: {error.message}"


def _member_problems(node: Node, limits: Limits) -> Iterator[str]:
    if node.source is None or node.image is not None or (node.packing not in (None, Codec.DEFLATE) and node.stored_at is None):
        return
    unpacked = {each.path: each.source for each in node.members if each.source is not None and each.packing == Codec.DEFLATE}
    yield from (f"{node.locator}!{problem}" for problem in sum_problems(node.source, node.layout.members, limits, unpacked))


def _record_problems(path: str, node: Node) -> Iterator[str]:
    try:
        undo_file.refuse_cut_off(node.content, undo_file.load(path), path)
    except FatpatchError as error:
        yield error.message
