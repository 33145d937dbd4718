"""The rules of the house: where things are, how long a file may be, one name for one thing (docs/architecture.md)."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "fatpatch"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def nodes(kind: type) -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in TREES.items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, kind))


def test_files_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
    assert statistics.median(length for path, length in lengths.items() if path.name != "__init__.py") < 130


def test_functions_have_few_parameters() -> None:
    """More belong in a request record. A command's function takes one parameter an option."""
    found = {}
    for path, node in nodes(ast.FunctionDef):
        assert isinstance(node, ast.FunctionDef)
        given = node.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if each is not None]
        if len(names) - (names[:1] in (["self"], ["cls"])) > 8 and path.name != "command.py":
            found[f"{path.relative_to(ROOT)}:{node.name}"] = len(names)
    assert found == {}


def test_a_class_name_means_one_thing() -> None:
    counts = Counter(node.name for _, node in nodes(ast.ClassDef) if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


def test_nothing_imports_in_a_circle() -> None:
    """Imports inside functions count, those for types alone do not."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    edges = {name: set(_imports(TREES[path], names)) & names.keys() for name, path in names.items()}
    while leaves := {name for name, targets in edges.items() if not targets}:
        edges = {name: targets - leaves for name, targets in edges.items() if name not in leaves}
    assert edges == {}


def _imports(node: ast.AST, names: dict[str, Path]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module and child.module.startswith("fatpatch."):
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in names else child.module
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in names)
        yield from _imports(child, names)


def test_rooms_are_imported_downwards_only(tmp_path: Path) -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())",
         "--config", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
