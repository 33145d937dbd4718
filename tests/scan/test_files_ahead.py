"""Files that are read ahead by worker processes: the same nodes as when they are read in turn."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import pytest
from builders import elf
from builders.environments import install, library

from fatpatch.base.errors import InternalError
from fatpatch.base.limits import Limits
from fatpatch.model.tree import Node
from fatpatch.scan import files_ahead
from fatpatch.scan.coverage import all_diagnostics
from fatpatch.scan.distributions import Distribution, installed, opened, places


def without_sources(node: Node) -> Node:
    return node._replace(source=None, members=tuple(map(without_sources, node.members)))


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Distribution, ...]:
    monkeypatch.setattr("fatpatch.scan.files_ahead.PARALLEL_FROM", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    root = tmp_path / "site-packages"
    install(root, "whole", "1", {"whole/a.so": library(61), "whole/b.so": library(61, 86)})
    install(root, "plain", "2", {"plain/c.so": elf.shared_object([(".rodata", b"nothing")])})
    torn = library(61)
    odd = {"torn.so": torn[: len(torn) // 2], "text.so": b"text", "none.so": b"", "7z.so": b"7z\xbc\xaf\x27\x1c"}
    install(root, "odd", "3", {f"odd/{name}": data for name, data in odd.items()})
    install(root, "packed", "4", {"packed/stream.so": gzip.compress(library(86))})
    with zipfile.ZipFile(root / "packed/archive.so", "w") as archive:
        archive.writestr("inner.so", library(90))
    (root / "unowned.so").write_bytes(library(75))
    return installed(str(root), "x").distributions


def test_the_nodes_are_the_same(distributions: tuple[Distribution, ...]) -> None:
    ahead = files_ahead.read_ahead(distributions, Limits())
    assert len(ahead) == len(distributions) > 4
    for distribution, files in zip(distributions, ahead, strict=True):
        with opened(distribution, Limits()) as node, opened(distribution, Limits(), None, files) as other:
            assert without_sources(other) == without_sources(node)
            assert list(all_diagnostics(other)) == list(all_diagnostics(node))
            for member, same in zip(node.members, other.members, strict=True):
                assert same.content.peek(0, same.content.size) == member.content.peek(0, member.content.size)


def test_what_is_unpacked_is_left_to_whoever_asks(distributions: tuple[Distribution, ...]) -> None:
    found = {file.path: file.node for files in files_ahead.read_ahead(distributions, Limits()) for file in files}
    assert {path for path, node in found.items() if node is None} == {"packed/stream.so", "packed/archive.so"}
    assert {"whole/a.so", "plain/c.so", "odd/torn.so", "odd/7z.so"} < found.keys()
    assert "odd/none.so" not in found


def test_a_file_that_cannot_be_read_is_a_diagnostic(distributions: tuple[Distribution, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = distributions[0]
    files = list(places(whole))
    os.remove(files[0][1])
    monkeypatch.setattr("fatpatch.scan.files_ahead.places", lambda distribution: files)
    (ahead,) = files_ahead.read_ahead(distributions[:1], Limits())
    with opened(whole, Limits(), None, ahead) as node:
        assert [member.path for member in node.members] == [path for path, _ in files[1:]]
        assert [(item.locator, item.level) for item in node.diagnostics] == [(f"{whole.name}!{files[0][0]}", "error")]


def test_a_small_folder_is_read_in_turn(distributions: tuple[Distribution, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatpatch.scan.files_ahead.PARALLEL_FROM", 1 << 30)
    assert files_ahead.read_ahead(distributions, Limits()) == []


def test_a_killed_worker_is_said(distributions: tuple[Distribution, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatpatch.scan.files_ahead.inspected", lambda *args, **options: os._exit(9))
    with pytest.raises(InternalError, match="killed"):
        files_ahead.read_ahead(distributions, Limits())
