"""PTX text for another target: its directives, its definitions, and bodies taken out of it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Collection, Iterable, Mapping

from fatpatch.errors import FormatError
from fatpatch.images.ptx import without_comments
from fatpatch.images.ptx_bodies import Definition, definitions

_VERSION = re.compile(rb"^([ \t]*\.version[ \t]+)(\d{1,4}\.\d{1,4})", re.MULTILINE)
_TARGET = re.compile(rb"^([ \t]*\.target[ \t]+)(?:sm|compute)_\d{1,4}[af]?", re.MULTILINE)
_TRAP = b"\n\ttrap;\n\tret;\n"
_TRAP_FUNCTION = b"\n\ttrap;\n\texit;\n"
_DEBUG = re.compile(rb"^[ \t]*\.(?:loc|file|section)\b[^\n]*", re.MULTILINE)
_WORD = re.compile(rb"[A-Za-z_$%][\w$]*")
_LABEL = re.compile(rb"\$[\w$]+")
_BLANK = re.compile(rb"\s+")
_CALL = re.compile(rb"\bcall(?:\.uni)?\s+(?:\([^)]{0,4000}\)\s*,\s*)?([A-Za-z_$%][\w$]*)")
_MODULE_DATA = re.compile(rb"^[ \t]*(?:\.(?:visible|weak|extern|common)[ \t]+)*\.(?:shared|global|const)\b[^;]{0,100000};", re.MULTILINE)


def for_target(text: bytes, target: str, version: str | None = None) -> bytes:
    """The text with another ``.target``, and ``.version`` where one is given. FormatError when it has no such directives."""
    result, count = _TARGET.subn(lambda found: found[1] + target.encode(), text, count=1)
    if not count:
        raise FormatError("has no .target sm_NN", field=".target")
    if version is not None:
        result = _VERSION.sub(lambda found: found[1] + version.encode(), result, count=1)
    return result


class Text:
    """A PTX text with its definitions; ``entries`` are the kernels that have a body."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.definitions = [each for each in definitions(data) if each.start >= 0]
        self.entries = {_name(each): each for each in self.definitions if each.entry}
        self._functions = {each.name: each for each in self.definitions if not each.entry}
        self._starts = [each.start for each in self.definitions]
        self._data = {name: found[0] for found in _MODULE_DATA.finditer(data) for name in _WORD.findall(found[0])[:12]}

    def at_line(self, line: int) -> Definition | None:
        """The definition that a line (from 1) belongs to, its header included."""
        offset = -1
        for _ in range(line - 1):
            offset = self.data.find(b"\n", offset + 1)
            if offset < 0:
                return None
        return self._at(offset + 1)

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

    def reached(self, kernel: str) -> list[Definition]:
        """The functions of the text that an entry calls, and those that they call."""
        found: dict[bytes, Definition] = {}
        stack = [self.entries[kernel]]
        while stack:
            each = stack.pop()
            for name in _CALL.findall(self.data, each.start, each.end):
                if name in self._functions and name not in found:
                    found[name] = self._functions[name]
                    stack.append(found[name])
        return [found[name] for name in sorted(found)]

    def callers(self, functions: Collection[bytes]) -> set[str]:
        """The entries that call one of these functions, themselves or through others."""
        return {name for name in self.entries if any(each.name in functions for each in self.reached(name))}

    def essence(self, kernel: str) -> bytes:
        """What an entry does, without its layout: equal for two texts when a compiler has written the same code for both.

        Its header, its body, the functions that it reaches and the module's data that these name.
        """
        each = self.entries[kernel]
        parts = [self.header(kernel), *(self.data[part.start : part.end] for part in (each, *self.reached(kernel)))]
        named = dict.fromkeys(word for part in parts for word in _WORD.findall(part) if word in self._data)
        return b"\0".join(_plain(part) for part in (*parts, *(self._data[name] for name in named)))

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


def _name(definition: Definition) -> str:
    return definition.name.decode("ascii", "backslashreplace")


def _plain(part: bytes) -> bytes:
    """Code without comments, positions in the source and blanks, its labels numbered from the first on."""
    clean = _DEBUG.sub(b"", without_comments(part))
    numbers: dict[bytes, int] = {}
    numbered = _LABEL.sub(lambda found: b"$%d" % numbers.setdefault(found[0], len(numbers)), clean)
    return _BLANK.sub(b" ", numbered).strip()
