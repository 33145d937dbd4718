"""Plain technical English in help, messages, docstrings, documentation and changelog; spelling and style by codespell and proselint."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import ROOT

from fatpatch.commands import COMMANDS, load

PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").rglob("*.md"))
REPLACED = (
    "otherwise, each only where", "against what they promise", "that nobody needs", "the very bytes", "ready questions", "Ask no server",
    "Say instead", "hangs on the driver", "passed over", "Tell the effect", "least level that fails", "Also what is allowed",
    "Read what is unchanged", "How hard to try", "nothing is demanded", "is no index", "there is no question", "does not give it",
    "which is no public address", "or its record is gone", "taken back", "stands against it", "fare otherwise", "kernels gone",
    "machine code for", "is machine code", "members where they were", "program sees error", "in the dark, and on paper", "Light or dark",
    "files of an index", "of the makers", "a maker", "that a program survives", "give back", "gives back", "lets -o replace", "let -o replace",
    "what is demanded", "pack otherwise", "packed otherwise", "a second attack", "put in the place of", "the same major, and its minor",
    "is no regular", "is no folder", "is no page", "is no baseline", "say where the result goes", "to promise", "no way back",
)  # fmt: skip
"""Phrases that were replaced by usual ones."""


def texts() -> Iterator[tuple[str, str]]:
    """(where, text) of all that is read by a person: pages, and every string of the code, docstrings among them."""
    for page in PAGES:
        yield page.relative_to(ROOT).as_posix(), page.read_text("utf-8")
    for folder in ("fatpatch", "formats"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
        for path in sorted((ROOT / folder).rglob("*.json")):
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def test_phrases_that_were_replaced_are_nowhere() -> None:
    found = [(where, phrase) for where, text in texts() for phrase in REPLACED if phrase in re.sub(r"\s+", " ", text)]
    assert found == []


def test_summaries_and_help_are_short() -> None:
    for name in COMMANDS:
        command = load(name)
        summary = command.get_short_help_str(200)
        assert len(summary) < 60, (name, summary)
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or len(parameter.help or "") <= 110, (name, parameter.name)


def test_spelling() -> None:
    pytest.importorskip("codespell_lib")
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "fatpatch", "formats"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""


def prose(text: str) -> str:
    """The sentences of a page, a paragraph each, without code, tables, headings and links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^[|#].*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return "\n\n---\n\n".join(re.sub(r"[\s*]+", " ", paragraph) for paragraph in re.split(r"\n\s*\n", text))


def test_style(tmp_path: Path) -> None:
    """proselint, without what it says of typography, and of repeated numbers and paragraphs."""
    pytest.importorskip("proselint")
    for page in PAGES:
        (tmp_path / page.relative_to(ROOT).as_posix().replace("/", "-")).write_text(prose(page.read_text("utf-8")))
    done = subprocess.run([sys.executable, "-m", "proselint", "check", tmp_path], capture_output=True, text=True, check=False)
    rows = [line for line in done.stdout.splitlines() if re.match(r".*\.md:\d+:\d+: ", line)]
    assert rows or done.returncode == 0, done.stderr
    assert [row for row in rows if not re.search(r": typography|: lexical_illusions.*(\d \d|'\w+$)|lexical_illusions.*CODE", row)] == []
