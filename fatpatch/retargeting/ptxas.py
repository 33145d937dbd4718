"""NVIDIA's assembler of PTX: where it is, and what it says of a text. It needs no GPU and no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from fatpatch.base.errors import LimitError, ToolError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.codec import IMAGE_LIMIT
from fatpatch.gpus.ptxas_options import target_of

_PIP = "pip install 'fatpatch[nvidia]' (ptxas 12.9, for sm_50 to sm_121), or put a CUDA toolkit's ptxas on PATH"
_LONGEST = 900.0
_RELEASE = lazy_pattern(r"release (\d+\.\d+), V([\d.]+)")
_AT_LINE = lazy_pattern(r"line (\d+); (?:error|fatal)\s*: (.*)")
_AT_ENTRY = lazy_pattern(r"(?:Entry function|entry function|function) '([^']+)'")
_NOT_KNOWN = lazy_pattern(r"Unsupported \.version [\d.]+; current version is '([\d.]+)'")
_NO_TARGET = lazy_pattern(r"Value '(sm_\w+)' is not defined for option")
_OPTION = lazy_pattern(
    r"--?(?:O[0-4]|opt-level[= ][0-4]|maxrregcount[= ]\d{1,3}|fmad[= ](?:true|false)|(?:generate-line-info|lineinfo|compile-only)"
    r"|dlcm[= ]c[agsv])\b"
)


class Complaint(NamedTuple):
    """One error: the line (from 1) that it is about, or the function that it names, or neither."""

    line: int | None
    function: str | None
    words: str


class PtxasAnswer(NamedTuple):
    """A cubin, or complaints. ``newest``: the newest PTX version that this ptxas reads, where it refused the text's."""

    cubin: bytes | None
    complaints: tuple[Complaint, ...]
    newest: str | None = None


class Ptxas:
    """An assembler that was found, and its release: ``12.9``."""

    def __init__(self, path: str, release: str) -> None:
        self.path, self.release = path, release
        self.running: set[subprocess.Popen[bytes]] = set()
        self.ended = False

    def assemble(self, text: bytes, target: str, options: str = "", *, quick: bool = False, limit: int = IMAGE_LIMIT) -> PtxasAnswer:
        """What becomes of a PTX text; ``quick``: without optimizing, to see whether it is taken. ToolError when ptxas cannot be run.

        Of the options of its fatbin entry those are kept that change the code. LimitError for a cubin of more than ``limit`` bytes.
        """
        with tempfile.TemporaryDirectory(prefix="fatpatch-") as folder:
            source, result = os.path.join(folder, "in.ptx"), os.path.join(folder, "out.cubin")
            with open(source, "wb") as sink:
                sink.write(text)
            level = ["-O0"] if quick else []
            command = [self.path, f"-arch={target}", *kept_options(options), *level, source, "-o", result]
            code, said = self._run(command, folder)
            if found := _NO_TARGET.search(said):
                hint = f"ptxas 12.9 knows sm_50 to sm_121: {_PIP}"
                raise ToolError(f"ptxas {self.release} does not know {found[1]}", locator=self.path, hint=hint)
            if code == 0 and os.path.exists(result):
                if os.path.getsize(result) > limit:
                    message = f"assembles to {os.path.getsize(result):#x} bytes, more than the limit of {limit:#x}"
                    raise LimitError(message, hint="raise the limit with --max-image-size if you trust the file")
                with open(result, "rb") as made:
                    return PtxasAnswer(made.read(), ())
            found = _NOT_KNOWN.search(said)
            return PtxasAnswer(None, tuple(_complaints(said, code)), found[1] if found else None)

    def _run(self, command: list[str], folder: str) -> tuple[int, str]:
        """Exit status and words of one run, which ``end`` cuts short."""
        if self.ended:
            raise ToolError("ptxas was ended", locator=self.path, hint="run the command again")
        try:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder) as process:  # noqa: S603 (our own words)
                self.running.add(process)
                try:
                    said, _ = process.communicate(timeout=_LONGEST)
                finally:
                    self.running.discard(process)
                    process.kill()
                return process.returncode, said.decode("utf-8", "replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolError(f"ptxas cannot be run: {error!s:.200}", locator=self.path, hint=_PIP) from error

    def end(self) -> None:
        """End all runs that go on, and begin no more: nobody waits for them."""
        self.ended = True
        for process in list(self.running):
            process.kill()


def kept_options(options: str) -> list[str]:
    """The options of a fatbin entry that change the code and can be given to any ptxas."""
    if target_of(options) is not None:
        return []
    return [word for found in _OPTION.finditer(options) for word in found[0].split()]


def find_ptxas() -> Ptxas:
    """The ptxas of the [nvidia] extra, of CUDA_HOME, or on PATH. ToolError when there is none."""
    for path in _candidates():
        try:
            done = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False, text=True)  # noqa: S603 (found by name)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if found := _RELEASE.search(done.stdout):
            return Ptxas(path, found[1])
    raise ToolError("needs NVIDIA's ptxas, which is not installed", hint=_PIP)


def _candidates() -> list[str]:
    name = "ptxas.exe" if sys.platform == "win32" else "ptxas"
    own = [os.path.join(folder, "nvidia", "cuda_nvcc", "bin", name) for folder in sys.path if folder]
    homes = [os.path.join(os.environ[key], "bin", name) for key in ("CUDA_HOME", "CUDA_PATH") if key in os.environ]
    found = shutil.which("ptxas")
    return [path for path in (*own, *homes) if os.path.isfile(path)] + ([found] if found else [])


def _complaints(said: str, code: int) -> list[Complaint]:
    result = []
    for row in said.splitlines():
        if "Ptx assembly aborted" in row:
            continue
        at, named = _AT_LINE.search(row), _AT_ENTRY.search(row)
        if at is not None:
            result.append(Complaint(int(at[1]), None, at[2].strip()[:300]))
        elif "error" in row or "fatal" in row:
            words = row.partition(":")[2].strip() or row.strip()
            result.append(Complaint(None, named[1] if named else None, words[:300]))
    return result or [Complaint(None, None, f"ptxas ended with {code} and said nothing")]
