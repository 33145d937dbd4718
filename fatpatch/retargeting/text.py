"""PTX text for another target: its directives, its definitions, and bodies taken out of it."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Collection, Iterable, Mapping

from fatpatch.base.errors import FormatError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.gpucode.ptx.bodies import Definition, definitions
from fatpatch.gpucode.ptx.read import without_comments

_VERSION = lazy_pattern(rb"^([ \t]*\.version[ \t]+)(\d{1,4}\.\d{1,4})", re.MULTILINE)
_TARGET = lazy_pattern(rb"^([ \t]*\.target[ \t]+)(?:sm|compute)_\d{1,4}[af]?", re.MULTILINE)
_TRAP = b"\n\ttrap;\n\tret;\n"
_TRAP_FUNCTION = b"\n\ttrap;\n\texit;\n"
_DEBUG = lazy_pattern(rb"^[ \t]*\.(?:loc|file|section|version|target|address_size)\b[^\n]*", re.MULTILINE)
_NAME = lazy_pattern(rb"(?<![.\w$%])[A-Za-z_$%][\w$]*")
_ANY_LABEL = lazy_pattern(rb"(?<![\w$%.])\$[\w$]+")
_LABEL = lazy_pattern(rb"(?<![\w$%.])\$[\w$]+(?=\s*:(?!:))")
_BRACE = lazy_pattern(rb'[{}]|//[^\n]*|/\*.*?\*/|"[^"\n]*"', re.DOTALL)
_BLANK = lazy_pattern(rb"\s+")
_DATA = lazy_pattern(rb"\.(?:shared|global|const|alias)\b")
_ENTRY_OR_FUNCTION = lazy_pattern(rb"(?<![\w$%.])\.(entry|func)\b")
_BY_POINTER = lazy_pattern(rb"\bcall(?:\.uni)?\s+(?:\([^)]{0,4000}\)\s*,\s*)?%")


def for_target(text: bytes, target: str, version: str | None = None) -> bytes:
    """The text with another ``.target``, and ``.version`` where one is given. FormatError when it has no such directives."""
    result, count = _TARGET.subn(lambda found: found[1] + target.encode(), text, count=1)
    if not count:
        raise FormatError("has no .target sm_NN", field=".target")
    if version is not None:
        result = _VERSION.sub(lambda found: found[1] + version.encode(), result, count=1)
    return result


class Text:
    """A PTX text with its definitions; ``entries`` are the kernels that have a body.

    FormatError for a text that compilers do not write, with several definitions on a line: a body could not be told from the next.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        every = definitions(data)
        self.definitions = [each._replace(end=_body_end(data, each)) for each in every if each.start >= 0]
        self.entries = {_name(each): each for each in self.definitions if each.entry}
        clean = without_comments(data) if b"/" in data else data
        if len(_ENTRY_OR_FUNCTION.findall(clean)) != len(every):
            raise FormatError("has .entry or .func behind other code on its line, which is not looked into", field=".entry")
        self._starts = [each.start for each in self.definitions]

    @functools.cached_property
    def _parts(self) -> dict[bytes, list[bytes]]:
        """What each name of a function, a variable or an alias stands for: code without its layout, declarations as they are."""
        found: dict[bytes, list[bytes]] = {}
        at = 0
        for each in [*self.definitions, None]:
            end = len(self.data) if each is None else max(self.data.rfind(b";", at, each.start), self.data.rfind(b"}", at, each.start)) + 1
            for statement in without_comments(self.data[at : max(end, at)]).split(b";"):
                if _DATA.search(statement):
                    for name in _NAME.findall(statement.partition(b"=")[0]):
                        found.setdefault(name, []).append(_BLANK.sub(b" ", statement).strip())
            if each is not None:
                found.setdefault(each.name, []).append(_plain(self.data[max(end, at) : each.end]))
                at = each.end + 1
        return found

    def at_lines(self, lines: Iterable[int]) -> dict[int, Definition | None]:
        """The definition of each line; the text is gone through once."""
        found: dict[int, Definition | None] = {}
        offset, at = 0, 1
        for line in sorted(set(lines)):
            while at < line and offset >= 0:
                following = self.data.find(b"\n", offset)
                if following < 0:
                    break
                offset, at = following + 1, at + 1
            found[line] = self._at(offset) if at == line else None
        return found

    def _at(self, offset: int) -> Definition | None:
        index = bisect.bisect_right(self._starts, offset) - 1
        if index >= 0 and offset <= self.definitions[index].end:
            return self.definitions[index]
        following = index + 1  # a header stands before its body
        if following < len(self.definitions) and self.data.find(b";", offset, self.definitions[following].start) < 0:
            return self.definitions[following]
        return None

    def header(self, kernel: str) -> bytes:
        """From the name of an entry to its body: parameters and launch bounds."""
        each = self.entries[kernel]
        start = self.data.rfind(b".entry", 0, each.start)
        return without_comments(self.data[max(start, 0) : each.start - 1])

    def body(self, kernel: str) -> bytes:
        """The body of an entry, without comments."""
        each = self.entries[kernel]
        return without_comments(self.data[each.start : each.end])

    def reached(self, kernel: str) -> dict[bytes, list[bytes]]:
        """Everything of the text that an entry names, and what that names, and so on: functions, variables, aliases."""
        found: dict[bytes, list[bytes]] = {}
        stack = [kernel.encode("ascii", "backslashreplace")]
        while stack:
            name = stack.pop()
            found[name] = self._parts.get(name, [])
            for part in found[name]:
                stack += [word for word in set(_NAME.findall(part)) if word in self._parts and word not in found and word not in stack]
        return found

    def calls_by_pointer(self, kernel: str) -> bool:
        """Whether what an entry calls is known at run time only."""
        return any(_BY_POINTER.search(part) for parts in self.reached(kernel).values() for part in parts)

    def callers(self, functions: Collection[bytes]) -> set[str]:
        """The entries that come by one of these functions."""
        return {name for name in self.entries if not self.reached(name).keys().isdisjoint(functions)}

    def essence(self, kernel: str) -> bytes:
        """What an entry does, without its layout: equal for two texts when a compiler has written the same code for both."""
        return b"\0".join(part for _, parts in sorted(self.reached(kernel).items()) for part in parts)

    def without(self, kernels: Collection[str], functions: Collection[bytes] = (), bodies: Mapping[str, bytes] | None = None) -> bytes:
        """The text with traps for the bodies of these kernels and functions, and other bodies for some kernels."""
        pieces, at = [], 0
        for each in self.definitions:
            name = _name(each)
            if each.entry and name in kernels:
                new = _TRAP
            elif not each.entry and each.name in functions:
                new = _TRAP_FUNCTION
            elif each.entry and bodies and name in bodies:
                new = bodies[name]
            else:
                continue
            pieces += [self.data[at : each.start], new]
            at = each.end
        return b"".join([*pieces, self.data[at:]])


def _body_end(data: bytes, definition: Definition) -> int:
    """Where the brace that closes a body is: data may stand between it and the next definition."""
    depth = 1
    for found in _BRACE.finditer(data, definition.start, definition.end + 1):
        depth += {b"{": 1, b"}": -1}.get(found[0], 0)
        if not depth:
            return found.start()
    return definition.end


def _name(definition: Definition) -> str:
    return definition.name.decode("ascii", "backslashreplace")


def _plain(part: bytes) -> bytes:
    """Code without comments, positions in the source and blanks, its own labels numbered from the first on."""
    clean = _DEBUG.sub(b"", without_comments(part))
    numbers = {label: b"$%d" % number for number, label in enumerate(dict.fromkeys(_LABEL.findall(clean)))}
    if numbers:
        clean = _ANY_LABEL.sub(lambda found: numbers.get(found[0], found[0]), clean)
    return _BLANK.sub(b" ", clean).strip()
