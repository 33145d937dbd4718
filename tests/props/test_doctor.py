"""doctor on hostile files: only FatpatchError, work and memory that grow with the file, and never "fine" for what was not read."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry, packed
from conftest import SAMPLES, Run
from props.test_mutations import SEEDS, mutated

from fatpatch.base.errors import FatpatchError
from fatpatch.gpucode import flow
from fatpatch.gpucode.cubin import volta
from fatpatch.gpucode.ptx.bodies import ptx_bodies
from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.outcome import outcome_of, works
from fatpatch.verdicts.ptx_result import compiled, outline
from fatpatch.verdicts.remedies import remedies
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words.report import report

ENVIRONMENTS = (
    Environment(find("sm_61"), None),
    Environment(find("sm_90"), driver("535.154"), eager=True),
    Environment(find("sm_120"), driver("580.65"), force_ptx=True),
    Environment(find("gfx1030")),
)
HEAD = b".version 8.4\n.target sm_75\n.address_size 64\n"
H100 = Environment(find("sm_90"), driver("580.159.04"))


def judge(path: Path, data: bytes, environment: Environment = H100) -> FileVerdict:
    path.write_bytes(data)
    with inspected(str(path)) as node:
        doctor = Doctor(node, limit=1 << 24)
        found = doctor.judge(environment)
        list(report(found, remedies(doctor, found, "x", ()), "x", str, verbose=True))
        return found


@pytest.mark.parametrize("name", ["fatbin", "elf", "pe", "zip", "cubin", "ptx", "bundle", "demo", "stubs"])
def test_mutations_raise_nothing_else(tmp_path: Path, name: str) -> None:
    seed = {"demo": (SAMPLES / "donor.dll").read_bytes(), "stubs": (SAMPLES / "kernels.sm_90a.cubin").read_bytes(), **SEEDS}[name]
    for number in range(150):
        for environment in ENVIRONMENTS:
            try:
                judge(tmp_path / "x", mutated(seed, number + 5_000_000), environment)
            except FatpatchError:
                pass
            except Exception as error:
                pytest.fail(f"{name}, mutation {number}: {type(error).__name__}: {error}")


def quickly(limit: float = 4.0) -> object:
    """A clock that fails when more CPU seconds went by; what it guards took minutes before, and takes a tenth of it now."""

    class Clock:
        def __enter__(self) -> None:
            self.start = time.process_time()

        def __exit__(self, *_: object) -> None:
            assert time.process_time() - self.start < limit

    return Clock()


@pytest.mark.parametrize(
    "text",
    [
        b".version 8\n.target sm_52\n.address_size 64\n.visible .entry k(){ret;}\n",
        HEAD + b"\n" * 300_000 + b".visible .entry k(){ret;}\n",
        HEAD + b"/* " * 100_000 + b".visible .entry k(){ret;}\n",
        HEAD + b".visible .entry k(){trap;" + b"/* " * 100_000 + b"}\n",
        HEAD + b".visible .entry k(){trap;" + b" " * 200_000 + b"0;}\n",
        HEAD + b".visible .entry k(){trap;" + b"{" * 100_000 + b"0;}\n",
        HEAD + b".visible .entry k(){trap;" + b"a:" * 160_000 + b";}\n",
        HEAD + b".func" + b" " * 200_000 + b"0\n.visible .entry k(){ret;}\n",
        HEAD + b".extern .func (\n" * 30_000 + b".visible .entry k(){ret;}\n",
        HEAD + b".global .b8 a[1]={ " * 20_000 + b".visible .entry k(){trap;}\n",
        HEAD + b".extern .func f;\n.visible .entry k(){" + b"call " * 30_000 + b";}\n",
        HEAD + b"".join(b".visible .entry k%d(){ret;}\n" % index for index in range(120_000)),
        HEAD + b".func f(){" + b"mov.u32 a, b;" * 8000 + b"ret;}\n" + b"".join(b".entry k%d(){call f; trap;}\n" % i for i in range(2000)),
        HEAD + b".visible .entry k(){trap; t: .branchtargets " + b"L," * 8000 + b"L;" + b"brx.idx r, t;" * 8000 + b"L: ret;}\n",
    ],
)
def test_ptx_that_took_minutes(tmp_path: Path, text: bytes) -> None:
    with quickly(8.0):
        judge(tmp_path / "x.ptx", text)


def test_line_information_hides_no_statement() -> None:
    body = b"\t.loc 1 10 3\n\t@%%p1 bra L;\n%s\ttrap;\nL:\n\t.loc 1 12 3\n\tst.global.u32 [%%rd1], 0;\n\t.loc 1 13 1\n\tret;"
    for line in (b"", b"\t.loc 1 11 3\n"):
        assert ptx_bodies(HEAD + b".visible .entry k(.param .u64 p)\n{\n" + body % line + b"\n}\n") == {"k": "partial-nodata"}


def test_what_looks_like_a_comment_in_a_string_is_none() -> None:
    assert ptx_bodies(HEAD + b'.entry k()\n{\n.pragma "//"; st.global.u32 [a], 0; ret;\n}\n') == {"k": "real"}


def test_a_text_that_is_cut_is_refused() -> None:
    whole = (SAMPLES / "kernels.compute_52.ptx").read_bytes()
    assert compiled(outline(PtxText(whole)), "", H100).error is None
    assert compiled(outline(PtxText(whole[:5000])), "", H100).error == 218


class Branches:
    """A program of ``count`` places that are pushed and ``count`` that may jump to any of them."""

    def __init__(self, count: int) -> None:
        self.kinds = bytes([flow.PUSH]) * count + bytes([flow.POP]) * count + bytes([flow.EXIT])
        self.controls = flow.controls_of(self.kinds)
        self._count = count

    def targets(self, at: int) -> tuple[int, ...] | None:
        return (self._count + at,)

    def conditional(self, at: int) -> bool:
        return at < 2 * self._count


class Chain:
    """Each instruction calls the one after the next, the last returns."""

    def __init__(self, count: int) -> None:
        self.kinds = bytes([flow.CALL, flow.EXIT]) * count + bytes([flow.RETURN])
        self.controls = flow.controls_of(self.kinds)

    def targets(self, at: int) -> tuple[int, ...] | None:
        return (at + 2,)

    def conditional(self, at: int) -> bool:
        return False


def test_walks_stay_linear() -> None:
    with quickly(8.0):  # 2.8 alone, 4.2 beside another test on the same core
        assert flow.classify(Branches(60_000)) == "empty"
        assert flow.classify(Chain(60_000)) == "empty"
        volta.VoltaSection(bytes(1 << 22), 90)


def test_entries_that_lead_back(tmp_path: Path) -> None:
    pair = entry(b"", kind=0, arch=0) + entry(b"", kind=0, arch=0, payload_size=2**64 - 128)
    with quickly():
        assert outcome_of(judge(tmp_path / "x.fatbin", container(pair) * 200)) == "hang"


def test_names_made_of_digits(tmp_path: Path) -> None:
    name = "_Z13mul_mat_vec_qIL9ggml_type" + "1" * 5000 + "EvPKv"
    judge(tmp_path / "x.cubin", cubin(arch=90, kernels=(name,)))


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_what_cannot_be_read_is_not_fine(tmp_path: Path) -> None:
    whole = cubin(arch=90)
    shoff = struct.unpack_from("<Q", whole, 40)[0]
    for field, value in ((40, 99), (44, 99)):  # sh_link of the symbol table; sh_info changes nothing
        broken = patched(whole, shoff + 64 + field, struct.pack("<I", value))
        found = judge(tmp_path / "x.fatbin", container(entry(broken, kind=2, arch=90)))
        assert works(found) == (field == 44)
    code = shoff + 4 * 64  # the section with the kernel's code
    for nothing in (patched(whole, code + 32, bytes(8)), patched(whole, code + 4, struct.pack("<I", 8))):  # empty; takes no bytes
        assert outcome_of(judge(tmp_path / "x.cubin", nothing)) == "not-read"


def test_an_unreadable_sibling_leaves_the_answer_open(tmp_path: Path) -> None:
    """Whether a stub is real elsewhere hangs on images that are damaged here."""
    with inspected(str(SAMPLES / "demo.llamafile")) as node:
        library = next(member for member in node.members if member.path == "ggml-cuda.dll")
        payload = library.payloads[0]
        data = bytearray(library.source.read(payload.offset, payload.size))
        for image in payload.images:
            if image.target != "sm_60":
                start = image.data_offset - payload.offset
                section = start + struct.unpack_from("<Q", data, start + 40)[0]
                for row in range(40):
                    if struct.unpack_from("<I", data, section + 64 * row + 4)[0] == 2:
                        struct.pack_into("<I", data, section + 64 * row + 40, 0xFFFF)
                        break
    found = judge(tmp_path / "x.fatbin", bytes(data), Environment(find("sm_61"), None))
    assert not works(found)
    assert found.unread


def test_many_bombs_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fatpatch.verdicts import facts

    monkeypatch.setattr(facts, "_FREE", 1 << 24)
    bomb = container(packed(cubin(arch=90) + bytes(1 << 23), "zstd", kind=2, arch=90))
    found = judge(tmp_path / "x.bin", bomb * 12)
    assert not works(found)
    assert any("more than is sensible" in module.verdict.reason for module in found.modules)


def test_hostile_names_of_candidates(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[31m b;id"
    folder.mkdir()
    donor = folder / "donor.dll"
    donor.write_bytes((SAMPLES / "donor.dll").read_bytes())
    done = run("doctor", "demo.llamafile", "--gpu", "1060", "--candidate", str(donor.relative_to(tmp_path)), cwd=tmp_path)
    assert done.returncode == 3  # the llamafile is elsewhere
    (tmp_path / "demo.llamafile").write_bytes((SAMPLES / "demo.llamafile").read_bytes())
    done = run("doctor", "demo.llamafile", "--gpu", "1060", "--candidate", str(donor.relative_to(tmp_path)), cwd=tmp_path)
    assert "\x1b" not in done.stdout + done.stderr
    assert "b;id/donor.dll' --target" in done.stdout  # quoted for a shell


def test_a_donor_of_the_same_name_is_another_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old/lib.fatbin").write_bytes((SAMPLES / "kernels.fatbin").read_bytes())
    with inspected(str(SAMPLES / "demo.llamafile")) as node:
        library = next(member for member in node.members if member.path == "ggml-cuda.dll")
        payload = library.payloads[0]
        (tmp_path / "new/lib.fatbin").write_bytes(library.source.read(payload.offset, payload.size))
    done = run("doctor", "new/lib.fatbin", "--gpu", "1060", "--candidate", "old/lib.fatbin", cwd=tmp_path)
    assert "its sm_61 code is of other kernels" in " ".join(done.stdout.split())


def test_ptx_text_as_a_module(tmp_path: Path) -> None:
    assert works(judge(tmp_path / "x.ptx", PTX))
