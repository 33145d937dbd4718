"""Which kernels host code registers with the CUDA runtime.

nvcc writes one constructor per source file. It passes the address of a wrapper to ``__cudaRegisterFatBinary`` and then, there or in a
callback, calls ``__cudaRegisterFunction`` once a kernel (reference: crt/host_runtime.h and the constructors in real libraries). The
fourth argument is the kernel's name as a C string: in ``rcx`` on Linux, in ``r9`` on Windows.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from itertools import chain, islice
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.code import HostCode, Texts, read_host
from fatpatch.hostcode.entry_points import EntryPoint, calls, find_entry_point
from fatpatch.hostcode.references import LEA, CodeReference, constants, references
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node

_REGISTER: Final = b"__cudaRegisterFunction"
_BEFORE_CALL = 160
_MAX_CALLS = 1 << 17
_MAX_FOLLOWED = 1 << 14
_MAX_LOADS = 1 << 19
_MAX_STRANGE = 1 << 12
_NAME = lazy_pattern(rb"[A-Za-z_][\w$.]*\Z")
_LEA = lazy_pattern(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=....)", re.DOTALL)
_MOV = lazy_pattern(rb"[\xb8-\xbf](?=....)", re.DOTALL)


class Registration(NamedTuple):
    """What host code says of its kernels, against the names in the images.

    ``kernels`` are those of the images that host code passes to a proven call, or at least loads the address of; ``unknown`` are
    passed to a proven call and in no image. ``reason`` says in words how far the answer goes.
    """

    kernels: frozenset[str]
    unknown: frozenset[str]
    proven: bool
    reason: str


class _Site(NamedTuple):
    address: int
    name: str


def registered(node: Node, names: frozenset[str]) -> Registration:
    """Compare what the host code of one file registers with ``names``, the mangled kernel names of its images.

    Only the code of ``node`` itself is read, not that of its members. Nothing is raised for odd code: ``reason`` says what is missing.
    """
    host, reason = read_host(node)
    if host is None:
        return Registration(frozenset(), frozenset(), False, reason)
    texts = Texts(host)
    entry = find_entry_point(host, _REGISTER)
    sites, unread = _at_calls(host, entry, texts, names) if entry is not None else ([], 0)
    proven = bool(sites)
    rest = names - {site.name for site in sites}
    loads = _loads(host, texts, rest) if rest else []
    known = frozenset(site.name for site in (*sites, *loads)) & names
    unknown = frozenset(site.name for site in sites) - names
    words = _words(host, entry, len(sites), unread, known)
    return Registration(known, unknown, proven, words)


def _words(host: HostCode, entry: EntryPoint | None, sites: int, unread: int, known: frozenset[str]) -> str:
    if sites and entry is not None:
        words = f"{sites} calls of {_REGISTER.decode()}, known by {entry.evidence}"
        words += f"; the name is not readable at {unread} more" if unread else ""
    elif entry is not None:
        words = f"{_REGISTER.decode()} is known by {entry.evidence}, but no call with a readable name was found"
    elif known:
        words = (
            f"no symbol or import leads to {_REGISTER.decode()} (the runtime is linked in and stripped, or there is none): "
            "the names are only known to be loaded by host code"
        )
    else:
        words = f"no symbol or import leads to {_REGISTER.decode()}, and host code loads the address of no kernel's name"
    return words if host.complete else words + "; the file is so large that only a part of its code was read"


def _at_calls(host: HostCode, entry: EntryPoint, texts: Texts, names: frozenset[str]) -> tuple[list[_Site], int]:
    """The name passed at each call, and at how many calls it could not be read."""
    sites: list[_Site] = []
    unread = last = 0
    follower: _Follower | None = None
    places = calls(host, entry, _MAX_CALLS)
    loaded = [_addresses_before(host, call, previous) for call, previous in _with_previous(places)]
    wanted = sorted({address for addresses in loaded for address in addresses})
    strings = {address: text for address in wanted if (text := texts.at(address)) is not None and text.decode("utf-8", "replace") in names}
    for call, addresses in zip(places, loaded, strict=True):
        found = [name for address in addresses if (name := strings.get(address, b"").decode("utf-8", "replace")) in names]
        if not found:
            follower = follower or _Follower(host)
            text = texts.at(argument) if (argument := follower.name_address(call, last)) is not None else None
            found = [text.decode()] if text is not None and _NAME.match(text) and len(text) <= _MAX_STRANGE else []
        if found:
            sites.append(_Site(call.start, found[-1]))
        else:
            unread += 1
        last = call.end
    return sites, unread


def _with_previous(places: list[CodeReference]) -> Iterable[tuple[CodeReference, int]]:
    last = 0
    for call in places:
        yield call, last
        last = call.end


def _before(host: HostCode, call: CodeReference, previous: int) -> tuple[int, bytes]:
    """The bytes before a call, back to the previous one but not far."""
    start = max(call.start - _BEFORE_CALL, previous)
    for part in host.code:
        if start < part.address <= call.start:
            start = part.address
    offset = host.offset_of(start)
    return start, b"" if offset is None else host.source.peek(offset, call.start - start)


def _addresses_before(host: HostCode, call: CodeReference, previous: int) -> list[int]:
    """The addresses that the code before a call loads, by its bytes alone."""
    start, data = _before(host, call, previous)
    found = [start + (end := hit.start() + 7) + int.from_bytes(data[end - 4 : end], "little", signed=True) for hit in _LEA.finditer(data)]
    if host.fixed:
        found += [int.from_bytes(data[hit.start() + 1 : hit.start() + 5], "little") for hit in _MOV.finditer(data)]
    return found


class _Follower:
    """Follows addresses through the registers up to a call; a decoder for all calls of a file."""

    def __init__(self, host: HostCode) -> None:
        from capstone import CS_ARCH_X86, CS_MODE_64, Cs

        self._host = host
        self._left = _MAX_FOLLOWED
        self._decoder = Cs(CS_ARCH_X86, CS_MODE_64)
        self._decoder.detail = True

    def name_address(self, call: CodeReference, previous: int) -> int | None:
        """What the argument with the kernel's name holds at a call; None when it is not a known address."""
        from capstone.x86_const import X86_OP_IMM, X86_OP_MEM, X86_OP_REG, X86_REG_RIP

        self._left -= 1
        start, data = _before(self._host, call, previous)
        first = min((hit.start() for hit in (_LEA.search(data), _MOV.search(data) if self._host.fixed else None) if hit), default=None)
        if first is None or self._left < 0:
            return None
        registers: dict[str, int | None] = {}
        for code in self._decoder.disasm(data[first:], start + first):  # what loads an address surely is an instruction
            if code.mnemonic == "call":
                registers.clear()
            if len(code.operands) != 2 or code.operands[0].type != X86_OP_REG:
                continue
            source, value = code.operands[1], None
            if code.mnemonic == "lea" and source.type == X86_OP_MEM and source.mem.base == X86_REG_RIP:
                value = code.address + code.size + source.mem.disp
            elif code.mnemonic == "mov" and source.type == X86_OP_REG:
                value = registers.get(_whole(code.reg_name(source.reg)))
            elif code.mnemonic == "mov" and source.type == X86_OP_IMM:
                value = source.imm & 0xFFFFFFFF
            registers[_whole(code.reg_name(code.operands[0].reg))] = value
        return registers.get("r9" if self._host.kind == ContainerKind.PE else "rcx")


def _whole(register: str) -> str:
    """The 64-bit name of a register: ``rcx`` of ``ecx``, ``r9`` of ``r9d``."""
    return "r" + register[1:] if register.startswith("e") else register.rstrip("d") if register.startswith("r") else register


def _loads(host: HostCode, texts: Texts, names: frozenset[str]) -> list[_Site]:
    """Where host code loads the address of one of the names, in whatever way it goes on to use it."""
    low, high = texts.span
    starts, targets = array("Q"), array("Q")  # hundreds of thousands, as numbers and not as objects
    for reference in islice(chain(references(host, LEA, low, high), constants(host, low, high)), _MAX_LOADS):
        starts.append(reference.start)
        targets.append(reference.target)
    by_address: dict[int, str] = {}
    wanted = {name.encode("utf-8", "replace") for name in names}
    for address in sorted(set(targets)):
        text = texts.at(address)
        if text in wanted and text is not None:
            by_address[address] = text.decode("utf-8", "replace")
    return [_Site(start, by_address[target]) for start, target in zip(starts, targets, strict=True) if target in by_address]
