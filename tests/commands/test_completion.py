"""Shell completion, by the shells themselves where they are here: commands, options, GPUs, targets, files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Run

PROGRAM = 'import sys; sys.argv[0] = "fatpatch"; from fatpatch.commands import main; main()'


@pytest.fixture
def shell_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file to complete, and a program ``fatpatch`` on the path."""
    if sys.platform == "win32":
        pytest.skip("shells of POSIX systems")
    program = tmp_path / "bin/fatpatch"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{PROGRAM}\n")
    program.chmod(0o755)
    (tmp_path / "library.so").touch()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def in_bash(*words: str) -> list[str]:
    count = len(words) - 1
    quoted = " ".join(f"'{word}'" for word in words)
    return lines(
        "bash", "--norc", "-c",
        f'eval "$(fatpatch --completion bash)"; COMP_WORDS=({quoted}); COMP_CWORD={count}; _fatpatch_completion fatpatch; '
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )  # fmt: skip


def in_fish(*words: str) -> list[str]:
    text = " ".join(words)
    found = lines("fish", "--no-config", "-c", f"fatpatch --completion fish | source; complete -C '{text}'")
    return [line.split("\t")[0] for line in found]


def in_zsh(*words: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    return lines(
        "zsh", "-f", "-c",
        'compdef() { : }; _describe() { print -l -- ${(P)3} }; compadd() { print -l -- ${(P)@[-1]} }; _path_files() { print -l * }; '
        f'eval "$(fatpatch --completion zsh)"; words=({quoted}); CURRENT={len(words)}; _fatpatch_completion',
    )  # fmt: skip


def test_bash(shell_folder: Path) -> None:
    """Names with spaces are one word: quoted, or as they are inside an open quote."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    assert in_bash("fatpatch", "doc") == ["doctor"]
    assert "GeForce\\ GTX\\ 1060" in in_bash("fatpatch", "doctor", "--gpu", "1060")
    assert "GeForce GTX 1060" in in_bash("fatpatch", "doctor", "--gpu", '"GTX 1060')
    assert "sm_75,sm_86" in in_bash("fatpatch", "check", "--require", "sm_75,sm_8")
    assert in_bash("fatpatch", "inspect", "--target", "gfx94")[:1] == ["gfx942"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish(shell_folder: Path) -> None:
    assert "doctor" in in_fish("fatpatch", "doc")
    assert "GeForce GTX 1060" in [name.replace("\\", "") for name in in_fish("fatpatch", "doctor", "--gpu", "1060")]
    assert "sm_120" in in_fish("fatpatch", "inspect", "--target", "sm_12")
    assert "library.so" in in_fish("fatpatch", "inspect", "lib")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh(shell_folder: Path) -> None:
    assert [line.split(":")[0] for line in in_zsh("fatpatch", "doc")] == ["doctor"]
    assert "GeForce GTX 1060" in in_zsh("fatpatch", "doctor", "--gpu", "1060")
    assert "sm_120" in in_zsh("fatpatch", "inspect", "--target", "sm_12")
    assert "library.so" in in_zsh("fatpatch", "inspect", "lib")


def in_powershell(before: str, word: str) -> list[str]:
    """What the script's call of fatpatch answers; PowerShell itself makes a menu of it."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8",
        "_FATPATCH_COMPLETE": "powershell_complete", "COMP_WORDS": before.replace("|", "\n"), "COMP_CWORD": word,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
    return [line for line in done.stdout.splitlines() if line]


def test_powershell() -> None:
    """A path with backslashes stays one word; for files nothing is answered, since PowerShell completes them itself."""
    assert in_powershell("fatpatch", "doc") == ["doctor\tReport whether FILE runs on a GPU, and why."]
    names = [line.split("\t")[0] for line in in_powershell("fatpatch|doctor|C:\\my files\\a.dll|--gpu", "'GTX 1060")]
    assert "GeForce GTX 1060" in names
    assert in_powershell("fatpatch|inspect", ".\\lib") == []


def test_the_script_of_powershell_is_one(run: Run) -> None:
    pytest.importorskip("tree_sitter_pwsh")
    import tree_sitter
    import tree_sitter_pwsh

    done = run("--completion", "powershell")
    tree = tree_sitter.Parser(tree_sitter.Language(tree_sitter_pwsh.language())).parse(done.stdout.encode())
    assert not tree.root_node.has_error
    assert done.stdout.startswith("Register-ArgumentCompleter -Native -CommandName fatpatch ")


def test_an_unknown_shell(run: Run) -> None:
    done = run("--completion", "tcsh")
    assert (done.returncode, "'bash', 'zsh', 'fish', 'powershell'" in done.stderr) == (2, True)
