"""The class of every kernel body in PTX text (reference: stubs, section A; PTX ISA, chapter 9).

The same walk as over machine code, for entries that a driver would compile. Only bodies with a trap or without a store are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from fatpatch.errors import LimitError
from fatpatch.images import flow
from fatpatch.images.ptx import LEAD, MAX_LEAD

_ENTRY_NAME = re.compile(rb"[ \t\r\n]+([A-Za-z_$%][\w$]*)")
_FUNC_NAME = re.compile(rb"[ \t\r\n]*(?:\([^)]{0,4000}\))?[ \t\r\n]*([A-Za-z_$%][\w$]*)")
_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LABEL = re.compile(rb"[\s{}]*([A-Za-z_$%][\w$]*)[ \t]*:(?!:)")
_STATEMENT = re.compile(rb"[\s{}]*(@!?[\w$%]+)?[\s{}]*([a-z][\w.:]*)\s*(.*)", re.DOTALL)
_CALLED = re.compile(rb"(?:\([^)]*\)\s*,\s*)?([A-Za-z_$%][\w$]*)")
_NAME = re.compile(rb"[A-Za-z_$%][\w$]*")
_STORES = re.compile(rb"\b(?:st|red|atom|sust|sured|multimem|wmma\.store|cp\.async\.bulk|cp\.reduce)[.\s]")
_NOT_GLOBAL = re.compile(rb"\.(?:shared|local|param|const)\b")
_HANDLER, _PRINTER = b"__assertfail", b"vprintf"
_MAX_STATEMENTS = 4_000_000
_Jumps = list[tuple[int, bytes, bytes]]


class _Definition(NamedTuple):
    """One .entry or .func: where its body is; ``start`` is -1 for a declaration."""

    name: bytes
    entry: bool
    start: int
    end: int


def ptx_bodies(text: bytes) -> dict[str, str]:
    """Kernel name -> class (``flow.CLASSES``) of every ``.entry`` with a body."""
    definitions = _definitions(text)
    functions = {each.name: each for each in definitions if not each.entry and each.start >= 0}
    result: dict[str, str] = {}
    budget = [_MAX_STATEMENTS]
    asserts = _HANDLER in text and _PRINTER not in text
    for each in definitions:
        if not each.entry or each.start < 0:
            continue
        name = each.name.decode("ascii", "backslashreplace")
        body = text[each.start : each.end]
        if b"trap" not in body and not _calls(body, functions) and any(_is_global(body, found) for found in _STORES.finditer(body)):
            result[name] = flow.REAL
        else:
            result[name] = flow.classify(_Program(text, each, functions, budget), asserts=asserts)
    return result


def body_texts(text: bytes, kernels: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """(name, body) of the entries that ``kernels`` names, with the bodies of functions that they call behind them."""
    definitions = _definitions(text)
    functions = {each.name: text[each.start : each.end] for each in definitions if not each.entry and each.start >= 0}
    for each in definitions:
        name = each.name.decode("ascii", "backslashreplace")
        if each.entry and each.start >= 0 and name in kernels:
            body = text[each.start : each.end]
            called = [functions[word] for word in dict.fromkeys(_NAME.findall(body)) if word in functions] if functions else []
            yield name, b"\n".join([body, *called])


def _calls(body: bytes, functions: dict[bytes, _Definition]) -> bool:
    return bool(functions) and b"call" in body


def _is_global(body: bytes, found: re.Match[bytes]) -> bool:
    operation = body[found.start() : found.start() + 80].split(None, 1)[0]
    return _kind_of_memory(operation) in (flow.EFFECT, flow.LOAD_EFFECT)


def _definitions(text: bytes) -> list[_Definition]:
    """In document order. A body reaches to the last closing brace before the next definition: what else stands there is data."""
    starts = sorted((*_places(text, b".entry"), *_places(text, b".func")))
    found = []
    for (at, entry), (limit, _) in pairwise([*starts, (len(text), False)]):
        named = (_ENTRY_NAME if entry else _FUNC_NAME).match(text, at)
        if named is None:
            continue
        brace, semicolon = text.find(b"{", named.end(), limit), text.find(b";", named.end(), limit)
        declared = brace < 0 or 0 <= semicolon < brace
        found.append(_Definition(named[1], entry, -1 if declared else brace + 1, max(text.rfind(b"}", brace, limit), brace + 1)))
    return found


def _places(text: bytes, word: bytes) -> Iterator[tuple[int, bool]]:
    """(offset behind the word, whether it is .entry) of each definition: nothing but qualifiers stand before it on its line."""
    at = text.find(word)
    while at >= 0:
        line = text.rfind(b"\n", max(at - MAX_LEAD, 0), at) + 1 or max(at - MAX_LEAD, 0)
        if LEAD.match(text, line, at):
            yield at + len(word), word == b".entry"
        at = text.find(word, at + len(word))


class _Program:
    """The statements of an entry, those of the functions that it calls behind them."""

    def __init__(self, text: bytes, entry: _Definition, functions: dict[bytes, _Definition], budget: list[int]) -> None:
        self._kinds = bytearray()
        self._targets: dict[int, tuple[int, ...] | None] = {}
        self._guarded: set[int] = set()
        self._functions = functions
        self._starts: dict[bytes, int] = {}
        calls: list[tuple[int, bytes]] = []
        self._add(text, entry, calls, budget)
        while calls:
            at, name = calls.pop()
            if name not in self._starts:
                self._starts[name] = len(self._kinds)
                self._add(text, functions[name], calls, budget)
            self._targets[at] = (self._starts[name],)
        self.kinds = bytes(self._kinds)

    def targets(self, at: int) -> tuple[int, ...] | None:
        return self._targets.get(at)

    def conditional(self, at: int) -> bool:
        return at in self._guarded

    def _add(self, text: bytes, definition: _Definition, calls: list[tuple[int, bytes]], budget: list[int]) -> None:
        labels: dict[bytes, int] = {}
        tables: dict[bytes, list[bytes]] = {}
        jumps: _Jumps = []
        body = _COMMENT.sub(b" ", text[definition.start : definition.end])
        for raw in body.split(b";"):
            statement = raw
            while (label := _LABEL.match(statement)) is not None:
                labels[label[1]] = len(self._kinds)
                statement = statement[label.end() :]
                if statement.lstrip().startswith(b".branchtargets"):
                    tables[label[1]] = _NAME.findall(statement.split(b".branchtargets", 1)[1])
            found = _STATEMENT.match(statement)
            if found is None:
                continue
            guard, operation, operands = found.groups()
            at = len(self._kinds)
            kind = self._kind(at, operation, operands, jumps, calls, entry=definition.entry)
            if kind == flow.PLAIN:
                continue
            budget[0] -= 1
            if budget[0] < 0:
                raise LimitError(f"more than {_MAX_STATEMENTS} statements in bodies with a trap", field=".entry")
            if guard is not None:
                self._guarded.add(at)
            self._kinds.append(kind)
        self._kinds.append(flow.EXIT if definition.entry else flow.RETURN)  # the end of a body returns
        for at, operation, operands in jumps:
            self._targets[at] = _jump(operation, operands, labels, tables)

    def _kind(
        self,
        at: int,
        operation: bytes,
        operands: bytes,
        jumps: list[tuple[int, bytes, bytes]],
        calls: list[tuple[int, bytes]],
        *,
        entry: bool,
    ) -> int:
        head = operation.split(b".", 1)[0]
        if head in (b"bra", b"brx"):
            jumps.append((at, head, operands))
            return flow.BRANCH
        if head == b"ret":
            return flow.EXIT if entry else flow.RETURN
        if head == b"exit":
            return flow.EXIT
        if head == b"trap":
            return flow.TRAP
        if head == b"call":
            called = _CALLED.match(operands)
            if called is not None and called[1] in self._functions:
                calls.append((at, called[1]))
                return flow.CALL
            return flow.CALL_OUT
        return _kind_of_memory(operation)


def _jump(operation: bytes, operands: bytes, labels: dict[bytes, int], tables: dict[bytes, list[bytes]]) -> tuple[int, ...] | None:
    names = _NAME.findall(operands)
    if operation == b"brx":
        names = tables.get(names[-1], []) if names else []
    elif names:
        names = names[:1]
    places = [labels[name] for name in names if name in labels]
    return tuple(places) if places and len(places) == len(names) else None


def _kind_of_memory(operation: bytes) -> int:
    """Whether a statement reads or changes global memory: state spaces of its own (shared, local, parameters) do not count."""
    head = operation.split(b".", 1)[0]
    if head in (b"st", b"red") or operation.startswith(b"wmma.store"):
        return flow.PLAIN if _NOT_GLOBAL.search(operation) else flow.EFFECT
    if head == b"atom":
        return flow.PLAIN if _NOT_GLOBAL.search(operation) else flow.LOAD_EFFECT
    if head in (b"sust", b"sured", b"multimem") or operation.startswith(b"cp.reduce"):
        return flow.EFFECT
    if operation.startswith(b"cp.async.bulk"):
        spaces = [part for part in operation.split(b".") if part in (b"global", b"shared", b"shared::cluster", b"shared::cta")]
        return flow.EFFECT if spaces[:1] == [b"global"] else flow.LOAD
    if head in (b"ld", b"ldu") or operation.startswith((b"wmma.load", b"cp.async")):
        return flow.PLAIN if _NOT_GLOBAL.search(operation) and head != b"cp" else flow.LOAD
    return flow.LOAD if head in (b"tex", b"tld4", b"suld") else flow.PLAIN
