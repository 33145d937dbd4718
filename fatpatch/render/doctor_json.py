"""The JSON of ``doctor`` (doctor-1.schema.json, and fleet-1.schema.json for several GPUs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fatpatch.render.doctor import headline
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.jit import Cost
from fatpatch.verdicts.judged import FileVerdict, Judged
from fatpatch.verdicts.module import KernelVerdict
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.remedy import Remedy

Json = dict[str, Any]


def document(environment: Environment, files: Sequence[Json], errors: Sequence[Json], version: str) -> Json:
    """Several files on one GPU."""
    return {
        "schema": "fatpatch.doctor/1",
        "tool_version": version,
        "gpu": _gpu(environment),
        "driver": _driver(environment),
        "environment": {
            "CUDA_FORCE_PTX_JIT": environment.force_ptx,
            "CUDA_DISABLE_PTX_JIT": environment.disable_ptx,
            "CUDA_MODULE_LOADING": "EAGER" if environment.eager else "LAZY",
        },
        "files": list(files),
        "errors": list(errors),
    }


def fleet_document(environment: Environment, rows: Sequence[Json], errors: Sequence[Json], version: str) -> Json:
    """Several GPUs: ``rows`` has one entry for each file and GPU."""
    return {
        "schema": "fatpatch.fleet/1",
        "tool_version": version,
        "driver": _driver(environment),
        "verdicts": list(rows),
        "errors": list(errors),
    }


def file_json(found: FileVerdict, remedies: Sequence[Remedy], shown: str) -> Json:
    """One file on one GPU."""
    return {
        "path": shown,
        "verdict": found.verdict,
        "outcome": outcome_of(found),
        "summary": headline(found, shown),
        "trouble": None if found.trouble is None else {"cuda_error": found.trouble[0], "message": found.trouble[1]},
        "modules": [module_json(module) for module in found.modules],
        "host": _host(found),
        "model": _model(found),
        "quantisations": [{"type": quant.quant, "works": not quant.broken, "broken": list(quant.broken)} for quant in found.quants],
        "no_road": [{"type": quant, "why": why} for quant, why in found.no_road],
        "jit": _cost(found.cost),
        "needs_driver": [{"linux": need.linux, "windows": need.windows or None, "why": need.why} for need in found.needs],
        "last_driver": found.last_driver,
        "remedies": [{"title": row.title, "command": row.command, "works": row.works, "why": row.why} for row in remedies],
        "unread": len(found.unread),
    }


def fleet_row(found: FileVerdict, shown: str, names: Sequence[str]) -> Json:
    """One file on one GPU of many: the verdict of every module, without its kernels."""
    return {
        "path": shown,
        "gpu": {**_gpu(found.environment), "products": list(names)},
        "verdict": found.verdict,
        "outcome": outcome_of(found),
        "trouble": None if found.trouble is None else {"cuda_error": found.trouble[0], "message": found.trouble[1]},
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
        "needs_driver": [{"linux": need.linux, "windows": need.windows or None, "why": need.why} for need in found.needs],
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


def _driver(environment: Environment) -> Json | None:
    driver = environment.driver
    return None if driver is None else {"version": driver.version, "cuda": driver.cuda, "ptx": driver.ptx, "note": driver.note or None}


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
                "thresholds": list(host.thresholds),
                "read_from_code": host.read,
                "decides_by": None if arch is None or host.family is None else host.decides_by(arch),
                "agrees": not any(other is module.host for other in (bad.host for bad in found.mismatch)) if host.family else None,
                "reason": host.reason,
                "registered_kernels": None if registration is None or not registration.proven else len(registration.kernels),
                "registered_but_not_loaded": [] if registration is None or not registration.proven else sorted(registration.unknown),
            }
        )
    return rows


def _model(found: FileVerdict) -> Json | None:
    model = found.model
    if model is None:
        return None
    return {"name": found.model_name, "architecture": model.architecture, "tensor_types": dict(model.tensor_types)}


def _cost(cost: Cost | None) -> Json | None:
    if cost is None:
        return None
    return {"seconds": round(cost.seconds, 3), "cache_bytes": cost.cache_bytes, "ptx_bytes": cost.text_bytes}
