"""What a body counts on that an older GPU does not promise, though ptxas takes it (reference: stubs, section B)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fatpatch.base.patterns import lazy_pattern

_FIRST_INDEPENDENT = 70  # from here on the lanes of a warp go on by themselves
_FIRST_OPT_IN = 70
_WARP = lazy_pattern(rb"\b(?:shfl\.sync|vote\.sync|bar\.warp\.sync|match)[\w.]*\s+([^;]{0,400});")
_ACTIVE = lazy_pattern(rb"\bactivemask\b")
_ALL_LANES = lazy_pattern(rb"(?:-1|0[xX][fF]{8}|4294967295)\Z")
_CONSTANT = lazy_pattern(rb"\bmov\.[bu]32\s+([\w%$]+)\s*,\s*(-?\w+)\s*;")
_SWAP = lazy_pattern(rb"\batom\.[\w.]*cas\b")
_RELEASE = lazy_pattern(rb"\b(?:atom\.[\w.]*exch|membar|fence|st\.volatile|st\.release)\b")
_BRANCH = lazy_pattern(rb"\bbra(?:\.uni)?\s+([\w$%]+)\s*;")
_BOUNDS = lazy_pattern(rb"\.(?:maxntid|reqntid)\b")
_EXTERN = lazy_pattern(rb"^[ \t]*\.extern[ \t]+\.shared\b[^;]{0,400}?([A-Za-z_$%][\w$]*)\s*(?:\[[^\]]{0,20}\])?\s*;", re.MULTILINE)


def cautions(text: bytes, header: bytes, body: bytes, arch: int) -> Iterator[str]:
    """A sentence for each thing to know before a kernel that was made for a newer GPU runs on one of an SM number."""
    if arch < _FIRST_INDEPENDENT:
        if _some_lanes(body):
            yield "works with some lanes of a warp (shfl, vote or activemask): before sm_70 all lanes that are named must be there together"
        if _lock(body):
            yield "takes a lock in a loop: before sm_70 the lanes of a warp wait for each other, and it may hang"
    dynamic = set(_EXTERN.findall(text))
    if arch < _FIRST_OPT_IN and any(re.search(rb"\b" + re.escape(name) + rb"\b", body) for name in dynamic):
        yield "uses dynamic shared memory: more than 48 KiB of it cannot be had before sm_70"
    if not _BOUNDS.search(header):
        yield "states no launch bounds: a launch fails with error 701 when its blocks need more registers than there are"


def _some_lanes(body: bytes) -> bool:
    """Whether a warp-wide operation names fewer than all lanes, or lanes that are only known at run time."""
    if _ACTIVE.search(body):
        return True
    constants = dict(_CONSTANT.findall(body))
    for found in _WARP.finditer(body):
        mask = found[1].rsplit(b",", 1)[-1].strip()
        if not _ALL_LANES.match(constants.get(mask, mask)):
            return True
    return False


def _lock(body: bytes) -> bool:
    """Whether a loop holds a compare-and-swap and what gives a lock back: a loop that only retries an addition is none."""
    for swap in _SWAP.finditer(body):
        for branch in _BRANCH.finditer(body, swap.end()):
            label = re.search(rb"^\s*" + re.escape(branch[1]) + rb"\s*:", body[: swap.start()], re.MULTILINE)
            if label is not None and _RELEASE.search(body, label.start(), branch.end()):
                return True
    return False
