"""PTX text: its version and target, its entries with their parameters and launch bounds (reference: PTX ISA, directives).

Works on bytes and never splits the whole text: PTX of a real library runs to a hundred megabytes.
"""

from __future__ import annotations

import re

from fatpatch.images.rows import KernelRow

_VERSION = re.compile(rb"^[ \t]*\.version[ \t]+(\d+)\.(\d+)", re.MULTILINE)
_TARGET = re.compile(rb"^[ \t]*\.target[ \t]+(?:sm|compute)_(\d+)([af]?)", re.MULTILINE)
_ENTRY = re.compile(rb"\.entry[ \t\r\n]+([A-Za-z_$%][\w$]*)")
_LEAD = re.compile(rb"[ \t]*(?:\.(?:visible|weak|extern|noreturn)[ \t]+)*\Z")
_PARAMETER = re.compile(
    rb"\.param[\s]+(?:\.align[\s]+(\d+)[\s]+)?\.([a-z]+)(\d+)(?:x2)?(?:[\s]+\.ptr(?:[\s]+\.(?:global|shared|local|const|param))?"
    rb"(?:[\s]+\.align[\s]+\d+)?)?[\s]+[\w$%]+(?:\[(\d*)\])?"
)
_BOUND = re.compile(rb"\.(?:maxntid|reqntid)[\s]+(\d+)(?:[\s]*,[\s]*(\d+))?(?:[\s]*,[\s]*(\d+))?")
_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)
_HEADER_LIMIT = 1 << 20


def looks_like_ptx(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is PTX text: nothing but comments before ``.version``."""
    return b"\0" not in head.rstrip(b"\0") and _COMMENT.sub(b"", head).lstrip()[:8] == b".version"


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
    at = 0
    while (at := text.find(b".entry", at)) >= 0:
        line = text.rfind(b"\n", 0, at) + 1
        found = _ENTRY.match(text, at)
        at += 6
        if found is None or not _LEAD.match(text, max(line, at - 200), found.start()):
            continue
        header, has_body = _header(text, found.end())
        if has_body:
            rows.append((found[1].decode("ascii", "backslashreplace"), None, None, None, None, *_described(header), None))
            at = found.end() + len(header)
    return rows


def _header(text: bytes, start: int) -> tuple[bytes, bool]:
    """What stands between the name and the body, and whether there is a body (else it is a declaration)."""
    limit = start + _HEADER_LIMIT
    body, semicolon = text.find(b"{", start, limit), text.find(b";", start, limit)
    if body < 0 or 0 <= semicolon < body:
        return b"", False
    header = text[start:body]
    return (_COMMENT.sub(b" ", header) if b"/" in header else header), True


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
