"""The kernels that do not work on the device: which, how they fail, where their bodies are real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from fatpatch.base.words import plural, safe
from fatpatch.gpucode import flow
from fatpatch.verdicts.module import KernelVerdict
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.results import FileVerdict

Shown = Callable[[str], str]

_MAX_KERNELS = 8
_BODIES = {
    flow.STUB_TRAP: "proven stub: every path ends in a trap",
    flow.STUB_GUARDED: "likely stub: it returns at once or ends in a trap",
    flow.PARTIAL: "likely stub: it traps as soon as there is work",
    flow.CALL_ONLY: "prints and does nothing",
    flow.EMPTY: "empty: it returns without a word and leaves the memory as it was",
    "missing": "not there: launching it is error 500",
}


def dead(found: FileVerdict, show: Shown, *, verbose: bool) -> Iterator[str]:
    """The kernels that are defects on the device, with the message that a stub prints."""
    defects = [(module, kernel) for module in found.here for kernel in module.verdict.defects]
    if not defects:
        return
    rows = _kernel_rows([kernel for _, kernel in defects], show, verbose=verbose)
    distinct = len({kernel.name for _, kernel in defects})
    words = f"{plural(distinct, 'kernel')} {'does' if distinct == 1 else 'do'} not work there"
    everywhere = {real for _, _, real in rows}
    where = f" (real in {', '.join(next(iter(everywhere)))})" if len(everywhere) == 1 and rows[0][2] and len(rows) > 1 else ""
    words += where
    yield ""
    if found.model_quants and all(module.for_model for module, _ in defects):
        yield f"With this model ({', '.join(found.model_quants)}), {words}:"
    elif outcome_of(found) in ("may-fail", "fails-in-part", "may-fail-in-part"):
        yield f"{words}, if the program launches {'it' if distinct == 1 else 'them'} on this GPU:"
    else:
        yield f"{words}:"
    shown = rows if verbose else rows[:_MAX_KERNELS]
    width = min(max(len(name) for name, _, _ in shown), 60)
    second = max(len(words) for _, words, _ in shown)
    for name, words, real in shown:
        yield f"  {safe(name).ljust(width)}  {words.ljust(second)}   {'real in ' + ', '.join(real) if real and not where else ''}".rstrip()
    if len(rows) > len(shown):
        yield f"  and {len(rows) - len(shown)} more lines (-v shows every kernel)"
    proven = {kernel.name: kernel.shape for _, kernel in defects if kernel.body == flow.STUB_TRAP and kernel.shape}
    shapes = Counter(proven.values())
    for shape, count in shapes.most_common(1):
        if count > 1:
            yield f"{count} of the proven stubs have the same instructions but for their operands (opcode hash {shape})."
    messages = Counter(kernel.message for _, kernel in defects if kernel.message)
    for message, _ in messages.most_common(1):
        more = f" (and {len(messages) - 1} like it)" if len(messages) > 1 else ""
        yield f'It will print: "{safe(message)}"{more}'
        if any(kernel.body != flow.CALL_ONLY for _, kernel in defects):
            yield "Then every CUDA call fails with error 719: unspecified launch failure."


def _kernel_rows(defects: Sequence[KernelVerdict], show: Shown, *, verbose: bool) -> list[tuple[str, str, tuple[str, ...]]]:
    """(name, what is wrong, where it is real), a row for each kernel; for each template where there are many."""
    names = {kernel.name: short(show(kernel.name)) for kernel in defects}
    if not verbose and len(set(names.values())) > _MAX_KERNELS:
        names = {name: text.partition("<")[0] for name, text in names.items()}
    groups: dict[tuple[str, str, tuple[str, ...]], dict[str, KernelVerdict]] = {}
    for kernel in defects:
        groups.setdefault((names[kernel.name], kernel.body, kernel.real_in), {})[kernel.name] = kernel
    rows = []
    for (name, body, real), kernels in groups.items():
        text = f"{name}<...> ({len(kernels)} kernels)" if len(kernels) > 1 and "<" not in name else name
        rows.append((text, _body(body, next(iter(kernels.values()))), real))
    return rows


def _body(body: str, kernel: KernelVerdict) -> str:
    return kernel.note if kernel.note.startswith("error ") else _BODIES.get(body, body)


def short(name: str) -> str:
    """A demangled kernel name without its parameters and return type."""
    depth = 0
    for index, char in enumerate(name):
        if char == "<":
            depth += 1
        elif char == ">":
            depth -= 1
        elif char == "(" and depth == 0 and index and not name.startswith("(anonymous", index):
            name = name[:index]
            break
    head, _, rest = name.partition("<")
    return head.removeprefix("void ").split(" ")[-1] + (f"<{rest}" if rest else "")
