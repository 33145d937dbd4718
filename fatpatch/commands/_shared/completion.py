"""Completion in shells: the script that a shell reads, and what click does not know of bash and PowerShell."""

from __future__ import annotations

import os
from typing import Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

VARIABLE: Final = "_FATPATCH_COMPLETE"
"""The variable by which a shell asks for completions, as click names it for a program called fatpatch."""

_PATHS: Final = ("file", "dir")
"""Types of completions, in click's words, for which a shell completes paths."""

_POWERSHELL: Final = r"""
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $command, $position)
    $before = $command.CommandElements | Where-Object { $_.Extent.EndOffset -lt $position }
    $env:COMP_WORDS = ($before | ForEach-Object { if ($null -ne $_.Value) { $_.Value } else { $_.Extent.Text } }) -join "`n"
    $env:COMP_CWORD = $word
    $env:%(complete_var)s = "powershell_complete"
    try {
        %(prog_name)s | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            $text = if ($value -match "[\s']") { "'" + $value.Replace("'", "''") + "'" } else { $value }
            if (-not $help) { $help = $value }
            [System.Management.Automation.CompletionResult]::new($text, $value, "ParameterValue", $help)
        }
    }
    finally {
        Remove-Item -ErrorAction SilentlyContinue Env:COMP_WORDS, Env:COMP_CWORD, Env:%(complete_var)s
    }
}
"""


class _Files(ShellComplete):
    """Where nothing is known to complete a word, names of files do."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """As click finds them, else the names of files."""
        found = super().get_completions(args, incomplete)
        return found if found or incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]


class PowerShellCompletion(_Files):
    """Words before the cursor come one a line, the word at the cursor apart; a completion is a line of value, tab and help.

    PowerShell completes names of files itself where nothing is answered.
    """

    name = "powershell"
    source_template = _POWERSHELL.lstrip()

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words after the program's name, and the one that is being typed, without its quotes."""
        words = os.environ.get("COMP_WORDS", "").split("\n")
        return words[1:], os.environ.get("COMP_CWORD", "").strip("'\"")

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A line, for a word that is not a path."""
        return f"{item.value}\t{item.help or ''}" if item.type not in _PATHS else ""


class BashCompletion(_Files, BashComplete):
    """Bash takes a completion as it is: names with spaces must be quoted, unless a quote is open."""

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """The type and the value, which is quoted where bash would split it."""
        words = os.environ["COMP_WORDS"].split("\n")
        index = int(os.environ["COMP_CWORD"])
        typed = words[index] if index < len(words) else ""
        if item.type not in _PATHS and typed[:1] not in ("'", '"'):
            return f"{item.type}," + str(item.value).replace(" ", "\\\\ ")  # the script's read takes one backslash
        return f"{item.type},{item.value}"


class ZshCompletion(_Files, ZshComplete):
    """As click completes, and names of files."""


class FishCompletion(_Files, FishComplete):
    """As click completes, and names of files."""


def register() -> None:
    """Make these classes known to click, in the place of its own."""
    for each in (BashCompletion, ZshCompletion, FishCompletion, PowerShellCompletion):
        add_completion_class(each, each.name)


def script(command: click.Command, program: str, shell: str) -> str:
    """What a shell reads to complete a program's words."""
    register()
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(command, {}, program, VARIABLE).source()
