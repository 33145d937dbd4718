"""The page of some files, and that of two releases side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fatpatch.api.contents import OUTCOMES, STUB, Answer, Finding, Holder, ReportContents, outcome_words
from fatpatch.api.gpus import Device, by_target, family, series, well_known
from fatpatch.api.judging import ReleaseComparison, Wording, diff_words, one_line, sections
from fatpatch.api.kernels import readable
from fatpatch.base.shared_names import shared_beginning
from fatpatch.base.words import plural, safe, size
from fatpatch.commands._shared.page import grade, page
from fatpatch.commands.report.explored import compared, explored
from fatpatch.model.kinds import VENDOR_WORDS
from fatpatch.model.target import target_key

_NAMES, _MOST_NAMES = 3, 8
_ORDER = ("good", "maybe", "bad")
_GRADES = {"error": "bad", "warning": "maybe", "note": "good"}


def report(found: ReportContents, title: str | None) -> str:
    """The page of ``contents``."""
    parts = [("summary", "Summary")] + [(f"file-{index}", safe(each.name)) for index, each in enumerate(found.holders)]
    parts += [("findings", "Findings")] if found.findings else []
    return page(
        "report.html.j2",
        title=title or ", ".join(map(safe, found.shown)),
        parts=parts,
        explored=[explored(each) for each in found.holders],
        mode="kernels",
        summary=list(_summary(found)),
        files=[_file(each) for each in found.holders],
        policy=safe(found.policy),
        findings=[_finding(each) for each in found.findings],
    )


def diff_page(found: ReleaseComparison, title: str | None) -> str:
    """The page of ``compare``."""
    different = [each for each in found.differences if not each.empty]
    wording = Wording(safe, readable, every=False, more="the table of kernels below has all")
    rows: list[dict[str, Any]] = [
        {
            "name": safe(diff_words.name_of(found, each.pair)),
            "sizes": diff_words.sizes_of(each.pair),
            "gist": one_line(each),
            "sections": [section._asdict() for section in sections(each, wording)],
        }
        for each in different
    ]
    pairs = [(diff_words.name_of(found, each.pair), each.pair.old, each.pair.new) for each in different]
    return page(
        "diff.html.j2",
        title=title or f"{safe(found.old.shown)} \u2192 {safe(found.new.shown)}",
        parts=[("summary", "Summary")] + [(f"file-{index}", row["name"]) for index, row in enumerate(rows)],
        explored=[compared(name, old, new) for name, old, new in pairs if old is not None and new is not None],
        mode="diff",
        summary=[diff_words.head(found, safe)]
        + [f"{safe(item.locator)}: {safe(item.message)}" for item in found.diagnostics if item.level != "note"],
        files=rows,
    )


def _summary(found: ReportContents) -> Iterator[dict[str, Any]]:
    """Files with the same answers together: the products that run them, and what the others see, by verdict."""
    rows = list(_answers(found))
    names = [row["name"] for row in rows]
    shared = shared_beginning(names)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(repr((row["words"], row["verdicts"])), []).append(row)
    if shared:
        yield {"words": f"All names begin with {shared}", "verdicts": []}
    for same in groups.values():
        first = [row["name"][len(shared) :] for row in same[:_MOST_NAMES]]
        more = f" and {len(same) - len(first)} more" if len(same) > len(first) else ""
        each = f"{len(same)} libraries run: " if len(same) > 1 else ""
        words = f"{each}{', '.join(first)}{more}, each {same[0]['words']}." if each else f"{first[0]} runs {same[0]['words']}."
        yield {"words": words, "verdicts": same[0]["verdicts"]}


def _targets_words(targets: Sequence[str], groups: Mapping[str, Sequence[Device]]) -> str:
    """``Volta (sm_70, sm_72), RTX 20 series (sm_75)``: each kind once."""
    kinds: dict[str, list[str]] = {}
    for target in targets:
        kinds.setdefault(_kind(target, groups[target]), []).append(target)
    return ", ".join(f"{kind} ({', '.join(each)})" for kind, each in kinds.items())


def _answers(found: ReportContents) -> Iterator[dict[str, Any]]:
    for holder in found.holders:
        groups = {target: devices for target, devices in by_target().items() if target in holder.answers}
        verdicts: dict[Answer, list[str]] = {}
        for target in groups:
            verdicts.setdefault(holder.answers[target]._replace(why="", driver=None), []).append(target)
        running = sum(len(groups[target]) for target in groups if holder.answers[target].works)
        known = sum(len(devices) for devices in groups.values())
        vendors = " and ".join(sorted({VENDOR_WORDS[devices[0].vendor] for devices in groups.values() if devices}))
        yield {
            "name": safe(holder.name),
            "words": f"on {running:,} of {known:,} {vendors} GPUs",
            "verdicts": [
                {
                    "verdict": outcome_words(answer.outcome),
                    "grade": grade(answer),
                    "products": plural(sum(len(groups[target]) for target in targets), "product"),
                    "targets": _targets_words(targets, groups),
                }
                for answer, targets in sorted(verdicts.items(), key=lambda item: _rank(item[0]))
            ],
        }


def _rank(answer: Answer) -> tuple[int, int]:
    """What runs first; then what loads and fails, before what has no code at all."""
    return _ORDER.index(grade(answer)), -list(OUTCOMES).index(answer.outcome)


def _kind(target: str, devices: Sequence[Device]) -> str:
    return series(well_known(devices)) or family(target)


def _file(holder: Holder) -> dict[str, Any]:
    facts = holder.facts
    stubs = sum(cell.body == STUB for cells in facts.kernels.values() for cell in cells.values())
    numbers = [
        ("file", size(facts.size)),
        ("GPU code", size(facts.gpu_size)),
        ("modules", str(len(facts.modules))),
        ("targets", str(len(facts.targets))),
        ("kernels", f"{len(facts.kernels):,}"),
        ("stubs (kernel and target)", f"{stubs:,}"),
        ("made by", ", ".join(map(safe, facts.toolkits)) or "not known"),
    ]
    numbers += [(f"PTX for {target}", f"ISA {', '.join(versions)}") for target, versions in facts.ptx.items()]
    return {
        "name": safe(holder.name),
        "facts": numbers,
        "slimmed": list(map(safe, holder.slimmed)),
        "targets": list(_targets(holder)),
        "gpus": list(_gpus(holder)),
        "judged_note": f" and with the model inside, {safe(holder.model.architecture or 'of an unknown kind')}" if holder.model else "",
    }


def _targets(holder: Holder) -> Iterator[dict[str, Any]]:
    stored: dict[str, int] = {}
    for block in holder.blocks:
        stored[block.target] = stored.get(block.target, 0) + block.size
    most = max(stored.values(), default=0)
    for target, facts in sorted(holder.facts.targets.items(), key=lambda item: target_key(item[0])):
        cells = [cells[target] for cells in holder.facts.kernels.values() if target in cells]
        yield {
            "target": target,
            "modules": facts.modules,
            "kernels": len(cells),
            "stubs": sum(cell.body == STUB for cell in cells),
            "stored": size(stored.get(target)),
            "unpacked": size(facts.unpacked),
            "share": round(100 * stored.get(target, 0) / most) if most else 0,
        }


def _gpus(holder: Holder) -> Iterator[dict[str, Any]]:
    for target, devices in by_target().items():
        answer = holder.answers.get(target)
        if answer is None:
            continue
        names = well_known(devices)
        kind = series(names)
        yield {
            "generation": f"{family(target)}, {kind}" if kind else family(target),
            "target": target,
            "verdict": outcome_words(answer.outcome),
            "grade": grade(answer),
            "products": len(names),
            "names": ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else ""),
            "why": safe(answer.why),
        }


def _finding(each: Finding) -> dict[str, str]:
    return {
        "rule": each.rule,
        "level": each.level,
        "grade": _GRADES[each.level],
        "locator": safe(each.locator),
        "message": safe(each.message),
        "remedy": safe(each.remedy),
    }
