"""Version, help, formats, exit codes."""

from __future__ import annotations

import pytest
from conftest import Run

from fatpatch import __version__
from fatpatch.cli import COMMANDS
from fatpatch.errors import EXIT_CODES, FatpatchError
from fatpatch.formats.names import FORMATS


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"fatpatch {__version__}\n"
    text = run("--help").stdout
    assert all(name in text for name in COMMANDS)
    assert all(words in text for _, words in EXIT_CODES)
    for name in COMMANDS:
        assert run(name, "--help").returncode == 0


def test_usage_errors(run: Run) -> None:
    for arguments in ((), ("nonsense",), ("inspect",), ("inspect", "--nope", "x"), ("formats", "nope"), ("extract", "x")):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_formats_prints_each_layout(run: Run, name: str) -> None:
    done = run("formats", name)
    assert done.returncode == 0
    assert f"({name})" in done.stdout.splitlines()[0]
    assert "Sources" in done.stdout


def test_every_error_class_has_a_documented_exit_code() -> None:
    known = {code for code, _ in EXIT_CODES}
    classes = [FatpatchError]
    while classes:
        kind = classes.pop()
        assert kind.exit_code in known
        classes += kind.__subclasses__()


def test_hot_path_imports_no_heavy_library() -> None:
    """What a listing may import: nothing that costs start-up without being used."""
    import subprocess
    import sys

    from conftest import ROOT

    code = "import sys; sys.argv=['fatpatch','inspect','samples/libkernels.so']; from fatpatch.cli import run; run(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}
    assert not loaded & {
        "construct",
        "lief",
        "rich",
        "elftools",
        "capstone",
        "msgpack",
        "zstandard",
        "lz4",
        "json",
        "zipfile",
        "tarfile",
        "multiprocessing",
    }
