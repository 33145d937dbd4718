"""``fatpatch check``: does a release hold what it promises?"""

from __future__ import annotations

import sys

import click

from fatpatch.base.locator import STANDARD_INPUT
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.fleet import fleet_option, gpus_of
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import named_units, naming_options
from fatpatch.commands._shared.options import GpuName, TargetName, image_size_option, jobs_option, limits_from
from fatpatch.commands._shared.standard_input import InputFile
from fatpatch.commands.check.output import FORMATS, Checked, ReportFile

_FAILED = 1


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Options that may be given several times, or once with commas."""
    return tuple(word for value in values for word in value.replace(" ", "").split(",") if word)


@click.command("check", cls=Grouped)
@click.argument("files", type=InputFile(), nargs=-1, metavar="FILE...")
@click.option(
    "--require",
    type=TargetName(),
    multiple=True,
    metavar="TARGETS",
    help="Require these targets in every file: sm_75,sm_90a,compute_90,gfx1100.",
)
@click.option("--forbid", type=TargetName(), multiple=True, metavar="TARGETS", help="Forbid these targets; * matches any characters.")
@click.option("--gpu", "gpus", type=GpuName(), multiple=True, metavar="NAME", help="Require that every file runs on this GPU. Repeatable.")
@fleet_option
@click.option("--driver", metavar="VERSION", help="Driver version for --gpu, e.g. 535.154.")
@click.option("--policy", metavar="FILE", help="Policy file (default: fatpatch.toml, then [tool.fatpatch] in pyproject.toml).")
@click.option("--no-policy", is_flag=True, help="Ignore policy files.")
@click.option("--select", multiple=True, metavar="RULES", help="Run only these rules: FP101, FP1, ...")
@click.option("--ignore", multiple=True, metavar="RULES", help="Skip these rules. Unreadable parts (FP00x) cannot be skipped.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning", "note", "never"]), help="Minimum severity that fails the check (default: error)."
)
@click.option("--baseline", metavar="FILE", help="Suppress the findings listed in this file.")
@click.option("--write-baseline", metavar="FILE", help="Write the current findings as a baseline.")
@click.option("--init", is_flag=True, help="Write a policy (fatpatch.toml, or --policy FILE) that FILE... meet today.")
@click.option("--explain", metavar="RULE", help="Explain a rule; 'all' lists the rules.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format.")
@click.option(
    "--report", "reports", type=ReportFile(), multiple=True, help="Also write this format to a file, e.g. sarif=out.sarif. Repeatable."
)
@jobs_option
@click.option("-v", "--verbose", is_flag=True, help="Include suppressed findings.")
@naming_options
@image_size_option
def command(
    files: tuple[str, ...],
    require: tuple[str, ...],
    forbid: tuple[str, ...],
    gpus: tuple[str, ...],
    fleets: tuple[str, ...],
    driver: str | None,
    policy: str | None,
    no_policy: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str | None,
    baseline: str | None,
    write_baseline: str | None,
    init: bool,
    explain: str | None,
    form: str,
    reports: tuple[tuple[str, str], ...],
    jobs: int | None,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Check FILE against a policy.

    FILE may be a file, folder, wheel or llamafile, an installed distribution (NAME), pypi:NAME, npm:NAME or
    pid:NUMBER. The exit code is 1 when a rule fails. A part that cannot be read always fails.
    """
    from fatpatch.api.gate import DemandError, GateRequest, PolicyRequest, gate, policy_for
    from fatpatch.api.gate import write_baseline as write_known
    from fatpatch.commands._shared.progress import Progress
    from fatpatch.commands._shared.usage import usage_error
    from fatpatch.commands.check import run as checking

    if explain is not None:
        return checking.explain(explain, sys.stdout.write)
    if not files:
        raise click.UsageError("give a file or folder to check")
    units = named_units(files)
    if init and any(unit.shown == STANDARD_INPUT for unit in units):
        raise click.UsageError("--init names files in the policy, and standard input has no name\n  hint: give paths")
    limits = limits_from(max_image_size)
    if init:
        return checking.first_policy(units, policy, limits, sys.stdout.write)
    demanded = PolicyRequest(_words(require), _words(forbid), gpus_of(gpus, fleets, policy), driver)
    if driver is not None and not demanded.gpus:
        raise click.UsageError("--driver goes with --gpu")
    with usage_error(kind=DemandError):
        held = policy_for(demanded, policy, look=not no_policy)
    request = GateRequest(held, _words(select), _words(ignore), fail_on or held.fail_on, baseline)
    checking.refuse_unknown(request)
    with Progress(units[0].shown):
        found = gate(units, request, limits, jobs)
    if write_baseline is not None:
        count = write_known(write_baseline, [*found.findings, *found.facts.known])
        quiet.note(f"fatpatch: {count} findings written to {write_baseline}")
    checked = Checked(found, verbose)
    for other, path in reports:
        checked.write(other, path)
    text = checked.rendered(form)
    if form == "github":
        checked.write_summary()
    if form == "text":
        quiet.verdict(text.splitlines()[-1])
    sys.stdout.write(text)
    return 0 if found else _FAILED
