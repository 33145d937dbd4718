"""Promises of the project itself: the wheel, the samples, the README."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

from conftest import ROOT

from fatpatch.errors import EXIT_CODES
from fatpatch.walk import CONTAINERS

README = (ROOT / "README.md").read_text()


def manifest() -> dict[str, str]:
    text = (ROOT / "samples/MANIFEST.toml").read_text()
    return dict(re.findall(r'\["([^"]+)"\]\nsha256 = "([0-9a-f]{64})"', text))


def test_samples_equal_their_manifest() -> None:
    rows = manifest()
    files = {path.name for path in (ROOT / "samples").iterdir() if path.is_file() and path.suffix not in {".py", ".toml", ".md"}}
    assert set(rows) == files
    for name, digest in rows.items():
        assert hashlib.sha256((ROOT / "samples" / name).read_bytes()).hexdigest() == digest, name


def test_the_wheel_holds_the_formats(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {
        "fatpatch/formats/fatbin.py",
        "fatpatch/py.typed",
        "fatpatch/render/inspect-1.schema.json",
        "fatpatch/render/graft-1.schema.json",
    } <= names
    assert not any(name.startswith(("formats/", "tests/", "samples/")) for name in names)


def test_formats_is_one_package() -> None:
    assert (ROOT / "fatpatch/formats").is_symlink()
    import fatpatch.formats  # noqa: F401

    assert "formats" not in sys.modules


def test_readme_tells_the_exit_codes() -> None:
    for code, words in EXIT_CODES:
        assert re.search(rf"^\| {code} \| {re.escape(words)} \|$", README, re.MULTILINE), code


def test_readme_session_is_real() -> None:
    blocks = re.findall(r"```console\n\$ fatpatch (.+)\n((?:.|\n)*?)```", README)
    assert blocks
    for command, expected in blocks:
        done = subprocess.run(
            [sys.executable, "-m", "fatpatch", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.stdout == expected, command


def test_every_container_reader_has_the_shape() -> None:
    from importlib import import_module

    for name in CONTAINERS:
        module = import_module(f"fatpatch.containers.{name}")
        assert name == module.KIND
        assert callable(module.probe)
        assert callable(module.read)
