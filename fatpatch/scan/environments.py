"""Where an environment keeps its packages (PyPA specifications "Virtual environments", "Python install schemes"; conda's layout)."""

from __future__ import annotations

import os
import sys
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.patterns import lazy_pattern

CONDA: Final = "conda-meta"
_PYTHON: Final = lazy_pattern(r"python3(?:\.\d{1,2}t?)?\Z")
_PACKAGES: Final = ("site-packages", "dist-packages")
_SCRIPTS: Final = frozenset({"bin", "scripts"})


def active_environment() -> str:
    """The folder of the virtual or conda environment that the shell has activated, else of the Python that runs this."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if folder := os.environ.get(variable):
            return folder
    return sys.prefix


def environment_of(python: str) -> str:
    """The environment that ``--python`` names: its folder, or its Python. Nothing is run. InputError where there is none."""
    if os.path.isdir(python):
        return python
    folder, scripts = os.path.split(os.path.dirname(os.path.abspath(python)))
    if os.path.isfile(python):
        return folder if scripts.lower() in _SCRIPTS else os.path.join(folder, scripts)  # on Windows conda's python.exe is in its folder
    raise InputError(
        "is neither a Python nor an environment", locator=python, hint="such as .venv, .venv/bin/python or /opt/conda/envs/NAME"
    )


def site_packages(folder: str) -> list[str]:
    """Where an environment keeps its packages, each place once; the folder itself where it is none."""
    found = []
    for library in ("lib", "lib64", "Lib"):
        base = os.path.join(folder, library)
        if not os.path.isdir(base):
            continue
        below = [base, *(os.path.join(base, name) for name in sorted(os.listdir(base)) if _PYTHON.match(name))]
        found += [path for each in below for name in _PACKAGES if os.path.isdir(path := os.path.join(each, name))]
    distinct = {os.path.realpath(path): path for path in found}
    return list(distinct.values()) or [folder]
