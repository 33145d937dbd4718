"""``fatpatch doctor``: will it run on this GPU, with this driver, with this model?"""

from __future__ import annotations

import json
import sys

import click

from fatpatch.cli.options import image_size_option, limits_from, shown_paths


@click.command("doctor")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A product (GTX 1060), a target (sm_61, 6.1, gfx1031), a PCI id, auto for this machine, or all. Repeatable.",
)
@click.option("--driver", metavar="VERSION", help="The driver, e.g. 535.154 or 552.22; without it what hangs on the driver is told.")
@click.option("--cuda", metavar="VERSION", help="CUDA release of the program, e.g. 12.6: which of several alternatives it loads.")
@click.option("--model", metavar="GGUF", help="The model to be run; the one inside a llamafile is taken by itself.")
@click.option(
    "--candidate", "candidates", multiple=True, metavar="FILE", help="Another release: could it be used, or be a donor? Repeatable."
)
@click.option("--force-ptx-jit", is_flag=True, help="As with CUDA_FORCE_PTX_JIT=1: machine code is passed over.")
@click.option("--disable-ptx-jit", is_flag=True, help="As with CUDA_DISABLE_PTX_JIT=1: PTX is not compiled.")
@click.option("--eager", is_flag=True, help="As with CUDA_MODULE_LOADING=EAGER.")
@click.option("--hsa-override", metavar="M.m.s", help="As with HSA_OVERRIDE_GFX_VERSION on Linux, for AMD GPUs.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print.")
@click.option("-v", "--verbose", is_flag=True, help="All modules, kernels and images that are passed over; several files in full.")
@image_size_option
def command(
    files: tuple[str, ...],
    gpus: tuple[str, ...],
    driver: str | None,
    cuda: str | None,
    model: str | None,
    candidates: tuple[str, ...],
    force_ptx_jit: bool,
    disable_ptx_jit: bool,
    eager: bool,
    hsa_override: str | None,
    form: str,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Say whether FILE... runs on a GPU, without that GPU: which code its driver loads, and whether that code works.

    Several GPUs give a table; several files on one GPU are put side by side. The exit code is 0 only when all of them run.
    """
    from fatpatch.cli.consulting import Consultation, environments, read_model

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
    )
    if candidates and (run.fleet or len(files) > 1):
        raise click.UsageError("--candidate is for one FILE on one GPU")
    paths = list(zip(files, shown_paths(files), strict=True))
    if form == "json":
        code, document = run.as_json(paths)
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return code
    return run.as_text(paths, sys.stdout.write)
