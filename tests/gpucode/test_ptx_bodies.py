"""Classes of PTX bodies, on texts written by hand."""

from __future__ import annotations

import pytest

from fatpatch.gpucode.messages import ptx_messages
from fatpatch.gpucode.ptx.bodies import body_words, ptx_bodies

HEAD = b".version 8.4\n.target sm_75\n.address_size 64\n"
MESSAGE = b"%s has no device code compatible with CUDA arch %d\n\0"


def entry(body: str, name: str = "k") -> bytes:
    return f".visible .entry {name}(.param .u64 p)\n{{\n{body}\n}}\n".encode()


def byte_list(name: str, value: bytes) -> bytes:
    return f".global .align 1 .b8 {name}[{len(value)}] = {{{', '.join(map(str, value))}}};\n".encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("ret;", "empty"),
        ("st.global.u32 [%rd1], %r1;\nret;", "real"),
        ("trap;", "stub-trap"),
        ("trap;\nret;", "stub-trap"),
        ("{ .param .b64 a; call.uni (retval0), vprintf, (p0, p1); }\ntrap;", "stub-trap"),
        ("@%p1 bra DONE;\ntrap;\nDONE:\nret;", "stub-guarded"),
        ("@%p1 bra DONE;\ntrap;\nDONE:\nst.global.u32 [%rd1], 0;\nret;", "partial-nodata"),
        ("@!%p1 bra $L__BB0_2;\ntrap;\n$L__BB0_2: ld.global.u32 %r1, [%rd1]; st.global.u32 [%rd1], %r1; ret;", "has-trap"),
        ("@%p1 trap;\nst.global.u32 [%rd1], 1;\nret;", "partial-nodata"),
        ("call.uni vprintf, (p0, p1);\nret;", "callonly"),
        ("red.global.add.u32 [%rd1], 1;\nret;", "real"),
        ("atom.global.add.u32 %r1, [%rd1], 1;\nret;", "real"),
        ("st.shared.u32 [%r1], 0;\nst.local.u32 [%SP], 1;\nret;", "empty"),
        ("// trap; st.global.u32 [%rd1], 1;\nret;", "empty"),
        ("/* trap; */ ret;", "empty"),
        ("st.u32 [%rd1], 0;\nret;", "real"),  # a generic address may be global
        ("sust.b.2d.b32.trap [surf, {%r1, %r2}], {%r3};\nret;", "real"),
        ("cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r1], 16;\nret;", "real"),
        ("bra L;\nL: bra L;", "unknown"),
        ("T: .branchtargets A, B;\nbrx.idx %r1, T;\nA: trap;\nB: trap;", "stub-trap"),
        ("T: .branchtargets A, B;\nbrx.idx %r1, T;\nA: trap;\nB: st.global.u32 [%rd1], 1; ret;", "partial-nodata"),
        ("brx.idx %r1, nowhere;", "unknown"),
        ("st.global.u32 [%rd1], 1;\n@%p1 trap;\nld.global.u32 %r1, [%rd2];\nret;", "has-trap"),
        ("{ { ret; } }", "empty"),
    ],
)
def test_classes(body: str, expected: str) -> None:
    assert ptx_bodies(HEAD + entry(body)) == {"k": expected}


def test_functions_of_the_module_are_followed() -> None:
    die = b".func die(.param .u32 a)\n{\ncall.uni vprintf, (a, b);\ntrap;\n}\n"
    put = b".visible .func (.param .b32 r) put(.param .u64 a)\n{\nst.u32 [%rd1], 1;\nret;\n}\n"
    loop = b".func loop()\n{\n@%p1 bra X;\ncall.uni loop, ();\nX: ret;\n}\n"
    text = HEAD + die + put + loop + entry("call.uni die, (a);\nret;", "a") + entry("call.uni (r), put, (a);\nret;", "b")
    text += entry("call loop, ();\nret;", "c") + b".extern .func far(.param .u64 a);\n" + entry("call.uni far, (a);\nret;", "d")
    assert ptx_bodies(text) == {"a": "stub-trap", "b": "real", "c": "empty", "d": "callonly"}
    assert dict(body_words(text, frozenset({"a"})))["a"].count(b"trap") == 1


def test_what_stands_between_entries_belongs_to_none() -> None:
    text = (
        HEAD + entry("ret;", "a") + b".global .align 4 .u32 table[2] = {1, 2};\n.visible .entry far(.param .u64 p);\n" + entry("trap;", "b")
    )
    assert ptx_bodies(text) == {"a": "empty", "b": "stub-trap"}
    assert ptx_bodies(b"") == ptx_bodies(HEAD) == {}
    assert ptx_bodies(HEAD + b".entry k(") == {}


def test_the_message_in_byte_lists() -> None:
    text = HEAD + byte_list("fmt", MESSAGE) + byte_list("who", b"mul_mat_q8_0\0")
    text += entry("mov.u64 %rd1, fmt;\nmov.u64 %rd2, who;\ncall.uni vprintf, (a);\ntrap;") + entry("ret;", "other")
    expected = "mul_mat_q8_0 has no device code compatible with CUDA arch 750"
    assert ptx_messages(text, ["k", "other"], 75) == {"k": expected}


def test_an_assertion_is_no_stub() -> None:
    body = "@%p1 bra OK;\ncall.uni __assertfail, (a);\ntrap;\nOK: st.global.u32 [%rd1], 1;\nret;"
    assert ptx_bodies(HEAD + b".extern .func __assertfail(.param .u64 a);\n" + entry(body)) == {"k": "has-trap"}
