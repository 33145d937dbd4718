"""A slimmed folder as it was: every file that has an undo record gets its old bytes back."""

from __future__ import annotations

import os

from fatpatch.base.errors import EditError, FatpatchError
from fatpatch.base.leftovers import remove_files, remove_neighbours
from fatpatch.base.locking import locked
from fatpatch.edit.transaction import undo_file
from fatpatch.edit.transaction.undo import undo
from fatpatch.slimming.state import STATE, load_state


def undo_tree(folder: str) -> int:
    """Give every file of a slimmed folder back the bytes that it had; how many there were. EditError when nothing says what to undo."""
    root = os.path.realpath(folder)
    state = load_state(root)
    if state is None or not state.undoable:
        hint = f"the record is the file {STATE} in it; a run with --no-undo leaves none"
        raise EditError("no undo record found for this folder", locator=folder, hint=hint)
    count = 0
    with locked(root):
        remove_neighbours(os.path.join(root, STATE))
        for folder in {os.path.dirname(each) for each in (*state.files, *state.ledgers)}:
            remove_files(os.path.join(root, folder))
        failed: FatpatchError | None = None
        for each in (*state.files, *state.ledgers):
            full = os.path.join(root, each)
            if not os.path.lexists(undo_file.path_beside(full)):
                continue
            try:
                count += undo(full).edits > 0
            except FatpatchError as error:  # one that was changed since does not keep the others from their old bytes
                failed = failed or error
        if failed is not None:
            raise failed
        for mark in state.marks:
            remove_neighbours(os.path.join(root, mark))
            if os.path.isfile(os.path.join(root, mark)):
                os.unlink(os.path.join(root, mark))
        os.unlink(os.path.join(root, STATE))
    return count
