"""Promises of the project itself: the wheel, the samples, the README."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
import tempfile
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
        *(f"fatpatch/{path.relative_to(ROOT / 'fatpatch')}" for path in (ROOT / "fatpatch").rglob("*.schema.json")),
        *(f"fatpatch/render/pages/{path.name}" for path in (ROOT / "fatpatch/render/pages").iterdir()),
    } <= names
    assert not any(name.startswith(("formats/", "tests/", "samples/")) for name in names)


def test_formats_is_one_package() -> None:
    import fatpatch.formats.numbers  # noqa: F401

    assert "formats" not in sys.modules


def test_a_clone_without_symbolic_links_works() -> None:
    """Git for Windows writes a symbolic link as a text file that holds its target."""
    modes = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert not re.findall(r"^120000 .*", modes, re.MULTILINE)


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


def test_readme_and_help_are_in_step() -> None:
    """Every command is in the README, and every option that it names exists."""
    from importlib import import_module

    from fatpatch.cli import COMMANDS

    lines = re.findall(
        r"^(?:\$ |\.venv/bin/)?fatpatch (\w+)((?: .*)?)$",
        "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL)),
        re.MULTILINE,
    )
    assert {name for name, _ in lines} == set(COMMANDS)
    for name, rest in lines:
        command = import_module(f"fatpatch.cli.{name}").command
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r'"[^"]*"', "", rest)))
        assert given <= known, (name, given - known)


def test_readme_policy_is_one() -> None:
    from fatpatch.gate.policy import read_policy

    (text,) = re.findall(r"<!-- policy -->\n```toml\n(.*?)```", README, re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fatpatch.toml"
        path.write_text(text)
        policy = read_policy(str(path))
    assert policy.demands.require == ("sm_75", "sm_86", "sm_90a", "compute_90")
    assert policy.for_file("libx-rocm.so").run == ()
    assert policy.for_file("libx.so").run[0].gpus == ("GTX 1060", "RTX 3060", "H100")


def test_readme_action_is_one() -> None:
    import yaml

    (text,) = re.findall(r"<!-- action -->\n```yaml\n(.*?)```", README, re.DOTALL)
    given = yaml.safe_load(text)[0]["with"]
    assert set(given) <= set(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])


def test_every_container_reader_has_the_shape() -> None:
    from importlib import import_module

    for name in CONTAINERS:
        module = import_module(f"fatpatch.containers.{name}")
        assert name == module.KIND
        assert callable(module.probe)
        assert callable(module.read)
