"""Modules that a graft leaves without the target although they are used together with those that get it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.locator import escape
from fatpatch.edit.modules import ModuleInHost
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.model.kinds import Vendor


def gaps_left(modules: Sequence[ModuleInHost], grafts: Sequence[tuple[ModuleInHost, ImageToAdd]]) -> Iterator[str]:
    """What to warn of, a sentence each: kernels held twice, and relocatable modules that cannot be linked."""
    for target in dict.fromkeys(new_image.target for _, new_image in grafts):
        given = [module for module, new_image in grafts if new_image.target == target]
        for locator in dict.fromkeys(module.node.locator for module in given):
            mine = [module for module in given if module.node.locator == locator]
            others = [module for module in modules if module.node.locator == locator and module not in mine]
            if mine[0].vendor == Vendor.AMD:
                yield from _not_in_all(target, [module for module in others if module.vendor == Vendor.AMD and not module.has(target)])
                continue
            yield from _held_twice(target, mine, [module for module in others if not module.has(target)])
            yield from _not_linked(target, mine, others)


def _not_in_all(target: str, lacking: Sequence[ModuleInHost]) -> Iterator[str]:
    """Each bundle is a module of its own, and a runtime looks into one bundle for a kernel of that bundle."""
    if lacking:
        more, whose = (f" and {len(lacking) - 1} more bundles", "their") if len(lacking) > 1 else ("", "its")
        yield (
            f"no {target} for {lacking[0].locator}{more}: {whose} kernels fail on such a GPU, and older runtimes end the program "
            "when one bundle lacks it"
        )


def _held_twice(target: str, given: Sequence[ModuleInHost], lacking: Sequence[ModuleInHost]) -> Iterator[str]:
    """The CUDA runtime takes one of the modules that hold a kernel, not the one that has an image (measured: load rules, section G)."""
    for relocatable in (False, True):
        kernels = {name for module in given if module.relocatable == relocatable for name in module.names or ()}
        found = [
            (module, shared) for module in lacking if module.relocatable == relocatable and (shared := kernels & (module.names or set()))
        ]
        if found:
            module, shared = found[0]
            more = f" (and {len(found) - 1} more modules)" if len(found) > 1 else ""
            yield (
                f"{module.locator}{more} holds {escape(min(shared))} too and gets no {target}: "
                "the CUDA runtime takes whichever module was registered first, and may still fail with error 209"
            )


def _not_linked(target: str, given: Sequence[ModuleInHost], others: Sequence[ModuleInHost]) -> Iterator[str]:
    """Relocatable modules are linked when they are loaded, all of a file together, unless the linked module has the target."""
    if not any(module.relocatable for module in given):
        return
    linked = [module for module in (*given, *others) if not module.relocatable and module.names]
    lacking = [module for module in others if module.relocatable and not module.has(target)]
    if lacking and not any(module in given or module.has(target) for module in linked):
        yield f"relocatable modules are linked together at load time, and {len(lacking)} more of this file get no {target}"
