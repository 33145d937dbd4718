"""One graft from end to end: plan, write, verify, name; or only the plan."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.checks import CheckResult
from fatpatch.base.records import NamedTuple
from fatpatch.edit.graft.check_bundle import bundle_checks
from fatpatch.edit.graft.check_fatbin import fatbin_checks
from fatpatch.edit.graft.effect import Effect, effects_of
from fatpatch.edit.graft.plan import Graft, GraftPlan, GraftRequest, plan_graft
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.edit.transaction.checks import Contents, checks_of
from fatpatch.edit.transaction.commit import Destination, EditedFile, commit, guarded
from fatpatch.edit.transaction.comparison import HostPair, TreeComparison
from fatpatch.model.kinds import Vendor


class GraftResult(NamedTuple):
    """What was done, or would be."""

    plan: GraftPlan
    checks: tuple[CheckResult, ...]
    effects: tuple[Effect, ...]
    size_before: int
    size_after: int


def graft(
    subject: EditedFile, new_images: Sequence[ImageToAdd], request: GraftRequest, to: Destination, driver: str | None = None
) -> GraftResult:
    """Graft ``new_images`` into a file; the effect is told for ``driver``.

    EditError before anything is written, VerifyError when the result is not as planned; then, too, nothing is left behind.
    """
    outcomes: list[GraftResult] = []
    guarded(subject, lambda: outcomes.append(_graft(subject, new_images, request, to, driver)))
    return outcomes[0]


def _graft(
    subject: EditedFile, new_images: Sequence[ImageToAdd], request: GraftRequest, to: Destination, driver: str | None
) -> GraftResult:
    plan = plan_graft(subject.node, new_images, request)
    size = subject.before.size
    if plan.edit is None:
        return GraftResult(plan, (), (), size, size)
    edit, effects = plan.edit, list[Effect]()

    def examine(both: TreeComparison) -> list[CheckResult]:
        edited = {graft.module.locator for graft in plan.grafts}
        found = checks_of(edit, both, edited, _contents(plan.grafts, request.limit))
        if all(check.ok for check in found):
            effects[:] = effects_of(plan, both, driver)
        return found

    checks = commit(subject, edit, to, examine, request.limit)
    return GraftResult(plan, checks, tuple(effects), size, edit.overlay.size)


def _contents(grafts: Sequence[Graft], limit: int) -> Contents:
    """What is inside the edited payloads, by the rules of their kind."""

    def contents(pair: HostPair) -> list[CheckResult]:
        mine = [graft for graft in grafts if graft.module.node.locator == pair.old.locator]
        cuda = [graft for graft in mine if graft.module.vendor == Vendor.NVIDIA]
        amd = [graft for graft in mine if graft.module.vendor == Vendor.AMD]
        return [*(fatbin_checks(pair, cuda, limit) if cuda else ()), *(bundle_checks(pair, amd, limit) if amd else ())]

    return contents
