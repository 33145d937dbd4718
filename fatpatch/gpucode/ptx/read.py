"""PTX text: its version and target, its entries with their parameters and launch bounds (reference: PTX ISA, directives).

PTX is a stream of tokens: lines and blanks mean nothing, and comments stand wherever a blank may. Works on bytes and never splits the
whole text: PTX of a real library runs to a hundred megabytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from fatpatch.base.errors import LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.model.target import Target

ENTRY: Final = b".entry"
FUNC: Final = b".func"
ENDINGS: Final = {ENTRY: lazy_pattern(rb"y(?<=\.entry)"), FUNC: lazy_pattern(rb"c(?<=\.func)")}
"""Patterns that find words by their last letters, which are rare in PTX: half the time of a search for the word."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NUMBER = rb"(?:0[xX][0-9a-fA-F]{1,16}|0[bB][01]{1,64}|[0-9]{1,20})U?"
_WORD = lazy_pattern(rb"[\w$%]")
_NAMED = lazy_pattern(rb"\s+([A-Za-z_$%][\w$]*)")
_VERSION = lazy_pattern(rb"\.version\s+(\d{1,4})\.(\d{1,4})")
_TARGETS = lazy_pattern(rb"\.target\s+(\w+(?:\s*,\s*\w+)*)")
_ARCHITECTURE = lazy_pattern(rb"(?:sm|compute)_(\d{1,4})([af]?)\Z")
_PARAMETER = lazy_pattern(
    rb"\.param\b((?:\s*\.(?:align\s+" + NUMBER + rb"|[a-z]\w*))+)\s+[A-Za-z_$%][\w$]*((?:\s*\[\s*(?:" + NUMBER + rb")?\s*\])*)"
)
_ALIGN = lazy_pattern(rb"\.align\s+(" + NUMBER + rb")")
_TYPE = lazy_pattern(rb"\.([a-z]+)(\d{1,4})(?:x2)?(?!\w)")
_COUNT = lazy_pattern(rb"\[\s*(" + NUMBER + rb")?\s*\]")
_BOUND = lazy_pattern(rb"\.(?:maxntid|reqntid)\s+(" + NUMBER + rb"(?:\s*,\s*" + NUMBER + rb"){0,2})")
_COMMENT_OR_STRING = lazy_pattern(rb'"[^"\n]{0,65536}"|//|/\*')
_END_OF_HEADER = lazy_pattern(rb'"[^"\n]{0,65536}"|//[^\n]*|/\*.*?(?:\*/|\Z)|[{;]|\.pragma\b', re.DOTALL)
_IN_HEADERS = (b";", b'"', b"/")
"""Without these the first brace is the end of a header."""
_CLOSED = lazy_pattern(rb'"[^"\n]*"|/\*.*?\*/', re.DOTALL)
_PARAMETER_START = ((100, 0x380), (90, 0x210), (70, 0x160))
_LINE = 1 << 16
_MAX_ENTRIES = 100_000
_HEADER_LIMIT = 1 << 20
_COMMON_HEADER = 1 << 14


def looks_like_ptx(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is PTX text: nothing but comments, or a byte order mark, before ``.version``."""
    if b"\0" in head.rstrip(b"\0"):
        return False
    at = _past_blanks(head, len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0)
    return head.startswith(b".version", at)


def ptx_version(text: bytes) -> str | None:
    """``8.4`` of ``.version 8.4``."""
    found = _first(text, b".version", _VERSION)
    return f"{int(found[1])}.{int(found[2])}" if found else None


def ptx_target(text: bytes) -> str | None:
    """``compute_90a`` of ``.target sm_90a``; None when no architecture is named."""
    found = _first(text, b".target", _TARGETS)
    words = found[1].replace(b",", b" ").split() if found else ()
    named = next((match for word in words if (match := _ARCHITECTURE.match(word))), None)
    return f"compute_{int(named[1])}{named[2].decode()}" if named else None


def _first(text: bytes, word: bytes, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
    """The first directive ``word`` as the pattern has it, comments in it or not."""
    for part in (text[:_LINE], text):  # nearly always at the start, and nothing behind a place makes it a comment
        for at in places(part, word):
            piece = text[at : at + 400]
            before = piece.partition(b"/")[0]  # comments follow, nearly always
            found = pattern.match(before)
            following = b"" if found is None else before[found.end() :].lstrip()[:1]
            return found if following not in (b"", b",") else pattern.match(without_comments(piece))
    return None


def places(text: bytes, word: bytes) -> Iterator[int]:
    """Where a directive stands as a token: not in a longer word, a comment or a string."""
    return tokens(text, word, _found(text, word))


def tokens(text: bytes, word: bytes, found: Iterable[int]) -> Iterator[int]:
    """Those of the places ``found``, in ascending order, where the word is a token."""
    comments: Comments | None = None
    for at in found:
        if not _WORD.match(text, at + len(word)):
            comments = comments or Comments(text)
            if not comments.hide(at):
                yield at


def _found(text: bytes, word: bytes) -> Iterator[int]:
    if word in ENDINGS:
        for hit in ENDINGS[word].finditer(text):
            yield hit.end() - len(word)
        return
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


class Comments:
    """Which places of a text are in comments or strings; asked for in ascending order."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        slashes = b"/" in text  # a search for one byte is many times faster than one for two
        self._blocks = slashes and b"*" in text and b"/*" in text
        self._plain = not slashes and b'"' not in text
        self._start = self._end = -1

    def hide(self, at: int) -> bool:
        """Whether a comment or a string holds the place."""
        if self._plain:
            return False
        text = self._text
        line = text.rfind(b"\n", max(at - _LINE, 0), at) + 1 or max(at - _LINE, 0)
        if self._blocks and self._in_block(at):
            return True
        before = text[line:at]
        if self._blocks and line < self._end <= at:
            before = text[self._end : at]
        if b"/" not in before and b'"' not in before:
            return False
        before = _CLOSED.sub(b" ", before)
        return b"//" in before or b'"' in before

    def _in_block(self, at: int) -> bool:
        """Whether a block comment holds the place; they are stepped over from the last one on."""
        while self._start < at:
            start = self._text.find(b"/*", max(self._end, 0))
            if start < 0:
                self._start = len(self._text)
                break
            line = self._text.rfind(b"\n", max(start - _LINE, 0, self._end), start) + 1 or max(start - _LINE, 0, self._end)
            before = _CLOSED.sub(b" ", self._text[line:start])
            if b"//" in before or before.count(b'"') % 2:
                self._end = start + 2
                continue
            if start > at:
                self._start = start
                break
            end = self._text.find(b"*/", start + 2)
            self._end = len(self._text) if end < 0 else end + 2
            if start <= at < self._end:
                return True
        return False


def ptx_kernels(text: bytes, *, detail: bool = True) -> list[KernelFacts]:
    """One row for each ``.entry`` with a body; what PTX does not fix (registers, stack, code size) is None.

    Without ``detail`` launch bounds and parameters stay None, too.
    """
    rows: list[KernelFacts] = []
    start = parameter_start(ptx_target(text))
    for at in places(text, ENTRY):
        found = header_of(text, at + 6)
        if found is None:
            continue
        if len(rows) >= _MAX_ENTRIES:
            raise LimitError(f"more than {_MAX_ENTRIES} entries", field=".entry")
        name, header, _ = found
        threads, parameters = _described_once(header, name, start) if detail else (None, None)
        rows.append(KernelFacts(name, max_threads=threads, parameters=parameters))
    return rows


def header_of(text: bytes, at: int) -> tuple[str, bytes, int] | None:
    """Name, header and start of the body of the entry whose ``.entry`` ends at ``at``; None for a declaration or damage."""
    start = at
    if text[at : at + 1] == b"/" or not (named := _NAMED.match(text, at)):
        start = _past_blanks(text, at)
        named = _NAMED.match(b" " + text[start : start + 4096])
        if named is None or start == at:
            return None
        behind = start + named.end() - 1
    else:
        behind = named.end()
    body = body_of(text, behind)
    if body is None:
        return None
    header = text[behind:body]
    return named[1].decode("ascii", "backslashreplace"), without_comments(header) if b"/" in header else header, body


def body_of(text: bytes, at: int) -> int | None:
    """The brace behind a name and its header; None when a semicolon ends a declaration first. That of ``.pragma "..." ;`` ends nothing."""
    brace = text.find(b"{", at, min(len(text), at + _HEADER_LIMIT))
    if brace >= 0 and not any(text.find(mark, at, brace) >= 0 for mark in _IN_HEADERS):
        return brace
    pragma = False
    for found in _END_OF_HEADER.finditer(text, at, min(len(text), at + _HEADER_LIMIT)):
        if found[0] == b"{":
            return found.start()
        if found[0] == b";" and not pragma:
            return None
        pragma = found[0] == b".pragma" or (pragma and found[0] != b";")
    return None


def _past_blanks(text: bytes, at: int) -> int:
    """The offset of the first byte from ``at`` on that is neither white space nor in a comment."""
    while at < len(text):
        if text[at : at + 1].isspace():
            at += 1
        elif text.startswith((b"//", b"/*"), at):
            at = _comment_end(text, at)
        else:
            break
    return at


def _comment_end(text: bytes, at: int) -> int:
    """The offset behind the comment at ``at``, the end of its line left; one without an end takes the rest."""
    end = text.find(b"\n", at) if text[at + 1 : at + 2] == b"/" else text.find(b"*/", at + 2)
    return len(text) if end < 0 else end if text[at + 1 : at + 2] == b"/" else end + 2


def without_comments(text: bytes) -> bytes:
    """The text with a blank for each comment; what looks like one inside a string is none."""
    pieces, at = [], 0
    while (found := _COMMENT_OR_STRING.search(text, at)) is not None:
        if found[0].startswith(b'"'):
            pieces.append(text[at : found.end()])
            at = found.end()
        else:
            pieces += [text[at : found.start()], b" "]
            at = _comment_end(text, found.start())
    pieces.append(text[at:])
    return b"".join(pieces)


def number(digits: bytes) -> int:
    """A PTX integer literal: decimal, hexadecimal (0x), binary (0b) or octal (a leading 0); ``U`` means unsigned."""
    digits = digits.rstrip(b"U").lower()
    if digits.startswith((b"0x", b"0b")):
        return int(digits, 0)
    try:
        return int(digits, 8) if digits.startswith(b"0") else int(digits)
    except ValueError:  # 09: no octal number, and none for ptxas
        return int(digits)


def elements(dimensions: bytes) -> int:
    """How many elements ``[2][3]`` has; 1 without brackets, 0 for ``[]``."""
    product = 1
    for count in _COUNT.findall(dimensions):
        product *= number(count) if count else 0
    return product


def parameter_start(target: str | None) -> int:
    """Where the parameters begin in constant bank 0, for what their alignment is concerned: ptxas aligns the address in the bank.

    Found with ptxas 12.9 for every target from sm_50 on: 0x160 before sm_90, 0x210 for sm_90, 0x380 from sm_100 on; before sm_70 the
    place among the parameters is aligned.
    """
    arch = Target(target or "").arch or 0
    return next((start for first, start in _PARAMETER_START if arch >= first), 0)


def _described_once(header: bytes, name: str, start: int) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """``_described``; headers that differ in the name of their kernel only, which compilers put before each parameter's, are read once."""
    if len(header) > _COMMON_HEADER:
        return _described(header, start)
    return _described_short(header.replace(name.encode("ascii", "backslashreplace") + b"_param_", b"_param_"), start)


@functools.lru_cache(maxsize=1024)
def _described_short(header: bytes, start: int) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    return _described(header, start)


def _described(header: bytes, start: int) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """Most threads a block may have, and the place of each parameter: natural alignment unless ``.align`` says more.

    ``start`` is that of ``parameter_start``.
    """
    close = header.rfind(b")")
    parameters = []
    at = 0
    for attributes, dimensions in _PARAMETER.findall(header[: close + 1]):
        own = attributes.partition(b".ptr")[0]  # what follows .ptr describes the memory that it leads to
        typed = _TYPE.search(own)
        if typed is None:
            continue  # .texref and the like take no room
        width = max(int(typed[2]) // 8, 1)
        aligned = _ALIGN.search(own, 0, typed.start())  # behind the type ptxas ignores it
        alignment = number(aligned[1]) if aligned else width
        at = (start + at + alignment - 1) // alignment * alignment - start if alignment else at
        size = width * elements(dimensions) if dimensions else width
        parameters.append((at, size))
        at += size
    bound = _BOUND.search(header, close + 1)
    threads = 1 if bound else None
    for part in bound[1].split(b",") if bound else ():
        threads = (threads or 1) * number(part.strip())
    return threads, tuple(parameters)
