"""What the gate found, for people, for programs (schema check-1) and for GitHub's log."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from fatpatch.api.gate import LEVELS, CheckOutcome, Finding, Rule
from fatpatch.base.shared_names import shared_beginning
from fatpatch.base.words import plural, safe

_MAX_PLACES = 3
_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def text(outcome: CheckOutcome, policy: str, *, failed: bool, verbose: bool) -> Iterator[str]:
    """The findings by file, the most serious first; then the sum, and what it is held against, in one line each."""
    by_file: dict[str, list[Finding]] = {}
    for finding in outcome.findings:
        by_file.setdefault(finding.file, []).append(finding)
    for file, findings in by_file.items():
        owner = findings[0].distribution
        yield f"{safe(file)}{f' ({safe(owner)})' if owner and owner not in file else ''}: {_counted(findings)}"
        yield from _finding_lines(findings, file, verbose=verbose)
        yield ""
    if verbose:
        for finding in outcome.allowed:
            yield f"allowed: {finding.rule} {safe(finding.locator)}: {safe(finding.message)}"
        for finding in outcome.known:
            yield f"in the baseline: {finding.rule} {safe(finding.locator)}: {safe(finding.message)}"
    marks: dict[str, list[str]] = {}
    for file_result in outcome.files:
        for words in file_result.slimmed:
            marks.setdefault(words, []).append(file_result.shown)
    yield from (f"{safe(_named(files))}: {safe(words)}" for words, files in marks.items())
    sifted = [f"{len(outcome.allowed)} allowed"] if outcome.allowed else []
    sifted += [f"{len(outcome.known)} in the baseline"] if outcome.known else []
    more = f" ({', '.join(sifted)})" if sifted else ""
    holding = sum(1 for file in outcome.files if file.holders)
    counted = _counted(outcome.findings) if outcome.findings else "nothing found"
    yield f"policy: {safe(policy)}" if policy else "no policy file: requirements from the command line only"
    yield f"{'FAILED' if failed else 'passed'}: {plural(len(outcome.files), 'file')}, {holding} with GPU code: {counted}{more}"


def _named(files: list[str]) -> str:
    """``libx.so and 3 more``."""
    return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _finding_lines(findings: list[Finding], file: str, *, verbose: bool) -> Iterator[str]:
    """The findings of one file: what several places have in common is said once, with the names of some."""
    by_place: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: (-LEVELS.index(each.level), each.rule, each.locator)):
        by_place.setdefault((finding.rule, finding.level, finding.locator), []).append(finding)
    alike: dict[tuple[str, ...], list[str]] = {}
    for (rule, level, locator), same in by_place.items():
        words = [finding.message for finding in same]
        remedies = dict.fromkeys(f"do: {finding.remedy}" for finding in same if finding.remedy)
        alike.setdefault((f"{rule} {level}", *words, *remedies), []).append(locator.removeprefix(file).removeprefix("!"))
    for (title, *lines), places in alike.items():
        yield from _places(f"  {title}", places, whole=verbose)
        yield from (f"    {safe(line)}" for line in lines)


def _places(title: str, places: list[str], *, whole: bool) -> Iterator[str]:
    """The title with the places; of many the first, what all begin with once."""
    beginning = shared_beginning(places)
    names = [place[len(beginning) :] for place in places]
    more = 0 if whole else max(0, len(names) - _MAX_PLACES)
    listed = ", ".join(safe(name) for name in names[: len(names) - more]) + (f" and {more} more" if more else "")
    line = f"{title}  {f'in {safe(beginning)}: ' if beginning else ''}{listed}".rstrip()
    yield from textwrap.wrap(line, 80, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)


def _counted(findings: list[Finding] | tuple[Finding, ...]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in reversed(LEVELS)}
    return ", ".join(plural(count, level) for level, count in counts.items() if count)


def github(outcome: CheckOutcome, *, failed: bool) -> Iterator[str]:
    """Workflow commands: one annotation a finding, and a notice when nothing fails."""
    if not failed:
        holding = sum(1 for file in outcome.files if file.holders)
        yield f"::notice title=fatpatch::{plural(len(outcome.files), 'file')}, {holding} with GPU code: passed"
    for finding in outcome.findings:
        message = f"{finding.locator}: {finding.message}" + (f"\ndo: {finding.remedy}" if finding.remedy else "")
        place = f"file={_property(finding.file)},title={_property(finding.rule)}"
        yield f"::{_COMMANDS[finding.level]} {place}::{_data(safe(message).replace(chr(92) + 'n', chr(10)))}"


def summary(outcome: CheckOutcome, *, failed: bool) -> Iterator[str]:
    """The summary of a GitHub job, in Markdown."""
    yield f"### fatpatch check: {'failed' if failed else 'passed'}"
    yield ""
    yield f"{plural(len(outcome.files), 'file')}, {sum(1 for file in outcome.files if file.holders)} with GPU code"
    if outcome.findings:
        yield ""
        yield "| rule | file | finding |"
        yield "|---|---|---|"
    for finding in outcome.findings[:_SUMMARY_ROWS]:
        cells = (f"{finding.rule} {finding.level}", finding.file, finding.message)
        yield "| " + " | ".join(safe(cell).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
    if len(outcome.findings) > _SUMMARY_ROWS:
        yield ""
        yield f"and {len(outcome.findings) - _SUMMARY_ROWS} more"


_SUMMARY_ROWS = 50


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(safe(value)).replace(":", "%3A").replace(",", "%2C")


def explanation(rule: Rule) -> Iterator[str]:
    """The page of one rule."""
    yield f"{rule.id}  {rule.name}  ({rule.level})"
    yield f"{rule.summary[0].upper()}{rule.summary[1:]}."
    yield ""
    yield rule.explanation
