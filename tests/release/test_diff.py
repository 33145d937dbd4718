"""``diff``: nothing between equals; every kind of change told once, where it is; renamed members found."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import bundle, elf
from builders.cubin import cubin
from builders.fatbin import container, entry, packed
from conftest import ROOT, SAMPLES

import fatpatch
from fatpatch.base.limits import Limits
from fatpatch.model.tree import Node
from fatpatch.named.resolve import resolve
from fatpatch.named.unit import NamedUnit, NamingChoices, opened_unit
from fatpatch.release.pairing import paired
from fatpatch.release.run import _Release
from fatpatch.verdicts.library_facts import LibraryFacts

SCHEMA = json.loads((ROOT / "fatpatch/release/diff-1.schema.json").read_text())
Run = Callable[..., "subprocess.CompletedProcess[str]"]

REAL = b"ld.param.u64 %rd1, [k_param_0]; cvta.to.global.u64 %rd2, %rd1; st.global.u32 [%rd2], 1; ret;"
STUB = b"trap;"


def ptx(body: bytes, *, name: bytes = b"k", version: bytes = b"8.4") -> bytes:
    head = (
        b".version " + version + b"\n.target sm_75\n.address_size 64\n.visible .entry " + name + b"(.param .u64 " + name + b"_param_0)\n{\n"
    )
    text = head + b".reg .b64 %rd<3>;\n" + body.replace(b"; ", b";\n") + b"\n}\n\0"
    major, minor = map(int, version.split(b"."))
    return entry(text, kind=1, major=major, minor=minor, arch=75, options=b"")


def sass(arch: int, *kernels: str) -> bytes:
    return entry(cubin(arch=arch, kernels=kernels or ("k",)), kind=2, major=1, minor=7, arch=arch)


def library(*modules: bytes) -> bytes:
    return elf.shared_object([(".nv_fatbin", b"".join(modules))])


def compared(run: Run, tmp_path: Path, old: bytes, new: bytes, *options: str) -> dict[str, Any]:
    """The document of two libraries, checked against the schema."""
    (tmp_path / "old").mkdir(exist_ok=True)
    (tmp_path / "new").mkdir(exist_ok=True)
    first, second = tmp_path / "old/libx.so", tmp_path / "new/libx.so"
    first.write_bytes(old)
    second.write_bytes(new)
    done = run("diff", first, second, "--format", "json", *options)
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert done.returncode == (0 if document["empty"] else 1)
    return document


def only(document: dict[str, Any]) -> dict[str, Any]:
    (file,) = document["files"]
    assert isinstance(file, dict)
    return file


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema"]["const"] == SCHEMA["$id"]


@pytest.mark.parametrize("name", ["demo.llamafile", "donor.so", "kernels-1.0-py3-none-linux_x86_64.whl", "libhipdemo.so", "kernels.fatbin"])
def test_self_diff_is_empty(run: Run, name: str) -> None:
    for form in ("text", "markdown"):
        done = run("diff", SAMPLES / name, SAMPLES / name, "--format", form)
        assert (done.returncode, done.stderr) == (0, "")
        assert "the same GPU code" in done.stdout
    document = json.loads(run("diff", SAMPLES / name, SAMPLES / name, "--format", "json").stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["empty"]
    assert document["files"] == []


def test_graft_of_the_demo(run: Run, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.llamafile"
    assert run("graft", SAMPLES / "demo.llamafile", "--from", SAMPLES / "donor.dll", "--target", "sm_61", "-o", fixed).returncode == 0
    done = run("diff", SAMPLES / "demo.llamafile", fixed)
    assert done.returncode == 1
    assert "adds GTX 10 series: 63 products; added sm_61" in done.stdout
    assert "will abort  will run" in done.stdout
    assert "ggml-cuda.dll!.nv_fatb!fatbin[0]" in done.stdout
    back = run("diff", fixed, SAMPLES / "demo.llamafile")
    assert "drops GTX 10 series: 63 products; removed sm_61" in back.stdout
    assert back.stdout.endswith("Why: fatpatch doctor demo.llamafile --gpu sm_61\n")
    file = only(json.loads(run("diff", SAMPLES / "demo.llamafile", fixed, "--format", "json").stdout))
    assert [change["target"] for change in file["targets"]] == ["sm_61"]
    assert file["kernels_lost"] == file["kernels_gained"] == file["changed"] == []


def test_targets_by_module(run: Run, tmp_path: Path) -> None:
    old = library(container(sass(75, "a") + sass(86, "a")), container(sass(75, "b") + sass(86, "b")))
    new = library(container(sass(75, "a") + sass(90, "a")), container(sass(75, "b") + sass(86, "b")))
    file = only(compared(run, tmp_path, old, new))
    (change,) = file["modules"]
    assert (change["gained"], change["lost"], change["times"]) == (["sm_90"], ["sm_86"], 1)
    assert change["first"].endswith("fatbin[0]")
    rows = {row["target"]: (row["old"] and row["old"]["modules"], row["new"] and row["new"]["modules"]) for row in file["targets"]}
    assert rows == {"sm_86": (2, 1), "sm_90": (None, 1)}
    assert file["targets_lost"] == [{"kernel": "a", "targets": ["sm_86"]}]
    assert file["targets_gained"] == []  # sm_90 is new altogether: that is told by the table


def test_modules_are_known_by_most_of_their_kernels(run: Run, tmp_path: Path) -> None:
    old = library(container(sass(75, "a", "b", "c") + sass(50, "a", "b", "c")), container(sass(75, "x") + sass(50, "x")))
    new = library(container(sass(75, "a", "b", "new")), container(sass(75, "other") + sass(50, "other")))
    (change,) = only(compared(run, tmp_path, old, new))["modules"]
    assert (change["lost"], change["times"], change["first"][-9:]) == (["sm_50"], 1, "fatbin[0]")


def test_new_stubs_and_drivers(run: Run, tmp_path: Path) -> None:
    old = library(container(ptx(REAL, version=b"8.2")))
    new = library(container(ptx(REAL, version=b"8.4")), container(ptx(STUB, name=b"fresh", version=b"8.4")))
    file = only(compared(run, tmp_path, old, new))
    assert file["new_stubs"] == [{"kernel": "fresh", "targets": ["compute_75"]}]
    assert ("535", "550") in {(change["old"].split(".")[0], change["new"].split(".")[0]) for change in file["drivers"]}


def test_modules_in_another_order_are_no_change(run: Run, tmp_path: Path) -> None:
    one, two = container(sass(75, "a") + sass(86, "a")), container(sass(75, "b") + sass(80, "b"))
    file = compared(run, tmp_path, library(one, two), library(two, one))
    assert file["empty"]


def test_copies_of_a_kernel_in_any_order(run: Run, tmp_path: Path) -> None:
    real, stub = container(ptx(REAL), sass(75, "x")), container(ptx(STUB), sass(75, "y"))
    assert compared(run, tmp_path, library(real, stub), library(stub, real))["empty"]
    file = only(compared(run, tmp_path, library(real, real), library(real, stub)))
    assert file["now_stubs"] == [{"kernel": "k", "targets": ["compute_75"]}]


def test_kernels(run: Run, tmp_path: Path) -> None:
    file = only(compared(run, tmp_path, library(container(sass(75, "a", "b"))), library(container(sass(75, "b", "c")))))
    assert (file["kernels_lost"], file["kernels_gained"]) == (["a"], ["c"])


@pytest.mark.parametrize(("old", "new", "field"), [(REAL, STUB, "now_stubs"), (STUB, REAL, "now_real")])
def test_stubs(run: Run, tmp_path: Path, old: bytes, new: bytes, field: str) -> None:
    file = only(compared(run, tmp_path, library(container(ptx(old))), library(container(ptx(new)))))
    assert file[field] == [{"kernel": "k", "targets": ["compute_75"]}]
    other = {"now_stubs": "now_real", "now_real": "now_stubs"}[field]
    assert file[other] == []


def test_ptx_isa(run: Run, tmp_path: Path) -> None:
    file = only(compared(run, tmp_path, library(container(ptx(REAL, version=b"8.4"))), library(container(ptx(REAL, version=b"8.7")))))
    assert file["ptx"] == [{"target": "compute_75", "old": ["8.4"], "new": ["8.7"]}]
    gone = only(compared(run, tmp_path, library(container(ptx(REAL) + sass(75))), library(container(sass(75)))))
    assert gone["ptx"] == [{"target": "compute_75", "old": ["8.4"], "new": []}]
    assert {row["target"] for row in gone["gpus"] if row["worked"] and not row["works"]} >= {"sm_90", "sm_120"}


def test_toolkit(run: Run, tmp_path: Path) -> None:
    fresh = entry(cubin(arch=75, new=True), kind=2, major=1, minor=8, arch=75)
    file = only(compared(run, tmp_path, library(container(sass(75))), library(container(fresh))))
    assert file["toolkits"]["old"] != file["toolkits"]["new"]


def test_threshold(run: Run, tmp_path: Path) -> None:
    old, new = library(container(ptx(REAL))), library(container(ptx(REAL.replace(b"ret;", b"st.global.u32 [%rd2], 2; ret;"))))
    file = only(compared(run, tmp_path, old, new))
    (row,) = file["targets"]
    grown = row["new"]["unpacked"] - row["old"]["unpacked"]
    assert grown > 0
    assert compared(run, tmp_path, old, new, "--threshold", "50")["empty"]
    assert run("diff", tmp_path / "old", tmp_path / "new", "--threshold", "-1").returncode == 2


def test_amd_targets(run: Run, tmp_path: Path) -> None:
    first = elf.shared_object([(".hip_fatbin", bundle.plain([("gfx1030", bundle.code_object(target="gfx1030"))]))])
    second = elf.shared_object([(".hip_fatbin", bundle.plain([("gfx1031", bundle.code_object(0x37, target="gfx1031"))]))])
    file = only(compared(run, tmp_path, first, second))
    assert [(row["target"], row["old"] is None) for row in file["targets"]] == [("gfx1030", False), ("gfx1031", True)]
    assert {row["target"]: (row["worked"], row["works"]) for row in file["gpus"]} == {"gfx1030": (True, False), "gfx1031": (False, True)}


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_renamed_members_of_wheels(run: Run, tmp_path: Path) -> None:
    one, two, three = (library(container(sass(75, name))) for name in ("one", "two", "three"))
    changed = library(container(sass(75, "one") + sass(86, "one")))
    old = wheel(tmp_path / "x-1.0-py3-none-any.whl", {"x-1.0/libone.so.1.0": one, "x/libtwo-0a1b2c3d.so": two, "x/cu11/old.so": three})
    new = wheel(tmp_path / "x-2.0-py3-none-any.whl", {"x-2.0/libone.so.2.0": changed, "x/libtwo-99887766.so": two, "y/other.so": three})
    done = run("diff", old, new, "--format", "json")
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["unchanged"] == 2
    assert (only(document)["path"], only(document)["old_path"]) == ("x-2.0/libone.so.2.0", "x-1.0/libone.so.1.0")


def test_gained_and_lost_files(run: Run, tmp_path: Path) -> None:
    for side, name, kernels in (("old", "a.so", ("p", "q")), ("new", "b.so", ("x", "y"))):
        (tmp_path / side).mkdir()
        (tmp_path / side / "same.so").write_bytes(library(container(sass(75))))
        (tmp_path / side / name).write_bytes(library(container(sass(86, *kernels))))
    done = run("diff", tmp_path / "old", tmp_path / "new")
    assert done.returncode == 1
    assert "b.so  new:" in done.stdout
    assert "a.so  gone:" in done.stdout
    assert "2 of 3 files" in done.stdout


def test_doctor_is_asked_about_the_file(run: Run, tmp_path: Path) -> None:
    for side, arch in (("old", 75), ("new", 86)):
        (tmp_path / side / "lib").mkdir(parents=True)
        (tmp_path / side / "lib/a.so").write_bytes(library(container(sass(arch))))
    done = run("diff", "old", "new", cwd=tmp_path)
    assert done.stdout.endswith("Why: fatpatch doctor new/lib/a.so --gpu sm_75\n")


def test_unreadable(run: Run, tmp_path: Path) -> None:
    good = tmp_path / "good.so"
    good.write_bytes(library(container(sass(75))))
    assert run("diff", good, tmp_path / "gone.so").returncode == 3
    cut = tmp_path / "cut.so"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    done = run("diff", good, cut)
    assert done.returncode == 4
    assert "cut.so" in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_image_is_told(run: Run, tmp_path: Path) -> None:
    bad = packed(cubin(arch=75), "zstd", kind=2, major=1, minor=7)
    bad = bad[:-20] + bytes(20)
    good, broken = tmp_path / "good.so", tmp_path / "broken.so"
    good.write_bytes(library(container(sass(75))))
    broken.write_bytes(library(container(bad)))
    done = run("diff", good, broken)
    assert done.returncode == 4
    assert "sm_75" in done.stderr


def test_hostile_names(run: Run, tmp_path: Path) -> None:
    old, new = library(container(sass(75, "k"))), library(container(sass(75, "k`|<script>\x1b[2J")))
    compared(run, tmp_path, old, new)
    text = run("diff", tmp_path / "old", tmp_path / "new")
    assert "\x1b" not in text.stdout
    page = run("diff", tmp_path / "old", tmp_path / "new", "--format", "markdown").stdout
    assert "\x1b" not in page
    assert "- `k'|<script>" in page  # inside a code span, which the name cannot leave


def test_other_bytes_are_not_the_same(run: Run, tmp_path: Path) -> None:
    data = (SAMPLES / "kernels.sm_61.cubin").read_bytes()
    at = data.index(bytes.fromhex("e30f"), 1000) if bytes.fromhex("e30f") in data[1000:] else 3000
    file = only(compared(run, tmp_path, data, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]))
    assert file["other_bytes"] or file["changed"]
    one, two = container(ptx(b"mov.u32 %r1, 1; ret;")), container(ptx(b"mov.u32 %r1, 2; ret;"))
    file = only(compared(run, tmp_path, library(one), library(two)))
    assert file["other_bytes"]
    assert "the same GPU code" not in run("diff", tmp_path / "old", tmp_path / "new").stdout
    passed = run("diff", tmp_path / "old", tmp_path / "new", "--threshold", "5")
    assert (passed.returncode, "no difference above the threshold" in passed.stdout) == (0, True)
    assert run("diff", tmp_path / "old", tmp_path / "new", "--threshold", "nan").returncode == 2


def test_a_pattern_is_no_release(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(library(container(sass(75))))
    assert run("diff", "*.so", "*.so", cwd=tmp_path).returncode == 3


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_share_a_name(run: Run, tmp_path: Path) -> None:
    """A third member called as the second of another, and names that differ in their middle only."""
    long = [f"{'a' * 170}{letter}{'b' * 100}.so" for letter in "xy"]
    for side, kernel in (("old", "k"), ("new", "other")):
        with zipfile.ZipFile(tmp_path / f"{side}.zip", "w") as archive:
            for name in ("x.so", "x.so", "x.so#2", *long):
                last = name == long[1] or name == "x.so#2"
                archive.writestr(name, library(container(sass(75, kernel if last else "k"))))
    document = json.loads(run("diff", tmp_path / "old.zip", tmp_path / "new.zip", "--format", "json").stdout)
    assert [len(file["kernels_gained"]) for file in document["files"]] == [1, 1]
    assert document["unchanged"] == 3


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = wheel(tmp_path / "folder/x.whl", {"a.so": library(container(sass(75))), "b.so": library(container(sass(86)))})
    wheel(tmp_path / "folder/y.whl", {"c.so": library(container(sass(90)))})
    folder = resolve([str(tmp_path / "folder")], ["folder"], NamingChoices())[0]
    with ExitStack() as stack:
        release = _Release(folder, Limits(), lambda where, done, total: None, stack)
        release.look()
        wheel(path, {"a.so": library(container(sass(75)))})
        release.read(frozenset(), 1)
        assert ["changed while it was read" in error.message for error in release.errors] == [True]


def test_a_single_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for its second pass: a file on a server is fetched once, and a packed member is unpacked once."""
    opened: list[str] = []

    @contextmanager
    def counted(unit: NamedUnit, *rest: object, **kept: object) -> Iterator[Node]:
        opened.append(unit.shown)
        with opened_unit(unit, *rest, **kept) as node:  # type: ignore[arg-type]
            yield node

    monkeypatch.setattr("fatpatch.named.reading.opened_unit", counted)
    for side, arch in (("old", 75), ("new", 86)):
        wheel(tmp_path / f"{side}.whl", {"a.so": library(container(sass(arch)))})
    assert fatpatch.diff(tmp_path / "old.whl", tmp_path / "new.whl")
    assert [Path(each).name for each in opened] == ["old.whl", "new.whl"]


def test_many_files_in_good_time(run: Run, tmp_path: Path) -> None:
    for side in ("old", "new"):
        wheel(
            tmp_path / f"{side}.whl", {f"{side}/{index}{side}.so": library(container(sass(75, f"{side}{index}"))) for index in range(500)}
        )
    done = run("diff", tmp_path / "old.whl", tmp_path / "new.whl", "--format", "json")
    assert len(json.loads(done.stdout)["files"]) == 1000


def test_hostile_targets(run: Run, tmp_path: Path) -> None:
    bundles = [elf.shared_object([(".hip_fatbin", bundle.plain([(name, bundle.code_object())]))]) for name in ("gfx1030", "gfx1030|`<b>")]
    compared(run, tmp_path, *bundles)
    page = run("diff", tmp_path / "old", tmp_path / "new", "--format", "markdown").stdout
    assert "`gfx1030|'<b>`" in page or "gfx1030|" not in page


def facts(path: str, digest: str, *kernels: str) -> LibraryFacts:
    return LibraryFacts(path, path, path, path, "elf", 1, 1, digest, {}, {name: {} for name in kernels})


def test_variants_are_no_versions() -> None:
    """Of a row of libraries that differ by a number, one that is gone is not the one that is new."""
    olds = [facts(f"libx_cuda{number}.so", str(number), "p", "q", "r") for number in (117, 118, 121)]
    news = [facts(f"libx_cuda{number}.so", f"new {number}", "p", "q", "r") for number in (118, 121, 128)]
    pairs = [(pair.old and pair.old.path, pair.new and pair.new.path) for pair in paired(olds, news)]
    assert (None, "libx_cuda128.so") in pairs
    assert ("libx_cuda117.so", None) in pairs
    assert ("libx_cuda118.so", "libx_cuda118.so") in pairs


def test_pairing() -> None:
    olds = [facts("a/libx.so.1", "1"), facts("b/libx.so.1", "2"), facts("c/foo.so", "3", "p", "q", "r"), facts("gone.so", "4", "z")]
    news = [facts("b/libx.so.2", "5"), facts("bar.so", "6", "p", "q"), facts("d/libx.so.1", "1"), facts("new.so", "7", "n")]
    pairs = [(pair.old and pair.old.path, pair.new and pair.new.path) for pair in paired(olds, news)]
    assert pairs == [
        ("b/libx.so.1", "b/libx.so.2"),
        ("c/foo.so", "bar.so"),
        ("a/libx.so.1", "d/libx.so.1"),
        (None, "new.so"),
        ("gone.so", None),
    ]
