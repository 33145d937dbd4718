"""``inspect --duplicates`` against the digests that ``--sha256`` gives, and against images made to be the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from builders.fatbin import container, entry
from conftest import ROOT, SAMPLES, corpus_file
from edit.elf_builder import Host, build, cubin, fatpatch

SCHEMA = json.loads((ROOT / "fatpatch/commands/inspect/duplicates-1.schema.json").read_text())


def duplicates(path: Path) -> dict[str, object]:
    answer = fatpatch("inspect", "--duplicates", path, "--format", "json")
    assert answer.code == 0, answer
    document = json.loads(answer.out)
    jsonschema.validate(document, SCHEMA)
    found: dict[str, object] = document["files"][0]
    return found


def by_digest(path: Path) -> dict[tuple[str, str], int]:
    """(sha256, target) -> how often, of those that occur more than once."""
    document = json.loads(fatpatch("inspect", path, "--sha256", "--format", "json").out)
    counts: Counter[tuple[str, str]] = Counter()

    def count(node: dict[str, object]) -> None:
        for payload in node["payloads"]:  # type: ignore[attr-defined]
            counts.update((image["sha256"], image["target"]) for image in payload["images"] if image["sha256"])
        for member in node["members"]:  # type: ignore[attr-defined]
            count(member)

    count(document["files"][0])
    return {key: value for key, value in counts.items() if value > 1}


@pytest.mark.parametrize("name", ["demo.llamafile", "libkernels.so", "kernels-1.0-py3-none-linux_x86_64.whl", "libhipdemo.so"])
def test_samples(name: str) -> None:
    found = {(each["sha256"], each["target"]): len(each["locators"]) for each in duplicates(SAMPLES / name)["copies"]}  # type: ignore[attr-defined]
    assert found == by_digest(SAMPLES / name)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["libfaiss-6b43fd57.so", "libcublas.so.12", "libbitsandbytes_rocm71.so"])
def test_real_files(name: str) -> None:
    path = corpus_file(name)
    found = {(each["sha256"], each["target"]): len(each["locators"]) for each in duplicates(path)["copies"]}  # type: ignore[attr-defined]
    assert found == by_digest(path)


def test_kernels_in_two_modules(tmp_path: Path) -> None:
    first = cubin(SAMPLES, 70)
    second = first.replace(b"rms_norm_f32", b"rms_norm_f64")  # all other kernels are the same
    modules = [container(entry(data, kind=2, arch=70, major=1, minor=7)) for data in (first, second)]
    path = build(Host("shared", modules=2), tmp_path, modules)
    found = duplicates(path)
    assert found["copies"] == []
    names = {each["name"] for each in found["same_kernels"]}  # type: ignore[attr-defined]
    assert len(names) == 6
    assert not any("rms_norm" in name for name in names)
    assert found["kernels"] == 14
    assert "6 of 14 kernels in SASS are copies" in fatpatch("inspect", "--duplicates", path).out


def test_usage() -> None:
    assert fatpatch("inspect", "--duplicates", "--kernels", SAMPLES / "libkernels.so").code == 2
    assert fatpatch("inspect", "--duplicates", SAMPLES / "MANIFEST.toml").out.endswith("no GPU code\n")
    assert fatpatch("inspect", "--duplicates", SAMPLES / "nothing").code == 3
