"""The JSON of doctor, checked against its schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from conftest import ROOT, Run

SCHEMA = json.loads((ROOT / "fatpatch/verdicts/doctor-2.schema.json").read_text())
FLEET = json.loads((ROOT / "fatpatch/verdicts/fleet-2.schema.json").read_text())


def document(run: Run, *arguments: object, code: int = 0) -> dict[str, Any]:
    """What ``doctor`` prints for some arguments; it must end with ``code``."""
    done = run("doctor", *arguments, "--format", "json")
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, FLEET if found["schema"] == "fatpatch.fleet/2" else SCHEMA)
    return found
