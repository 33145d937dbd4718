"""Static shared memory of PTX kernels against the cubins that ptxas makes of the same texts."""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from conftest import corpus_path, corpus_rows

import fatpatch
from fatpatch.gpucode.cubin.kernels import cubin_kernels
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.rows import own_shared
from fatpatch.model.target import Target

pytestmark = pytest.mark.oracle
HEAD = ".version 8.3\n.target sm_80\n.address_size 64\n"
Sizes = dict[str, int | None]


@pytest.fixture
def compiled(ptxas: Path, tmp_path: Path) -> Callable[[str], Sizes]:
    def sizes(text: str) -> Sizes:
        source, cubin = tmp_path / "x.ptx", tmp_path / "x.cubin"
        source.write_text(text)
        subprocess.run([ptxas, "-arch=sm_80", source, "-o", cubin], check=True, capture_output=True, timeout=120)
        return {row[0]: row[2] for row in cubin_kernels(Tables(cubin.read_bytes()), detail=True)}

    return sizes


def read(text: str) -> Sizes:
    return {row[0]: row[2] for row in read_image("ptx", text.encode()).kernels}


def use(*names: str) -> str:
    return "{.reg .b16 %r; mov.u16 %r,1; " + " ".join(f"st.volatile.shared.u8 [{name}], %r;" for name in names) + "}"


def kernel(body: str, name: str = "k") -> str:
    return f".visible .entry {name}() {{ {body} ret; }}\n"


def function(body: str, name: str = "f") -> str:
    return f".func {name}() {{ {body} ret; }}\n"


KNOWN = {
    "unused": kernel(".shared .align 4 .b8 a[100];"),
    "of the module, used by one": ".shared .align 4 .b8 a[100];" + kernel(use("a")) + kernel("", "k2"),
    "order of the text": kernel(".shared .b8 a[1]; .shared .align 16 .b8 b[16]; .shared .b8 c[1];" + use("c", "b", "a")),
    "smaller first": kernel(".shared .b8 a[1]; .shared .b64 b; .shared .b16 c[3];"),
    "alignment below the natural one": kernel(".shared .b8 x; .shared .align 4 .b64 y;"),
    "own before the module's": ".shared .b32 m;" + kernel(".shared .b8 b[3];" + use("m", "b")),
    "lists, vectors, dimensions": kernel(".shared .b8 s[5], u[3]; .shared .v4 .f32 v; .shared .v2 .b8 z[3]; .shared .b32 w[2][3];"),
    "halves": kernel(".shared .f16x2 h; .shared .b8 a[3]; .shared .f16 g;"),
    "nested blocks": kernel("{.shared .b8 s[5];" + use("s") + "} {.shared .b64 v;" + use("v") + "}"),
    "dynamic rounds up": ".extern .shared .align 8 .b8 m[];" + kernel(".shared .b8 s[5];") + kernel("", "k2"),
    "dynamic behind it": kernel(".shared .b8 s[3];") + ".extern .shared .align 64 .b8 m[];",
    "through a function": ".shared .b8 s[5];" + function(use("s")) + kernel("call f;") + kernel("", "k2"),
    "through two": ".shared .b8 s[5];" + function(use("s")) + function("call f;", "g") + kernel("call g;") + kernel("", "k2"),
    "a function's own": function(".shared .b64 x;" + use("x")) + kernel(".shared .b64 z[5]; call f;"),
    "a function that nothing calls": function(".shared .b64 x;" + use("x")) + kernel(""),
    "in comments": "// .shared .b8 c[7];\n/* .shared .b8 d[9]; */" + kernel("// }\n/* } */ .shared .b8 e[3]; // .shared .b8 f;\n"),
    "a comment before": "// demoted variable\n\t.shared .align 4 .b8 a[12];" + kernel("\n// demoted variable\n .shared .b32 b;" + use("a")),
    "linkage": ".visible.shared .b8 a[3]; .weak .shared .b8 b[4];" + kernel(use("a", "b")),
    "instructions": ".shared .b8 q[9];" + kernel(".reg .b64 %a, %b; mov.u64 %b, q; cvta .shared.u64 %a, %b;"),
    "part of a longer name": ".shared .b8 q[9];" + kernel(".reg .b32 %q, q1; mov.u32 q1, %q;"),
    "behind the kernel": kernel("") + ".shared .b8 q[9];" + kernel(use("q"), "k2"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_layouts(name: str, compiled: Callable[[str], Sizes]) -> None:
    assert read(HEAD + KNOWN[name]) == compiled(HEAD + KNOWN[name])


UNKNOWN = {
    "one name in two kernels, which ptxas merges": kernel(".shared .b64 o;" + use("o")) + kernel(".shared .b8 o[3];" + use("o"), "k2"),
    "an extern with a size": ".extern .shared .b8 m[12];" + kernel(".shared .b8 s[5];" + use("m")),
    "order of a function's own": function(".shared .b8 x[5];" + use("x")) + kernel(".shared .b64 z; call f;"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_none(name: str, compiled: Callable[[str], Sizes]) -> None:
    assert set(read(HEAD + UNKNOWN[name]).values()) == {None}
    assert compiled(HEAD + UNKNOWN[name])


@pytest.mark.parametrize("seed", range(10))
def test_twenty_kernels_at_random(seed: int, compiled: Callable[[str], Sizes]) -> None:
    """200 kernels in all: own variables, those of the module, functions, dynamic memory; with blanks and comments in between."""
    random = Random(seed)

    def gap() -> str:
        return random.choice([" ", "\n", "\t", " // .shared .b8 no[3];\n", "/* } */", "\r\n"])

    def variable(name: str) -> str:
        kind = random.choice(["b8", "u16", "f32", "b32", "f64", "b64", "v2 .f32", "v4 .b32", "b128"])
        align = f".align{gap()}{random.choice(['4', '0x10', '32'])} " if random.random() < 0.4 else ""
        dimensions = random.choice(["", f"[{random.randrange(1, 70)}]", f"[ {random.randrange(1, 9)} ][{hex(random.randrange(1, 9))}]"])
        return f"{gap()}.shared{gap()}{align}.{kind}{gap()}{name}{dimensions}{gap()};{gap()}"

    module = [f"m{number}" for number in range(4)]
    text = HEAD + "".join(map(variable, module))
    if random.random() < 0.5:
        text += f".extern .shared .align {random.choice([4, 16, 64])} .b8 dynamic[];"
    for number in range(20):
        own = [f"own{number}_{index}" for index in range(random.randrange(4))]
        named = random.sample([*module, *own], random.randrange(len(own) + 3))
        text += kernel(gap().join(map(variable, own)) + gap() + use(*named), f"k{number}")
    assert read(text) == compiled(text)


@pytest.mark.slow
@pytest.mark.corpus
def test_every_text_of_the_corpus(ptxas: Path, tmp_path: Path) -> None:
    """Parameters and static shared memory of every kernel in PTX up to 1 MB; what ptxas 12.9 does not compile is counted."""
    results: Counter[str] = Counter()
    seen: set[bytes] = set()
    source, cubin = tmp_path / "x.ptx", tmp_path / "x.cubin"
    for row in corpus_rows():
        with fatpatch.open(corpus_path(row)) as file:
            for image in file.images:
                if image.kind != "ptx":
                    continue
                text = image.read().split(b"\0", 1)[0]
                digest = hashlib.sha256(text).digest()
                if digest in seen or len(text) > 1 << 20:
                    results["larger"] += digest not in seen
                    continue
                seen.add(digest)
                source.write_bytes(text)
                command = [str(ptxas), "-O0", f"-arch=sm_{image.target.removeprefix('compute_')}", str(source), "-o", str(cubin)]
                if subprocess.run(command, capture_output=True, timeout=600).returncode:
                    results["not compiled"] += 1
                    continue
                made = {row[0]: row for row in cubin_kernels(Tables(cubin.read_bytes()), detail=True)}
                arch = Target("sm_" + image.target.removeprefix("compute_")).sm
                for kernel_row in read_image("ptx", text).kernels:
                    shared = own_shared(made[kernel_row[0]][2], arch)
                    assert kernel_row[6] == made[kernel_row[0]][6], (image.locator, kernel_row[0])
                    assert kernel_row[2] in (shared, None), (image.locator, kernel_row[0], kernel_row[2], shared)
                    results["unknown" if kernel_row[2] is None else "shared" if shared else "none"] += 1
    print(results)
    assert results["shared"] > 1000
