"""The text of ``doctor``: the verdict in the first line, in words; then why; then what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from fatpatch.gpus.cuda_errors import error_text
from fatpatch.images import flow
from fatpatch.render.words import plural, safe, size
from fatpatch.verdicts.dispatch import EQUAL
from fatpatch.verdicts.doctor import libraries
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import arch_of, is_dead
from fatpatch.verdicts.jit import FASTEST, SLOWEST
from fatpatch.verdicts.judged import FileVerdict, Judged, QuantVerdict
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB, KernelVerdict, not_promised
from fatpatch.verdicts.outcome import OUTCOMES, outcome_of
from fatpatch.verdicts.remedy import Remedy

Shown = Callable[[str], str]

_MAX_KERNELS = 8
_MAX_LOST = 8
_MAX_TYPES = 12
_MAX_LOCATORS = 3
_WIDTH, _NARROWEST = 120, 40
_WORTH_A_WORD = 0.5
_BODIES = {
    flow.STUB_TRAP: "proven stub: every path ends in a trap",
    flow.STUB_GUARDED: "likely stub: it returns at once or ends in a trap",
    flow.PARTIAL: "likely stub: it traps as soon as there is work",
    flow.EMPTY: "empty: it returns without a word and leaves the memory as it was",
    "missing": "not there: launching it is error 500",
}
_LOADED = frozenset({"abort", "may-fail", "may-be-wrong", "no-road", "slow-start", "not-promised", "runs"})
_HEADINGS = ((True, "Do this"), (None, "May help"), (False, "Does not help here"))


def device_words(environment: Environment) -> str:
    """``GeForce GTX 1060 (compute capability 6.1)``."""
    device = environment.device
    if device.arch is None:
        return device.name if device.name == device.target else f"{device.name} ({device.target})"
    number = f"compute capability {device.arch // 10}.{device.arch % 10}"
    return f"a GPU of {number}" if device.name == number else f"{device.name} ({number})"


def headline(found: FileVerdict, shown: str) -> str:
    """The first line."""
    return f"{OUTCOMES[outcome_of(found)]}: {safe(shown)} on {device_words(found.environment)}, {_driver_words(found)}"


def _driver_words(found: FileVerdict) -> str:
    """``driver 535.154``; without one the range that the file can do with, where it can."""
    driver = found.environment.driver
    if driver is not None:
        return f"driver {driver.version}"
    if found.environment.device.vendor == "amd":
        return "any ROCm"
    return f"driver {driver_range(found)}" if found.needs and outcome_of(found) in _LOADED else "any driver"


def driver_range(found: FileVerdict) -> str:
    """``525.60.13 to 580``, ``550.54.14 or newer``: on Linux; what loads at all needs it."""
    least = found.needs[0].linux
    return f"{least} or newer" if found.last_driver is None else f"{least} to {found.last_driver}"


def report(found: FileVerdict, rows: Sequence[Remedy], shown: str, show: Shown, *, verbose: bool) -> Iterator[str]:
    """All lines for one file on one device."""
    yield headline(found, shown)
    yield ""
    yield from _libraries(found)
    yield from _why(found, show, verbose=verbose)
    for section in (_jit, _host, _registration, _model, _needs, _notes):
        yield from section(found)
    if rows:
        yield from _remedies(rows)


def _libraries(found: FileVerdict) -> Iterator[str]:
    """Each library of an archive for itself: a program loads one of them."""
    each = libraries(found)
    if len(each) < 2:
        return
    width = max(len(safe(node.path)) for node, _ in each)
    for node, verdict in each:
        yield f"  {safe(node.path).ljust(width)}  {OUTCOMES[outcome_of(verdict)]}"
    yield ""


def _why(found: FileVerdict, show: Shown, *, verbose: bool) -> Iterator[str]:
    maker = "AMD" if found.environment.device.vendor == "amd" else "NVIDIA"
    if not found.modules and found.unread:
        yield "What could be read of the file holds no code for this GPU, but a part could not be read."
        return
    if not found.modules:
        yield f"There is no code for {maker} GPUs in this file: it could only run without the GPU."
        return
    if found.trouble is not None:
        number, words = found.trouble
        yield f"{words[0].upper()}{words[1:]}."
        yield f"The program sees error {number}: {error_text(number).text}."
        return
    away = frozenset(map(id, found.elsewhere))
    for group in _groups([module for module in found.modules if id(module) not in away]):
        yield from _group(group, verbose=verbose)
    if found.elsewhere:
        targets = ", ".join(dict.fromkeys(image.target for module in found.elsewhere for image in module.payload.images))
        count = plural(len(found.elsewhere), "module is", "modules are")
        yield f"{count} for other generations only ({safe(targets)}): a program that picks"
        yield "  modules by GPU never loads them here; one that does sees error 209."
    yield from _dead(found, show, verbose=verbose)
    yield from _lost(found, verbose=verbose)


def _groups(modules: Sequence[Judged]) -> list[list[Judged]]:
    """Modules that fare alike, the worst first."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for module in modules:
        verdict = module.verdict
        key = (verdict.verdict, verdict.cuda_error, verdict.outcome, verdict.target, verdict.reason)
        groups.setdefault(key, []).append(module)
    order = [FAILS, STUB, JIT, COMPATIBLE, NATIVE, EMPTY]
    return sorted(groups.values(), key=lambda group: order.index(group[0].verdict.verdict))


def _group(group: Sequence[Judged], *, verbose: bool) -> Iterator[str]:
    verdict = group[0].verdict
    names = [safe(module.verdict.locator) for module in group]
    shown = names if verbose or len(names) <= _MAX_LOCATORS else names[:1]
    more = "" if len(shown) == len(names) else f" and {len(names) - len(shown)} more modules"
    yield _fate(group[0])
    yield f"  {', '.join(shown)}{more}"
    if verdict.cuda_error is not None and group[0].payload.vendor == "amd":
        yield f"  The program sees error {verdict.cuda_error}, hipErrorNoBinaryForGpu (newer runtimes: 200, hipErrorInvalidImage)."
    elif verdict.cuda_error is not None:
        text = error_text(verdict.cuda_error)
        yield f"  The program sees error {verdict.cuda_error}, {text.runtime_name or text.name}: {text.text}."


def _fate(module: Judged) -> str:
    verdict = module.verdict
    reason = safe(verdict.reason)
    if verdict.outcome is not None:
        return f"The driver {'crashes' if verdict.outcome == 'crash' else 'hangs'}: {reason}."
    if verdict.image is None or (verdict.verdict == FAILS and verdict.cuda_error is None):
        return f"Nothing is loaded: {reason}."
    if verdict.verdict == FAILS:
        return f"Loading fails: {reason}."
    because = reason.removeprefix(f"{verdict.target} is ").removeprefix("compiled by the driver: ")
    if module.payload.vendor == "amd":
        return f"The runtime loads {safe(verdict.target or '')}: {because}."
    kernels = " (it has the kernels below)" if verdict.verdict == STUB else ""
    return f"The driver {'compiles' if verdict.image.kind != 'sass' else 'loads'} {verdict.target}: {because}{kernels}."


def _dead(found: FileVerdict, show: Shown, *, verbose: bool) -> Iterator[str]:
    defects = [(module, kernel) for module in found.modules for kernel in module.verdict.defects]
    if not defects:
        return
    rows = _kernel_rows([kernel for _, kernel in defects], show, verbose=verbose)
    distinct = len({kernel.name for _, kernel in defects})
    words = f"{plural(distinct, 'kernel')} {'does' if distinct == 1 else 'do'} not work there"
    yield ""
    if found.model_quants and any(module.host.family for module in found.modules):
        yield f"With this model ({', '.join(found.model_quants)}), {words}:"
    elif outcome_of(found) in ("may-fail", "fails-in-part", "may-fail-in-part"):
        yield f"{words}, if the program launches {'it' if distinct == 1 else 'them'} on this GPU:"
    else:
        yield f"{words}:"
    shown = rows if verbose else rows[:_MAX_KERNELS]
    width = min(max(len(name) for name, _, _ in shown), 60)
    second = max(len(words) for _, words, _ in shown)
    for name, words, real in shown:
        yield f"  {safe(name).ljust(width)}  {words.ljust(second)}   {'real in ' + ', '.join(real) if real else ''}".rstrip()
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


def _lost(found: FileVerdict, *, verbose: bool) -> Iterator[str]:
    """Why the other images are passed over, for the group that fares worst."""
    away = frozenset(map(id, found.elsewhere))
    bad = [module for module in found.modules if module.verdict.verdict in (FAILS, STUB) and id(module) not in away]
    chosen = bad or (found.modules if verbose else ())
    lines = dict.fromkeys(line for module in chosen for line in module.verdict.lost)
    if not lines:
        return
    yield ""
    yield "Why nothing else is loaded:" if any(module.verdict.image for module in chosen) else "What there is:"
    by_reason: dict[str, list[str]] = {}
    for target, why in lines:
        by_reason.setdefault(why, []).append(target)
    for why, targets in list(by_reason.items())[: None if verbose else _MAX_LOST]:
        yield f"  {safe(', '.join(dict.fromkeys(targets)))}: {safe(why)}"
    if found.environment.device.vendor == "nvidia" and not any(i.kind == "ptx" for module in chosen for i in module.payload.images):
        yield "  no PTX: nothing can be compiled for this GPU when the program starts"


def _jit(found: FileVerdict) -> Iterator[str]:
    cost = found.cost
    if cost is None or cost.seconds < _WORTH_A_WORD or found.slowest is None or found.slowest.verdict.cost is None:
        return
    yield ""
    low, high = seconds(cost.seconds * FASTEST), seconds(cost.seconds * SLOWEST)
    worst = found.slowest.verdict.cost
    yield f"First start on this GPU: about {seconds(cost.seconds)} of compiling on one core if all modules are used ({low} to {high});"
    yield f"  the longest stall is about {seconds(worst.seconds)}, for {safe(found.slowest.verdict.locator)}."
    yield f"  It is cached afterwards: about {size(cost.cache_bytes)} (~/.nv/ComputeCache; Windows: %APPDATA%\\NVIDIA\\ComputeCache)."


def seconds(value: float) -> str:
    """``0.4 s``, ``59 s``, ``6 min``."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def _host(found: FileVerdict) -> Iterator[str]:
    arch = found.environment.device.arch
    hosts = {id(module.host): module for module in found.modules if module.host.family is not None}
    if arch is None or found.trouble is not None or not hosts:
        if found.modules and not hosts and outcome_of(found) == "may-fail":
            yield ""
            yield f"Host code: {safe(found.modules[0].host.reason)}."
        return
    module = next(iter(hosts.values()))
    host = module.host
    assert host.family is not None
    numbers = ", ".join(f"{value // 100}.{value // 10 % 10}" for value in host.thresholds)
    source = "read from its code" if host.read else "as is usual for programs of that time; not found in this one"
    decides = host.decides_by(arch)
    by = "the GPU" if decides == arch * 10 else "its list of targets" + ("" if decides > 0 else ", which has none for this GPU")
    yield ""
    yield f"Host code: {host.family.project}, {host.family.era}; it decides by {by} and knows the steps {numbers} ({source})."
    images = sorted({arch_of(module.verdict.image) for module in found.modules if module.verdict.image is not None})
    if found.mismatch and images:
        compiled = ", ".join(f"{number // 10}.{number % 10}" for number in images)
        step = f"{decides // 100}.{decides // 10 % 10}" if decides > 0 else "nothing"
        names = [name for module in found.mismatch for name in module.doubtful]
        yield f"  It takes the road for {step}; the code was compiled for {compiled}. {plural(len(set(names)), 'kernel')} may compute wrong"
        yield f"  numbers, such as {safe(names[0])[:80]}: launched in a shape that they were not compiled for."
    elif images and all(host.agrees(arch, number) == EQUAL for number in images):
        yield "  The code that is loaded was compiled for the same side of every step."


def _registration(found: FileVerdict) -> Iterator[str]:
    for module in {id(module.host): module for module in found.modules}.values():
        registration = module.host.registration
        if registration is not None and registration.proven and registration.unknown:
            names = ", ".join(sorted(registration.unknown)[:3])
            count = len(registration.unknown)
            words = f"{plural(count, 'kernel')} that the host registers {'is' if count == 1 else 'are'} in no image that is loaded"
            yield f"  {words}: launching one is error 500 ({safe(names)}{', ...' if count > 3 else ''})"


def _model(found: FileVerdict) -> Iterator[str]:
    model = found.model
    if model is None and not found.quants:
        return
    broken = [quant for quant in found.quants if quant.broken]
    if model is not None or broken:
        yield ""
    if model is not None:
        kinds = ", ".join(f"{count} {name}" for name, count in model.tensor_types[:_MAX_TYPES])
        name = f"{safe(found.model_name)}: " if found.model_name else ""
        yield f"Model: {name}{safe(model.architecture or 'unknown architecture')}, {plural(model.tensors, 'tensor')} ({safe(kinds)})"
        if found.modules and not found.quants and all(module.host.family is None for module in found.modules):
            yield "  which kernels it needs is not known: the host program is not one that fatpatch knows"
    for quant, why in found.no_road:
        yield f"  {safe(quant)}: {why}."
    if broken:
        yield f"  Matrices in {_listed(broken)} do not work on this GPU; {_others(found.quants)}"


def _listed(quants: Iterable[QuantVerdict]) -> str:
    return ", ".join(quant.quant for quant in quants)


def _others(quants: Sequence[QuantVerdict]) -> str:
    good = [quant for quant in quants if not quant.broken]
    return f"those in F16, F32{', ' if good else ''}{_listed(good)} do."


def _needs(found: FileVerdict) -> Iterator[str]:
    if not found.needs or found.environment.driver is not None or outcome_of(found) not in _LOADED:
        return
    least = found.needs[0]
    windows = f" ({least.windows} on Windows)" if least.windows else ""
    why = "; ".join(f"{need.why}: {need.linux}" for need in found.needs)
    yield ""
    yield f"Driver: {driver_range(found)}{windows}. {why[0].upper()}{why[1:]}."


def _notes(found: FileVerdict) -> Iterator[str]:
    environment = found.environment
    notes = [f"{environment.device.name}: {environment.device.note}"] if environment.device.note else []
    if environment.driver is not None and environment.driver.note:
        notes.append(f"driver {environment.driver.version}: {environment.driver.note}")
    if any(not_promised(module.verdict, environment) for module in found.modules):
        notes.append("NVIDIA does not promise that machine code runs across minor versions on Tegra parts: try it before you rely on it")
    if found.trouble is None:
        notes += _footnotes(found)
    nvidia = environment.device.vendor == "nvidia"
    if nvidia and found.modules and found.trouble is None and not all(module.verdict.measured for module in found.modules):
        notes.append("by NVIDIA's published rules; only compute capability 9.0 was measured")
    if environment.device.vendor == "amd" and found.modules:
        notes.append("by the sources of AMD's runtime; no AMD GPU was asked")
    if found.unread:
        notes.append(f"{plural(len(found.unread), 'part')} of the file could not be read, so this is not the whole answer")
    if notes:
        yield ""
        yield from (f"note: {safe(note)}" for note in notes)


def _footnotes(found: FileVerdict) -> Iterator[str]:
    """Dead bodies that are no defect, and bodies that could not be judged."""
    kernels = {(module.node.locator, kernel.name): (kernel, module) for module in found.modules for kernel in module.verdict.kernels}
    dead = [module for kernel, module in kernels.values() if is_dead(kernel.body) and not kernel.defect]
    if dead:
        known = all(module.host.family is not None for module in dead)
        end = "which its host does not launch here" if known else "whether its host launches them here is not known"
        yield f"{plural(len(dead), 'kernel body is a stub', 'kernel bodies are stubs')} or empty in the loaded code, {end}"
    unknown = sum(kernel.body == flow.UNKNOWN for kernel, _ in kernels.values())
    if unknown:
        yield f"{plural(unknown, 'kernel body', 'kernel bodies')} could not be judged: the code jumps through registers, or never ends"


def _remedies(rows: Sequence[Remedy]) -> Iterator[str]:
    for works, heading in _HEADINGS:
        chosen = [remedy for remedy in rows if remedy.works is works]
        if not chosen:
            continue
        yield ""
        yield heading
        width = max(len(safe(remedy.title)) for remedy in chosen)
        for remedy in chosen:
            yield from _hanging(f"  {safe(remedy.title).ljust(width)}  ", remedy.why)
            if remedy.command is not None:
                yield f"      {safe(remedy.command)}"


def _hanging(head: str, words: str) -> Iterator[str]:
    """Words behind a head, wrapped, with the later lines below the first."""
    import textwrap

    lines = textwrap.wrap(safe(words), max(_WIDTH - len(head), _NARROWEST), break_long_words=False, break_on_hyphens=False)
    for index, line in enumerate(lines or [""]):
        yield (head if index == 0 else " " * len(head)) + line
