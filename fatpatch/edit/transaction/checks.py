"""The checks of a result that has been read again from scratch: what was planned is there, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.errors import FatpatchError
from fatpatch.base.overlay import same_bytes
from fatpatch.base.patterns import lazy_pattern
from fatpatch.edit.host.check_archive import archive_checks
from fatpatch.edit.host.check_elf import elf_checks
from fatpatch.edit.host.check_pe import pe_checks
from fatpatch.edit.host.second_reader import second_opinion
from fatpatch.edit.host.tree import TreeEdit
from fatpatch.edit.transaction.comparison import HostPair, TreeComparison
from fatpatch.model.kinds import HOSTS, ContainerKind, ModuleKind, Vendor
from fatpatch.model.tree import Diagnostic, Node, Payload, Wrapper
from fatpatch.scan.coverage import all_diagnostics

_NUMBER = lazy_pattern(r"0x[0-9a-f]+|\d+")

Contents = Callable[[HostPair], Iterable[CheckResult]]
"""What must hold inside the edited payloads of one host file."""


def checks_of(edit: TreeEdit, both: TreeComparison, edited: Collection[str], contents: Contents) -> list[CheckResult]:
    """Every check of an edit's result, by the tree that was read from its bytes alone. ``edited``: the payloads that are new."""
    result = [_reads_back(both.old, both.new)]
    for locator, moves in edit.moves.items():
        pair = both.pairs.get(locator)
        if pair is None:
            result.append(check_of("file found again", [f"{locator} is gone"]))
            continue
        try:
            result += _payload_checks(pair, edited, contents, compacted=locator in edit.compacted)
            if pair.old.container == ContainerKind.ELF:
                result += elf_checks(pair.old, pair.new, moves, compacted=locator in edit.compacted)
            elif pair.old.container == ContainerKind.PE:
                result += pe_checks(pair.old, pair.new, moves, compacted=locator in edit.compacted)
            if pair.old.container in HOSTS:
                result.append(second_opinion(pair.old, pair.new, moves))
        except FatpatchError as error:
            result.append(check_of("result readable", [str(error)]))
    for locator, node in both.olds.items():
        members = {where for where in edit.members if where.rsplit("!", 1)[0] == locator}
        if members and locator in both.news:
            result += archive_checks(node, both.news[locator], members, rebuilt=locator in edit.compacted)
    return result


def _reads_back(old: Node, new: Node) -> CheckResult:
    """``old`` may have errors; the same ones, with other sizes and offsets in their words, are not new."""
    before = [_kind_of(item) for item in all_diagnostics(old) if item.level == "error"]
    errors = []
    for item in all_diagnostics(new):
        if item.level == "error":
            if _kind_of(item) in before:
                before.remove(_kind_of(item))
            else:
                errors.append(f"{item.locator}: {item.message}")
    return check_of("reads back without new errors", errors)


def _kind_of(item: Diagnostic) -> tuple[str, str | None]:
    return _NUMBER.sub("", item.message), item.field


def _payload_checks(pair: HostPair, edited: Collection[str], contents: Contents, *, compacted: bool) -> Iterator[CheckResult]:
    lost, wrappers, changed = [], [], []
    before, after = (_ranks(each) if compacted else {} for each in (pair.old, pair.new))
    for payload in pair.old.payloads:
        found = pair.counterpart(payload)
        if found is None or found.kind != (
            ModuleKind.FATBIN if payload.locator in edited and payload.vendor == Vendor.NVIDIA else payload.kind
        ):
            lost.append(f"{payload.locator} is not at its place")
            continue
        if _placed(payload.wrapper, before) != _placed(found.wrapper, after):
            wrappers.append(f"{payload.locator}: its wrapper was {payload.wrapper}, is {found.wrapper}")
        if payload.locator not in edited and not _equal(pair.old, payload, pair.new, found):
            changed.append(f"{payload.locator} has other bytes than before")
    extra = len(pair.new.payloads) - len(pair.old.payloads)
    if extra:
        lost.append(f"{abs(extra)} payloads {'more' if extra > 0 else 'less'} than before")
    yield check_of("every payload found where it should be", lost)
    yield check_of("every wrapper leads to its payload", wrappers)
    yield check_of("other payloads byte-identical", changed)
    if not lost:
        yield from contents(pair)


def _ranks(node: Node) -> dict[int, int]:
    """Which wrapper of the file, in order, one at an offset is: in a compacted file all have moved, and none has overtaken another."""
    return {offset: rank for rank, offset in enumerate(sorted(each.wrapper.offset for each in node.payloads if each.wrapper is not None))}


def _placed(wrapper: Wrapper | None, ranks: Mapping[int, int]) -> Wrapper | None:
    return None if wrapper is None else wrapper._replace(offset=ranks.get(wrapper.offset, wrapper.offset))


def _equal(old: Node, first: Payload, new: Node, second: Payload) -> bool:
    return first.size == second.size and same_bytes(
        old.content.slice(first.offset, first.size), new.content.slice(second.offset, second.size)
    )
