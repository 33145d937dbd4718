"""``fatpatch check``: does a release hold what it promises?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable

import click

from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import GpuName, image_size_option, limits_from, shown_paths
from fatpatch.commands._shared.standard_input import SHOWN, InputFile

_FORMATS = ("text", "json", "sarif", "junit", "github")
_FAILED = 1


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Options that may be given several times, or once with commas."""
    return tuple(word for value in values for word in value.replace(" ", "").split(",") if word)


@click.command("check", cls=Grouped)
@click.argument("files", type=InputFile(), nargs=-1, metavar="FILE...")
@click.option("--require", multiple=True, metavar="TARGETS", help="Require these targets in every file: sm_75,sm_90a,compute_90,gfx1100.")
@click.option("--forbid", multiple=True, metavar="TARGETS", help="Forbid these targets; * matches any characters.")
@click.option("--gpu", "gpus", type=GpuName(), multiple=True, metavar="NAME", help="Require that every file runs on this GPU. Repeatable.")
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
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True, help="Output format.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), help="Number of parallel processes (default: all processors).")
@click.option("-v", "--verbose", is_flag=True, help="Include suppressed findings.")
@image_size_option
def command(
    files: tuple[str, ...],
    require: tuple[str, ...],
    forbid: tuple[str, ...],
    gpus: tuple[str, ...],
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
    jobs: int | None,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Check FILE against a policy.

    FILE may be a file, folder, wheel or llamafile. The exit code is 1 when a rule fails. A part that cannot be read always fails.
    """
    from fatpatch.commands._shared import policy as policies
    from fatpatch.commands.check import run as checking

    if explain is not None:
        return checking.explain(explain, sys.stdout.write)
    if not files:
        raise click.UsageError("give a file or folder to check")
    pairs = list(zip(files, shown_paths(files), strict=True))
    if init and any(shown == SHOWN for _, shown in pairs):
        raise click.UsageError("--init names files in the policy, and standard input has no name\n  hint: give paths")
    if init:
        return checking.write_policy(pairs, policy, limits_from(max_image_size), sys.stdout.write)
    asked = policies.PolicyRequest(_words(require), _words(forbid), gpus, driver)
    held = policies.policy_for(asked, policy, look=not no_policy)
    run = checking.Gate(held, _words(select), _words(ignore), fail_on or held.fail_on, limits_from(max_image_size), jobs)
    outcome = run.check(pairs, baseline)
    if write_baseline is not None:
        from fatpatch.policy.baseline import write_baseline as write

        count = write(write_baseline, [*outcome.findings, *outcome.known])
        quiet.note(f"fatpatch: {count} findings written to {write_baseline}")
    failed = run.failed(outcome)
    if form == "json":
        from fatpatch.policy.document import document

        sys.stdout.write(json.dumps(document(outcome, failed=failed, policy=held.source), indent=1) + "\n")
    elif form == "sarif":
        from fatpatch.commands.check.sarif import sarif

        sys.stdout.write(json.dumps(sarif(outcome, failed=failed), indent=1) + "\n")
    elif form == "junit":
        from fatpatch.commands.check.junit import junit

        sys.stdout.write(junit(outcome, run.fail_on))
    else:
        from fatpatch.commands.check import text as check

        if form == "github":
            lines: Iterable[str] = check.github(outcome, failed=failed)
            _write_summary(check.summary(outcome, failed=failed))
        else:
            lines = list(check.text(outcome, held.source, failed=failed, verbose=verbose))
            quiet.verdict(lines[-1])
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return _FAILED if failed else 0


def _write_summary(lines: Iterable[str]) -> None:
    """Append to the summary of the GitHub job, where there is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with open(path, "a", encoding="utf-8") as sink:
            sink.writelines(f"{line}\n" for line in lines)
