"""Libraries of which a program loads one: their names differ in nothing but a variant, such as a CUDA release or an architecture.

Sources: how bitsandbytes, triton, sgl-kernel, node-llama-cpp, xllamacpp and ROCm's packages name what they ship.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fatpatch.base.patterns import lazy_pattern

_VERSION = r"\d{1,3}(?:[._]\d{1,3})*"
_CUDA = lazy_pattern(r"(?<![a-z0-9])(?:cuda|cu)[-_.]?(\d{1,3}(?:[._]\d{1,2})?)(?![0-9])", re.IGNORECASE)
_TOKENS = lazy_pattern(
    r"(?<![a-z0-9])(?:"
    r"(?:cuda|cu)[-_.]?(?:(?:1\d|[89])(?:[._]?\d{1,2})?x?)?(?:[-_]\.?(?:nomatmul|nocublaslt\d*|ext))?"
    rf"|(?:rocm|hip|xpu|oneapi|sycl|vulkan|metal|cpu|nocuda|gpu)[-_.]?(?:{_VERSION})?(?:[-_]\.?(?:nomatmul|nocublaslt\d*|ext))?"
    r"|(?:sm|compute|arch)[-_]?\d{2,3}[af]?|gfx[0-9a-f]{3,4}"
    r"|noavx|avx(?:2|512)?(?:[-_]?[a-z]{2,6})?|sse\d(?:[._]\d)?|basic|sandybridge|haswell|skylakex|zen\d|blackwell|hopper|ampere"
    r"|cpython-\d{2,3}[a-z]?|cp3\d{1,2}t?|pypy3\d{1,2}"
    rf"|v?{_VERSION}"
    r")(?![a-z0-9])",
    re.IGNORECASE,
)
_LIBRARY_VERSION = lazy_pattern(r"(\.so|\.dll|\.dylib)(?:\.\d+)+\Z", re.IGNORECASE)
_HASH = lazy_pattern(r"-[0-9a-f]{8}(?=\.)")
_LETTERS = lazy_pattern(r"(?<=[a-z])(?=(?:cuda|rocm|cpu|vulkan)[-_.\d])|(?<=_)(?=[a-z])", re.IGNORECASE)


def alternatives(paths: Sequence[str]) -> list[tuple[int, ...]]:
    """The indices of the paths that are alternatives of each other, group by group; a group has at least two."""
    groups: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        groups.setdefault(_key(path), []).append(index)
    different = [group for group in groups.values() if len({_unversioned(paths[index]) for index in group}) > 1]
    return [tuple(group) for group in different if len({paths[index] for index in group}) == len(group)]


def _unversioned(path: str) -> str:
    """``lib/libx.so`` of lib/libx.so.12: names of one library, as links in a package become copies."""
    return _LIBRARY_VERSION.sub(r"\1", path.replace("\\", "/"))


def _key(path: str) -> str:
    """The path without what tells variants apart."""
    folder, _, name = path.replace("\\", "/").rpartition("/")
    name = _LIBRARY_VERSION.sub(r"\1", _HASH.sub("", name))
    return f"{re.sub(r'[-_.]?[*]', '*', _TOKENS.sub('*', folder)).replace('*', '')}/{_plain(name)}"


def _plain(name: str) -> str:
    return re.sub(r"\*+(?:[-_.]\*+)*", "*", _TOKENS.sub("*", _LETTERS.sub(".", name)))


def variant(path: str, group: Sequence[str]) -> str:
    """What tells a path from the others of its group, such as ``cuda118``: whole words, without what all begin and end with.

    Of paths whose last parts are the same it is the folder.
    """
    paths = [each.replace("\\", "/") for each in group]
    own = path.replace("\\", "/")
    if len({each.rpartition("/")[2] for each in paths}) == 1:
        paths, own = [each.rpartition("/")[0] for each in paths], own.rpartition("/")[0]
    elif len({each.rpartition("/")[0] for each in paths}) > 1:
        return "/".join(own.split("/")[-2:])
    else:
        paths, own = [each.rpartition("/")[2] for each in paths], own.rpartition("/")[2]
    words, mine = [re.split(r"([-/_.]+)", each) for each in paths], re.split(r"([-/_.]+)", own)
    shortest = min(map(len, words))
    start = next((index for index in range(shortest) if any(each[index] != mine[index] for each in words)), shortest - 1)
    end = next((index for index in range(1, shortest - start) if any(each[-index] != mine[-index] for each in words)), shortest - start)
    return "".join(mine[start : len(mine) - end + 1]).strip("/-_.") or own.rpartition("/")[2] or path


def common(group: Sequence[str]) -> str:
    """The paths of a group as one, with a star for what tells them apart."""
    names = [each.replace("\\", "/").rpartition("/")[2] for each in group]
    if len(set(names)) == 1:
        return names[0]
    word = variant(group[0], group)
    return names[0].replace(word, "*", 1) if word in names[0] else names[0]


def cuda_of(path: str) -> tuple[int, ...] | None:
    """(12, 6) of ``libx_cuda126.so``, (11, 8) of ``cu118``, (12,) of ``cuda12x``; None where the path names no CUDA release."""
    found = _CUDA.findall(path.replace("\\", "/"))
    if not found:
        return None
    digits = found[-1]
    if "." in digits or "_" in digits:
        return tuple(int(part) for part in re.split(r"[._]", digits))
    return (int(digits),) if len(digits) < 3 else (int(digits[:2]), int(digits[2:]))


def chosen_by(cuda: tuple[int, ...], paths: Sequence[str]) -> tuple[int, ...]:
    """The indices of the paths of which a program of a CUDA release loads one: the same, else the newest of its major that is not newer.

    Several where the GPU decides, too (``cuda118`` and ``cuda118_nocublaslt``); none where no name tells.
    """
    known = [(found, index) for index, path in enumerate(paths) if (found := cuda_of(path)) is not None]
    same = tuple(index for found, index in known if found == cuda or (len(found) == 1 and found[0] == cuda[0]))
    if same:
        return same
    newest = max((found for found, _ in known if found[0] == cuda[0] and found <= cuda), default=None)
    return tuple(index for found, index in known if found == newest)
