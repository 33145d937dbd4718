"""Libraries that are alternatives for releases of CUDA or ROCm (cuda118 ... cuda130): which of them stand for all."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.patterns import lazy_pattern

_RELEASE = lazy_pattern(r"(?<![a-z0-9])(cuda|cu|rocm|xpu)[-_.]?(\d{2,4})(?![0-9])")


def spread(paths: Sequence[str]) -> list[int]:
    """The indices of the paths; of those that differ in such a release alone the oldest and the newest."""
    groups: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        groups.setdefault(_RELEASE.sub(r"\1*", path.lower()), []).append(index)
    found: list[int] = []
    for group in groups.values():
        ordered = sorted(group, key=lambda index: _RELEASE.findall(paths[index].lower()))
        found += dict.fromkeys((ordered[0], ordered[-1]))
    return sorted(found)
