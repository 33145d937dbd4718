#!/usr/bin/env python3
"""Run every benchmark, and print all tables of RESULTS.md.

usage: everything.py [--corpus FOLDER] [--smoke] [--only NAME]

The corpus is that of FATPATCH_CORPUS or ~/.cache/fatpatch-corpus; a table whose files are not there is left out, and that is said.
``--smoke`` runs each benchmark once on the samples: it shows that they work, and measures nothing. Fails only where one of them fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from amd import READOBJ
from run import CUOBJDUMP

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent / "samples"
LISTED = ("_C.so", "libcublas.so.12", "libcublasLt.so.12")
JUDGED = ("libllamamodel-mainline-cuda.so", "xllamacpp.cpython-311-x86_64-linux-gnu.so", "libfaiss-6b43fd57.so", "libcublas.so.12")
AMD = ("libggml-hip-*.so", "libonnxruntime_providers_rocm.so", "libbitsandbytes_rocm71*.so")
PACKAGES = ("*.whl", "*.deb")
EDITED = "libggml-cuda.so"


class Benchmark(NamedTuple):
    """A script with its arguments; ``missing``: what it needs and is not there."""

    script: str
    arguments: tuple[str, ...]
    missing: str = ""


def main() -> int:
    """Run them in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("FATPATCH_CORPUS") or Path.home() / ".cache/fatpatch-corpus"
    parser.add_argument("--corpus", type=Path, default=Path(default))
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        chosen = smoke(Path(scratch)) if arguments.smoke else full(arguments.corpus)
        for each in chosen:
            if arguments.only not in each.script:
                continue
            print(f"\n## {each.script}\n", flush=True)
            if each.missing:
                print(f"left out: {each.missing}", flush=True)
                continue
            failed += subprocess.run([sys.executable, str(HERE / each.script), *each.arguments], cwd=scratch, check=False).returncode != 0
    return 1 if failed else 0


def smoke(scratch: Path) -> Iterator[Benchmark]:
    """Each once, on samples."""
    library, once = str(SAMPLES / "libkernels.so"), ("--runs", "1")
    demo = scratch / "demo.llamafile"
    shutil.copyfile(SAMPLES / "demo.llamafile", demo)
    yield Benchmark("run.py", (*once, library), "" if CUOBJDUMP else "cuobjdump")
    yield Benchmark("doctor.py", (*once, library))
    yield Benchmark("amd.py", (*once, str(SAMPLES / "libhipdemo.so")), "" if READOBJ else "llvm-readobj of LLVM 22")
    yield Benchmark("audit.py", ("--files", "20"), "" if CUOBJDUMP else "cuobjdump")
    wheel = scratch / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(library, "some/libkernels.so")
    debian = ("--deb", library) if shutil.which("dpkg-deb") and shutil.which("xz") else ()
    yield Benchmark("packages.py", (*once, str(wheel), *debian), "" if shutil.which("unzip") else "unzip")
    donor = ("--from", str(SAMPLES / "donor.dll"), "--target", "sm_61", "--member", "*")
    yield Benchmark("graft.py", (*once, str(demo), *donor))
    yield Benchmark("recompress.py", ("--level", "3", library), "" if shutil.which("zstd") else "zstd")
    yield Benchmark("prune.py", (*once, library, "sm_100f"))


def full(corpus: Path) -> Iterator[Benchmark]:
    """Each on the files that RESULTS.md names."""
    yield _on(corpus, "run.py", LISTED, "" if CUOBJDUMP else "cuobjdump")
    yield _on(corpus, "doctor.py", (*JUDGED, EDITED))
    yield _on(corpus, "amd.py", AMD, "" if READOBJ else "llvm-readobj of LLVM 22")
    yield Benchmark("audit.py", ("--corpus", str(corpus)), "" if CUOBJDUMP else "cuobjdump")
    yield _on(corpus, "packages.py", PACKAGES, "" if shutil.which("unzip") and shutil.which("xz") else "unzip, xz")
    debian = next(iter(sorted(corpus.rglob("libcufft.so.*"))), None)
    yield Benchmark("packages.py", ("--deb", str(debian)), "" if debian and shutil.which("dpkg-deb") else "libcufft, dpkg-deb")
    yield _on(corpus, "recompress.py", JUDGED[:1], "" if shutil.which("zstd") else "zstd")
    edited = next(iter(sorted(corpus.rglob(EDITED))), None)
    missing = "" if edited else EDITED
    module = ("--cubin", str(SAMPLES / "kernels.sm_61.cubin"), "--force", "--module", "*fatbin[[]0[]]")
    yield Benchmark("graft.py", (str(edited), *module), missing)
    yield Benchmark("prune.py", (str(edited), "sm_120a,sm_121a"), missing)
    yield Benchmark("instructions.py", (), "" if shutil.which("valgrind") else "valgrind")


def _on(corpus: Path, script: str, names: tuple[str, ...], missing: str = "") -> Benchmark:
    files = [str(path) for name in names for path in sorted(corpus.rglob(name))[:1]]
    return Benchmark(script, tuple(files), missing or ("" if files else " ".join(names)))


if __name__ == "__main__":
    sys.exit(main())
