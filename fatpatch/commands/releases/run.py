"""One run of ``releases``: the GPUs, the search, and what was fetched."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.api.gpus import environments
from fatpatch.api.releases import JudgedRelease, ReleaseSearch, ReleasesFound, ReleasesRequest, judged_releases
from fatpatch.base.errors import InputError
from fatpatch.base.words import plural, size
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.usage import usage_error

_MANY = 3
_NOTHING_RUNS = 1


def judged(
    names: Sequence[str], shown: Sequence[str], gpus: Sequence[str], driver: str | None, request: ReleasesRequest, search: ReleaseSearch
) -> tuple[int, ReleasesFound]:
    """(exit code, the answer for all projects); what was fetched is reported on standard error."""
    with usage_error():
        asked = environments(gpus, driver)
    found = judged_releases(names, shown, asked, request, search)
    _report(found.rows)
    unread = bool(found.rows) and all(row.error for row in found.rows)
    return InputError.exit_code if unread else 0 if found.works else _NOTHING_RUNS, found


def _report(rows: Sequence[JudgedRelease]) -> None:
    opened = [row for row in rows if not (row.kept or row.assumed or row.error)]
    kept = sum(row.kept for row in rows)
    most = max((row.fetched for row in opened), default=0)
    total = sum(row.fetched for row in opened)
    each = f", at most {size(most)} for one" if len(opened) > 1 else ""
    quiet.note(f"{plural(len(opened), 'release')} opened, {size(total)} fetched{each}; {kept} known from the index")
    errors = [row for row in rows if row.error]
    for row in errors[:_MANY]:
        quiet.note(f"  {row.file}: {row.error}")
    if len(errors) > _MANY:
        quiet.note(f"  and {len(errors) - _MANY} more that cannot be read")
