"""From modules to a file: what stands against it, what it needs, and the word for it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry

from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.hostcode.family import ARCH_LIST, PER_TYPE, Family
from fatpatch.hostcode.registration import Registration
from fatpatch.model.tree import ModelFacts, Node, Wrapper
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.dispatch import HostChecks
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.jit import Cost
from fatpatch.verdicts.judge import Doctor, libraries
from fatpatch.verdicts.models import quant_verdicts
from fatpatch.verdicts.module import JIT, NATIVE, STUB, KernelVerdict, ModuleVerdict
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.requirements import trouble
from fatpatch.verdicts.results import FileVerdict, Judged

UNKNOWN = HostChecks(None, (), False, None, "")
OLD = HostChecks(Family("ggml", PER_TYPE, (), None, None, False), (600, 610, 700), True, None, "")
LISTED = HostChecks(Family("ggml", ARCH_LIST, (), (500, 610), None, True), (610, 700), True, None, "", (500, 610))
NORM = "_Z12rms_norm_f32ILi32EEvPKfPfif"
VECTOR = "_Z13mul_mat_vec_qILi1ELi32ELi8E10block_q8_0Li2EXadL_Z17vec_dot_q8_0_q8_1PKvPK10block_q8_1RKiEEEvS1_S1_Pfiiii"


@pytest.fixture
def found(tmp_path: Path) -> FileVerdict:
    """The verdict on a fatbin with one sm_61 kernel."""
    path = tmp_path / "x.fatbin"
    path.write_bytes(container(entry(cubin(arch=61), kind=2, arch=61)))
    with inspected(str(path)) as node:
        return Doctor(node, limit=1 << 20).judge(Environment(find("sm_61")))


def judged(found: FileVerdict, host: HostChecks, *kernels: KernelVerdict, for_model: bool = False) -> Judged:
    one = found.modules[0]
    worst = STUB if any(kernel.defect for kernel in kernels) else NATIVE
    return one._replace(verdict=one.verdict._replace(verdict=worst, kernels=kernels), host=host, for_model=for_model)


def dead(name: str) -> KernelVerdict:
    return KernelVerdict(name, STUB, "stub-trap", True, broken=True)


def made_with(found: FileVerdict, toolkit: str) -> list[Judged]:
    one = found.modules[0]
    verdict: ModuleVerdict = one.verdict._replace(toolkit=toolkit)
    return [one._replace(payload=one.payload._replace(wrapper=Wrapper(1, 0)), verdict=verdict)]


@pytest.mark.parametrize(
    ("toolkit", "version", "refused"),
    [
        ("CUDA 10.2", "410.48", True),  # CUDA 10.0: below 11 each release asks for a driver of its own
        ("CUDA 10.0", "418.39", False),
        ("CUDA 9.2", "384.81", True),
        ("CUDA 11.8", "450.36.06", True),  # release candidate of 11.0, before the minimum of all of 11
        ("CUDA 11.8", "450.80.02", False),
        ("CUDA 11.8", "450", False),  # only the branch is known
        ("CUDA 12.9", "525.60.13", False),
        ("CUDA 12.0", "520.61.05", True),
        ("CUDA 13.0", "575.57.08", True),
    ],
)
def test_a_driver_older_than_the_runtime(found: FileVerdict, toolkit: str, version: str, refused: bool) -> None:
    against = trouble(made_with(found, toolkit), Environment(find("sm_61"), driver(version)))
    assert (against is not None and against[0] == 35) is refused


def test_kernels_that_are_registered_and_nowhere(found: FileVerdict) -> None:
    assert outcome_of(found) == "runs"
    for proven, outcome in ((True, "may-fail-in-part"), (False, "runs")):
        host = UNKNOWN._replace(registration=Registration(frozenset("k"), frozenset({"gone"}), proven, ""))
        changed = found._replace(modules=(found.modules[0]._replace(host=host),))
        assert outcome_of(changed) == outcome
        assert changed.missing_kernels == (("gone",) if proven else ())


@pytest.mark.parametrize(
    ("stall", "ready", "outcome"),
    [(60.0, 0, "slow-start"), (60.0, 1, "slow-start"), (60.0, 2, "runs"), (0.1, 0, "runs")],
    ids=["all is compiled", "half of it", "a third", "nothing takes long"],
)
def test_a_slow_first_start(found: FileVerdict, stall: float, ready: int, outcome: str) -> None:
    """What is compiled when a program first uses it: a few modules of many (cuSPARSELt), or many small ones (TensorFlow), are a note."""
    native = found.modules[0]
    compiled = native._replace(verdict=native.verdict._replace(verdict=JIT, cost=Cost(stall, 1, 1)))
    changed = found._replace(verdict=JIT, modules=(compiled, *[native] * ready), cost=Cost(60.0, 1, 1), slowest=compiled)
    assert outcome_of(changed) == outcome


def test_a_model_makes_certain_only_what_is_known_of_it(found: FileVerdict) -> None:
    """A host that decides by its list of targets: which kernels the model launches is not known."""
    for host, for_model, outcome in ((OLD, True, "abort"), (LISTED, False, "may-fail")):
        module = judged(found, host, dead(VECTOR), for_model=for_model)
        assert outcome_of(found._replace(verdict=STUB, modules=(module,), model_quants=("Q8_0",))) == outcome


@pytest.mark.parametrize(("name", "broken"), [(NORM, ["F16", "F32", "Q8_0"]), (VECTOR, ["Q8_0"])])
def test_unquantised_types_need_kernels_too(found: FileVerdict, name: str, broken: list[str]) -> None:
    kernels = {NORM: KernelVerdict(NORM, NATIVE, "real"), VECTOR: KernelVerdict(VECTOR, NATIVE, "real"), name: dead(name)}
    rows = quant_verdicts([judged(found, OLD, *kernels.values())], found.environment)
    assert [row.quant for row in rows] == ["F16", "F32", "Q8_0"]
    assert [row.quant for row in rows if row.broken] == broken


def test_trouble_leaves_the_model_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.fatbin"
    path.write_bytes(container(entry(cubin(arch=61, kernels=(VECTOR, NORM)), kind=2, arch=61)))
    model = ModelFacts(3, "llama", None, None, 1, (("Q4_K", 1),))
    with inspected(str(path)) as node:
        doctor = Doctor(node, limit=1 << 20, model=model, model_name="m.gguf")
        found = doctor.judge(Environment(find("sm_61"), driver("590.44.01")))
    assert found.trouble is not None
    assert (found.quants, found.unsupported_types) == ((), ())


@pytest.mark.parametrize(("registered", "outcome"), [({"one", "two"}, "runs"), ({"one", "gone"}, "may-fail-in-part")])
def test_the_first_device_decides_nothing_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: set[str], outcome: str
) -> None:
    """A kernel that only sm_80 code has is registered on every device: it is in the file, whichever image was read first."""

    def host_of(_: Node, names: frozenset[str], __: frozenset[int]) -> HostChecks:
        return UNKNOWN._replace(registration=Registration(names & registered, frozenset(registered - names), True, ""))

    monkeypatch.setattr("fatpatch.verdicts.judge.host_of", host_of)
    path = tmp_path / "x.fatbin"
    images = [entry(cubin(arch=75, kernels=("one",)), kind=2, arch=75), entry(cubin(arch=80, kernels=("one", "two")), kind=2, arch=80)]
    path.write_bytes(container(*images))
    for order in (("sm_75", "sm_80"), ("sm_80", "sm_75")):
        with inspected(str(path)) as node:
            doctor = Doctor(node, limit=1 << 20)
            assert [outcome_of(doctor.judge(Environment(find(gpu)))) for gpu in order] == [outcome, outcome]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_at_the_same_offset_are_told_apart(tmp_path: Path, method: int) -> None:
    """Members of a deflated wheel all begin at offset 0 of their own temporary file."""
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        for arch, kernel in ((86, "k"), (90, "k" * 200)):
            images = container(*(entry(cubin(arch=each, kernels=(kernel,)), kind=2, arch=each) for each in (75, arch)))
            archive.writestr(f"lib{arch}.so", elf.shared_object([(".nv_fatbin", images)]))
    with inspected(str(path)) as node:
        doctor = Doctor(node, limit=1 << 20)
        for name, good in (("sm_86", "lib86.so"), ("sm_90", "lib90.so")):
            verdicts = libraries(doctor.judge(Environment(find(name))))
            assert {library.path: outcome_of(verdict) == "runs" for library, verdict in verdicts} == {
                "lib86.so": good == "lib86.so",
                "lib90.so": good == "lib90.so",
            }
