"""Names of parts of a GPU, and of boards with one: what a driver, a hypervisor or a shop calls them, led back to the GPU's own name.

Sources: NVIDIA Virtual GPU Software documentation (profile names such as A100D-4C), NVIDIA MIG user guide (1g.10gb), Jetson product pages.
"""

from __future__ import annotations

import re

from fatpatch.base.patterns import lazy_pattern

_MIG = lazy_pattern(r"\s+MIG\s+\d+c?\.?\d*g\.\d+gb(?:\.\w+|\+me\S*)*\s*\Z", re.IGNORECASE)
_VIRTUAL = lazy_pattern(
    r"(?:nvidia\s+)?(?:grid\s+)?([a-z][a-z0-9 -]*?\d[a-z0-9 -]*?)-\d{1,3}(?:-\d{1,3})?(?:Q|C|B|A|AC|CME)\s*\Z", re.IGNORECASE
)
_DOUBLE_MEMORY = lazy_pattern(r"\b([AV]100)D[XL]?\b", re.IGNORECASE)
_BOARD = lazy_pattern(r"\b(?:orin|xavier|thor|jetson)\b", re.IGNORECASE)
_BOARD_WORDS = lazy_pattern(r"\s+(?:(?:super|developer\s+kit|dev\s+kit|devkit|module)\b|\(nvgpu\))", re.IGNORECASE)
_DRIVE = lazy_pattern(r"\b(?:drive|igx)\s+(?:agx\s+)?(?=orin|xavier|thor)", re.IGNORECASE)


def own_name(text: str) -> tuple[str, str] | None:
    """The GPU's name in the name of a MIG slice, a vGPU profile or a board, and a note; None where the text is none of these."""
    if found := _MIG.search(text):
        return text[: found.start()], "a MIG slice of it: the same compute capability, fewer multiprocessors and less memory"
    if found := _VIRTUAL.fullmatch(text.strip()):
        return _DOUBLE_MEMORY.sub(r"\1", found[1].replace("-", " ")), "a vGPU profile of it: the same compute capability"
    if _BOARD.search(text) and (_BOARD_WORDS.search(text) or _DRIVE.search(text)):
        return _DRIVE.sub("Jetson AGX ", _BOARD_WORDS.sub("", text)), "the board's name; its GPU is the same"
    return None
