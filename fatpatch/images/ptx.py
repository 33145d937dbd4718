"""PTX text: its version and target, its entries with their parameters and launch bounds (reference: PTX ISA, directives).

Works on bytes and never splits the whole text: PTX of a real library runs to a hundred megabytes.
"""

from __future__ import annotations

import re

from fatpatch.errors import LimitError
from fatpatch.images.rows import KernelRow

_VERSION = re.compile(rb"^[ \t]*\.version[ \t]+(\d{1,4})\.(\d{1,4})", re.MULTILINE)
_TARGET = re.compile(rb"^[ \t]*\.target[ \t]+(?:sm|compute)_(\d{1,4})([af]?)", re.MULTILINE)
_ENTRY = re.compile(rb"\.entry[ \t\r\n]+([A-Za-z_$%][\w$]*)")
LEAD = re.compile(rb"[ \t]*(?:\.(?:visible|weak|extern|noreturn)[ \t]+)*\Z")
_PARAMETER = re.compile(
    rb"\.param[\s]+(?:\.align[\s]+(\d{1,6})[\s]+)?\.([a-z]+)(\d{1,4})(?:x2)?(?:[\s]+\.ptr(?:[\s]+\.(?:global|shared|local|const|param))?"
    rb"(?:[\s]+\.align[\s]+\d+)?)?[\s]+[\w$%]+(?:\[(\d{0,9})\])?"
)
_BOUND = re.compile(rb"\.(?:maxntid|reqntid)[\s]+(\d{1,9})(?:[\s]*,[\s]*(\d{1,9}))?(?:[\s]*,[\s]*(\d{1,9}))?")
_COMMENT_OR_STRING = re.compile(rb'"[^"\n]{0,65536}"|//|/\*')
_BODY_OR_END = re.compile(rb"[{;]")
MAX_LEAD = 200
_MAX_ENTRIES = 100_000
_HEADER_LIMIT = 1 << 20


def looks_like_ptx(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is PTX text: nothing but comments before ``.version``."""
    if b"\0" in head.rstrip(b"\0"):
        return False
    at = _past_blanks(head, 0)
    return head.startswith(b".version", at)


def ptx_version(text: bytes) -> str | None:
    """``8.4`` of ``.version 8.4``."""
    found = _VERSION.search(text)
    return f"{int(found[1])}.{int(found[2])}" if found else None


def ptx_target(text: bytes) -> str | None:
    """``compute_90a`` of ``.target sm_90a``."""
    found = _TARGET.search(text)
    return f"compute_{int(found[1])}{found[2].decode()}" if found else None


def ptx_kernels(text: bytes) -> list[KernelRow]:
    """One row for each ``.entry`` with a body; what PTX does not fix (registers, stack, code size) is None."""
    rows: list[KernelRow] = []
    following = text.find(b".entry")
    while following >= 0:
        at = following
        following = text.find(b".entry", at + 6)
        line = text.rfind(b"\n", max(at - MAX_LEAD, 0), at) + 1 or max(at - MAX_LEAD, 0)
        found = _ENTRY.match(text, at)
        if found is None or not LEAD.match(text, line, at):
            continue
        header, has_body = _header(text, found.end(), following if following >= 0 else len(text))
        if has_body:
            if len(rows) >= _MAX_ENTRIES:
                raise LimitError(f"more than {_MAX_ENTRIES} entries", field=".entry")
            rows.append((found[1].decode("ascii", "backslashreplace"), None, None, None, None, *_described(header), None, None))
    return rows


def _header(text: bytes, start: int, limit: int) -> tuple[bytes, bool]:
    """What stands between the name and the body, and whether there is a body before ``limit`` (else it is a declaration)."""
    found = _BODY_OR_END.search(text, start, min(limit, start + _HEADER_LIMIT))
    if found is None or found[0] == b";":
        return b"", False
    header = text[start : found.start()]
    return (without_comments(header) if b"/" in header else header), True


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


def _described(header: bytes) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """Most threads a block may have, and the place of each parameter: natural alignment unless ``.align`` says more."""
    close = header.rfind(b")")
    parameters = []
    at = 0
    for align, _, bits, count in _PARAMETER.findall(header[: close + 1]):
        width = max(int(bits) // 8, 1)
        alignment = int(align) if align else width
        at = (at + alignment - 1) // alignment * alignment if alignment else at
        size = width * int(count) if count else width
        parameters.append((at, size))
        at += size
    bound = _BOUND.search(header, close + 1)
    threads = int(bound[1]) * int(bound[2] or 1) * int(bound[3] or 1) if bound else None
    return threads, tuple(parameters)
