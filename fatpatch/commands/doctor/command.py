"""``fatpatch doctor``: will it run on this GPU, with this driver, with this model?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from fatpatch.commands._shared.fleet import fleet_option, gpus_of
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import choices, named_units, naming_options
from fatpatch.commands._shared.options import GpuName, image_size_option, limits_from, shown_paths
from fatpatch.commands._shared.standard_input import InputFile

if TYPE_CHECKING:
    from fatpatch.named.unit import NamedUnit


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
    from fatpatch.commands.doctor.gpus import environments
    from fatpatch.commands.doctor.run import Consultation, read_model

    gpus = gpus_of(gpus, fleets) or _own_gpus()

    model_name = None if model is None else shown_paths([model])[0]
    facts = None if model is None or model_name is None else read_model(model, model_name)
    run = Consultation(
        environments=environments(
            gpus,
            driver,
            force_ptx=force_ptx_jit,
            disable_ptx=disable_ptx_jit,
            eager=eager,
            hsa_override=hsa_override,
            cuda=cuda,
        ),
        table="all" in gpus,
        model=facts,
        model_name=model_name,
        candidates=tuple(zip(candidates, shown_paths(candidates), strict=True)),
        limits=limits_from(max_image_size),
        verbose=verbose,
        releases=choices() if releases else None,
    )
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
    from fatpatch.named.dependencies import with_dependencies

    if not files or not all(file.startswith("pypi:") for file in files):
        raise click.UsageError("--deps goes with pypi:NAME")
    return [with_dependencies(file.removeprefix("pypi:"), choices()) for file in files]


def _active() -> NamedUnit:
    """The environment that --python names, else the active one."""
    from fatpatch.named.resolve import environment

    return environment(choices())


def _own_gpus() -> tuple[str, ...]:
    """The GPUs of this machine; a usage error that names the option where there is none."""
    from fatpatch.base.errors import InputError
    from fatpatch.gpus.local import local_devices

    try:
        local_devices()
    except InputError as error:
        raise click.UsageError(f"missing option '--gpu': {error.message}\n  hint: --gpu \"GTX 1060\", --gpu sm_86 or --gpu all") from error
    return ("auto",)
