"""Classes of kernel bodies: the oracle of the stub fixtures, the sample, and single encodings against nvdisasm."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path

import pytest
from builders.cubin import cubin
from conftest import ROOT, SAMPLES, corpus_file, required

from fatpatch.base.errors import FormatError
from fatpatch.gpucode import flow
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.cubin import maxwell, volta
from fatpatch.gpucode.cubin.bodies import bodies_of, cubin_bodies, encoding
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.messages import cubin_messages
from fatpatch.gpucode.seen import SeenBodies
from fatpatch.scan.walk import inspected

FIXTURES = ROOT.parent / "shared/fixtures/stubs"


def image_bytes(path: Path, target: str, payload: int = 0) -> bytes:
    with inspected(str(path)) as node:
        image = next(image for image in node.payloads[payload].images if image.target == target)
        return ImageReader(node.source, 1 << 26).read(image)


def expected_classes() -> dict[str, dict[str, str]]:
    path = FIXTURES / "expected.json"
    return json.loads(path.read_text())["stub"] if path.is_file() else {}


@pytest.mark.parametrize("name", expected_classes() or ["the fixtures"])
def test_every_class_of_the_fixtures(name: str) -> None:
    expected = expected_classes()
    if not expected:
        required(f"stub fixtures in {FIXTURES}")
    file, _, target = name.partition("#")
    data = image_bytes(FIXTURES / file, target) if target else (FIXTURES / file).read_bytes()
    assert cubin_bodies(data) == expected[name]


def demo(target: str) -> bytes:
    with inspected(str(SAMPLES / "demo.llamafile")) as node:
        library = next(member for member in node.members if member.path == "ggml-cuda.dll")
        image = next(image for image in library.payloads[0].images if image.target == target)
        return ImageReader(library.source, 1 << 26).read(image)


def test_the_founding_case_in_small() -> None:
    classes = {name: body for name, body in cubin_bodies(demo("sm_60")).items() if body != "real"}
    assert sorted(classes.values()) == ["partial-nodata"] * 3 + ["stub-trap"] * 2
    assert {name for name, body in classes.items() if body == "stub-trap"} == {
        "_Z12mul_mat_q8_0ILb0EEvPKiS1_Pfiii",
        "_Z12mul_mat_q8_0ILb1EEvPKiS1_Pfiii",
    }
    for target in ("sm_70", "sm_75"):
        assert set(cubin_bodies(demo(target)).values()) == {"real"}


def test_the_message_of_a_stub() -> None:
    data = demo("sm_60")
    found = cubin_messages(data, cubin_bodies(data))
    assert set(found.values()) == {
        f"ERROR: CUDA kernel {name} has no device code compatible with CUDA arch 600. demo.cu was compiled for: 600,700,750"
        for name in ("mul_mat_q8_0", "vec_dot_q8_0_q8_1_impl")
    }
    assert "quantize_q8_1" not in " ".join(found)


@pytest.mark.parametrize("target", ["sm_50", "sm_61", "sm_70", "sm_90", "sm_100", "sm_120"])
def test_messages_of_the_fixtures(target: str) -> None:
    path = FIXTURES / "stub_kinds.all.fatbin"
    if not path.is_file():
        required(f"stub fixtures in {FIXTURES}")
    data = image_bytes(path, target)
    found = cubin_messages(data, ["k_inline", "k_early", "k_guard", "k_trap"])
    if target == "sm_61":
        assert found == {"k_guard": "bad n ?"}
        return
    number = int(target[3:]) * 10
    assert found == {
        "k_inline": f"k_inline has no device code compatible with CUDA arch {number}",
        "k_early": f"k_early has no device code compatible with CUDA arch {number}",
        "k_guard": "bad n ?",
    }


def test_stubs_share_a_shape_and_real_bodies_do_not() -> None:
    tables = Tables(demo("sm_60"))
    code = {name: tables.content(row) for name, row in tables.by_name().items() if name.startswith(b".text.")}
    stubs = {maxwell.shape(data) for name, data in code.items() if b"mul_mat_q8_0" in name}
    others = {maxwell.shape(data) for name, data in code.items() if b"mul_mat_q8_0" not in name}
    assert len(stubs) == 1
    assert not stubs & others


def test_damage_is_a_format_error_and_an_unknown_arch_unknown() -> None:
    assert cubin_bodies(cubin(arch=35)) == {"k": "unknown"}
    assert encoding(35) is encoding(None) is None
    data = demo("sm_60")
    for cut in (10, 70, len(data) // 2):
        with pytest.raises(FormatError):
            cubin_bodies(data[:cut])
    with pytest.raises(FormatError, match="the kernel 'k' has no code"):
        cubin_bodies(cubin(body=b""))


def test_bodies_seen_in_another_cubin_change_nothing() -> None:
    seen = SeenBodies()
    for target in ("sm_60", "sm_70", "sm_60", "sm_75"):
        assert bodies_of(Tables(demo(target)), seen) == cubin_bodies(demo(target))


@pytest.mark.parametrize(
    ("words", "kind", "targets", "conditional"),
    [
        ((0xE24000001788000F,), flow.BRANCH, (54,), True),  # @!P0 BRA at 0x30, to 0x1b0
        ((0xE3A00000001000C0,), flow.TRAP, None, False),  # BPT.TRAP 0x1
        ((0xE270000000800040,), flow.PUSH_RETURN, (9,), False),  # PRET from 0x30 to 0x40: the start of a bundle
        ((0xE20000000007000F,), flow.INDIRECT, None, False),  # JMX R0
        ((0xE30000000007000F,), flow.EXIT, None, False),
        ((0x50B0000000070F00,), flow.PLAIN, None, False),  # NOP
    ],
)
def test_maxwell_encodings(words: tuple[int, ...], kind: int, targets: tuple[int, ...] | None, conditional: bool) -> None:
    """Words as nvdisasm 12.4 names them, at byte 0x30 of a section of 64 instructions."""
    code = bytearray(64 * 8)
    code[0x30:0x38] = struct.pack("<Q", words[0])
    section = maxwell.MaxwellSection(bytes(code))
    assert section.kinds[6] == kind
    if kind == flow.BRANCH:
        assert section.conditional(6) == conditional
        assert section.targets(6) == targets
    if kind == flow.PUSH_RETURN:
        assert section.targets(6) == targets
    if kind == flow.EXIT:
        assert not section.conditional(6)


@pytest.mark.parametrize(
    ("arch", "low", "high", "kind", "target", "conditional"),
    [
        (90, 0x0000000000848947, 0x000FEA0003800000, flow.BRANCH, 9 + 1 + 33, True),  # @!P0 BRA at 0x90, to 0x2b0
        (90, 0x000000040000795C, 0x000FE20000300000, flow.TRAP, None, False),
        (90, 0x000000040000795C, 0x000FE20000200000, flow.PLAIN, None, False),  # BPT.DRAIN
        (90, 0x0000000008007343, 0x006FEA0003C00000, flow.CALL_OUT, None, False),  # CALL.ABS.NOINC R8
        (80, 0x000000000000794D, 0x000FEA0003800000, flow.EXIT, None, False),
    ],
)
def test_volta_encodings(arch: int, low: int, high: int, kind: int, target: int | None, conditional: bool) -> None:
    code = bytearray(64 * 16)
    code[0x90:0xA0] = struct.pack("<QQ", low, high)
    section = volta.VoltaSection(bytes(code), arch)
    assert section.kinds[9] == kind
    if target is not None:
        assert section.targets(9) == (target,)
    if kind in (flow.BRANCH, flow.EXIT):
        assert section.conditional(9) == conditional


CONTROL = {
    "BRA": {flow.BRANCH}, "EXIT": {flow.EXIT}, "KILL": {flow.EXIT}, "RET": {flow.RETURN}, "BRX": {flow.OPAQUE}, "BRXU": {flow.OPAQUE},
    "JMP": {flow.OPAQUE}, "JMX": {flow.OPAQUE}, "BSSY": {flow.PUSH}, "BSYNC": {flow.POP}, "CALL": {flow.CALL, flow.CALL_OUT},
}  # fmt: skip
MEMORY = {
    **{key: {flow.EFFECT} for key in ["STG", "ST", "RED", "REDG", "SUST", "STAS", "REDAS", "UBLKCP", "UBLKRED", "UTMASTG", "UTMAREDG"]},
    **{key: {flow.LOAD_EFFECT} for key in ["ATOM", "ATOMG", "SURED"]},
    **{key: {flow.LOAD} for key in ["LDG", "LD", "LDGSTS", "TEX", "TLD", "TLD4", "TXQ", "SULD", "UTMALDG"]},
}
_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+)?\s*([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;\s*(?:/\*.*)?$")


def nvdisasm() -> Path:
    import sys

    for folder in sys.path:
        path = Path(folder) / "nvidia/cu13/bin/nvdisasm"
        if path.is_file():
            return path
    required("nvdisasm: pip install -e '.[oracle]'")
    raise AssertionError


def compared(tool: Path, path: Path) -> int:
    """Every instruction of a cubin against nvdisasm's text: kind, target, whether it is conditional. The number of instructions."""
    text = subprocess.run([tool, path], capture_output=True, text=True, check=False).stdout
    tables = Tables(path.read_bytes())
    arch = tables.identity.arch
    assert arch is not None
    section, waiting, labels, lines = "", [], {}, {}
    for line in text.splitlines():
        if found := re.match(r"\s*\.section\s+(\S+?),", line):
            section, waiting = found[1], []
        elif section.startswith(".text") and (found := re.match(r"^(\.L_x_\d+):\s*$", line)):
            waiting.append(found[1])
        elif section.startswith(".text") and (found := _LINE.match(line)):
            at = int(found[1], 16)
            labels |= {(section, label): at for label in waiting}
            waiting = []
            lines[section, at] = found.groups()[1:]
    programs = {name: volta.VoltaSection(tables.content(tables.by_name()[name.encode()]), arch) for name, _ in lines}
    for (name, at), (guard, operation, operands) in lines.items():
        program = programs[name]
        break_at = at // 16
        root = operation.split(".")[0]
        expected = {flow.TRAP} if operation.startswith("BPT.TRAP") else CONTROL.get(root) or MEMORY.get(root) or {flow.PLAIN}
        assert program.kinds[break_at] in expected, (path.name, name, hex(at), operation)
        label = re.search(r"`\((\.L_x_\d+)\)", operands)
        if label and root in ("BRA", "BSSY") and (name, label[1]) in labels:
            assert program.targets(break_at) == (labels[name, label[1]] // 16,), (path.name, name, hex(at))
        if root in ("EXIT", "RET"):
            assert program.conditional(break_at) == (guard is not None or bool(re.match(r"!?U?P\d", operands)))
        if root == "BRA":
            plain = guard is None and not re.match(r"BRA\.(?:U|DIV|CONV)\b", operation) and not re.match(r"!?U?PT?\d*,", operands)
            assert program.conditional(break_at) == (not plain), (path.name, name, hex(at), operation, operands)
    return len(lines)


def compared_in(path: Path, folder: Path) -> dict[str, int]:
    """Target -> how many instructions of its images were compared."""
    tool, seen = nvdisasm(), dict[str, int]()
    with inspected(str(path)) as node:
        for payload in node.payloads:
            for image in payload.images:
                if image.kind != "sass" or (image.size or 0) > 100_000 or seen.get(image.target, 0) > 1000:
                    continue
                cut = folder / f"{image.target}-{image.offset}.cubin"
                cut.write_bytes(ImageReader(node.source, 1 << 26).read(image))
                if (Tables(cut.read_bytes()).identity.arch or 0) >= 75:
                    seen[image.target] = seen.get(image.target, 0) + compared(tool, cut)
    return seen


@pytest.mark.oracle
def test_encodings_of_the_sample_equal_nvdisasm(tmp_path: Path) -> None:
    seen = compared_in(SAMPLES / "kernels.fatbin", tmp_path)
    assert set(seen) == {"sm_75", "sm_80", "sm_90", "sm_90a", "sm_100", "sm_100f", "sm_120"}
    assert min(seen.values()) > 100


@pytest.mark.oracle
@pytest.mark.corpus
@pytest.mark.parametrize("library", [pytest.param("libbitsandbytes_cuda128.so", marks=pytest.mark.slow), "_C.so"])
def test_encodings_of_real_libraries_equal_nvdisasm(library: str, tmp_path: Path) -> None:
    assert sum(compared_in(corpus_file(library), tmp_path).values()) > 3000
