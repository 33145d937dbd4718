"""Bodies that occur again are not read again, and whatever was seen before, the answers are those of each text by itself."""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from fatpatch.base.errors import LimitError
from fatpatch.gpucode import flow
from fatpatch.gpucode.cubin import maxwell, volta
from fatpatch.gpucode.ptx.bodies import classified, ptx_bodies
from fatpatch.gpucode.ptx.text import MAX_ENTRIES, PtxText
from fatpatch.gpucode.seen import SeenBodies
from fatpatch.verdicts.jit import estimated
from fatpatch.verdicts.ptx_result import outline

HEAD = ".version 8.4\n.target sm_75\n.address_size 64\n"
STORE, TRAP = "st.global.u32 [%rd1], 1;", "trap;"
BODIES = {
    "@%p1 bra L1; trap; L1: ld.global.u32 %r1, [a]; L2: st.global.u32 [a], %r1; ret;": "has-trap",
    "@%p1 bra L2; trap; L1: ld.global.u32 %r1, [a]; L2: st.global.u32 [a], %r1; ret;": "partial-nodata",  # another label alone
    "mov.u32 %r1, 12; call.uni vprintf, (a); trap;": "stub-trap",
    "mov.u32 %r1, 345; call.uni vprintf, (a); trap;": "stub-trap",
    "mov.u32 %r1, 345; call.uni vprintf, (a); ret;": "callonly",
    "0; trap;": "unknown",
    "1; trap;": "unknown",
    "ret;": "empty",
    f"{STORE} ret;": "real",
}


def text(*bodies: str, rest: str = "") -> bytes:
    return (HEAD + rest + "".join(f".visible .entry k{index}()\n{{\n{body}\n}}\n" for index, body in enumerate(bodies))).encode()


def test_texts_do_not_mix() -> None:
    seen, generator, bodies = SeenBodies(), random.Random(1), list(BODIES)
    for _ in range(40):
        chosen = generator.choices(bodies, k=6)
        expected = {f"k{index}": BODIES[body] for index, body in enumerate(chosen)}
        assert classified(PtxText(text(*chosen), seen)) == expected == ptx_bodies(text(*chosen))


def test_what_a_class_hangs_on_besides_its_body() -> None:
    seen = SeenBodies()
    bodies = (f"@%p1 bra L; call.uni f, (); trap; L: {STORE} ret;", "call.uni f, (); ret;")
    asserts = ".extern .func __assertfail(.param .u64 a);\n"
    function = ".func f()\n{\ntrap;\n}\n"
    plain = ("partial-nodata", "callonly")
    for rest, expected in (("", plain), (asserts, ("has-trap", "callonly")), (function, ("partial-nodata", "stub-trap")), ("", plain)):
        whole = text(*bodies, rest=rest)
        assert tuple(classified(PtxText(whole, seen)).values()) == expected == tuple(ptx_bodies(whole).values())


def test_a_body_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    classify = flow.classify

    def counting(*args: object, **options: object) -> str:
        walked.append(classify(*args, **options))  # type: ignore[arg-type]
        return walked[-1]

    monkeypatch.setattr(flow, "classify", counting)
    seen = SeenBodies()
    for line in range(100, 120):
        assert set(classified(PtxText(text(*[f"mov.u32 %r1, {line}; {TRAP}"] * 5), seen)).values()) == {"stub-trap"}
    assert walked == ["stub-trap"]


def test_counts_of_parts_are_those_of_the_text() -> None:
    long = "div.rn.f32 a, b, c; rem.u32 a, b, c; sqrt.rn.f32 a, b; rsqrt.approx.f32 a, b; rcp.f64 a, b; setp.eq.s32 p, a, b; mad.lo.s32 a, b, c, d;"
    whole = text(f"{{ {long} }}", STORE, f"{long * 40} ret;", rest=".func f();\n")
    counts = PtxText(whole).counts
    words = (b"div.", b"rem.", b"sqrt.", b"rcp.")
    assert len(counts) == 4
    assert sum(part.statements for part in counts) == whole.count(b";")
    assert sum(part.long for part in counts) == sum(map(whole.count, words))
    assert sum(part.unclosed for part in counts) == whole.count(b"{") - whole.count(b"}") == 0
    assert not PtxText(whole + b"{").balanced()
    assert sum(part.functions for part in counts) == 1
    assert PtxText(whole).functions() == [whole.find(b".func")]
    assert PtxText(b"q" * 1000 + b"sqrt.").counts[0].long == 1


def test_statements_of_a_large_part_are_estimated_by_a_sample() -> None:
    generator = random.Random(4)
    usual = ["add.s32 %r1, %r2, %r3;\n", "mad.lo.s32 %r1, %r2, %r3, %r4;\n", "{ ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1+4096]; }\n"]
    rare = ["div.rn.f32 %f1, %f2, %f3;\n", "rcp.rn.f64 %fd1, %fd2;\n", "rem.u32 %r1, %r2, %r3;\n", "rsqrt.approx.f32 %f1, %f2;\n"]
    for size in (1000, 5000, 40_000):
        body = "".join(generator.choices([*usual, *rare], [20, 20, 20, 1, 1, 1, 1], k=size))
        whole = text(body, "trap; }", f"{{ {body * 3}", rest=".func f();\n")
        plain, counts = (body.count(";"), sum(map(body.count, ("div.", "rem.", "rcp.", "sqrt.")))), PtxText(whole).counts
        for times, part in ((1, counts[1]), (3, counts[3])):
            assert part.statements == pytest.approx(times * plain[0], rel=0.04)
            assert part.long == pytest.approx(times * plain[1], rel=0.25)
        assert [part.unclosed for part in counts] == [0, 0, -1, 1]  # these are counted, and what the words say is looked for
        assert [part.traps for part in counts] == [False, False, True, False]
        assert [part.functions for part in counts] == [1, 0, 0, 0]


def test_words_are_counted_as_plain_searches_count_them() -> None:
    generator = random.Random(3)
    pieces = [
        ".entry",
        "entry",
        ".func",
        "func",
        "div.",
        "rem.",
        "rem",
        "rcp.",
        "sqrt.",
        "trap",
        "vprintf",
        "printf",
        "pp",
        "y",
        ";",
        "{",
        "}",
        ".",
        "c",
    ]
    long = (b"div.", b"rem.", b"rcp.", b"sqrt.")
    for _ in range(400):
        whole = "".join(generator.choices(pieces, k=generator.randrange(60))).encode()
        ptx = PtxText(whole)
        assert ptx.entries == [at for at in range(len(whole)) if whole.startswith(b".entry", at)]
        assert ptx.functions() == [at for at in range(len(whole)) if whole.startswith(b".func", at)]
        edges = [0, *ptx.entries, len(whole)]
        parts = [whole[start:end] for start, end in itertools.pairwise(edges)]
        assert [part.long for part in ptx.counts] == [sum(map(part.count, long)) for part in parts]
        assert [part.traps for part in ptx.counts] == [b"trap" in part for part in parts]
        assert [part.unclosed for part in ptx.counts] == [part.count(b"{") - part.count(b"}") for part in parts]
        assert ptx.prints() == (b"vprintf" in whole)


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 8, b"\0" * 40, b"\0more"])
def test_what_follows_a_text_changes_nothing(padding: bytes) -> None:
    for whole in (HEAD.encode(), HEAD.encode()[:-1], text(*BODIES), b"", b" \n", b".version 8.4\n.target sm_75\n}"):
        plain, padded = outline(PtxText(whole)), outline(PtxText(whole + padding))
        assert padded == plain._replace(ended=True)
        assert estimated(PtxText(whole)) == estimated(PtxText(whole + padding))
        assert classified(PtxText(whole)) == classified(PtxText(whole + padding))


def test_entries_without_end_are_refused() -> None:
    with pytest.raises(LimitError, match="more than 100000"):
        _ = PtxText(b".entry " * (MAX_ENTRIES + 1)).entries
    with pytest.raises(LimitError, match="more than 100000"):
        PtxText(b".func " * (MAX_ENTRIES + 1)).functions()


def _kind(opcode: int) -> int:
    """The kind of an instruction by the tables of the facts, one opcode at a time: memory instructions by 9 bits, others by 12."""
    for codes, kind in ((volta._EFFECTS, flow.EFFECT), (volta._LOAD_EFFECTS, flow.LOAD_EFFECT), (volta._LOADS, flow.LOAD)):
        if opcode & 0x1FF in codes:
            return kind
    return volta._CONTROL.get(opcode & 0xFFF, flow.PLAIN)


def test_every_opcode_has_its_kind() -> None:
    trap = 3 << 20
    code = b"".join(struct.pack("<QQ", opcode, trap) for opcode in range(1 << 16))
    section = volta.VoltaSection(code + bytes(15), 90)
    expected = list(map(_kind, range(1 << 16)))
    assert list(section.kinds) == expected
    assert section.controls == [at for at, kind in enumerate(expected) if kind >= flow.CALL_OUT]
    assert flow.TRAP not in volta.VoltaSection(struct.pack("<QQ", 0x95C, 0), 90).kinds  # a breakpoint


def test_real_at_a_glance_is_real_by_the_table() -> None:
    generator = random.Random(2)
    opcodes = [0x95C, 0x986, 0x386, 0x7C11, 0x98E, 0x85C, 0x181, 0x5C, 0x186 | 0xF000, 0x95C | 0x3000]
    for _ in range(400):
        chosen = [generator.choice([*opcodes, generator.randrange(1 << 16)]) for _ in range(generator.randrange(1, 6))]
        code = b"".join(struct.pack("<H14x", opcode) for opcode in chosen)
        kinds = set(map(_kind, chosen))
        assert volta.is_real(code + b"\x5c\x09") == (flow.TRAP not in kinds and bool(kinds & {flow.EFFECT, flow.LOAD_EFFECT}))
    assert not maxwell.is_real(struct.pack("<QQQQ", 0, 0xE3A0 << 48, 0xEED8 << 48, 0))
    assert maxwell.is_real(struct.pack("<QQQQ", 0, 0xE300 << 48, 0xEED8 << 48, 0))
