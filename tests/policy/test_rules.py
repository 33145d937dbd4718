"""Each rule finds what it is for, and is silent where that is not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import bundle, elf
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry, packed
from conftest import SAMPLES

from fatpatch.base.limits import Limits
from fatpatch.policy import rules_run
from fatpatch.policy.finding import Finding
from fatpatch.policy.policy import parse_policy
from fatpatch.policy.rules import RULES
from fatpatch.policy.run import Selection, check_file, check_files
from fatpatch.policy.subject import RuleSubject
from fatpatch.remote.inputs import Input
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.results import FileVerdict

LIMITS = Limits()
Policy = dict[str, object]


def sass(arch: int, kernels: tuple[str, ...] = ("k",), *, debug: bool = False) -> bytes:
    data = cubin(arch=arch, kernels=kernels)
    return entry(data + (b"\0.debug_info\0.nv_debug_line_sass\0" if debug else b""), kind=2, major=1, minor=7, arch=arch)


def library(*modules: bytes) -> bytes:
    return elf.shared_object([(".nv_fatbin", b"".join(modules))])


BOTH = library(container(sass(75), sass(86), entry(PTX)))
UNEVEN = library(container(sass(75), sass(86)), container(sass(75)))
HIP = elf.shared_object([(".hip_fatbin", bundle.plain([("gfx1030", bundle.code_object(target="gfx1030"))]))])
ZSTD = library(container(packed(cubin(arch=75), "zstd", kind=2, major=1, minor=7)))


def demo() -> bytes:
    return (SAMPLES / "demo.llamafile").read_bytes()


RUN = {"run": [{"gpus": ["GTX 1060"], "driver": "535"}]}
CASES: list[tuple[str, Policy, bytes | Callable[[], bytes], bytes | Callable[[], bytes]]] = [
    ("FP002", {}, BOTH[: len(BOTH) // 2], BOTH),
    ("FP004", {"require": ["sm_75"]}, b"no GPU code" * 100, BOTH),
    ("FP101", {"require": ["sm_75", "sm_90"]}, BOTH, library(container(sass(75), sass(90)))),
    ("FP101", {"require": ["gfx1031"]}, HIP, HIP.replace(b"gfx1030", b"gfx1031")),
    ("FP102", {"require": ["sm_86"]}, UNEVEN, BOTH),
    ("FP103", {"forbid": ["sm_8*"]}, BOTH, library(container(sass(75)))),
    ("FP201", {"ptx": {"floor": "compute_75"}}, UNEVEN, BOTH),
    (
        "FP202",
        {"ptx": {"max-isa": "7.9"}},
        BOTH,
        library(container(entry(PTX.replace(b".version 8.4", b".version 7.8"), major=7, minor=8))),
    ),
    ("FP203", {"ptx": {"oldest-driver": "535"}}, ZSTD, UNEVEN),
    ("FP301", {"run": [{"gpus": ["RTX 3060"], "driver": "560.28"}]}, library(container(sass(90))), library(container(sass(86)))),
    ("FP302", RUN, demo, library(container(sass(61)))),
    ("FP304", {"run": [{"gpus": ["RX 6800"]}]}, BOTH, HIP),
    ("FP401", {"kernels": {"cover": True}}, library(container(sass(75, ("a", "b")), sass(86, ("a",)))), BOTH),
    ("FP402", {"kernels": {"duplicates": False}}, library(container(sass(75)), container(sass(75))), BOTH),
    ("FP501", {"size": {"file": "1 kB"}}, BOTH, HIP[:0] or library(container(entry(PTX[:-1] + b"\0")))[:900]),
    ("FP502", {"size": {"gpu-code": "2 kB"}}, BOTH, library(container(entry(PTX)))),
    ("FP503", {"size": {"target": "1 kB"}}, BOTH, library(container(entry(PTX)))),
    ("FP601", {"build": {"debug-info": False}}, library(container(sass(75, debug=True))), BOTH),
    ("FP602", {"build": {"line-info": False}}, library(container(sass(75, debug=True))), BOTH),
    (
        "FP603",
        {"build": {"one-toolkit": True}},
        library(container(sass(75), entry(cubin(arch=90, new=True), kind=2, major=1, minor=8, arch=90))),
        BOTH,
    ),
]


def found(tmp_path: Path, data: bytes | Callable[[], bytes], policy: Policy, name: str = "libx.so") -> list[Finding]:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data())
    return list(check_file(Input(str(path), name, named=True), parse_policy(policy), Selection(), LIMITS).findings)


@pytest.mark.parametrize(("rule", "policy", "bad", "good"), CASES, ids=[f"{row[0]}-{index}" for index, row in enumerate(CASES)])
def test_finds_and_is_silent(rule: str, policy: Policy, bad: bytes, good: bytes, tmp_path: Path) -> None:
    hits = [finding for finding in found(tmp_path, bad, policy) if finding.rule == rule]
    assert hits, found(tmp_path, bad, policy)
    assert all(hit.level == RULES[rule].level and hit.message and hit.locator for hit in hits)
    assert [finding for finding in found(tmp_path, good, policy) if finding.rule == rule] == []


def test_every_rule_has_a_case_here_or_below() -> None:
    elsewhere = {"FP001", "FP104", "FP003", "FP303", "FP305", "FP306", "FP307", "FP901", "FP902"}
    assert {row[0] for row in CASES} | elsewhere == set(RULES)
    assert not {row[0] for row in CASES} & elsewhere
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    asserted = {rule for text in texts for line in text.splitlines() if "assert" in line for rule in re.findall(r"FP\d{3}", line)}
    assert elsewhere <= asserted


def test_kernels_launched_in_a_shape_that_they_were_not_compiled_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What doctor says of such a module becomes FP305; the judgement itself is tested with doctor."""
    own = rules_run._own

    def doubted(subject: RuleSubject, environment: Environment) -> FileVerdict | None:
        verdict = own(subject, environment)
        return verdict and verdict._replace(mismatch=tuple(module._replace(doubtful=("mul_mat",)) for module in verdict.modules))

    policy: Policy = {"run": [{"gpus": ["RTX 3060"], "driver": "580.95"}]}
    assert found(tmp_path, BOTH, policy) == []
    monkeypatch.setattr(rules_run, "_own", doubted)
    assert [(hit.rule, hit.level) for hit in found(tmp_path, BOTH, policy)] == [("FP305", "error")]
    accepted: Policy = {"run": [{"gpus": ["RTX 3060"], "driver": "580.95", "accept": ["may-be-wrong"]}]}
    assert found(tmp_path, BOTH, accepted) == []


def test_vanished_file(tmp_path: Path) -> None:
    result = check_file(Input(str(tmp_path / "gone.so"), "gone.so", named=False), parse_policy({}), Selection(), LIMITS)
    assert [finding.rule for finding in result.findings] == ["FP001"]


def test_encrypted_and_oversized_members(tmp_path: Path) -> None:
    import zipfile

    from builders import archive

    locked = bytearray(archive.zip_file([(b"a.so", BOTH)]))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(magic) + at] |= 1
    assert {finding.rule for finding in found(tmp_path, bytes(locked), {}, "x.zip")} & {"FP002", "FP003"}
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("big.so", bytes(200 << 20))
    result = check_file(Input(str(path), "bomb.zip", named=True), parse_policy({}), Selection(), LIMITS)
    assert {finding.rule for finding in result.findings} & {"FP002", "FP003"}


def test_contradicting_labels(tmp_path: Path) -> None:
    data = library(container(entry(cubin(arch=75), kind=2, major=1, minor=7, arch=86)))
    assert "FP003" in {finding.rule for finding in found(tmp_path, data, {"kernels": {"cover": True}})}


def test_what_cannot_be_told(tmp_path: Path) -> None:
    data = bytearray(bundle.ccob(bundle.plain([("gfx1030", bundle.code_object())]), 3))
    data[24] ^= 1
    rules = [finding.rule for finding in found(tmp_path, bytes(data), {"run": [{"gpus": ["gfx1030"]}]}, "x.hipfb")]
    assert "FP303" in rules
    good = bundle.ccob(bundle.plain([("gfx1030", bundle.code_object())]), 3)
    assert found(tmp_path, good, {"run": [{"gpus": ["gfx1030"]}]}, "x.hipfb") == []


def test_slow_start_and_what_is_accepted(tmp_path: Path) -> None:
    body = PTX.rstrip(b"\0").rstrip().rstrip(b"}") + b"add.u32 %r1, %r1, 1;\n" * 400_000 + b"}\n\0"
    data = library(container(entry(body, options=b"-O3")))
    policy: Policy = {"run": [{"gpus": ["RTX 3060"], "driver": "580.95"}]}
    hits = found(tmp_path, data, policy)
    assert [(hit.rule, hit.level) for hit in hits] == [("FP306", "warning")], hits
    accepted: Policy = {"run": [{"gpus": ["RTX 3060"], "driver": "580.95", "accept": ["slow-start"]}]}
    assert found(tmp_path, data, accepted) == []


def test_what_is_not_promised(tmp_path: Path) -> None:
    """Machine code across minor versions of Tegra."""
    policy: Policy = {"run": [{"gpus": ["sm_72"]}]}
    older, own = (elf.shared_object([(".nv_fatbin", container(sass(arch)))], machine=183) for arch in (70, 72))
    assert [hit.rule for hit in found(tmp_path, older, policy)] == ["FP307"]
    assert found(tmp_path, own, policy) == []


def test_allowances(tmp_path: Path) -> None:
    import datetime

    path = tmp_path / "libx.so"
    path.write_bytes(UNEVEN)
    inputs = [Input(str(path), "libx.so", named=True)]

    def rules(allow: list[dict[str, object]]) -> tuple[list[str], list[str]]:
        policy = parse_policy({"require": ["sm_86"], "allow": allow})
        outcome = check_files(inputs, policy, Selection(), LIMITS, today=datetime.date(2026, 6, 1))
        return [each.rule for each in outcome.findings], [each.rule for each in outcome.allowed]

    row = {"rule": "FP102", "reason": "known", "expires": datetime.date(2026, 12, 31)}
    assert rules([row]) == ([], ["FP102"])
    assert rules([{**row, "expires": datetime.date(2026, 5, 31)}]) == (["FP102", "FP901"], [])
    assert rules([{**row, "file": "other.so"}]) == (["FP102", "FP902"], [])
    assert rules([{**row, "locator": "*!fatbin[[]1]"}]) == (["FP102", "FP902"], [])


def test_the_unreadable_cannot_be_allowed_ignored_or_known(tmp_path: Path) -> None:
    import datetime

    path = tmp_path / "libx.so"
    path.write_bytes(BOTH[: len(BOTH) // 2])
    allow = [{"rule": "FP*", "reason": "x", "expires": datetime.date(2100, 1, 1)}]
    first = check_files([Input(str(path), "libx.so", named=True)], parse_policy({}), Selection(), LIMITS)
    known = frozenset(finding.fingerprint for finding in first.findings)
    again = check_files(
        [Input(str(path), "libx.so", named=True)], parse_policy({"allow": allow}), Selection(("FP1",), ("FP0",)), LIMITS, baseline=known
    )
    assert [finding.rule for finding in again.findings if finding.rule == "FP002"]
    assert not again.allowed
    assert not again.known


def test_mixed_archives_are_asked_by_maker(tmp_path: Path) -> None:
    """A wheel with a CUDA and a ROCm library: each answers for its own GPUs, the file as a whole for both."""
    from builders import archive

    both = archive.zip_file([(b"cuda.so", library(container(sass(86)))), (b"hip.so", HIP)])
    policy: Policy = {"require": ["sm_86", "gfx1030"], "run": [{"gpus": ["RTX 3060", "RX 6800"], "driver": "560.28"}]}
    assert found(tmp_path, both, policy, "x.zip") == []
    only = archive.zip_file([(b"cuda.so", library(container(sass(86)))), (b"more.so", library(container(sass(86))))])
    assert [(hit.rule, hit.locator) for hit in found(tmp_path, only, policy, "x.zip")] == [
        ("FP101", "x.zip!cuda.so"),
        ("FP304", "x.zip!cuda.so"),
    ]


def test_folders_are_asked_by_maker_too(tmp_path: Path) -> None:
    """A ROCm library beside a CUDA one need not hold CUDA code; but somebody must."""
    (tmp_path / "a.so").write_bytes(library(container(sass(75))))
    (tmp_path / "b.so").write_bytes(HIP)
    inputs = [Input(str(tmp_path / name), name, named=False) for name in ("a.so", "b.so")]
    policy = parse_policy({"require": ["sm_75"]})
    assert check_files(inputs, policy, Selection(), LIMITS).findings == ()
    alone = check_files(inputs[1:], policy, Selection(), LIMITS).findings
    assert [(hit.rule, "no code for NVIDIA GPUs in any file (1)" in hit.message) for hit in alone] == [("FP004", True)]
    by_name = parse_policy({"files": [{"pattern": "b.so", "require": ["sm_75"]}]})
    assert [hit.rule for hit in check_files(inputs, by_name, Selection(), LIMITS).findings] == ["FP101"]
