"""Help of commands with many options: the options in groups, each of which fits a screen."""

from __future__ import annotations

from typing import Final

import click

_GROUPS: Final = {
    "Code to add": ("cubins", "texts", "fatbins", "objects", "donor", "targets", "retags", "retarget", "allow", "kernels"),
    "What to edit": (
        "modules", "members", "replace", "rename_hash", "keep", "drop", "codec", "level", "compress", "keep_ptx", "strip_lto",
    ),
    "Policy": ("require", "forbid", "policy", "no_policy", "select", "ignore", "fail_on", "baseline", "write_baseline", "init", "explain"),
    "Filter": ("kernel_pattern", "missing", "kind", "kinds", "selects", "all_kinds", "threshold"),
    "Show": ("resources", "digest", "what_if", "duplicates", "mangled"),
    "Result": (
        "output", "directory", "in_place", "extracted", "dry_run", "exact", "overwrite", "no_undo", "compact", "force", "cuobjdump",
        "drop_signature",
    ),
    "GPU and driver": (
        "gpus", "fleets", "driver", "cuda", "model", "candidates", "force_ptx_jit", "disable_ptx_jit", "eager", "hsa_override",
    ),
    "Names": ("python", "index_url", "platform", "python_version", "deps", "releases", "plain_http"),
    "Output": ("form", "reports", "ndjson", "html", "verbose", "quiet"),
    "Limits": ("jobs", "max_image_size", "max_download", "public_only"),
}  # fmt: skip
"""Titles, and the parameters below each, by their names in the functions; all others are plain options."""

_OWN: Final = {
    "check": {"gpus": "Policy", "fleets": "Policy", "driver": "Policy"},
    "diff": {"kernels": "Show"},
    "extract": {"targets": "Filter"},
    "inspect": {"exact": "Show", "kernels": "Show", "targets": "Filter"},
    "prune": {"gpus": "What to edit"},
    "report": {"policy": "Options"},
    "slim": {"gpus": "What to edit", "trace": "What to edit"},
}
"""Where an option of a command belongs elsewhere than its name says."""


def option_groups(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The help of a command's options by group: those without a group first, then the groups in their order."""
    rows: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in _GROUPS}}
    own = _OWN.get(command.name or "", {})
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None or isinstance(parameter, click.Argument):
            continue
        name = parameter.name or ""
        title = own.get(name) or next((title for title, names in _GROUPS.items() if name in names), "Options")
        title = "Output" if "--help" in parameter.opts else title
        rows[title if isinstance(command, Grouped) else "Options"].append(record)
    return {title: records for title, records in rows.items() if records}


class Grouped(click.Command):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each group under its title."""
        for title, records in option_groups(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)


class GroupOfCommands(click.Group):
    """A command with subcommands; without one, its help on standard error and exit code 2, in every version of click."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, where there are arguments."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(click.UsageError.exit_code)
        return super().parse_args(ctx, args)
