"""The targets and GPUs that an option of a command names."""

from __future__ import annotations

import click

from fatpatch.api import gpus
from fatpatch.commands._shared.usage import usage_error


def split_targets(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Names that commas part; a usage error for none."""
    found = tuple(name for text in texts for name in map(str.strip, text.split(",")) if name)
    if texts and not found:
        raise click.UsageError("a list of targets is empty; write for example sm_75,sm_86")
    return found


def devices_named(text: str) -> tuple[gpus.Device, ...]:
    """The GPU that --for names; of "auto" those of this machine."""
    with usage_error("--for"):
        return gpus.devices_named(text)
