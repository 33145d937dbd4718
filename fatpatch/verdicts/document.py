"""The JSON of ``doctor`` (doctor-2.schema.json, and fleet-2.schema.json for several GPUs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fatpatch.scan.slim_marks import marks_below
from fatpatch.verdicts.alternatives import common, variant
from fatpatch.verdicts.beside import Needed
from fatpatch.verdicts.dispatch import EQUAL, NOT_KNOWN, HostChecks
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import arch_of
from fatpatch.verdicts.jit import Cost
from fatpatch.verdicts.module import KernelVerdict
from fatpatch.verdicts.operations import Operation
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.results import FileVerdict, Judged
from fatpatch.verdicts.words.report import headline

Json = dict[str, Any]


def document(environment: Environment, files: Sequence[Json], errors: Sequence[Json], version: str) -> Json:
    """Several files on one GPU."""
    return {
        "schema": "fatpatch.doctor/2",
        "tool_version": version,
        "gpu": _gpu(environment),
        "driver": _driver([environment]),
        "environment": _variables([environment]),
        "files": list(files),
        "errors": list(errors),
    }


def fleet_document(environments: Sequence[Environment], rows: Sequence[Json], errors: Sequence[Json], version: str) -> Json:
    """Several GPUs: ``rows`` has one entry for each file and GPU."""
    return {
        "schema": "fatpatch.fleet/2",
        "tool_version": version,
        "driver": _driver(environments),
        "environment": _variables(environments),
        "verdicts": list(rows),
        "errors": list(errors),
    }


def file_json(found: FileVerdict, remedies: Sequence[Remedy], beside: Sequence[Needed], failing: Sequence[Operation], shown: str) -> Json:
    """One file on one GPU."""
    marks = marks_below(found.node)
    return {
        **({"slimmed": [mark.document() for mark in marks]} if marks else {}),
        "path": shown,
        "verdict": found.verdict,
        "outcome": outcome_of(found),
        "summary": headline(found, shown),
        "judged_driver": None if found.environment.driver is None else found.environment.driver.version,
        "trouble": _trouble(found),
        "also": found.hidden or None,
        "incomplete": found.incomplete or None,
        "libraries": [_library(each) for each in found.libraries],
        "alternatives": [_alternatives(group, found.chosen) for group in found.alternatives],
        "modules": [module_json(module) for module in found.modules],
        "host": _host(found),
        "model": _model(found),
        "quantisations": [{"type": quant.quant, "works": not quant.broken, "broken": list(quant.broken)} for quant in found.quants],
        "unsupported_types": [{"type": quant, "why": why} for quant, why in found.unsupported_types],
        "jit": _cost(found.cost),
        "needs_driver": _needs(found),
        "last_driver": found.last_driver,
        "remedies": [{"title": row.title, "command": row.command, "works": row.works, "why": row.why} for row in remedies],
        "unread": len(found.unread),
        "loads": [
            {"name": row.library.name, "imported": row.library.imported, "in_file": row.here, "package": row.package or None}
            for row in beside
        ],
        "failing_operations": [row._asdict() for row in failing],
    }


def _library(found: FileVerdict) -> Json:
    return {
        "locator": found.node.locator,
        "verdict": found.verdict,
        "outcome": outcome_of(found),
        "summary": headline(found, found.node.locator),
        "trouble": _trouble(found),
        "also": found.hidden or None,
        "incomplete": found.incomplete or None,
        "needs_driver": _needs(found),
        "modules": len(found.modules),
    }


def _alternatives(group: Sequence[FileVerdict], chosen: Sequence[FileVerdict]) -> Json:
    paths = [each.node.path for each in group]
    loaded = next((each for each in group if any(each is one for one in chosen)), None)
    return {
        "name": common(paths),
        "libraries": [
            {"variant": variant(each.node.path, paths), "locator": each.node.locator, "outcome": outcome_of(each)} for each in group
        ],
        "chosen": None if loaded is None else loaded.node.locator,
    }


def _trouble(found: FileVerdict) -> Json | None:
    return None if found.trouble is None else {"cuda_error": found.trouble[0], "message": found.trouble[1]}


def _needs(found: FileVerdict) -> list[Json]:
    return [{"linux": need.linux, "windows": need.windows or None, "why": need.why} for need in found.needs]


def fleet_row(found: FileVerdict, shown: str, names: Sequence[str]) -> Json:
    """One file on one GPU of many: the verdict of every module, without its kernels."""
    return {
        "path": shown,
        "gpu": {**_gpu(found.environment), "products": list(names)},
        "judged_driver": None if found.environment.driver is None else found.environment.driver.version,
        "verdict": found.verdict,
        "outcome": outcome_of(found),
        "trouble": _trouble(found),
        "modules": [
            {
                "locator": module.verdict.locator,
                "verdict": module.verdict.verdict,
                "cuda_error": module.verdict.cuda_error,
                "target": module.verdict.target,
                "reason": module.verdict.reason,
                "broken_kernels": len(module.verdict.defects),
            }
            for module in found.modules
        ],
        "jit": _cost(found.cost),
        "needs_driver": _needs(found),
        "last_driver": found.last_driver,
    }


def module_json(module: Judged) -> Json:
    """One module on one GPU."""
    verdict = module.verdict
    return {
        "locator": verdict.locator,
        "offset": verdict.offset,
        "size": verdict.size,
        "verdict": verdict.verdict,
        "cuda_error": verdict.cuda_error,
        "outcome": verdict.outcome,
        "image": None if verdict.image is None else verdict.image.locator,
        "target": verdict.target,
        "reason": verdict.reason,
        "measured": verdict.measured,
        "not_loaded": [{"target": target, "why": why} for target, why in verdict.lost],
        "jit": _cost(verdict.cost),
        "doubtful": list(module.doubtful),
        "kernels": [kernel_json(kernel) for kernel in verdict.kernels],
    }


def kernel_json(kernel: KernelVerdict) -> Json:
    """One kernel of a module."""
    return {
        "name": kernel.name,
        "verdict": kernel.verdict,
        "body": kernel.body,
        "defect": kernel.defect,
        "real_in": list(kernel.real_in),
        "message": kernel.message,
        "shape": kernel.shape,
        "note": kernel.note or None,
    }


def _gpu(environment: Environment) -> Json:
    device = environment.device
    return {"name": device.name, "vendor": device.vendor, "target": device.target, "note": device.note or None}


def _driver(environments: Sequence[Environment]) -> Json | None:
    """The driver that was asked for: AMD GPUs and Jetson modules have none."""
    driver = next((environment.driver for environment in environments if environment.driver is not None), None)
    return None if driver is None else {"version": driver.version, "cuda": driver.cuda, "ptx": driver.ptx, "note": driver.note or None}


def _variables(environments: Sequence[Environment]) -> Json:
    """The environment variables that were asked for, each where it counts."""
    return {
        "CUDA_FORCE_PTX_JIT": any(environment.force_ptx for environment in environments),
        "CUDA_DISABLE_PTX_JIT": any(environment.disable_ptx for environment in environments),
        "CUDA_MODULE_LOADING": "EAGER" if any(environment.eager for environment in environments) else "LAZY",
        "HSA_OVERRIDE_GFX_VERSION": next((environment.hsa_override for environment in environments if environment.hsa_override), None),
    }


def _host(found: FileVerdict) -> list[Json]:
    rows = []
    arch = found.environment.device.arch
    for module in {id(module.host): module for module in found.modules}.values():
        host, registration = module.host, module.host.registration
        rows.append(
            {
                "locator": module.node.locator,
                "family": None if host.family is None else host.family.project,
                "era": None if host.family is None else host.family.era,
                "evidence": [] if host.family is None else list(host.family.evidence),
                "force_mmq": None if host.family is None else host.family.force_mmq,
                "thresholds": list(host.thresholds),
                "read_from_code": host.read,
                "decides_by": None if arch is None or host.family is None else host.decides_by(arch),
                "agrees": _agrees(found, host),
                "reason": host.reason,
                "registered_kernels": None if registration is None or not registration.proven else len(registration.kernels),
                "registered_but_not_loaded": [] if registration is None or not registration.proven else sorted(registration.unknown),
            }
        )
    return rows


def _agrees(found: FileVerdict, host: HostChecks) -> bool | None:
    """Whether the host decides as for the code that is loaded; None when that is not known, or nothing is loaded."""
    arch = found.environment.device.arch
    images = {arch_of(module.verdict.image) for module in found.modules if module.host is host and module.verdict.image is not None}
    answers = {NOT_KNOWN} if arch is None else {host.agrees(arch, number) for number in images}
    return None if not answers or NOT_KNOWN in answers else answers == {EQUAL}


def _model(found: FileVerdict) -> Json | None:
    model = found.model
    if model is None:
        return None
    return {"name": found.model_name, "architecture": model.architecture, "tensor_types": dict(model.tensor_types)}


def _cost(cost: Cost | None) -> Json | None:
    if cost is None:
        return None
    return {"seconds": round(cost.seconds, 3), "cache_bytes": cost.cache_bytes, "ptx_bytes": cost.text_bytes}
