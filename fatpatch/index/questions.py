"""Built-in queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.devices import find
from fatpatch.model.target import Target

Values = tuple[Any, ...]


class Question(NamedTuple):
    """``argument``: what must be said with it, None for nothing; ``values`` makes of it what the SQL has marks for."""

    words: str
    argument: str | None
    sql: str
    values: Callable[[str], Values] = lambda text: ()


def _number(text: str) -> Values:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 7):
        raise InputError(f"expected a number, got {text!r}", hint="such as 20")
    return (int(text),)


def _one_target(text: str) -> Values:
    if not Target(text).known_form:
        raise InputError(f"expected a target, got {text!r}", hint="such as sm_61, compute_75 or gfx1030")
    return (text,)


def _target_of(text: str) -> Values:
    return (find(text).target,)


_HOLDER = "CASE WHEN payload.holder = '' THEN location.path ELSE location.path || '!' || payload.holder END"
QUESTIONS: Final[dict[str, Question]] = {
    "targets": Question(
        "targets of each file, with the number of modules",
        None,
        f"""SELECT {_HOLDER} AS file, entry.target, count(DISTINCT payload.inside) AS modules, sum(entry.stored_size) AS stored
        FROM location JOIN payload USING (artifact) JOIN entry ON entry.artifact = payload.artifact AND entry.payload = payload.inside
        GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    "lacks": Question(
        "files with code of the same vendor but not for TARGET",
        "TARGET",
        f"""SELECT {_HOLDER} AS file, group_concat(DISTINCT entry.target) AS targets
        FROM location JOIN payload USING (artifact) JOIN entry ON entry.artifact = payload.artifact AND entry.payload = payload.inside
        WHERE payload.vendor = CASE WHEN ?1 LIKE 'gfx%' THEN 'amd' ELSE 'nvidia' END
        GROUP BY 1 HAVING sum(entry.target = ?1 OR substr(entry.target, 1, length(?1) + 1) = ?1 || ':') = 0 ORDER BY 1""",
        _one_target,
    ),
    "fails": Question(
        "files that do not run on GPU, with the outcome",
        "GPU",
        """SELECT CASE WHEN verdict.holder = '' THEN location.path ELSE location.path || '!' || verdict.holder END AS file, verdict.outcome
        FROM location JOIN verdict USING (artifact) WHERE verdict.gpu = ? AND NOT verdict.works ORDER BY 1""",
        _target_of,
    ),
    "runs": Question(
        "files that run on GPU",
        "GPU",
        """SELECT CASE WHEN verdict.holder = '' THEN location.path ELSE location.path || '!' || verdict.holder END AS file, verdict.outcome
        FROM location JOIN verdict USING (artifact) WHERE verdict.gpu = ? AND verdict.works ORDER BY 1""",
        _target_of,
    ),
    "largest": Question(
        "largest images by uncompressed size",
        "COUNT",
        """SELECT image.size, entry.target, image.kind, count(DISTINCT location.path) AS files, min(location.path) AS first, image.sha256
        FROM image JOIN entry ON entry.image = image.sha256 JOIN location USING (artifact)
        GROUP BY image.sha256 ORDER BY image.size DESC, image.sha256 LIMIT ?""",
        _number,
    ),
    "duplicates": Question(
        "images in several files, by the size of the copies",
        "COUNT",
        """SELECT count(DISTINCT location.path) AS files, count(*) AS copies, sum(entry.stored_size) - max(entry.stored_size) AS spare,
        entry.target, min(location.path) AS first, entry.image AS sha256
        FROM entry JOIN location USING (artifact) WHERE entry.image IS NOT NULL
        GROUP BY entry.image HAVING files > 1 ORDER BY spare DESC, sha256 LIMIT ?""",
        _number,
    ),
    "stubs": Question(
        "files with stub kernels, with their number",
        None,
        f"""SELECT {_HOLDER} AS file, entry.target, count(DISTINCT kernel.name) AS stubs
        FROM location JOIN payload USING (artifact) JOIN entry ON entry.artifact = payload.artifact AND entry.payload = payload.inside
        JOIN kernel USING (image) WHERE kernel.body = 'stub' GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    "errors": Question(
        "files and parts of files that could not be read",
        None,
        """SELECT path AS file, '' AS place, error AS message FROM location WHERE error IS NOT NULL
        UNION ALL SELECT location.path, finding.inside, finding.message FROM location JOIN finding USING (artifact) ORDER BY 1, 2, 3""",
    ),
}
