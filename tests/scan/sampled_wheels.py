"""Samples of wheels against reading them whole: which are accepted, whether verdict and targets are the same, and the megabytes they take.

    python tests/scan/sampled_wheels.py FOLDER-OR-WHEEL...      # a table for tests/RESULTS.md

No test: the wheels are large, and are got by hand with ``pip download --no-deps``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing

from fatpatch.base.limits import Limits
from fatpatch.base.source import Backing, Source
from fatpatch.gpus.devices import find
from fatpatch.index.releases import ReleaseAnswer, _answer
from fatpatch.scan.samples import sampled
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.header_doctor import HeaderDoctor
from fatpatch.verdicts.header_record import record_of, tree_of

GPUS = ("GTX 1060", "RTX 3060", "RTX 5090", "H100")
BLOCK = 16 << 10


class Counted(Backing):
    """A file of which each block that is read counts once, as on a server."""

    def __init__(self, backing: Backing) -> None:
        self.backing, self.blocks = backing, set[int]()

    def read(self, offset: int, size: int) -> bytes:
        """Read bytes, and count their blocks."""
        self.blocks.update(range(offset // BLOCK, -(-(offset + size) // BLOCK)))
        return self.backing.read(offset, size)

    def close(self) -> None:
        """Close the file."""
        self.backing.close()


def wheels(paths: list[str]) -> Iterator[str]:
    """The wheels of folders, and those that are named."""
    for path in paths:
        yield from (
            sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".whl")) if os.path.isdir(path) else [path]
        )


def answers(text: str) -> list[ReleaseAnswer]:
    """How the headers of a record fare on each GPU."""
    doctor = HeaderDoctor(tree_of(text, "wheel"), limit=Limits().image)
    return [_answer(doctor.judge(Environment(find(gpu)))) for gpu in GPUS]


def main() -> None:
    """Print the table."""
    accepted = wrong = 0
    print("| wheel | modules read | MB of MB | verdicts | targets that are loaded |\n|---|---|---|---|---|")
    for path in wheels(sys.argv[1:]):
        plain = Source.open(path)
        counted = Counted(plain._backing)
        with closing(Source(counted, 0, plain.size)) as source:
            found = sampled(source, path)
        name = "-".join(os.path.basename(path).split("-")[:2]) + (" (Windows)" if "win_amd64" in path else "")
        size = f"{len(counted.blocks) * BLOCK / 1e6:.1f} of {plain.size / 1e6:.0f}"
        if found is None:
            print(f"| {name} | whole | {size} | | |", flush=True)
            continue
        some = record_of(found.root, found.sampled, found.modules)
        with inspected(path) as root:
            every = record_of(root)
        pairs = list(zip(answers(some.text), answers(every.text), strict=True))
        verdicts = [(one.outcome, one.works, one.compiles) == (two.outcome, two.works, two.compiles) for one, two in pairs]
        loaded = [one.targets == two.targets for one, two in pairs]
        differ = [gpu for gpu, same in zip(GPUS, verdicts, strict=True) if not same]
        others = [gpu for gpu, same in zip(GPUS, loaded, strict=True) if not same]
        accepted, wrong = accepted + 1, wrong + bool(differ)
        row = (name, f"{found.sampled} of {found.modules}", size, ", ".join(differ) or "same", ", ".join(others) or "same")
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{accepted} accepted, {wrong} of them wrong")


if __name__ == "__main__":
    main()
