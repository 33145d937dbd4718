"""Findings as JUnit XML: a test suite a file, a test case a finding, and one that passes where there is none."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fatpatch.api.gate import CheckOutcome, Finding, fails
from fatpatch.base.patterns import lazy_pattern

_FORBIDDEN = lazy_pattern("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(outcome: CheckOutcome, fail_on: str) -> str:
    """The document; findings below ``fail_on`` are test cases that pass and say so in their output."""
    by_file: dict[str, list[Finding]] = {file.shown: [] for file in outcome.files}
    for finding in outcome.findings:
        by_file.setdefault(finding.file, []).append(finding)
    owners = {file.shown: file.distribution for file in outcome.files}
    root = Element("testsuites", name="fatpatch")
    tests = failures = 0
    for file, findings in by_file.items():
        failed = [each for each in findings if fails(each, fail_on)]
        count = max(len(findings), 1)
        suite = SubElement(
            root, "testsuite", name=_clean(file), tests=str(count), failures=str(len(failed)), errors="0", skipped="0", time="0"
        )
        for finding in findings:
            _case(suite, finding, wrong=finding in failed)
        if not findings:
            SubElement(suite, "testcase", name="no findings", classname=_clean(owners.get(file) or file), time="0")
        tests, failures = tests + count, failures + len(failed)
    root.attrib |= {"tests": str(tests), "failures": str(failures), "errors": "0", "time": "0"}
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, finding: Finding, *, wrong: bool) -> None:
    owner = finding.distribution or finding.file
    case = SubElement(suite, "testcase", name=_clean(f"{finding.rule} {finding.locator}"), classname=_clean(owner), time="0")
    remedy = f"\n{finding.remedy}" if finding.remedy else ""
    if wrong:
        failure = SubElement(case, "failure", type=finding.rule, message=_clean(finding.message))
        failure.text = _clean(f"{finding.locator}: {finding.message}{remedy}")
    else:
        SubElement(case, "system-out").text = _clean(f"{finding.level}: {finding.message}{remedy}")


def _clean(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
