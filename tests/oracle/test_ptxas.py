"""PTX headers as ptxas reads them: parameters of kernels however they are written, against the cubin that it makes of them."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from fatpatch.gpucode.cubin.kernels import cubin_kernels
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.ptx.read import ptx_kernels, ptx_target, ptx_version
from fatpatch.gpucode.signature import same_parameters

pytestmark = pytest.mark.oracle
Places = tuple[tuple[int, int], ...]
TYPES = [("u8", 1), ("b8", 1), ("s16", 2), ("b16", 2), ("u32", 4), ("f32", 4), ("b32", 4), ("u64", 8), ("f64", 8), ("s64", 8)]


def compiled(ptxas: Path, text: str, folder: Path, arch: str = "sm_80") -> dict[str, tuple[int | None, Places]]:
    """By kernel: the most threads of a block, and the place of each parameter, in what ptxas makes of the text."""
    source, cubin = folder / "x.ptx", folder / "x.cubin"
    source.write_text(text)
    subprocess.run([ptxas, f"-arch={arch}", source, "-o", cubin], check=True, capture_output=True, timeout=120)
    return {row[0]: (row[5], row[6] or ()) for row in cubin_kernels(Tables(cubin.read_bytes()), detail=True)}


class Writer:
    """Writes tokens with whatever may stand between them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def gap(self, *, needed: bool) -> str:
        blanks = [" ", "\t", "\n", "  ", "\r\n", " // entry .entry x(\n", "/* .param .u32 */", " /* a\n { ; */ "]
        return self.random.choice(blanks if needed else [*blanks, "", "", ""])

    def join(self, *tokens: str) -> str:
        text = tokens[0]
        for before, token in pairwise(tokens):
            words = before[-1:].isalnum() or before[-1:] in "_$%"
            follows = token[:1].isalnum() or token[:1] in "_$%" or (token[:1] == "." and before[:1].isdigit())
            text += self.gap(needed=words and follows) + token
        return text

    def number(self, value: int) -> str:
        return self.random.choice([str(value), hex(value), f"0X{value:x}", f"{value}U", f"0{value:o}", f"0b{value:b}"])

    def parameter(self, index: int) -> list[str]:
        kind, width = self.random.choice(TYPES)
        choice = self.random.randrange(5)
        if choice == 0:
            space = self.random.choice(["", ".global", ".const", ".shared", ".local"])
            align = [".align", self.number(self.random.choice([4, 8, 16]))] if self.random.random() < 0.5 else []
            return [".param", ".u64", ".ptr", *([space] if space else []), *align, f"p{index}"]
        if choice == 1:
            align = [".align", self.number(self.random.choice([width, 2 * width, 16, 64, 128]))]
            order = [[*align, f".{kind}"], [f".{kind}", *align]][self.random.randrange(2)]
            return [".param", *order, f"p{index}", "[", self.number(self.random.randrange(1, 70)), "]"]
        return [".param", f".{kind}", f"$p_{index}"]

    def kernel(self, name: str) -> str:
        tokens = [self.random.choice([".visible", ".weak", ""]), ".entry", name, "("]
        for index in range(self.random.randrange(7)):
            tokens += [*([","] if index else []), *self.parameter(index)]
        tokens += [")"]
        for directive in self.random.sample([".maxntid", ".minnctapersm", ".pragma"], self.random.randrange(4)):
            if directive == ".maxntid":
                counts = [self.number(self.random.choice([1, 2, 8])) for _ in range(self.random.randrange(1, 4))]
                tokens += [directive, *", ,".join(counts).replace(", ,", " , ").split(" ")]
            elif directive == ".minnctapersm" and ".maxntid" in tokens:
                tokens += [directive, self.number(2)]
            elif directive == ".pragma":
                tokens += [directive, '"nounroll"', ";"]
        return self.join(*filter(None, [*tokens, "{", "ret", ";", "}"]))


@pytest.mark.parametrize(("seed", "arch"), list(enumerate(["sm_80", "sm_80", "sm_50", "sm_75", "sm_90", "sm_90", "sm_100", "sm_120"])))
def test_parameters_however_they_are_written(seed: int, arch: str, ptxas: Path, tmp_path: Path) -> None:
    """Thirty kernels a text: blanks, comments, line ends, hexadecimal, attributes in any order."""
    writer = Writer(seed)
    head = writer.join("// .version 1.0\n/* .target sm_20 */\n.version 8.7\n", ".target", arch, ".address_size", "64")
    text = head + "\n" + writer.gap(needed=False).join(writer.kernel(f"k{number}") for number in range(30)) + "\n"
    data = text.encode()
    assert (ptx_version(data), ptx_target(data)) == ("8.7", arch.replace("sm", "compute"))
    found = {row[0]: (row[5], row[6]) for row in ptx_kernels(data)}
    assert found == compiled(ptxas, text, tmp_path, arch)


def test_one_declaration_has_other_offsets_on_another_architecture(ptxas: Path, tmp_path: Path) -> None:
    text = ".version 8.7\n.target {0}\n.address_size 64\n.entry k(.param .u8 a, .param .align 64 .b8 b[64], .param .u32 c){{ret;}}"
    other = text.replace("align 64", "align 8")
    places = {arch: compiled(ptxas, text.format(arch), tmp_path, arch)["k"][1] for arch in ("sm_60", "sm_80", "sm_90", "sm_100")}
    assert len(set(places.values())) == 3
    assert all(same_parameters(some, others) for some in places.values() for others in places.values())
    wrong = compiled(ptxas, other.format("sm_80"), tmp_path)["k"][1]
    assert not any(same_parameters(wrong, right) for right in places.values())


@pytest.mark.parametrize("name", ["nospace", "oneline", "hexarr", "ptrnospace2"])
def test_texts_that_were_read_wrongly(name: str, ptxas: Path, tmp_path: Path) -> None:
    texts = {
        "nospace": ".version 8.0\n.target sm_80\n.address_size 64\n.visible.entry k(.param.u64 a,.param.u32 b){ret;}",
        "oneline": ".version 8.0 .target sm_80 .address_size 64 .visible .entry k(.param .u32 a){ret;} .entry k2(.param .u64 a){ret;}",
        "hexarr": ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .align 8 .b8 a[0x20], .param .u32 b){ret;}",
        "ptrnospace2": ".version 8.0\n.target sm_80\n.address_size 64\n.entry k(.param.u64.ptr.global.align 8 a,.param.u32 b){ret;}",
    }
    text = texts[name]
    found = {row[0]: (row[5], row[6]) for row in ptx_kernels(text.encode())}
    assert found == compiled(ptxas, text, tmp_path)
    assert found


def test_words_that_are_no_entries(ptxas: Path, tmp_path: Path) -> None:
    """In comments, in strings and in longer words."""
    text = (
        ".version 8.0\n.target sm_80\n.address_size 64\n// .entry a()\n/* .entry b(.param .u32 x) {\n */\n.extern .entry c(.param .u32 x);\n"
        '.visible .entry d(.param .u32 x) .pragma ".entry e()"; {\n// .entry f()\nret; }\n'
    )
    found = {row[0]: (row[5], row[6]) for row in ptx_kernels(text.encode())}
    assert found == compiled(ptxas, text, tmp_path)
    assert set(found) == {"d"}
