"""The comparison of two releases: text, markdown for release notes, and the document of schema fatpatch.diff/1."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from fatpatch import __version__
from fatpatch.base.shared_names import shared_beginning
from fatpatch.base.shell_word import shell_word
from fatpatch.base.words import columns, plural, safe, size
from fatpatch.release.difference import LibraryDifference
from fatpatch.release.pairing import ReleasePair
from fatpatch.release.run import ReleaseComparison
from fatpatch.release.words import ReportSection, Wording, one_line, sections

SCHEMA = "fatpatch.diff/1"
_FEW = 4
_WIDTH = 80
_FEW_FILES = 3
_LEFT = frozenset({0, 3, 4, 5})
_MARKED = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|#!"})


def text(found: ReleaseComparison, show: Callable[[str], str], *, every: bool, verbose: bool = False) -> Iterator[str]:
    """The gist first; then each file that differs, with what matters most first. Of many files without ``verbose`` the gist alone."""
    sum_up = head(found, safe)
    names = f"{safe(found.old.shown)} -> {safe(found.new.shown)}: "
    if len(sum_up) > _WIDTH and sum_up.startswith(names):
        yield from (f"old: {safe(found.old.shown)}", f"new: {safe(found.new.shown)}", sum_up[len(names) :])
    else:
        yield sum_up
    for files, gist in gists(found, safe):
        yield from _filled(f"{files}:", "  ")
        yield from _filled(gist, "    ")
    wording = Wording(safe, show, every)
    detailed = _detailed(found, verbose=verbose or every)
    if not detailed and _different(found):
        yield ""
        yield "-v shows each file"
    for each in detailed:
        yield ""
        yield f"{safe(name_of(found, each.pair))}  {sizes_of(each.pair)}"
        if gist := one_line(each):
            yield f"  {gist}"
        for section in sections(each, wording):
            yield f"  {section.title}"
            yield from (f"    {line}" for line in (*_table(section), *section.lines))
    harmed = [(each, change) for each in _different(found) for change in each.gpus if change.worked and not change.works]
    if harmed:
        yield ""
        yield f"Why: fatpatch doctor {safe(shell_word(harmed[0][0].pair.facts.file))} --gpu {harmed[0][1].target}"


def _detailed(found: ReleaseComparison, *, verbose: bool) -> list[LibraryDifference]:
    """The files to show in full: all of few."""
    different = _different(found)
    return different if verbose or len(different) <= _FEW_FILES else []


def markdown(found: ReleaseComparison, show: Callable[[str], str], *, every: bool, verbose: bool = False) -> Iterator[str]:
    """To be pasted into release notes: names from the files are code or escaped."""
    yield f"## GPU code: {_escaped(safe(found.old.shown))} → {_escaped(safe(found.new.shown))}"
    yield ""
    yield head(found, lambda name: _escaped(safe(name)))
    if rows := list(gists(found, _code)):
        yield ""
        yield from (f"- {files}: {gist}" for files, gist in rows)
    wording = Wording(_code, show, every)
    for each in _detailed(found, verbose=verbose or every):
        yield ""
        yield f"### {_code(name_of(found, each.pair))}"
        yield ""
        yield f"{sizes_of(each.pair)}."
        if gist := one_line(each):
            yield ""
            yield f"**{_escaped(gist)}**"
        for section in sections(each, wording):
            yield ""
            yield f"**{_escaped(section.title)}**"
            yield ""
            if section.rows:
                yield from _markdown_table(section)
            yield from (f"- {line.replace('->', '→')}" for line in section.lines)


def document(found: ReleaseComparison) -> dict[str, Any]:
    """The document of schema fatpatch.diff/1."""
    return {
        "schema": SCHEMA,
        "tool_version": __version__,
        "old": found.old.shown,
        "new": found.new.shown,
        "empty": found.empty,
        "unchanged": sum(each.empty for each in found.differences),
        "files": [_file(each) for each in _different(found)],
        "diagnostics": [item._asdict() for item in found.diagnostics],
        "errors": [{"locator": error.locator, "message": error.message, "exit_code": error.exit_code} for error in found.errors],
    }


def _different(found: ReleaseComparison) -> list[LibraryDifference]:
    return [each for each in found.differences if not each.empty]


def head(found: ReleaseComparison, quote: Callable[[str], str]) -> str:
    """The sum in one line."""
    names = f"{quote(found.old.shown)} -> {quote(found.new.shown)}"
    total = len(found.differences)
    if not total:
        return f"{names}: no GPU code in either"
    different = len(_different(found))
    if not different:
        same = all(each.pair.unchanged for each in found.differences)
        return f"{names}: {'the same GPU code' if same else 'no difference above the threshold'} ({plural(total, 'file')})"
    return f"{names}: {different} of {plural(total, 'file')} with GPU code {'differs' if different == 1 else 'differ'}"


def gists(found: ReleaseComparison, quote: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Where several files differ: (some of their names, what they have in common), the folder of the names once."""
    different = _different(found)
    groups: dict[str, list[str]] = {}
    for each in different if len(different) > 1 else ():
        groups.setdefault(one_line(each) or "other sizes or numbers", []).append(each.pair.facts.path or each.pair.facts.name)
    for gist, names in groups.items():
        beginning = shared_beginning(names)
        listed = ", ".join(quote(name[len(beginning) :]) for name in names[:_FEW])
        more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
        yield (f"in {quote(beginning)}: " if beginning else "") + listed + more, gist


def _filled(words: str, indent: str) -> list[str]:
    """Lines of at most 80 columns; names are left whole."""
    further = f"{indent}  "
    return textwrap.wrap(words, _WIDTH, initial_indent=indent, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)


def name_of(found: ReleaseComparison, pair: ReleasePair) -> str:
    """Where the file lies, and where it was."""
    name = pair.facts.path or (found.new if pair.new is not None else found.old).shown
    return f"{name} (was {pair.old.path or found.old.shown})" if pair.renamed and pair.old is not None else name


def sizes_of(pair: ReleasePair) -> str:
    """Of the file and of its GPU code, before and after."""
    if pair.old is None or pair.new is None:
        return f"{'new' if pair.old is None else 'gone'}: {size(pair.facts.size)}, GPU code {size(pair.facts.gpu_size)}"
    old, new = pair.old, pair.new
    return f"{size(old.size)} -> {size(new.size)}, GPU code {size(old.gpu_size)} -> {size(new.gpu_size)}"


def _table(section: ReportSection) -> list[str]:
    return columns(section.header, section.rows, left=_LEFT) if section.rows else []


def _markdown_table(section: ReportSection) -> Iterator[str]:
    yield f"| {' | '.join(section.header)} |"
    yield f"| {' | '.join('---' for _ in section.header)} |"
    yield from (f"| {' | '.join(row).replace('->', '→')} |" for row in section.rows)


def _code(name: str) -> str:
    """A code span that the name cannot leave."""
    clean = safe(name).replace("`", "'")
    return f"`{clean}`"


def _escaped(words: str) -> str:
    return words.translate(_MARKED)


def _file(each: LibraryDifference) -> dict[str, Any]:
    old, new = each.pair
    return {
        "path": each.pair.facts.path,
        "old_path": None if old is None else old.path,
        "status": "gained" if old is None else "lost" if new is None else "changed",
        "size": {"old": old and old.size, "new": new and new.size},
        "gpu_size": {"old": old and old.gpu_size, "new": new and new.gpu_size},
        "other_bytes": each.other_bytes,
        "other_code": [row._asdict() for row in each.other_code],
        "gpus": [change._asdict() for change in each.gpus],
        "targets": [
            {"target": change.target, "old": change.old and change.old._asdict(), "new": change.new and change.new._asdict()}
            for change in each.targets
        ],
        "modules": [change._asdict() for change in each.modules],
        "ptx": [change._asdict() for change in each.ptx],
        "toolkits": None if each.toolkits is None else {"old": each.toolkits[0], "new": each.toolkits[1]},
        "kernels_lost": each.kernels_lost,
        "kernels_gained": each.kernels_gained,
        "targets_lost": [row._asdict() for row in each.targets_lost],
        "targets_gained": [row._asdict() for row in each.targets_gained],
        "drivers": [change._asdict() for change in each.drivers],
        "new_stubs": [row._asdict() for row in each.new_stubs],
        "now_stubs": [row._asdict() for row in each.now_stubs],
        "now_real": [row._asdict() for row in each.now_real],
        "changed": [change._asdict() for change in each.changed],
    }
