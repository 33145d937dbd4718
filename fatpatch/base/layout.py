"""Lines that fit a terminal: wrapped, folded, and left out where there are too many."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.words import safe

_HEIGHT = 40
_COMMAND_INDENT = 6
_COMMANDS = ("fatpatch", "nvcc", "cmake", "pip", "python", "npx", "export")
_SETTING = lazy_pattern(r"[A-Z][A-Z0-9_]*=")
WIDTH, NARROWEST = 80, 40
FIRST, _KEPT, _SHORTEST = 0, 3, 4


def trimmed(lines: list[str]) -> list[str]:
    """Without blank lines at both ends."""
    while lines and not lines[0]:
        lines = lines[1:]
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def fitted(bodies: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Sections of at most 40 lines together: what helps least is left out first, and what is longest is cut."""
    left_out = 0

    def height() -> int:
        return sum(len(lines) + 1 for _, lines in bodies) - 1 + (2 if left_out else 0)

    while height() > _HEIGHT and any(level > _KEPT for level, _ in bodies):
        worst = max(range(len(bodies)), key=lambda index: (bodies[index][0], index))
        left_out += len(bodies.pop(worst)[1])
    while height() > _HEIGHT and max(len(lines) for _, lines in bodies) > _SHORTEST:
        longest = max(range(len(bodies)), key=lambda index: len(bodies[index][1]))
        level, lines = bodies[longest]
        keep = _whole(lines, max(len(lines) - (height() - _HEIGHT) - (0 if left_out else 2), _SHORTEST))
        left_out += len(lines) - keep
        bodies[longest] = (level, lines[:keep])
    if left_out:
        bodies.append((FIRST, [f"{left_out} more lines with -v"]))
    return bodies


def _whole(lines: Sequence[str], keep: int) -> int:
    """How many of the lines to keep so that no sentence is cut: the next one begins no farther in than the one before it began."""
    for count in range(keep, 0, -1):
        if _indent(lines[count]) <= _indent(lines[count - 1]) or lines[count - 1].endswith((".", ":")):
            return count
    return keep


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def folded(line: str) -> list[str]:
    """A line in pieces that fit; the later ones are indented, those of a command end its lines as a shell wants it."""
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    first = line.split()[0]
    command = len(indent) >= _COMMAND_INDENT and (first in _COMMANDS or _SETTING.match(first) is not None)
    if not command:
        line = indent + " ".join(middle(word, WIDTH - len(indent) - 3) for word in line.split(" "))
    pieces = textwrap.wrap(
        line.strip(), WIDTH - 2 * command, initial_indent=indent, subsequent_indent=indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [f"{piece} \\" for piece in pieces[:-1]] + pieces[-1:] if command else pieces


def middle(word: str, width: int) -> str:
    """A word of at most ``width`` characters: of a longer one the beginning and the end."""
    return word if len(word) <= width else f"{word[: width // 3]}...{word[-(width - width // 3 - 3) :]}"


def hanging(head: str, words: str) -> Iterator[str]:
    """Words behind a head, wrapped, with the later lines below the first."""
    lines = textwrap.wrap(safe(words), max(WIDTH - len(head), NARROWEST), break_long_words=False, break_on_hyphens=False)
    for index, line in enumerate(lines or [""]):
        yield (head if index == 0 else " " * len(head)) + line


def wrapped(head: str, *paragraphs: str) -> Iterator[str]:
    """Paragraphs wrapped to the width of a terminal; blanks at the start of one are its indentation."""
    for words in filter(None, paragraphs):
        indent = head + " " * (len(words) - len(words.lstrip()))
        yield from textwrap.wrap(
            words.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False
        )
