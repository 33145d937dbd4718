"""``fatpatch gpus``: the GPUs that are known, their targets, drivers and toolkits."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from fatpatch import __version__
from fatpatch.api.gpus import Device, drivers_for_arch, family, is_newest, matching_devices, toolkits_for, well_known
from fatpatch.base.errors import InputError
from fatpatch.base.words import columns, plural, safe

_LEFT = frozenset(range(8))
_EXAMPLES = 3


@click.command("gpus")
@click.argument("words", nargs=-1, metavar="[TEXT]")
@click.option("--vendor", type=click.Choice(["nvidia", "amd"]), help="List only GPUs of this vendor.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
@click.option("-v", "--verbose", is_flag=True, help="Without TEXT: list every name.")
def command(words: tuple[str, ...], vendor: str | None, form: str, verbose: bool) -> int:
    """List GPUs, targets, drivers and toolkits.

    TEXT is a name or part of one (1060), a target (sm_61, 6.1, gfx1031), a generation (Pascal), a chip, a PCI id (10de:1c03), or auto
    for the GPUs of this machine.
    """
    text = " ".join(words) if words else None
    devices = [device for device in matching_devices(text) if vendor in (None, device.vendor)]
    if not devices:
        raise InputError(f"no GPU of {vendor} is named {text!r}", hint="leave --vendor out")
    if form == "json":
        import json

        document = {"schema": "fatpatch.gpus/1", "tool_version": __version__, "gpus": [_json(device) for device in devices]}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return 0
    for line in _groups(devices) if text is None and not verbose else _lines(devices):
        sys.stdout.write(f"{safe(line)}\n")
    return 0


def _lines(devices: Sequence[Device]) -> Iterator[str]:
    """A line for each GPU."""
    header = ("name", "target", "generation", "chip", "driver", "CUDA", "note")
    rows = [
        (device.name, device.target, family(device.target), device.chip or "-", _drivers(device), _toolkits(device), device.note)
        for device in devices
    ]
    yield from columns(header, rows, left=_LEFT)


def _groups(devices: Sequence[Device]) -> Iterator[str]:
    """A line for each target, with a few of its names."""
    by_target: dict[str, list[Device]] = {}
    for device in devices:
        by_target.setdefault(device.target, []).append(device)
    header = ("target", "generation", "driver", "CUDA", "names", "for example")
    rows = [
        (
            target,
            family(target),
            _drivers(group[0]),
            _toolkits(group[0]),
            str(len({device.name for device in group})),
            ", ".join(well_known(group)[:_EXAMPLES]),
        )
        for target, group in by_target.items()
    ]
    yield from columns(header, rows, left=_LEFT - {4})
    total = len({(device.vendor, device.name) for device in devices})
    yield ""
    yield f"{plural(total, 'name')}; fatpatch gpus NAME shows what is known of one, -v lists all"


def _drivers(device: Device) -> str:
    """``367.48 to 580``, ``450.51.05 on``; ``-`` for AMD and Jetson modules."""
    found = None if device.arch is None else drivers_for_arch(device.arch)
    if found is None:
        return "-"
    return f"{found[0]} on" if found[1] is None else f"{found[0]} to {found[1]}"


def _toolkits(device: Device) -> str:
    """``8.0 to 12.9``: the first and the last toolkit that compile for the GPU; ``10.0 on`` while the newest does."""
    found = toolkits_for(device.target)
    if found is None:
        return "-"
    return f"{found[0]} on" if is_newest(found[1]) else f"{found[0]} to {found[1]}"


def _json(device: Device) -> dict[str, object]:
    drivers = None if device.arch is None else drivers_for_arch(device.arch)
    toolkits = toolkits_for(device.target)
    return {
        "vendor": device.vendor,
        "name": device.name,
        "target": device.target,
        "generation": family(device.target) or None,
        "segment": device.segment or None,
        "chip": device.chip,
        "drivers": None if drivers is None else {"first": drivers[0], "last": drivers[1]},
        "toolkits": None if toolkits is None else {"first": toolkits[0], "last": toolkits[1], "newest_known": is_newest(toolkits[1])},
        "note": device.note or None,
    }
