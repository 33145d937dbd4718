"""The class of every kernel body in PTX text (reference: stubs, section A; PTX ISA, chapter 9).

The same walk as over machine code, for entries that a driver would compile. Only bodies with a trap or without a store are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice, pairwise

from fatpatch.base.errors import LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode import flow
from fatpatch.gpucode.ptx.read import ENTRY, FUNC, body_of, places, tokens, without_comments
from fatpatch.gpucode.ptx.text import MAX_ENTRIES, PtxText
from fatpatch.gpucode.seen import key_of

_ENTRY_NAME = lazy_pattern(rb"[ \t\r\n]+([A-Za-z_$%][\w$]*)")
_FUNC_NAME = lazy_pattern(rb"[ \t\r\n]*(?:\([^)]{0,4000}\)[ \t\r\n]*)?([A-Za-z_$%][\w$]*)")
_LINE = lazy_pattern(rb"^[ \t]*\.(?:loc|file|section)\b[^\n]*", re.MULTILINE)
_LOC = lazy_pattern(rb"\.loc\b")  # .local is another word, and frequent
_LABEL = lazy_pattern(rb"([A-Za-z_$%][\w$]*)[ \t]*:(?!:)")
_STATEMENT = lazy_pattern(rb"(@!?[\w$%]+[\s{}]+)?([a-z][\w.:]*)(?:\s+(.*))?\Z", re.DOTALL)
_CALLED = lazy_pattern(rb"(?:\([^)]{0,4000}\)\s*,\s*)?([A-Za-z_$%][\w$]*)")
_CALL = lazy_pattern(rb"call(?<!\wcall)(?:\.uni)?\s+(?:\([^)]{0,4000}\)\s*,\s*)?([A-Za-z_$%][\w$]*)")
_NAME = lazy_pattern(rb"[A-Za-z_$%][\w$]*")
_STORES = lazy_pattern(rb"\b(?:st|red|atom|sust|sured|multimem|wmma\.store|cp\.async\.bulk|cp\.reduce)[.\s]")
_NOT_GLOBAL = lazy_pattern(rb"\.(?:shared|local|param|const)\b")
_USUAL_STORES = (b"st.global", b"red.global", b"atom.global")
_PART_OF_NAME = lazy_pattern(rb"\w")
_QUICK, _PART, _BODY = -1, -3, -5  # one more where traps may be assertions: numbers that cubins do not ask with
_SHORT = 1 << 12
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_BLANKS = b" \t\r\n{}"
_HANDLER = b"__assertfail"
_MAX_STATEMENTS = 4_000_000
_MAX_TARGETS = 1_000_000
_MAX_KNOWN = 4096
_OF_MEMORY = frozenset({flow.PLAIN, flow.LOAD, flow.EFFECT, flow.LOAD_EFFECT})
_SOURCE = (b".file", b".section")
_Jumps = list[tuple[int, bytes, bytes]]


class Definition(NamedTuple):
    """One .entry or .func: where its body is; ``start`` is -1 for a declaration."""

    name: bytes
    entry: bool
    start: int
    end: int


def ptx_bodies(text: bytes) -> dict[str, str]:
    """Kernel name -> class (see ``flow``) of every ``.entry`` with a body. LimitError when there is too much to look at."""
    return classified(PtxText(text))


def classified(ptx: PtxText) -> dict[str, str]:
    """``ptx_bodies`` of a text in parts: a part that was seen before, in this text or another, is not looked at again."""
    parser = _Parser(ptx.text, definitions_of(ptx))
    entries = [each for each in parser.definitions if each.entry]
    # without functions to call, and with one entry in each part, a class hangs on the part alone
    alone = len(entries) == len(ptx.entries) and not parser.functions
    judge = _Classes(parser, ptx)
    result: dict[str, str] = {}
    for index, each in enumerate(entries):
        if each.start >= 0:
            name = each.name.decode("ascii", "backslashreplace")
            result[name] = judge.of_part(each, index + 1) if alone else judge.of_entry(each)
    return result


class _Classes:
    """The classes of the entries of one text."""

    def __init__(self, parser: _Parser, ptx: PtxText) -> None:
        self._parser = parser
        self._ptx = ptx
        self._seen = ptx.seen
        self._blocks = flow.BlockBudget()

    @cached_property
    def _asserts(self) -> bool:
        """Whether assertions are all that the text calls; asked for only where it has a trap."""
        return not self._ptx.prints() and _HANDLER in self._parser.text

    def of_part(self, entry: Definition, part: int) -> str:
        """The class of the only entry of a part."""
        key, traps = self._ptx.keys[part], self._ptx.counts[part].traps
        quick = self._seen.body(key, _QUICK, lambda: self._quick(entry, traps=traps))
        return quick or self._seen.body(key, _PART + self._asserts, lambda: self._walked(entry))

    def of_entry(self, entry: Definition) -> str:
        """The class of any entry."""
        return self._quick(entry) or self._walked(entry)

    def _quick(self, entry: Definition, *, traps: bool = True) -> str:
        """The class of a body that stores and has no trap; else nothing. ``traps``: whether there may be one."""
        text, start, end = self._parser.text, entry.start, entry.end
        if self._calls(entry) or (traps and text.find(b"trap", start, end) >= 0):
            return ""
        return flow.REAL if _stores(text, start, end) else ""

    def _calls(self, entry: Definition) -> bool:
        return bool(self._parser.functions) and self._parser.text.find(b"call", entry.start, entry.end) >= 0

    def _walked(self, entry: Definition) -> str:
        if entry.end - entry.start <= _SHORT and not self._calls(entry):
            body = self._parser.text[entry.start : entry.end]
            if b"br" not in body:  # stubs differ in the numbers of their strings and lines only
                return self._seen.body(key_of(body.translate(_DIGITS)), _BODY + self._asserts, lambda: self._classify(entry))
        return self._classify(entry)

    def _classify(self, entry: Definition) -> str:
        return flow.classify(self._parser.program(entry), asserts=self._asserts, budget=self._blocks)


def _stores(text: bytes, start: int, end: int) -> bool:
    """Whether a statement of a body changes global memory. The usual ones are looked for by their first words, many times faster.

    They stand near the end.
    """
    for word in _USUAL_STORES:
        at = text.rfind(word, start, end)
        if at > start and not _PART_OF_NAME.match(text, at - 1) and _is_global(text, at, end):
            return True
    return any(_is_global(text, found.start(), end) for found in _STORES.finditer(text, start, end))


def _without_lines(body: bytes) -> bytes:
    """A body without comments and without what says where its lines come from."""
    if b"/" in body or b'"' in body:
        body = without_comments(body)
    return _LINE.sub(b"", body) if _LOC.search(body) or any(word in body for word in _SOURCE) else body


def body_words(text: bytes, kernels: frozenset[str]) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """(kernel, the names in its body and then those in the functions that it calls) for the entries that ``kernels`` names."""
    found = definitions(text)
    functions = {each.name: each for each in found if not each.entry and each.start >= 0}
    words: dict[bytes, tuple[bytes, ...]] = {}
    for each in found:
        name = each.name.decode("ascii", "backslashreplace")
        if not each.entry or each.start < 0 or name not in kernels:
            continue
        own = tuple(dict.fromkeys(_NAME.findall(text, each.start, each.end)))
        for called in own:
            if called in functions and called not in words:
                words[called] = tuple(dict.fromkeys(_NAME.findall(text, functions[called].start, functions[called].end)))
        yield name, own + tuple(word for called in own for word in words.get(called, ()))


def called_functions(text: bytes) -> frozenset[bytes]:
    """The names that a text calls anywhere."""
    return frozenset(_CALL.findall(text))


def callers_of(text: bytes, missing: frozenset[bytes]) -> list[str]:
    """The entries that call one of the functions ``missing``, themselves or through functions of the text."""
    found = [each for each in definitions(text) if each.start >= 0]
    calls = {each.name: frozenset(_CALL.findall(text, each.start, each.end)) for each in found}
    callers: dict[bytes, list[bytes]] = {}
    for name, called in calls.items():
        for function in called:
            callers.setdefault(function, []).append(name)
    guilty: set[bytes] = set()
    stack = list(missing)
    while stack:
        new = [name for name in callers.get(stack.pop(), ()) if name not in guilty]
        guilty.update(new)
        stack += new
    return [each.name.decode("ascii", "backslashreplace") for each in found if each.entry and each.name in guilty]


def _is_global(text: bytes, at: int, end: int) -> bool:
    operation = text[at : min(at + 80, end)].split(None, 1)[0]
    return _kind_of_memory(operation) in (flow.EFFECT, flow.LOAD_EFFECT)


def definitions(text: bytes) -> list[Definition]:
    """In document order. A body reaches to the last closing brace before the next definition: what else stands there is data."""
    return _definitions(text, places(text, ENTRY), places(text, FUNC))


def definitions_of(ptx: PtxText) -> list[Definition]:
    """``definitions`` of a text in parts."""
    return _definitions(ptx.text, tokens(ptx.text, ENTRY, ptx.entries), tokens(ptx.text, FUNC, ptx.functions()))


def _definitions(text: bytes, entries: Iterable[int], functions: Iterable[int]) -> list[Definition]:
    found_entries = [(at + len(ENTRY), True) for at in islice(entries, MAX_ENTRIES + 1)]
    starts = sorted(found_entries + [(at + len(FUNC), False) for at in islice(functions, MAX_ENTRIES + 1)])
    if len(starts) > MAX_ENTRIES:
        raise LimitError(f"more than {MAX_ENTRIES} entries and functions", field=".entry")
    found = []
    for (at, entry), (limit, _) in pairwise([*starts, (len(text), False)]):
        named = (_ENTRY_NAME if entry else _FUNC_NAME).match(text, at)
        if named is None:
            head = b" " + without_comments(text[at : min(limit, at + 8192)])
            named = (_ENTRY_NAME if entry else _FUNC_NAME).match(head)
            if named is None:
                continue
        brace = body_of(text, at)
        if brace is not None and brace >= limit:
            brace = None
        end = 0 if brace is None else max(text.rfind(b"}", brace, limit), brace + 1)
        found.append(Definition(named[1], entry, -1 if brace is None else brace + 1, end))
    return found


class _Parsed(NamedTuple):
    """The statements of one body that count: ``targets`` are numbers in this body, ``calls`` name functions of the text."""

    kinds: bytes
    targets: dict[int, tuple[int, ...] | None]
    guarded: frozenset[int]
    calls: tuple[tuple[int, bytes], ...]


class _Program:
    """An entry, and the functions that it calls behind it; each body is parsed once, however often it is called."""

    def __init__(self, bodies: list[_Parsed], starts: dict[bytes, int]) -> None:
        self.kinds = b"".join(body.kinds for body in bodies)
        self.controls = flow.controls_of(self.kinds)
        self._targets: dict[int, tuple[int, ...] | None] = {}
        self._guarded: set[int] = set()
        base = 0
        for body in bodies:
            for at, targets in body.targets.items():
                self._targets[base + at] = None if targets is None else tuple(base + target for target in targets)
            for at, name in body.calls:
                self._targets[base + at] = (starts[name],)
            self._guarded.update(base + at for at in body.guarded)
            base += len(body.kinds)

    def targets(self, at: int) -> tuple[int, ...] | None:
        return self._targets.get(at)

    def conditional(self, at: int) -> bool:
        return at in self._guarded

    def stores_parameter(self, start: int, end: int) -> bool:
        return False  # operands are not kept


class _Parser:
    """The bodies of one text, parsed when asked for."""

    def __init__(self, text: bytes, found: list[Definition]) -> None:
        self.text = text
        self.definitions = found
        self.functions = {each.name: each for each in self.definitions if not each.entry and each.start >= 0}
        self._parsed: dict[bytes, _Parsed] = {}
        self._known: dict[bytes, int] = {}
        self._statements, self._targets = _MAX_STATEMENTS, _MAX_TARGETS

    def program(self, entry: Definition) -> _Program:
        """The entry with all functions that it reaches."""
        bodies, starts, size = [self._parse(entry)], dict[bytes, int](), 0
        queue = 0
        while queue < len(bodies):
            size += len(bodies[queue].kinds)
            for _, name in bodies[queue].calls:
                if name not in starts:
                    starts[name] = -1
                    if name not in self._parsed:
                        self._parsed[name] = self._parse(self.functions[name])
                    bodies.append(self._parsed[name])
            queue += 1
        self._spend(size)
        at = len(bodies[0].kinds)
        for name, body in zip(starts, bodies[1:], strict=True):
            starts[name] = at
            at += len(body.kinds)
        return _Program(bodies, starts)

    def _spend(self, statements: int, targets: int = 0) -> None:
        self._statements -= statements
        self._targets -= targets
        if min(self._statements, self._targets) < 0:
            raise LimitError(f"more than {_MAX_STATEMENTS} statements or {_MAX_TARGETS} branch targets to look at", field=".entry")

    def _parse(self, definition: Definition) -> _Parsed:
        kinds = bytearray()
        guarded: set[int] = set()
        labels: dict[bytes, int] = {}
        tables: dict[bytes, tuple[bytes, ...]] = {}
        jumps: list[tuple[int, bytes, bytes]] = []
        calls: list[tuple[int, bytes]] = []
        statements = _without_lines(self.text[definition.start : definition.end]).split(b";")
        self._spend(len(statements))
        known = self._known
        for raw in statements:
            words = raw.split(None, 1)
            if words and (usual := known.get(words[0])) is not None:
                if usual != flow.PLAIN:
                    kinds.append(usual)
                continue
            statement = raw.strip(_BLANKS)
            while (label := _LABEL.match(statement)) is not None:
                labels[label[1]] = len(kinds)
                statement = statement[label.end() :].lstrip(_BLANKS)
                self._spend(1 + len(statement) // 64)
                if statement.startswith(b".branchtargets"):
                    tables[label[1]] = tuple(dict.fromkeys(_NAME.findall(statement[14:])))
            if not statement or statement.startswith(b"."):
                continue
            found = _STATEMENT.match(statement)
            at = len(kinds)
            if found is None:
                kinds.append(flow.OPAQUE)
                continue
            guard, operation, operands = found.groups()
            kind = self._kind(at, operation, operands or b"", jumps, calls, entry=definition.entry)
            if kind != flow.PLAIN:
                kinds.append(kind)
                if guard is not None:
                    guarded.add(at)
            if guard is None and kind in _OF_MEMORY and b"." in operation and len(known) < _MAX_KNOWN:
                known[operation] = kind
        kinds.append(flow.EXIT if definition.entry else flow.RETURN)  # the end of a body returns
        targets = {at: self._jump(operation, operands, labels, tables) for at, operation, operands in jumps}
        return _Parsed(bytes(kinds), targets, frozenset(guarded), tuple(calls))

    def _kind(self, at: int, operation: bytes, operands: bytes, jumps: _Jumps, calls: list[tuple[int, bytes]], *, entry: bool) -> int:
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
            if called is not None and called[1] in self.functions:
                calls.append((at, called[1]))
                return flow.CALL
            return flow.CALL_OUT
        return _kind_of_memory(operation)

    def _jump(
        self, operation: bytes, operands: bytes, labels: dict[bytes, int], tables: dict[bytes, tuple[bytes, ...]]
    ) -> tuple[int, ...] | None:
        names = tuple(_NAME.findall(operands))
        names = tables.get(names[-1], ()) if operation == b"brx" and names else names[:1]
        self._spend(0, len(names))
        places = tuple(labels[name] for name in names if name in labels)
        return places if places and len(places) == len(names) else None


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
