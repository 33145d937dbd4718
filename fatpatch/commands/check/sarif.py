"""Findings as SARIF 2.1.0 (OASIS): places inside a file are logical locations, since a binary has no lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from fatpatch import __version__
from fatpatch.api.gate import RULES, CheckOutcome, Finding
from fatpatch.base.locator import steps
from fatpatch.base.words import safe

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_FINGERPRINT = "fatpatchFinding/v1"


def sarif(outcome: CheckOutcome, *, failed: bool) -> dict[str, Any]:
    """The log of one run. Allowed and known findings are there too, as suppressed."""
    used = list(RULES)
    results = [_result(each, used) for each in outcome.findings]
    results += [_result(each, used, "external", "allowed by the policy") for each in outcome.allowed]
    results += [_result(each, used, "external", "in the baseline") for each in outcome.known]
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": [
            {
                "tool": {"driver": {"name": "fatpatch", "version": __version__, "rules": [_rule(identity) for identity in used]}},
                "columnKind": "unicodeCodePoints",
                "artifacts": [{"location": {"uri": _uri(file.shown)}} for file in outcome.files],
                "invocations": [{"executionSuccessful": True, "exitCode": int(failed)}],
                "results": results,
            }
        ],
    }


def _rule(identity: str) -> dict[str, Any]:
    rule = RULES[identity]
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": f"{rule.summary[0].upper()}{rule.summary[1:]}."},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": rule.explanation},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(finding: Finding, used: list[str], suppression: str = "", why: str = "") -> dict[str, Any]:
    remedy = f"\n{finding.remedy}" if finding.remedy else ""
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(finding.file)}}}
    if logical := _logical(finding.locator):
        location["logicalLocations"] = logical
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": used.index(finding.rule),
        "level": finding.level,
        "message": {"text": _plain(finding.message + remedy)},
        "locations": [location],
        "partialFingerprints": {_FINGERPRINT: finding.fingerprint},
    }
    if finding.distribution:
        result["properties"] = {"distribution": finding.distribution}
    if suppression:
        result["suppressions"] = [{"kind": suppression, "justification": why}]
    return result


def _plain(text: str) -> str:
    """Text from a file in which nothing is a link (SARIF 2.1.0, 3.11.6) or moves a cursor."""
    return re.sub(r"[\\\[\]]", r"\\\g<0>", safe(text.replace("\n", "\v"), len(text))).replace("\\\\x0b", "\n")


def _logical(locator: str) -> list[dict[str, Any]]:
    parts: Iterable[str] = steps(locator) if locator else ()
    names = list(parts)
    return [{"name": names[-1], "fullyQualifiedName": locator, "kind": "member"}] if names else []


def _uri(path: str) -> str:
    return quote(os.fsencode(path.replace("\\", "/")), safe="/!._-~+@=")
