"""The plans of edits that take nothing from outside: prune, recompress, expand."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.api.edit_run import PlanOf
from fatpatch.api.options import EditChoices
from fatpatch.base.limits import Limits
from fatpatch.edit.host.host import Options
from fatpatch.edit.rewrite.expand import ExpandRequest, plan_expand
from fatpatch.edit.rewrite.prune import PruneRequest, plan_prune
from fatpatch.edit.rewrite.recompress import LEVELS, RecompressRequest, plan_recompress
from fatpatch.edit.rewrite.select_images import KeepRequest
from fatpatch.gpus.devices import Device

__all__ = ["LEVELS", "expanding", "pruning", "recompressing"]


def pruning(
    keep: Sequence[str], drop: Sequence[str], devices: Sequence[Device], edit: EditChoices, *, compact: bool, force: bool
) -> PlanOf:
    """The plan that keeps the targets ``keep``, removes the targets ``drop``, or keeps what the devices load: one of the three."""
    selected = KeepRequest(tuple(keep), tuple(drop), tuple(devices))
    request = PruneRequest(selected, *_where(edit), force, _host(edit, compact), _limit(edit))
    return lambda node, progress: plan_prune(node, request)


def recompressing(codec: str, level: int | None, edit: EditChoices, *, compact: bool, exact: bool = True) -> PlanOf:
    """The plan that compresses every image again; ``LEVELS`` has the highest level of each codec.

    Unless ``exact``, it is an estimate from a sample for a large file.
    """
    request = RecompressRequest(codec, level, *_where(edit), _host(edit, compact), _limit(edit), exact=exact)
    return lambda node, progress: plan_recompress(node, request, progress)


def expanding(edit: EditChoices) -> PlanOf:
    """The plan that writes concatenated entries as plain ones."""
    request = ExpandRequest(*_where(edit), _host(edit), _limit(edit))
    return lambda node, progress: plan_expand(node, request)


def _where(edit: EditChoices) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(edit.modules), tuple(edit.members)


def _host(edit: EditChoices, compact: bool = False) -> Options:
    return Options(drop_signature=edit.drop_signature, compact=compact, rebuild=True)


def _limit(edit: EditChoices) -> int:
    return (edit.limits or Limits()).image
