"""Static shared memory of PTX kernels, in bytes, as ptxas lays it out (ptxas 12.9; ``tests/oracle/test_ptx_shared.py``).

A variable in a kernel's body takes room there, used or not; a variable of the module takes room in each kernel that names it, itself or in
a function that it calls. The order is: used variables of the body, used variables of the module, the body's others, each as in the text.
Where a module declares dynamic shared memory, the static part of every kernel is rounded up to its alignment, to 16 bytes at least.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.ptx.bodies import Definition, definitions
from fatpatch.gpucode.ptx.read import NUMBER, Comments, elements, number, places, without_comments
from fatpatch.gpucode.rows import KernelFacts

_NAME = rb"[A-Za-z_$%][\w$]*"
_PLACE = lazy_pattern(rb"\.shared(?:(?<=[^\w.]\.shared)|(?<=\.weak\.shared)|(?<=\.extern\.shared)|(?<=\.visible\.shared))(?=\s*[./])")
_DECLARATION = lazy_pattern(rb"\.shared((?:\s*\.(?:align\s+" + NUMBER + rb"|[a-z]\w*))+)\s+(" + _NAME + rb"[^;{}]*);")
_VARIABLE = lazy_pattern(rb"\s*(" + _NAME + rb")\s*((?:\[\s*(?:" + NUMBER + rb")?\s*\]\s*)*)\Z")
_ALIGN = lazy_pattern(rb"\.align\s+(" + NUMBER + rb")")
_VECTOR = lazy_pattern(rb"\.v([248])(?!\w)")
_TYPE = lazy_pattern(rb"\.(?:[bsuf]|bf)(8|16|32|64|128)(x2)?(?!\w)")
_BEFORE = lazy_pattern(rb"(?:\A|[{};:])\s*(?:\.[^{};:]*)?\Z")  # nothing of a statement, or directives
_EXTERN = lazy_pattern(rb"\.extern\s*\Z")
_INDIRECT = lazy_pattern(rb"\.call(?:prototype|targets)\b")
_STRING = lazy_pattern(rb'"[^"\n]*"')
_BRACE = lazy_pattern(rb"[{}]")
_WORD = lazy_pattern(rb"[\w$%]")
_WINDOW = 1 << 12
_MOST = 4096
_MOST_SEARCHED = 1 << 31
_DYNAMIC = 16


class _Variable(NamedTuple):
    at: int
    name: bytes
    size: int
    alignment: int
    dynamic: bool


def with_shared(rows: list[KernelFacts], text: bytes) -> list[KernelFacts]:
    """The rows of a text's kernels with their static shared memory; None stays where ptxas' layout is not known."""
    try:
        sizes = static_shared(text)
    except _UnknownError:
        return rows
    return [row._replace(shared_bytes=sizes.get(row.name, 0)) for row in rows]


def static_shared(text: bytes) -> dict[str, int | None]:
    """Bytes by kernel, for the kernels that have some; None for one whose layout is not known. _UnknownError where that is so for all."""
    variables = list(islice(_variables(text), _MOST + 1))
    if not variables:
        return {}
    if len(variables) > _MOST or len({each.name for each in variables}) < len(variables):
        raise _UnknownError  # ptxas 12.9 merges variables of one name, even of different kernels
    bodies = [each for each in definitions(text) if each.start >= 0]
    own, module = _by_scope(text, variables, bodies)
    named = _named(text, module, bodies)
    sharing = {index for index, body in enumerate(bodies) if not body.entry and (own[index] or named[index])}
    if sharing and _INDIRECT.search(text):
        raise _UnknownError
    rounding = max((max(_DYNAMIC, each.alignment) for each in variables if each.dynamic), default=1)
    reached = _reached(text, sharing, bodies)
    sizes: dict[str, int | None] = {}
    for index, body in enumerate(bodies):
        if body.entry:
            through = sorted(reached[index])
            names = named[index].union(*(named[other] for other in through))
            used = [each for each in own[index] if _is_used(text, each, body)]
            parts = used + [each for each in module if each.name in names] + [each for each in own[index] if each not in used]
            parts += [each for other in through for each in own[other]]
            size = None if through and not _in_any_order(parts) else _total(parts, rounding)
            if size != 0:
                sizes[body.name.decode("ascii", "backslashreplace")] = size
    return sizes


class _UnknownError(Exception):
    """The layout of a text's shared memory is not known."""


def _variables(text: bytes) -> Iterator[_Variable]:
    """Every variable that a text declares in shared memory."""
    if b".shared" not in text:
        return
    comments = Comments(text)
    for found in _PLACE.finditer(text):
        at = found.start()
        if comments.hide(at):
            continue
        before = without_comments(text[_line_before(text, at) : at])
        if not _BEFORE.search(before):
            continue  # an instruction: ``cvta .shared.u64 a, b;``
        declaration = _DECLARATION.match(without_comments(text[at : at + _WINDOW]))
        if declaration is None:
            raise _UnknownError
        extern = _EXTERN.search(before) is not None
        alignment, width = _alignment_and_width(declaration[1])
        for part in declaration[2].split(b","):
            variable = _VARIABLE.match(part)
            if variable is None:
                raise _UnknownError
            size = width * elements(variable[2]) if variable[2] else width
            if extern == bool(size):
                raise _UnknownError  # an extern with a size has a layout of its own
            yield _Variable(at, variable[1], size, alignment, extern)


def _line_before(text: bytes, at: int) -> int:
    """A place some lines before ``at``, the start of a line where there is one."""
    return text.rfind(b"\n", max(at - _WINDOW, 0), max(at - 256, 0)) + 1 or max(at - _WINDOW, 0)


def _alignment_and_width(attributes: bytes) -> tuple[int, int]:
    """Alignment and bytes of one element of ``.align 16 .v2 .f32``."""
    typed, vector, aligned = _TYPE.search(attributes), _VECTOR.search(attributes), _ALIGN.search(attributes)
    if typed is None:
        raise _UnknownError
    width = int(typed[1]) // 8 * (2 if typed[2] else 1) * (int(vector[1]) if vector else 1)
    return max(width, number(aligned[1]) if aligned else 1), width


def _by_scope(text: bytes, variables: list[_Variable], bodies: list[Definition]) -> tuple[list[list[_Variable]], list[_Variable]]:
    """The static variables of each body, and those of the module."""
    own: list[list[_Variable]] = [[] for _ in bodies]
    module: list[_Variable] = []
    starts = [body.start for body in bodies]
    left = _MOST_SEARCHED
    for each in variables:
        index = bisect_right(starts, each.at) - 1
        left -= each.at - bodies[index].start if index >= 0 else 0
        if left < 0:
            raise _UnknownError
        inside = index >= 0 and _depth(text, bodies[index].start, each.at) >= 0
        if not each.dynamic:
            (own[index] if inside else module).append(each)
    return own, module


def _depth(text: bytes, start: int, at: int) -> int:
    """How many braces are open at ``at`` beyond that before ``start``; negative behind the end of the body."""
    between = text[start:at]
    if b"/" in between or b'"' in between:
        between = _STRING.sub(b"", without_comments(between))
    depth = 0
    for brace in _BRACE.findall(between):
        depth += 1 if brace == b"{" else -1
        if depth < 0:
            break
    return depth


def _is_used(text: bytes, variable: _Variable, body: Definition) -> bool:
    """Whether a body names its variable behind the declaration."""
    found = places(text[variable.at : body.end], variable.name)
    whole = (at for at in found if not _WORD.match(text, variable.at + at - 1))
    return sum(1 for _ in islice(whole, 2)) == 2


def _named(text: bytes, module: list[_Variable], bodies: list[Definition]) -> list[set[bytes]]:
    """The variables of the module that each body names."""
    return _mentions(text, [each.name for each in module], bodies)


def _reached(text: bytes, sharing: set[int], bodies: list[Definition]) -> list[set[int]]:
    """For each body the ones of ``sharing`` that it calls, itself or through others."""
    reached: list[set[int]] = [set() for _ in bodies]
    stack, seen = list(sharing), set(sharing)
    callers: dict[int, set[int]] = {}
    left = _MOST_SEARCHED
    while stack:
        called = stack.pop()
        left -= len(text)
        if left < 0:
            raise _UnknownError
        for index, names in enumerate(_mentions(text, [bodies[called].name], bodies)):
            if names and index != called:
                callers.setdefault(called, set()).add(index)
                if index not in seen and not bodies[index].entry:
                    seen.add(index)
                    stack.append(index)
    for function in sharing:
        stack, done = [function], {function}
        while stack:
            for index in callers.get(stack.pop(), ()):
                if index not in done:
                    done.add(index)
                    reached[index].add(function)
                    stack.append(index)
    return reached


def _mentions(text: bytes, names: list[bytes], bodies: list[Definition]) -> list[set[bytes]]:
    """Which of the names stand in each body, outside comments and strings."""
    if len(names) * len(text) > _MOST_SEARCHED:
        raise _UnknownError
    starts = [body.start for body in bodies]
    mentions: list[set[bytes]] = [set() for _ in bodies]
    for name in names:
        for at in places(text, name):
            index = bisect_right(starts, at) - 1
            if index >= 0 and at < bodies[index].end and not _WORD.match(text, at - 1):
                mentions[index].add(name)
    return mentions


def _in_any_order(variables: list[_Variable]) -> bool:
    """Whether the total is the same however ptxas orders the variables."""
    most = max((each.alignment for each in variables), default=1)
    return all(each.size % most == 0 for each in variables)


def _total(variables: list[_Variable], rounding: int) -> int:
    size = 0
    for each in variables:
        size = _round_up(size, each.alignment) + each.size
    return _round_up(size, rounding)


def _round_up(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
