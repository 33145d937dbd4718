"""The targets and GPUs that an option of a command names."""

from __future__ import annotations

import click

from fatpatch.base.errors import InputError
from fatpatch.gpus.devices import Device, find


def split_targets(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Names that commas part; a usage error for none."""
    found = tuple(name for text in texts for name in map(str.strip, text.split(",")) if name)
    if texts and not found:
        raise click.UsageError("a list of targets is empty; write for example sm_75,sm_86")
    return found


def devices_named(text: str) -> tuple[Device, ...]:
    """The GPU that a text names; of "auto" those of this machine."""
    try:
        if text.strip().lower() == "auto":
            from fatpatch.gpus.local import local_devices

            return tuple(local_devices())
        return (find(text),)
    except InputError as error:
        raise click.BadParameter(f"{error.message}\n  hint: {error.hint}", param_hint="--for") from error
