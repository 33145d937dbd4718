"""``fatpatch doctor``: will it run on this GPU, with this driver, with this model?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from fatpatch.base.errors import InputError
from fatpatch.base.locator import STANDARD_INPUT
from fatpatch.commands._shared.fleet import fleet_option, gpus_of
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import choices, named_units, naming_options
from fatpatch.commands._shared.options import GpuName, image_size_option, limits_from, shown_paths
from fatpatch.commands._shared.standard_input import InputFile
from fatpatch.commands._shared.usage import usage_error
from fatpatch.model.kinds import Vendor

if TYPE_CHECKING:
    from fatpatch.api.gpus import Circumstances, GpuToJudge
    from fatpatch.api.naming import NamedUnit
    from fatpatch.api.releases import ReleaseSearch
    from fatpatch.base.limits import Limits


@click.command("doctor", cls=Grouped)
@click.argument("files", type=InputFile(), nargs=-1, metavar="[FILE|FOLDER|NAME]...")
@click.option(
    "--gpu",
    "gpus",
    type=GpuName(),
    multiple=True,
    metavar="NAME",
    envvar="FATPATCH_GPU",
    help="GPU name (GTX 1060), target (sm_61, 6.1, gfx1031), PCI id, auto or all. Repeatable.",
)
@fleet_option
@click.option(
    "--driver", metavar="VERSION", envvar="FATPATCH_DRIVER", help="Driver version, e.g. 535.154 (default: report driver-dependent results)."
)
@click.option("--cuda", metavar="VERSION", help="CUDA release by which the program picks a library, e.g. 12.6.")
@click.option("--model", metavar="GGUF", help="Model to run (default: the one inside a llamafile).")
@click.option("--candidate", "candidates", multiple=True, metavar="FILE", help="Other build to use instead or as a donor. Repeatable.")
@click.option("--force-ptx-jit", is_flag=True, help="Assume CUDA_FORCE_PTX_JIT=1: SASS is ignored.")
@click.option("--disable-ptx-jit", is_flag=True, help="Assume CUDA_DISABLE_PTX_JIT=1: PTX is not compiled.")
@click.option("--eager", is_flag=True, help="Assume CUDA_MODULE_LOADING=EAGER.")
@click.option("--hsa-override", metavar="M.m.s", help="Assume HSA_OVERRIDE_GFX_VERSION on Linux, for AMD GPUs.")
@click.option("--deps", is_flag=True, help="Also judge what pip would install with pypi:NAME.")
@click.option("--releases", is_flag=True, help="Look for a release of the package that runs, on pip's index.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
@click.option("-v", "--verbose", is_flag=True, help="Show all modules, kernels and ignored images.")
@naming_options
@image_size_option
def command(
    files: tuple[str, ...],
    gpus: tuple[str, ...],
    fleets: tuple[str, ...],
    driver: str | None,
    cuda: str | None,
    model: str | None,
    candidates: tuple[str, ...],
    force_ptx_jit: bool,
    disable_ptx_jit: bool,
    eager: bool,
    hsa_override: str | None,
    deps: bool,
    releases: bool,
    form: str,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Report whether FILE runs on a GPU, and why.

    FILE may also be a folder or environment (one row per installed distribution), an installed distribution (NAME, NAME==VERSION),
    pypi:NAME (the wheel that pip would take), npm:NAME or pid:NUMBER. Without any, the active environment is judged. No GPU is needed;
    --gpu defaults to the GPUs of this machine. Several GPUs give a table; several files on one GPU are compared side by side. The exit
    code is 0 only when everything runs.
    """
    from fatpatch.api.consultation import Consultation, model_facts
    from fatpatch.api.gpus import Circumstances
    from fatpatch.commands._shared.file_loop import FileLoop
    from fatpatch.commands.doctor.run import DoctorRun

    gpus = gpus_of(gpus, fleets) or _own_gpus()
    model_name = None if model is None else shown_paths([model])[0]
    facts = None if model is None or model_name is None else model_facts(model, model_name)
    limits, loop = limits_from(max_image_size), FileLoop()
    consultation = Consultation(
        gpus=_subjects(gpus, Circumstances(driver, force_ptx_jit, disable_ptx_jit, eager, hsa_override, cuda)),
        reading=loop.reading(limits),
        model=facts,
        model_name=model_name,
        candidates=tuple(zip(candidates, shown_paths(candidates), strict=True)),
        releases=_search(limits) if releases else None,
        as_typed=lambda path: "FILE" if path == STANDARD_INPUT else path,
    )
    run = DoctorRun(consultation, loop, "all" in gpus, verbose)
    if candidates and (run.fleet or len(files) > 1):
        raise click.UsageError("--candidate is for one FILE on one GPU")
    units = _with_dependencies(files) if deps else named_units(files) if files else [_active()]
    if form == "json":
        code, document = run.as_json(units)
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return code
    return run.as_text(units, sys.stdout.write)


def _with_dependencies(files: tuple[str, ...]) -> list[NamedUnit]:
    """Projects of an index, each with what pip would install beside it."""
    if not files or not all(file.startswith("pypi:") for file in files):
        raise click.UsageError("--deps goes with pypi:NAME")
    from fatpatch.api.naming import with_dependencies

    return with_dependencies(files, choices())


def _active() -> NamedUnit:
    """The environment that --python names, else the active one."""
    from fatpatch.api.naming import environment

    return environment(choices())


def _search(limits: Limits) -> ReleaseSearch:
    from fatpatch.api.releases import ReleaseSearch
    from fatpatch.commands._shared.progress import watched

    return ReleaseSearch(choices(), limits, watched)


def _subjects(gpus: tuple[str, ...], given: Circumstances) -> tuple[GpuToJudge, ...]:
    """A usage error for a name that is not known or not clear, and for what is asked of no GPU here."""
    from fatpatch.api.gpus import cuda_release, gpus_to_judge

    with usage_error():
        subjects = gpus_to_judge(gpus, given)
    if given.cuda is not None:
        with usage_error("--cuda"):
            cuda_release(given.cuda)
    vendors = {subject.environment.device.vendor for subject in subjects}
    if given.hsa_override is not None and Vendor.AMD not in vendors:
        raise click.UsageError("--hsa-override is for AMD GPUs, and --gpu names none")
    if Vendor.NVIDIA not in vendors and (given.driver is not None or given.force_ptx or given.disable_ptx or given.eager):
        raise click.UsageError("--driver, --force-ptx-jit, --disable-ptx-jit and --eager are for NVIDIA GPUs, and --gpu names none")
    return subjects


def _own_gpus() -> tuple[str, ...]:
    """The GPUs of this machine; a usage error that names the option where there is none."""
    from fatpatch.api.gpus import own_devices

    try:
        own_devices()
    except InputError as error:
        raise click.UsageError(f"missing option '--gpu': {error.message}\n  hint: --gpu \"GTX 1060\", --gpu sm_86 or --gpu all") from error
    return ("auto",)
