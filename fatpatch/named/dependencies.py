"""A project with all that pip would install beside it, by pip's own resolver: ``pip install --dry-run --report``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from fatpatch.base.errors import InputError, ToolError
from fatpatch.named.pip_settings import with_credentials
from fatpatch.named.pypi import parsed
from fatpatch.named.unit import NamedUnit, NamingChoices
from fatpatch.named.wheel_tags import python_minor, wanted_tags
from fatpatch.remote.address import HTTP, scheme_of

_SECONDS: Final = 300
_MOST: Final = 1000


def with_dependencies(wanted: str, choices: NamingChoices) -> NamedUnit:
    """The wheels of ``NAME`` or ``NAME==VERSION`` and of its dependencies, each a unit. ToolError when pip is missing or fails."""
    name, version = parsed(wanted)
    requirement = name if version is None else f"{name}=={version}"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-", *_options(choices)]
    try:
        done = subprocess.run([*command, requirement], capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603 (a checked name)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(f"pip cannot be run: {type(error).__name__}", locator=f"pypi:{wanted}") from error
    if done.returncode:
        last = next((line for line in reversed(done.stderr.decode("utf-8", "replace").splitlines()) if "ERROR" in line), "")
        hint = last.removeprefix("ERROR: ")[:200] or "python -m pip must work"
        raise ToolError("pip cannot resolve it", locator=f"pypi:{wanted}", hint=hint)
    return NamedUnit(f"pypi:{wanted}", whole=True, parts=units_of(done.stdout, wanted))


def units_of(report: bytes, wanted: str) -> tuple[NamedUnit, ...]:
    """The wheels of an installation report of pip. InputError for what is none."""
    try:
        document: Any = json.loads(report)
        rows = [
            (str(row["metadata"]["name"]), str(row["metadata"]["version"]), str(row["download_info"]["url"])) for row in document["install"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("pip's report is none that is understood", locator=f"pypi:{wanted}", hint="use pip 22.2 or newer") from error
    return tuple(
        NamedUnit(f"{name} {version}", with_credentials(url))
        for name, version, url in rows[:_MOST]
        if scheme_of(url) in HTTP and url.partition("#")[0].endswith(".whl")
    )


def _options(choices: NamingChoices) -> list[str]:
    options = [] if choices.index_url is None else ["--index-url", choices.index_url]
    if choices.platform is None and choices.python_version is None:
        return options
    platforms = list(dict.fromkeys(tag.platform for tag in wanted_tags(choices.platform, choices.python_version) if tag.platform != "any"))
    options += [f"--platform={platform}" for platform in platforms]
    return [*options, "--only-binary=:all:", f"--python-version=3.{python_minor(choices.python_version)}", "--target=unused"]
