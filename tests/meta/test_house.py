"""The rules of the house: where things are, how long a file may be, one name for one thing (docs/architecture.md)."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from fatpatch.model import kinds

KIND_ENUMS = ("Vendor", "ContainerKind", "ModuleKind", "BundleForm", "ImageKind", "Codec")
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


VALUES = {member.value for name in KIND_ENUMS for member in getattr(kinds, name)} - {"index", "host", "unknown", "folder", "stored"}
"""What kinds, vendors, codecs and containers are called, without words that are keys of JSON documents or names of other things."""


def test_kinds_are_compared_by_name() -> None:
    """No literal stands in a comparison, a match, or as all the keys of a table: fatpatch.model.kinds names each kind once."""
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            given: list[list[ast.expr]] = []
            if isinstance(node, ast.Compare):
                given = [[literal] for side in (node.left, *node.comparators) for literal in _literals(side)]
            elif isinstance(node, ast.MatchValue):
                given = [[node.value]]
            elif isinstance(node, ast.Dict) and node.keys:
                given = [[key for key in node.keys if key is not None]]
            literal = any(group and all(isinstance(each, ast.Constant) and each.value in VALUES for each in group) for group in given)
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}"] if literal else []
    assert found == []


def _literals(node: ast.expr) -> list[ast.expr]:
    return [literal for each in node.elts for literal in _literals(each)] if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def test_schemas_and_registries_agree() -> None:
    """The kinds that the schema of inspect allows are those of fatpatch.model.kinds, and every kind has its row."""
    definitions = json.loads((PACKAGE / "scan/inspect-1.schema.json").read_text("utf-8"))["$defs"]
    containers = {row.kind.value for row in kinds.CONTAINER_FORMATS}
    assert containers == {each.value for each in kinds.ContainerKind}
    assert set(definitions["node"]["properties"]["container"]["enum"]) == containers
    assert set(definitions["payload"]["properties"]["vendor"]["enum"]) == {each.value for each in kinds.Vendor}
    assert set(definitions["payload"]["properties"]["kind"]["enum"]) == {each.value for each in kinds.ModuleKind}
    assert set(definitions["image"]["properties"]["kind"]["enum"]) == {each.value for each in kinds.ImageKind}
    assert {row.kind for row in kinds.IMAGE_FORMATS} == set(kinds.ImageKind)
    assert set(definitions["image"]["properties"]["compression"]["enum"]) <= {each.value for each in kinds.Codec}
