"""Manual pages: read by mandoc or groff without a complaint, and with every command and option."""

from __future__ import annotations

import re
import shutil
import subprocess

import click
import pytest
from conftest import ROOT, required

from fatpatch.commands import COMMANDS, load

MANUAL = ROOT / "docs/man"
PAGES = sorted(MANUAL.glob("*.1"))


def test_pages_are_well_formed() -> None:
    for tool, words in (("mandoc", ["-T", "lint"]), ("groff", ["-man", "-ww", "-z"])):
        if shutil.which(tool):
            done = subprocess.run([tool, *words, *PAGES], capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
            return
    required("mandoc or groff")


def test_every_command_has_a_page_with_every_option() -> None:
    names = {path.name for path in PAGES}
    assert names == {"fatpatch.1", "fatpatch-db-merge.1", *(f"fatpatch-{name}.1" for name in COMMANDS)}
    for name in COMMANDS:
        text = (MANUAL / f"fatpatch-{name}.1").read_text().replace("\\-", "-").replace("\\(aq", "'")
        for parameter in load(name).params:
            if isinstance(parameter, click.Option):
                assert all(option in text for option in parameter.opts), (name, parameter.opts)
                assert " ".join((parameter.help or "").split()) in " ".join(text.split()).replace("\\e", "\\"), (name, parameter.opts)


@pytest.mark.skipif(shutil.which("man") is None, reason="no man")
def test_man_shows_a_page() -> None:
    done = subprocess.run(["man", "-l", MANUAL / "fatpatch-doctor.1"], capture_output=True, text=True, check=False, env={"MANWIDTH": "80"})
    if done.returncode or not done.stdout.strip():
        pytest.skip(f"man does not work here: {done.stderr.strip()}")
    plain = re.sub(r".\x08", "", done.stdout)
    assert "fatpatch doctor [OPTIONS] [FILE|FOLDER|NAME]..." in " ".join(plain.split())
    assert "EXIT STATUS" in plain
