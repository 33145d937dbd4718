"""The result of ``retarget`` in words and as JSON (schema retarget-1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fatpatch.api.gpus import is_newest, newest_toolkit_for
from fatpatch.api.kernels import readable
from fatpatch.api.retarget import IDENTICAL, UNCHANGED, WORDS, Retargeted, RetargetedFile, RetargetRequest, RetargetVerdict
from fatpatch.base.words import columns, plural, safe, size
from fatpatch.model.target import Target

SCHEMA = "fatpatch.retarget/1"
_SHOWN = 6
_SHOWN_NAME = 60


def retarget_text(
    found: RetargetedFile, request: RetargetRequest, shown: str, directory: str | None, files: int, *, verbose: bool
) -> Iterator[str]:
    """The classes with their counts and reasons, what is made, what to beware of, and the exact repair."""
    verdicts = [verdict for each in found.modules for verdict in each.verdicts]
    sources = ", ".join(sorted({each.source for each in found.modules if each.source}))
    what = f"{plural(len(verdicts), 'kernel')} of {plural(len(found.modules), 'module')}"
    yield f"{safe(shown)}  {what} for {request.target}, from {sources or 'nothing'}, by ptxas {found.release}"
    yield ""
    counts = Counter((verdict.number, verdict.taken) for verdict in verdicts)
    pairs = {number: (counts[number, True], counts[number, False]) for number in WORDS}
    rows = [(str(number), WORDS[number], str(taken + traps), str(taken), str(traps)) for number, (taken, traps) in pairs.items()]
    yield from (f"  {line}" for line in columns(("class", "", "kernels", "included", "traps"), rows, left=frozenset({0, 1})))
    yield ""
    yield from _reasons(verdicts, verbose=verbose)
    yield from _problems(found.modules)
    yield from _cautions([verdict for verdict in verdicts if verdict.taken])
    made = found.made
    there = sum(any(image.target == request.target for image in each.payload.images) for each in made)
    if there:
        yield f"{request.target} code is in {plural(there, 'module')} of these already: 'graft' needs --replace"
    if not made:
        hint = _advice(verdicts)
        yield f"no image was compiled{hint}"
    elif directory is None:
        total = size(sum(len(each.image or b"") for each in made))
        yield f"{plural(len(made), 'image')} can be compiled, {total}: -o DIR writes them, 'graft --retarget {request.target}' adds them"
    else:
        yield f"{plural(files, 'file')} written to {safe(directory)}, and index.json"
    yield _repair(request.target)


def _reasons(verdicts: Sequence[RetargetVerdict], *, verbose: bool) -> Iterator[str]:
    """With ``verbose`` every kernel; else the reasons, the most frequent first, each with a kernel."""
    if verbose:
        for verdict in verdicts:
            yield f"{verdict.number} {'included' if verdict.taken else 'trap    '}  {safe(verdict.kernel)}  {safe(verdict.why)}"
            yield from (f"           {caution}" for caution in verdict.cautions)
        return
    reasons: dict[tuple[int, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.number != IDENTICAL:
            reasons.setdefault((verdict.number, verdict.why), []).append(verdict.kernel)
    ranked = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    for (number, why), kernels in ranked[:_SHOWN]:
        yield f"{number}: {plural(len(kernels), 'kernel')}, such as {safe(readable(kernels[0]), _SHOWN_NAME)}: {safe(why, 300)}"
    if len(ranked) > _SHOWN:
        yield f"and {plural(len(ranked) - _SHOWN, 'more reason')}; -v lists all"


def _problems(found: Sequence[Retargeted]) -> Iterator[str]:
    broken = [each for each in found if each.problem]
    for each in broken[:_SHOWN]:
        yield f"{safe(each.payload.locator)}: {safe(each.problem, 300)}"
    if len(broken) > _SHOWN:
        yield f"and {plural(len(broken) - _SHOWN, 'more module')} without a result"
    lost = [kernel for each in found if each.image is not None for kernel in each.lost]
    if lost:
        first = safe(readable(lost[0]), _SHOWN_NAME)
        yield f"warning: {plural(len(lost), 'kernel')} that this GPU runs today would become traps, such as {first}"


def _cautions(taken: Sequence[RetargetVerdict]) -> Iterator[str]:
    unverified = sum(verdict.number == UNCHANGED for verdict in taken)
    if unverified:
        yield f"UNVERIFIED: {plural(unverified, 'kernel')} may compute wrong results: they were written for another GPU; test each"
    counts = Counter(caution for verdict in taken for caution in verdict.cautions)
    for caution, count in counts.most_common(_SHOWN):
        yield f"warning: {plural(count, 'kernel')}: {caution}"


def _advice(verdicts: Sequence[RetargetVerdict]) -> str:
    if any(verdict.number == UNCHANGED for verdict in verdicts):
        return ": no kernel is proven to be the same; --allow unverified includes those of class 2"
    return ""


def _repair(target: str) -> str:
    arch, suffix = Target(target).level
    newest = newest_toolkit_for(target)
    last = "" if newest is None or is_newest(newest) else f" (CUDA {newest} is the last that supports it)"
    return f"exact repair: recompile the source{last}: nvcc -gencode arch=compute_{arch}{suffix},code=sm_{arch}{suffix}"


def retarget_json(found: RetargetedFile, names: Mapping[str, str], request: RetargetRequest, version: str) -> dict[str, Any]:
    """The document of schema fatpatch.retarget/1."""
    return {
        "schema": SCHEMA,
        "tool_version": version,
        "target": request.target,
        "ptxas": found.release,
        "classes": {str(number): words for number, words in WORDS.items()},
        "modules": [
            {
                "module": each.payload.locator,
                "source": each.source,
                "file": names.get(each.payload.locator),
                "size": None if each.image is None else len(each.image),
                "problem": each.problem or None,
                "lost": list(each.lost),
                "kernels": [
                    {
                        "name": verdict.kernel,
                        "class": verdict.number,
                        "why": verdict.why,
                        "cautions": list(verdict.cautions),
                        "taken": verdict.taken,
                    }
                    for verdict in each.verdicts
                ],
            }
            for each in found.modules
        ],
        "exact_repair": _repair(request.target),
    }
