"""What docstrings cite as "reference: NAME, section" exists: the name in docs/facts/index.md, the section on the page of the repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

FACTS = ROOT / "docs/facts"
ROWS = dict(re.findall(r"^\| ([^|]+?) \| (?:\[[^\]]+\]\()?([^|)]+)", (FACTS / "index.md").read_text("utf-8"), re.MULTILINE))
HEADINGS = {page.name: re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE) for page in FACTS.glob("*.md")}
CITED = re.compile(r"(?:\breference|\bReferences?): (?!str\b)([^\n]*(?:\n[^\n]+)?)")


def citations() -> list[tuple[Path, str]]:
    paths = [path for folder in ("fatpatch", "formats") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [(path, text) for path in paths for prose in _prose(path.read_text("utf-8")) for text in CITED.findall(prose)]


def _prose(code: str) -> Iterator[str]:
    """Docstrings and comments."""
    yield from (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    yield from re.findall(r"^ *#.*$", code, re.MULTILINE)


def test_every_source_is_listed() -> None:
    found = citations()
    assert len(found) > 50
    assert [(path.name, text) for path, text in found if not any(text.startswith(name) for name in ROWS)] == []


def test_every_section_exists() -> None:
    missing = []
    for path, text in citations():
        name = max((name for name in ROWS if text.startswith(name)), key=len)
        page = HEADINGS.get(ROWS[name])
        numbers = re.match(r",? (?:sections? )?((?:[0-9A-F][0-9.]*(?:, | and )?)+)(?=[).;:\n]|$)", text[len(name) :])
        if page is None:
            continue
        if numbers is not None:
            wanted = [number.rstrip(".") for number in re.findall(r"[0-9A-F][0-9.]*", numbers[1])]
            missing += [(path.name, name, number) for number in wanted if not any(re.match(rf"{number}[ ./]", heading) for heading in page)]
            continue
        words = re.match(r",? ([A-Za-z][A-Za-z ]+)[);]", text[len(name) :])
        if words is not None and not any(words[1].lower() in heading.lower() for heading in page):
            missing.append((path.name, name, words[1]))
    assert missing == []
