"""Real host code, with objdump of binutils as the oracle for what is compared and what is loaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

import pytest
from conftest import corpus_file, required

from fatpatch.hostcode.code import read_host
from fatpatch.hostcode.family import family
from fatpatch.hostcode.registration import registered
from fatpatch.hostcode.thresholds import thresholds
from fatpatch.model.tree import Node, Payload
from fatpatch.scan.survey import survey
from fatpatch.scan.walk import inspected

pytestmark = pytest.mark.corpus

PER_TYPE, BY_LIST = "2023-24 (MMQ per type)", "2025 on (arch list decides)"
GGML = {
    "libctransformers.so": ((610, 700), (), PER_TYPE, None, None, 71),
    "ctransformers.dll": ((610, 700), (), PER_TYPE, None, None, 71),
    "win-x64-cuda/llama-addon.node": ((600, 610, 700), (610,), PER_TYPE, False, None, 305),
    "linux-x64-cuda/llama-addon.node": ((600, 610, 700), (610,), PER_TYPE, False, None, 305),
    "libllamamodel-mainline-cuda.so": ((600, 610, 700), (610,), PER_TYPE, None, None, 442),
    "xllamacpp.cpython-311-x86_64-linux-gnu.so": ((520, 600), (610,), BY_LIST, False, (520,), 1619),
}
OTHERS = {"libfaiss-6b43fd57.so": 550, "xformers/_C.so": 50, "libbitsandbytes_cuda130.so": 202, "libbitsandbytes_cuda118.so": 202}
_COMPARISON = re.compile(r"^\s*([0-9a-f]+):\s+cmp[lq]?\s+\$0x([0-9a-f]+),")
_LOAD = re.compile(r"^\s*([0-9a-f]+):\s+lea\s.*\(%rip\),%\w+\s+# ([0-9a-f]+)")


def kernels_by_payload(node: Node) -> dict[Payload, frozenset[str]]:
    found: dict[Payload, set[str]] = {payload: set() for payload in node.payloads}
    owner = {image.locator: payload for payload in node.payloads for image in payload.images}
    for image, finding in survey([node], limit=1 << 30, detail=False, jobs=1):
        found[owner[image.locator]] |= {row[0] for row in finding.rows or ()}
    return {payload: frozenset(names) for payload, names in found.items()}


@pytest.mark.parametrize("ending", [*GGML, *OTHERS])
def test_registration_matches_the_images(ending: str) -> None:
    with inspected(str(corpus_file(ending))) as node:
        by_payload = kernels_by_payload(node)
        names = frozenset().union(*by_payload.values())
        started = time.process_time()
        found = registered(node, names)
        assert time.process_time() - started < 1.0
        assert found.proven
        assert (found.kernels, found.unknown) == (names, frozenset())
        assert len(names) == (GGML[ending][5] if ending in GGML else OTHERS[ending])
        missing = min(names)
        assert registered(node, names - {missing}).unknown == {missing}
        assert registered(node, names | {"_Z7missingv"}).kernels == names


@pytest.mark.parametrize("ending", GGML)
def test_ggml(ending: str) -> None:
    values, equals, era, force_mmq, arch_list, _ = GGML[ending]
    with inspected(str(corpus_file(ending))) as node:
        names = frozenset().union(*kernels_by_payload(node).values())
        found = thresholds(node)
        assert (found.values, found.equals) == (values, equals)
        program = family(node, names)
        assert program is not None
        assert (program.era, program.force_mmq, program.arch_list) == (era, force_mmq, arch_list)
        assert program.uses_arch_list == (era == BY_LIST)


@pytest.mark.parametrize("ending", OTHERS)
def test_others_are_no_known_family(ending: str) -> None:
    with inspected(str(corpus_file(ending))) as node:
        assert family(node, frozenset().union(*kernels_by_payload(node).values())) is None


@pytest.fixture(scope="module")
def listing() -> list[str]:
    if shutil.which("objdump") is None:
        required("objdump of binutils")
    command = ["objdump", "-d", "--no-show-raw-insn", str(corpus_file("libctransformers.so"))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_comparisons_as_objdump_sees_them(listing: list[str]) -> None:
    """Every comparison with 609, 610, 699 or 700 in the listing, whatever follows it, and no other."""
    expected = {
        int(hit[1], 16): int(hit[2], 16) for line in listing if (hit := _COMPARISON.match(line)) and int(hit[2], 16) in (609, 610, 699, 700)
    }
    with inspected(str(corpus_file("libctransformers.so"))) as node:
        found = dict(thresholds(node).places)
    assert {address: value if value % 10 == 0 else value + 1 for address, value in expected.items()} == found
    assert len(found) > 20


def test_loads_as_objdump_sees_them(listing: list[str]) -> None:
    """All kernels' names are loaded where objdump says, and the search misses no load of a constant."""
    from fatpatch.hostcode.code import Texts
    from fatpatch.hostcode.references import LEA, references

    expected = {(int(hit[1], 16), int(hit[2], 16)) for line in listing if (hit := _LOAD.match(line))}
    with inspected(str(corpus_file("libctransformers.so"))) as node:
        host, _ = read_host(node)
        assert host is not None
        low, high = Texts(host).span
        found = {(reference.start - 1, reference.target) for reference in references(host, LEA, low, high)}
    assert {load for load in expected if low <= load[1] < high} - found == set()
    assert len(found - expected) < len(found) // 100
