"""What a user may name, in every command that reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from builders.environments import conda, install, library, node, write
from conftest import ROOT, SAMPLES, Run

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.named.resolve import resolve
from fatpatch.named.unit import NamedUnit, NamingChoices, files_of
from fatpatch.scan.distributions import installed
from fatpatch.scan.process import mapped_files, process


def one(word: object, **choices: str) -> NamedUnit:
    return resolve([str(word)], [str(word)], NamingChoices(**choices))[0]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "env"
    root = folder / "lib/python3.11/site-packages"
    install(root, "some_kernels", "1.2", {"some_kernels/_C.so": library(61, 90)})
    install(root, "pure", "2.0", {"pure/__init__.py": b""})
    write(folder, {"bin/python": b"#!", "pyvenv.cfg": b"home = /usr\n"})
    return folder


def test_names_of_distributions(environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for python in (environment, environment / "bin/python"):
        unit = one("Some.Kernels==1.2", python=str(python))
        assert (unit.shown, [each.distribution for each in files_of([unit])]) == ("some_kernels 1.2", ["some_kernels 1.2"])
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    assert one("some-kernels").distribution == one("some_kernels==1.2").distribution
    with pytest.raises(InputError, match=r"some_kernels 1\.2 is installed in env, not 9"):
        one("some-kernels==9")
    with pytest.raises(InputError, match="no such distribution") as error:
        one("completely-else")
    assert "pypi:NAME" in str(error.value.hint)
    with pytest.raises(InputError, match="is neither a Python nor an environment"):
        one("x", python=str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_kernels").write_bytes(library(75))
    assert one("some_kernels").path == "some_kernels", "a file that is there wins"


def test_a_folder_is_grouped_by_its_owners(tmp_path: Path) -> None:
    conda(tmp_path, "libfaiss", "1.9.0", {"lib/libfaiss.so": library(61)})
    site = "lib/python3.11/site-packages"
    conda(
        tmp_path,
        "torch",
        "2.9",
        {f"{site}/torch/lib/a.so": library(90), f"{site}/torch-2.9.dist-info/METADATA": b"Name: torch\nVersion: 2.9\n"},
    )
    (tmp_path / site / "torch-2.9.dist-info/RECORD").write_text("torch/lib/a.so,,\n")
    install(tmp_path / site, "bits", "0.4", {"bits/b.so": library(61)})
    node(tmp_path / "app/node_modules", "@scope/cuda", "3.1.0", {"bins/c.node": library(61)})
    node(tmp_path / "app/node_modules/@scope/cuda/node_modules", "inner", "1.0.0", {"d.node": library(61)})
    write(tmp_path, {"loose/e.so": library(61)})
    found = {each.shown: (each.kind, each.files) for each in installed(str(tmp_path), "x").distributions}
    assert found == {
        "libfaiss 1.9.0": ("conda", ("lib/libfaiss.so",)),
        "torch 2.9": ("conda", (f"{site}/torch/lib/a.so",)),
        "bits 0.4": ("python", ("bits/b.so",)),
        "@scope/cuda 3.1.0": ("node", ("bins/c.node",)),
        "inner 1.0.0": ("node", ("d.node",)),
        "other files": ("files", ("loose/e.so",)),
    }
    owners = {Path(each.path).name: each.distribution for each in files_of([one(tmp_path)]) if each.distribution}
    assert owners == {
        "libfaiss.so": "libfaiss 1.9.0",
        "a.so": "torch 2.9",
        "b.so": "bits 0.4",
        "c.node": "@scope/cuda 3.1.0",
        "d.node": "inner 1.0.0",
    }


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{",
        '{"name": 3}',
        '{"name": "x", "files": 3}',
        '{"name": "x", "version": [], "files": [1, null, "../../up.so", "/etc/p.so", "C:/x.dll"]}',
        "[" * 100_000,
    ],
)
def test_hostile_conda_documents(document: str, tmp_path: Path) -> None:
    (tmp_path / "env/conda-meta").mkdir(parents=True)
    (tmp_path / "env/conda-meta/x.json").write_text(document)
    write(tmp_path, {"up.so": library(61)})
    assert [each.files for each in installed(str(tmp_path / "env"), "x").distributions if each.files] == []


def test_releases_in_a_folder_are_each_a_unit(tmp_path: Path, run: Run) -> None:
    import zipfile

    for name, archs in (("old", (61,)), ("new", (90,))):
        with zipfile.ZipFile(tmp_path / f"{name}-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/k.so", library(*archs))
    done = run("doctor", tmp_path, "--gpu", "GTX 1060")
    assert (done.returncode, "the weakest link is new-1-py3-none-any.whl" in " ".join(done.stdout.split())) == (1, True), done.stdout


def test_every_reading_command_takes_a_name(run: Run, environment: Path, tmp_path: Path) -> None:
    name = ("some-kernels", "--python", environment)
    shown = run("inspect", *name, "--format", "json")
    document = json.loads(shown.stdout)
    jsonschema.validate(document, json.loads((ROOT / "fatpatch/scan/inspect-1.schema.json").read_text()))
    assert [(file["path"], file["container"], file["summary"]["images"]) for file in document["files"]] == [
        ("some_kernels 1.2", "folder", 2)
    ]
    assert "sm_61" in run("inspect", environment).stdout
    assert run("verify", *name).returncode == 0
    failed = run("check", *name, "--require", "sm_75", "--no-policy", "--format", "json")
    assert (failed.returncode, [row["distribution"] for row in json.loads(failed.stdout)["findings"]]) == (1, ["some_kernels 1.2"])
    junit = run("check", environment, "--require", "sm_75", "--no-policy", "--format", "junit").stdout
    assert 'classname="some_kernels 1.2"' in junit
    sarif = json.loads(run("check", environment, "--require", "sm_75", "--no-policy", "--format", "sarif").stdout)
    assert sarif["runs"][0]["results"][0]["properties"] == {"distribution": "some_kernels 1.2"}
    same = run("diff", "some_kernels", environment / "lib/python3.11/site-packages", "--python", environment)
    assert same.returncode in (0, 1), same.stderr
    assert run("report", *name, "-o", tmp_path / "page.html").returncode == 0
    assert "some_kernels 1.2" in (tmp_path / "page.html").read_text()
    assert run("audit", environment / "lib", "--db", tmp_path / "db.sqlite").returncode == 0


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


@linux
def test_a_process(tmp_path: Path, run: Run) -> None:
    """Python maps a library by mmap as the loader does; another is replaced after that."""
    (tmp_path / "kept.so").write_bytes(library(61))
    (tmp_path / "gone.so").write_bytes(library(61))
    program = (
        "import mmap, sys\n"
        "files = [open(name, 'rb') for name in sys.argv[1:]]\n"
        "maps = [mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in files]\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    files = [str(tmp_path / "kept.so"), str(tmp_path / "gone.so")]
    with subprocess.Popen([sys.executable, "-c", program, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.unlink(tmp_path / "gone.so")
        unit = process(str(child.pid))
        assert any(path.endswith("kept.so") for path in unit.files)
        named_gone = [path for path, _ in (*unit.moved, *unit.unread) if path.endswith("gone.so")]
        assert len(named_gone) == 1, "a deleted file is named, and read where the system lets us"
        done = run("doctor", f"pid:{child.pid}", "--gpu", "GTX 1060")
        assert done.stdout.split(":")[0] in ("WILL RUN", "CANNOT TELL"), done.stdout + done.stderr
        assert "sm_61" in run("inspect", f"pid:{child.pid}").stdout
        child.communicate()
    with pytest.raises(InputError, match="no such process"):
        process(str(child.pid))
    assert "there is no such process" in run("diff", f"pid:{child.pid}", SAMPLES / "demo.llamafile").stderr


@linux
@pytest.mark.parametrize("text", ["0", "-1", "x", "99999999999", "1/../2", "²"])
def test_no_process(text: str) -> None:
    with pytest.raises(FatpatchError):
        process(text)


def test_maps() -> None:
    lines = (
        "55d0-55d1 r-xp 00000000 08:01 1234       /opt/my app/program\n"
        "7f00-7f01 r--p 00000000 08:01 77         /lib/libx.so.1 (deleted)\n"
        "7f02-7f03 r-xp 00000000 08:01 77         /lib/libx.so.1 (deleted)\n"
        "7f04-7f05 rw-s 00000000 00:05 9          /dev/nvidia0\n"
        "7f06-7f07 r--p 00000000 08:01 80         /usr/lib/locale/archive\n"
        "7f08-7f09 r-xp 00000000 08:01 81         /tmp/new\\012line.so\n"
        "7ffc-7ffd r-xp 00000000 00:00 0          [vdso]\n"
        "garbage\n"
    )
    assert {path: tuple(found) for path, found in mapped_files(lines).items()} == {
        "/opt/my app/program": ("55d0-55d1", False),
        "/lib/libx.so.1": ("7f00-7f01", True),
        "/tmp/new\nline.so": ("7f08-7f09", False),
    }
