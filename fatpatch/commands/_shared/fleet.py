"""GPUs from a list: ``--gpu @FILE``, and ``--fleet NAME`` of the policy file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from fatpatch.base.errors import InputError

_MOST_BYTES = 1 << 20
_MOST = 1000
_Command = TypeVar("_Command", bound=Callable[..., object])


def fleet_option(command: _Command) -> _Command:
    """--fleet, for commands that judge for GPUs."""
    words = "Judge for the GPUs of this list in [fleets] of fatpatch.toml. Repeatable."
    return click.option("--fleet", "fleets", multiple=True, metavar="NAME", help=words)(command)


def gpus_of(gpus: Sequence[str], fleets: Sequence[str], policy: str | None = None) -> tuple[str, ...]:
    """The names of GPUs, with those of files (``@FILE``) and fleets in their place, each once.

    InputError for a file that cannot be read; a usage error for a fleet that the policy does not have.
    """
    found = [name for gpu in gpus for name in (_listed(gpu[1:]) if gpu.startswith("@") else (gpu,))]
    for fleet in fleets:
        found += _fleet(fleet, policy)
    if len(found) > _MOST:
        raise click.UsageError(f"more than {_MOST} GPUs")
    return tuple(dict.fromkeys(found))


def _listed(path: str) -> list[str]:
    """The lines of a file, without empty ones and comments."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read the list of GPUs: {reason}", locator=path, hint="a list has one GPU a line") from error
    names = [line.partition("#")[0].strip() for line in text.splitlines()]
    names = [name for name in names if name]
    if len(text) > _MOST_BYTES or not names:
        raise InputError("is no list of GPUs", locator=path, hint="a list has one GPU a line, such as RTX 3060")
    return names


def _fleet(name: str, path: str | None) -> tuple[str, ...]:
    from fatpatch.api.gate import FILE, fleets

    found = fleets(path)
    if found is None:
        raise click.UsageError(f"--fleet {name}: there is no {FILE} here or in a folder above")
    source, known = found
    if name not in known:
        close = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known) or 'none'}"
        raise click.UsageError(f"{source} has no fleet {name!r}\n  hint: {hint}")
    return known[name]
