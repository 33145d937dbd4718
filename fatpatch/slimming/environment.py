"""A whole environment made smaller: library after library, each edit whole or not at all, then the ledgers that hold their hashes.

A file at the root of the folder says what is under way, so that a run that was killed can be repeated or undone. It is there before
the first library changes, and lists all that may change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.leftovers import remove_files, remove_neighbours
from fatpatch.base.locking import locked
from fatpatch.base.workers import in_order
from fatpatch.base.writing import write_file
from fatpatch.edit.transaction import undo_file
from fatpatch.model.slim_mark import SlimMark
from fatpatch.scan.slim_marks import MARK, mark_bytes, read_mark
from fatpatch.slimming.in_use import mapped_below
from fatpatch.slimming.ledger import FileFacts, conda_document, differing, facts_of, read_ledger, record_lines, replace_file
from fatpatch.slimming.library import slim_library
from fatpatch.slimming.mark import joined, mark_of
from fatpatch.slimming.request import LEFT_ALONE, SLIMMED, LibraryResult, LibraryTask, SlimRequest
from fatpatch.slimming.state import STATE, State, load_state, save_state
from fatpatch.slimming.tree import Package, Tree

Report = Callable[[LibraryResult], None]


def slim_tree(tree: Tree, request: SlimRequest, *, dry: bool, jobs: int, report: Report, today: str) -> list[LibraryResult]:
    """Slim every library of a tree in place, and its ledgers; with ``dry`` only plan. One result a library, the largest first."""
    if dry:
        return _libraries(tree, request, dry=True, jobs=jobs, report=report)
    with locked(tree.root):
        before = load_state(tree.root)
        if before is not None and not before.done:
            for folder in {os.path.dirname(each) for each in (*before.files, *before.ledgers)}:
                remove_files(os.path.join(tree.root, folder))
        state = _begun(tree, request, before)
        remove_neighbours(os.path.join(tree.root, STATE))
        save_state(tree.root, state)
        results = _libraries(tree, request, dry=False, jobs=jobs, report=report)
        settled = _settled(tree, results, resumed=before is not None and not before.done)
        touched = {result.shown for result in results if result.status == SLIMMED}
        for package in tree.packages:
            if package.ledger and (own := {path: settled[path] for path in package.files if path in settled}):
                touched |= _renew_ledger(tree.root, package, own, request, today)
        _finish(tree.root, state, mark_of(request, {path: settled[path].size for path in touched}, today))
    return results


def _begun(tree: Tree, request: SlimRequest, before: State | None) -> State:
    """The state of a run that begins. EditError when one before it was cut off and asked for something else."""
    if before is not None and not before.done and before.request != request.words:
        hint = f"finish it with {before.request}, or 'fatpatch undo' the folder"
        raise EditError(f"an earlier run was cut off: {before.request}", locator=tree.where.shown, hint=hint)
    ledgers = tuple(dict.fromkeys(package.ledger for package in tree.packages if package.ledger))
    marks = tuple(f"{os.path.dirname(ledger)}/{MARK}" for ledger in ledgers if ledger.endswith("/RECORD"))
    old = before or State("", (), (), (), False)
    return State(request.words, _both(old.files, tree.files), _both(old.ledgers, ledgers), _both(old.marks, marks), False, old.mark)


def _finish(root: str, state: State, new: SlimMark) -> None:
    """Keep in the state what can be undone, and what the libraries are for; no state where there is neither."""
    files, ledgers = (
        tuple(each for each in paths if os.path.lexists(undo_file.path_beside(os.path.join(root, each))))
        for paths in (state.files, state.ledgers)
    )
    mark = joined(state.mark, new, root)
    if not files and not ledgers and mark is None:
        os.unlink(os.path.join(root, STATE))
        return
    marks = tuple(mark for mark in state.marks if os.path.lexists(os.path.join(root, mark)))
    save_state(root, state._replace(files=files, ledgers=ledgers, marks=marks, done=True, mark=mark))


def _both(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _libraries(tree: Tree, request: SlimRequest, *, dry: bool, jobs: int, report: Report) -> list[LibraryResult]:
    used = frozenset[str]() if dry else mapped_below(tree.root)
    tasks, results = list[LibraryTask](), list[LibraryResult]()
    for path in tree.files:
        full = os.path.join(tree.root, path)
        if os.path.realpath(full) in used:
            results.append(LibraryResult(path, LEFT_ALONE, "a running process uses it"))
            continue
        tasks.append(LibraryTask(full, path, None if dry else os.path.realpath(full), request))
    results += [LibraryResult(path, LEFT_ALONE, "is a link out of the folder") for path in tree.linked]
    tasks.sort(key=lambda task: -os.path.getsize(task.path))
    for result in in_order(slim_library, tasks, jobs):
        report(result)
        results.append(result)
    return sorted(results, key=lambda result: (-result.saved, -result.size, result.shown))


def _settled(tree: Tree, results: Iterable[LibraryResult], *, resumed: bool) -> dict[str, FileFacts]:
    """The libraries whose hash may no longer be that of the ledger: those slimmed now, or (``resumed``) by a run that was cut off."""
    if resumed:
        return {path: facts_of(os.path.join(tree.root, path)) for path in tree.files}
    changed = {result.shown for result in results if result.status == SLIMMED}
    changed |= {path for path in tree.files if os.path.lexists(undo_file.path_beside(os.path.join(tree.root, path)))}
    return {path: facts_of(os.path.join(tree.root, path)) for path in tree.files if path in changed}


def _renew_ledger(root: str, package: Package, changed: Mapping[str, FileFacts], request: SlimRequest, today: str) -> set[str]:
    """The ledger with the new hashes, and the files that it had others of.

    A distribution gets a mark beside it, and lines for what is new, so that pip uninstalls all of it.
    """
    path = os.path.join(root, package.ledger)
    old = read_ledger(path)
    prefix = f"{package.base}/" if package.base else ""
    facts = {name.removeprefix(prefix): each for name, each in changed.items()}
    new = differing(old, facts, package.ledger)
    touched = {f"{prefix}{name}" for name in new}
    if not package.ledger.endswith("/RECORD"):
        replace_file(path, conda_document(old, facts, package.ledger), record=request.record)
        return touched
    info = os.path.dirname(package.ledger).removeprefix(prefix)
    place = os.path.join(os.path.dirname(path), MARK)
    remove_neighbours(place)
    mark = joined(read_mark(place), mark_of(request, {name: facts[name].size for name in new}, today), os.path.join(root, package.base))
    if mark is None:
        return touched
    write_file(place, [mark_bytes(mark)], replace=True)
    added = [f"{info}/{MARK}"]
    if request.record:
        added += [undo_file.path_beside(name) for name in sorted(facts)] + [undo_file.path_beside(f"{info}/RECORD")]
    replace_file(path, record_lines(old, facts, added, package.ledger), record=request.record)
    return touched
