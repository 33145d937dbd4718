"""Promises of the project itself: the wheel, the samples, the README."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from conftest import ROOT

from fatpatch.model.kinds import CONTAINER_FORMATS

README = (ROOT / "README.md").read_text()
GATE = (ROOT / "docs/howto/gate.md").read_text()
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").rglob("*.md"))


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
        "fatpatch-0.1.0.data/data/share/man/man1/fatpatch-doctor.1",
        "fatpatch/scan/inspect-1.schema.json",
        *(f"fatpatch/{path.relative_to(ROOT / 'fatpatch')}" for path in (ROOT / "fatpatch").rglob("*.schema.json")),
        *(f"fatpatch/commands/_shared/pages/{path.name}" for path in (ROOT / "fatpatch/commands/_shared/pages").iterdir()),
    } <= names
    assert not any(name.startswith(("formats/", "tests/", "samples/")) for name in names)


def test_formats_is_one_package() -> None:
    import fatpatch.formats.numbers  # noqa: F401

    assert "formats" not in sys.modules


def test_a_clone_without_symbolic_links_works() -> None:
    """Git for Windows writes a symbolic link as a text file that holds its target."""
    modes = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert not re.findall(r"^120000 .*", modes, re.MULTILINE)


def test_documentation_is_up_to_date() -> None:
    """Reference pages, and the sessions in README and docs: what the code says today."""
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 150
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)


def test_examples_and_help_are_in_step() -> None:
    """Every command has an example in the README, and every option that README and docs name exists."""
    from fatpatch.commands import COMMANDS, load

    named: set[str] = set()
    for page in PAGES:
        blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL))
        for name, rest in re.findall(r"^(?:\$ |\.venv/bin/)?fatpatch (\w+)((?: .*)?)$", blocks, re.MULTILINE):
            named |= {name} if page.name == "README.md" else set()
            command = load(name)
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            given = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r'"[^"]*"', "", rest.partition("  #")[0])))
            assert given <= known, (page.name, name, given - known)
    assert named == set(COMMANDS)


def test_the_policy_of_the_docs_is_one() -> None:
    from fatpatch.policy.policy import read_policy

    (text,) = re.findall(r"<!-- policy -->\n```toml\n(.*?)```", GATE, re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fatpatch.toml"
        path.write_text(text)
        policy = read_policy(str(path))
    assert policy.demands.require == ("sm_75", "sm_86", "sm_90a", "compute_90")
    assert policy.for_file("libx-rocm.so").run == ()
    assert policy.for_file("libx.so").run[0].gpus == ("GTX 1060", "RTX 3060", "H100")


def test_the_action_of_the_docs_is_one() -> None:
    import yaml

    (text,) = re.findall(r"<!-- action -->\n```yaml\n(.*?)```", GATE, re.DOTALL)
    given = yaml.safe_load(text)[0]["with"]
    assert set(given) <= set(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    import pytest

    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference/commands/index.html").is_file()


def test_every_container_reader_has_the_shape() -> None:
    from importlib import import_module

    readers = [row for row in CONTAINER_FORMATS if row.reader]
    assert len(readers) >= 7
    for row in readers:
        module = import_module(f"fatpatch.binfmt.{row.reader}")
        assert row.kind == module.KIND
        assert callable(module.probe)
        assert callable(module.read)
