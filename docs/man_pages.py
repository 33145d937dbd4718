"""Manual pages, one a command, written from the same help that ``--help`` shows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]


def pages(variables: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    """(file name, text) of every page; ``variables``: environment variables with their meaning."""
    from fatpatch.commands import COMMANDS, GROUPS, cli, load

    commands = [(name, load(name)) for name in COMMANDS]
    subcommands = [
        (f"{name} {each}", command.commands[each])
        for name, command in commands
        if isinstance(command, click.Group)
        for each in command.commands
    ]
    listed = [line for title, names in GROUPS.items() for line in (f".SS {title}", *_list([(n, _summary(load(n))) for n in names]))]
    yield "fatpatch.1", _page("fatpatch", cli, [".SH COMMANDS", *listed], variables, [name for name, _ in commands])
    for name, command in (*commands, *subcommands):
        yield f"fatpatch-{name.replace(' ', '-')}.1", _page(f"fatpatch {name}", command, [], variables, [])


def _page(name: str, command: click.Command, more: list[str], variables: tuple[tuple[str, str], ...], others: list[str]) -> str:
    from fatpatch import __version__
    from fatpatch.base.errors import EXIT_CODES

    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    title = name.replace(" ", "-")
    usage = " ".join(part for part in command.collect_usage_pieces(context) if part)
    lines = [
        '.\\" Written by docs/generate.py: edit the code, not this page.',
        f'.TH {title.upper()} 1 "{_released(__version__)}" "fatpatch {__version__}" "fatpatch manual"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(_summary(command)[:1].lower() + _summary(command)[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(name)}",
        _text(usage),
        ".SH DESCRIPTION",
        *_prose(command.help or ""),
        *more,
        ".SH OPTIONS",
        *_options(command, context),
        *(_prose(command.epilog, ".SH NOTES") if command.epilog and not others else []),
        ".SH EXIT STATUS",
        *_list([(str(code), words) for code, words in EXIT_CODES]),
        ".SH ENVIRONMENT",
        *_list(list(variables)),
        ".SH SEE ALSO",
        *(f".BR {_text(f'fatpatch-{each}')} (1)" + ("," if each != others[-1] else "") for each in others),
        *([] if others else [".BR fatpatch (1)"]),
    ]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    from fatpatch.commands._shared.grouped import option_groups

    groups = option_groups(command, context)
    for title, records in groups.items():
        if len(groups) > 1:
            yield f".SS {title}"
        yield from _list(records)


def _list(rows: list[tuple[str, str]]) -> Iterator[str]:
    for term, words in rows:
        yield from (".TP", f"\\fB{_text(term)}\\fR", *_filled(words))


def _prose(help_text: str, heading: str = "") -> Iterator[str]:
    """Paragraphs; those that click leaves as they are stay so."""
    if heading:
        yield heading
    for index, paragraph in enumerate(re.split(r"\n\s*\n", help_text.strip())):
        if index:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *(_text(line.rstrip()) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield from _filled(paragraph)


def _filled(words: str) -> list[str]:
    """Text in lines of a usual width, which roff fills again."""
    return [
        _text(line) for line in textwrap.wrap(" ".join(words.replace("`", "").split()), 72, break_long_words=False, break_on_hyphens=False)
    ]


def _text(words: str) -> str:
    """Text that roff leaves as it is."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(200)


def _released(version: str) -> str:
    """The day of a release, by the changelog."""
    found = re.search(rf"^## \[{re.escape(version)}\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""
