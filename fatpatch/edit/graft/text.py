"""The result of a graft in words and as JSON (schema graft-1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fatpatch.base.words import plural, safe
from fatpatch.edit.graft.plan import Graft
from fatpatch.edit.graft.run import GraftResult
from fatpatch.edit.report import EditReport, result_lines
from fatpatch.model.kinds import Vendor

SCHEMA = "fatpatch.graft/1"
_SHOWN = 12


def graft_text(outcome: GraftResult, output: str | None, undo: str | None, notes: list[str], *, verbose: bool) -> Iterator[str]:
    """The lines for a person: what went where, what was checked (each check by name with ``verbose``), what changes, what to do."""
    yield from _places(outcome, len(outcome.plan.grafts) if verbose else _SHOWN)
    yield from _unused(outcome)
    if outcome.plan.edit is None:
        yield "nothing to do: every image is there already; nothing was written, FILE is as wanted"
        return
    report = EditReport("graft", "", output, undo, tuple(_notes(outcome, notes)), dry=output is None)
    yield from result_lines(outcome.checks, (outcome.size_before, outcome.size_after), report, verbose=verbose, more=_choices(outcome))


def _places(outcome: GraftResult, shown: int) -> Iterator[str]:
    """Each graft with its placement, and the members that changed for them."""
    plan, edit = outcome.plan, outcome.plan.edit
    for item in plan.present[:shown]:
        yield f"{safe(item.module.locator)}  {item.new_image.target} is there already"
    if edit is None:
        return
    places = {id(effect.graft): effect.locator for effect in outcome.effects}
    for graft in plan.grafts[:shown]:
        yield f"{safe(graft.module.locator)}  {_sign(graft)} {graft.new_image.target}   {_matched(graft)}"
        now = places.get(id(graft), graft.module.locator).rsplit("!", 1)[-1]
        moved = f"; it is {safe(now)} now" if now != graft.module.locator.rsplit("!", 1)[-1] else ""
        yield f"  {edit.placements[graft.module.locator]}{moved}"
    if len(plan.grafts) > shown:
        yield f"and {plural(len(plan.grafts) - shown, 'more module')}"
    for where, how in edit.members.items():
        yield f"{safe(where)}  {how}; other members unchanged"


def _unused(outcome: GraftResult) -> Iterator[str]:
    """The images that found no module, or could go to more."""
    plan = outcome.plan
    used = {graft.new_image.origin for graft in plan.grafts} | {item.new_image.origin for item in plan.present}
    for skipped in plan.skipped[:_SHOWN]:
        word = "also" if skipped.new_image.origin in used else "not used"
        yield f"{word}: {safe(skipped.new_image.origin)}  {safe(skipped.reason)}"
    if len(plan.skipped) > _SHOWN:
        yield f"and {plural(len(plan.skipped) - _SHOWN, 'more image')} not used"


def _sign(graft: Graft) -> str:
    return "+" if graft.replaced is None else "="


def _matched(graft: Graft) -> str:
    words = [plural(graft.kernels, "kernel") if graft.forced else _match(graft.kernels, "kernel")]
    if graft.parameters:
        words.append("parameters match")
    if graft.variables:
        words.append(_match(graft.variables, "variable"))
    if graft.replaced is not None:
        words.append("the old image replaced")
    words += [f"FORCED: {safe(problem.message)}" for problem in graft.forced]
    return ", ".join(words)


def _match(count: int, word: str) -> str:
    return f"{plural(count, word)} {'matches' if count == 1 else 'match'}"


def _choices(outcome: GraftResult) -> str:
    """``; compute capability 6.1 loaded sm_60, now loads sm_61`` for each kind of change."""
    changes: dict[str, None] = {}
    for effect in outcome.effects:
        before = effect.before.image.target if effect.before.image is not None else f"nothing (error {effect.before.error})"
        after = effect.after.image.target if effect.after.image is not None else f"nothing (error {effect.after.error})"
        device = effect.device if effect.graft.module.vendor == Vendor.AMD else f"compute capability {effect.device}"
        changes[f"{device} loaded {before}, now loads {after}"] = None
    return "".join(f"; {words}" for words in list(changes)[:4])


def _notes(outcome: GraftResult, notes: list[str]) -> list[str]:
    warnings = [warning for effect in outcome.effects for warning in effect.warnings]
    return list(dict.fromkeys([*warnings, *outcome.plan.notes, *notes]))


def graft_json(outcome: GraftResult, output: str | None, undo: str | None, notes: list[str], version: str) -> dict[str, Any]:
    """The document of schema fatpatch.graft/1."""
    plan, edit = outcome.plan, outcome.plan.edit
    effects = {id(effect.graft): effect for effect in outcome.effects}
    grafted = []
    for graft in plan.grafts:
        effect = effects.get(id(graft))
        item: dict[str, Any] = {
            "module": graft.module.locator,
            "target": graft.new_image.target,
            "kind": graft.new_image.kind,
            "origin": graft.new_image.origin,
            "tactic": edit.placements[graft.module.locator] if edit is not None else None,
            "kernels": graft.kernels,
            "replaced": graft.replaced is not None,
            "forced": [problem.message for problem in graft.forced],
        }
        if effect is not None:
            for name, choice in (("before", effect.before), ("after", effect.after)):
                item[name] = {
                    "target": None if choice.image is None else choice.image.target,
                    "error": choice.error,
                    "reason": choice.reason,
                    "measured": choice.measured,
                }
            item["device"] = effect.device
            item["now"] = effect.locator
        grafted.append(item)
    return {
        "schema": SCHEMA,
        "tool_version": version,
        "output": output,
        "size_before": outcome.size_before,
        "size_after": outcome.size_after,
        "grafted": grafted,
        "present": [{"module": item.module.locator, "target": item.new_image.target} for item in plan.present],
        "skipped": [{"origin": item.new_image.origin, "target": item.new_image.target, "reason": item.reason} for item in plan.skipped],
        "members": [] if edit is None else [{"locator": where, "tactic": how} for where, how in edit.members.items()],
        "checks": [check._asdict() for check in outcome.checks],
        "notes": _notes(outcome, notes),
        "undo": undo,
    }
