"""Help that fits a screen and says at once what an option does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from fatpatch.commands import COMMANDS, GROUPS, cli, load

SCREEN = 24
_NO_VERB_OR_NOUN = {
    "a", "an", "the", "if", "when", "where", "how", "what", "which", "only", "though", "instead", "otherwise", "not", "in", "of", "for",
    "with", "by", "to", "on", "from", "this", "that", "it", "say", "tell", "give", "take", "hold",
}  # fmt: skip


def every_command() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = load(name)
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {each}", command.commands[each]) for each in command.commands)


EVERY = dict(every_command())


def text_of(name: str) -> str:
    context = click.Context(
        EVERY[name], info_name=f"fatpatch {name}", terminal_width=80, max_content_width=80, help_option_names=["-h", "--help"]
    )
    return EVERY[name].get_help(context)


@pytest.mark.parametrize("name", EVERY)
def test_help_fits_a_screen(name: str) -> None:
    """No group of options is longer than a screen, no line wider than 80 columns."""
    text = text_of(name)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    sections = re.split(r"^[A-Z][A-Za-z ]+:$", text, flags=re.MULTILINE)[1:]
    assert sections
    assert max(len(section.strip("\n").splitlines()) for section in sections) <= SCREEN
    options = [line for section in sections for line in section.splitlines() if line.strip()]
    assert len(options) <= SCREEN or len(sections) > 1


@pytest.mark.parametrize("name", EVERY)
def test_options_say_what_they_do(name: str) -> None:
    """Each has help that starts with a capital letter and a verb or noun, and ends with a full stop."""
    for parameter in EVERY[name].params:
        if not isinstance(parameter, click.Option):
            continue
        words = parameter.help or ""
        first = re.split(r"[ :,]", words, maxsplit=1)[0]
        assert first[:1].isupper(), (name, parameter.opts)
        assert first.lower() not in _NO_VERB_OR_NOUN, (name, parameter.opts, words)
        assert words.endswith("."), (name, parameter.opts, words)


def test_quiet_is_an_option_of_every_command() -> None:
    for name, command in EVERY.items():
        assert any("--quiet" in parameter.opts for parameter in command.params), name


def test_commands_are_grouped_with_whole_summaries() -> None:
    """None is cut off with dots, each starts with a verb."""
    text = cli.get_help(click.Context(cli, info_name="fatpatch", terminal_width=80, max_content_width=80))
    assert "..." not in text.replace("[ARGS]...", "")
    assert [title for title in GROUPS if f"\n{title}:\n" not in text] == []
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*\.$", text, re.MULTILINE), name


def test_overwrite_and_force_mean_one_thing() -> None:
    """--overwrite replaces a file, --force passes over a refusal: never the other way round."""
    for name, command in EVERY.items():
        for parameter in command.params:
            words = (getattr(parameter, "help", "") or "").lower()
            if "--overwrite" in parameter.opts:
                assert words.startswith("overwrite "), name
            elif "--force" in parameter.opts:
                assert not re.search("overwrite|replace|exist", words), name
