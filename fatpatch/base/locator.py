"""Locators: the one way to name a place, as in ``app.llamafile!ggml-cuda.dll!.nv_fatb!fatbin[3]!sm_61``.

A locator is a plain string of escaped steps joined by ``!``, the same in text, JSON, errors and selectors. Whatever could
end a step or move a terminal's cursor is percent-encoded, so a locator is always safe to print and splits back exactly.
"""

from __future__ import annotations

import functools
import re
import zlib

SEPARATOR = "!"
STANDARD_INPUT = "<stdin>"
"""How standard input is named in results and errors."""

UNSAFE = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that move a cursor, change the direction of text, or are not seen (Unicode's Default_Ignorable_Code_Point), as ranges of a
character class."""
_MAX_STEP = 240


def escape(name: str) -> str:
    """One step: control, bidirectional and separator characters percent-encoded, long names shortened in the middle."""
    if len(name) > _MAX_STEP:
        digest = zlib.crc32(name.encode("utf-8", "surrogatepass"))
        name = f"{name[:160]}...({len(name)} characters, {digest:08x})...{name[-40:]}"
    if name.isascii() and name.isprintable() and SEPARATOR not in name and "%" not in name:
        return name
    return _unsafe().sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass")), name)


def file_name(path: str) -> str:
    """The last part of a path of any system, or of a path inside an archive."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def without_numbers(path: str) -> str:
    """A path with its versions and hashes blanked out: ``libx-#.so`` of libx-1.2.so and of libx-0a1b2c3d.so."""
    return _numbers().sub("#", path)


@functools.lru_cache(maxsize=1)
def _numbers() -> re.Pattern[str]:
    return re.compile(r"(?<![0-9a-f])(?=[a-f]*\d)[0-9a-f]{8,}|\d+(?:[._]\d+)*")


def join(parent: str, name: str) -> str:
    """The locator of the child ``name`` of ``parent``."""
    step = escape(name)
    return f"{parent}{SEPARATOR}{step}" if parent else step


def steps(locator: str) -> tuple[str, ...]:
    """The unescaped steps of a locator."""
    from urllib.parse import unquote

    return tuple(unquote(step, errors="replace") for step in locator.split(SEPARATOR))


def matches(locator: str, pattern: str) -> bool:
    """Whether ``pattern`` (``*`` any run, ``?`` one character, all else literal) names the locator or its last steps."""
    starts = [0, *(index + 1 for index, char in enumerate(locator) if char == SEPARATOR)]
    return any(_covers(pattern, locator, start) for start in starts)


def covers(pattern: str, text: str) -> bool:
    """Whether a pattern (``*`` any run, ``?`` one character, all else literal) takes all of a text."""
    return _covers(pattern, text, 0)


def target_matches(target: str, pattern: str) -> bool:
    """Whether a pattern names a target: sm_61, sm_9*; gfx90a names its variants with features too."""
    return matches(target, pattern) or (":" not in pattern and ":" in target and matches(target.split(":")[0], pattern))


def _covers(pattern: str, text: str, at: int) -> bool:
    """Whether a pattern takes all of ``text`` from ``at`` on: only the last star is ever tried again, so this stays quadratic."""
    index, star, tried = 0, -1, at
    while at < len(text):
        if index < len(pattern) and pattern[index] == "*":
            star, tried = index, at
            index += 1
        elif index < len(pattern) and pattern[index] in ("?", text[at]):
            index += 1
            at += 1
        elif star >= 0:
            tried += 1
            index, at = star + 1, tried
        else:
            return False
    return not pattern[index:].strip("*")


@functools.lru_cache(maxsize=1)
def _unsafe() -> re.Pattern[str]:
    return re.compile(f"[!%{UNSAFE}]")
