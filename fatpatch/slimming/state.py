"""The file at the root of a slimmed folder: what is under way there, and what can be undone."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from fatpatch.base.errors import FormatError
from fatpatch.base.records import NamedTuple
from fatpatch.base.writing import write_file
from fatpatch.model.slim_mark import SlimMark
from fatpatch.scan.slim_marks import MARK, mark_bytes, mark_from

STATE: Final = MARK
SCHEMA: Final = "fatpatch.slim-state/1"
_MAX_STATE: Final = 64 << 20


class State(NamedTuple):
    """What the state file says: by which request, which libraries and ledgers, and whether all is done. Paths count from the root.

    ``mark``: what the libraries are for now.
    """

    request: str
    files: tuple[str, ...]
    ledgers: tuple[str, ...]
    marks: tuple[str, ...]
    done: bool
    mark: SlimMark | None = None

    @property
    def undoable(self) -> bool:
        """Whether a run was cut off, or left undo records."""
        return not self.done or bool(self.files or self.ledgers)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        mark = None if self.mark is None else json.loads(mark_bytes(self.mark))
        return {"schema": SCHEMA, **self._asdict(), "mark": mark}


def save_state(root: str, state: State) -> None:
    """Write the state, whole or not at all."""
    write_file(os.path.join(root, STATE), [json.dumps(state.document(), indent=1).encode() + b"\n"], replace=True)


def load_state(root: str) -> State | None:
    """What an earlier run has left; None when there was none. FormatError when it cannot be ours."""
    path = os.path.join(root, STATE)
    if not os.path.lexists(path):
        return None
    try:
        if os.path.getsize(path) > _MAX_STATE:
            raise ValueError("too large")
        with open(path, "rb") as stream:
            document = json.load(stream)
        if document["schema"] != SCHEMA:
            raise ValueError(f"expected {SCHEMA}, got {str(document['schema'])[:80]}")
        lists = [tuple(map(str, document[key])) for key in ("files", "ledgers", "marks")]
        if not all(_inside(root, each) for paths in lists for each in paths):
            raise ValueError("names a file outside the folder")
        return State(str(document["request"]), lists[0], lists[1], lists[2], bool(document["done"]), mark_from(document.get("mark")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"is not a state of fatpatch slim: {error}", locator=path) from error


def _inside(root: str, path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    plain = not os.path.isabs(path) and ".." not in parts and ":" not in parts[0]
    folder = os.path.realpath(os.path.dirname(os.path.join(root, path)))
    return plain and os.path.commonpath([os.path.realpath(root), folder]) == os.path.realpath(root)
