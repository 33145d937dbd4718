"""pypi:NAME and npm:NAME: which file is taken, from which index, with whose password, and what hostile indexes may not do."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jsonschema
import pytest
from builders.environments import library
from conftest import ROOT, Run
from named.index_server import Shop, index
from packaging.tags import sys_tags

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.named import dependencies, npm, pypi
from fatpatch.named.pip_settings import PYPI, pip_indexes, with_credentials
from fatpatch.named.unit import NamingChoices
from fatpatch.named.wheel_tags import wanted_tags
from fatpatch.verdicts.claims import claimed

LINUX = {"platform": "linux", "python_version": "3.11"}
FILES = [
    "kernels-1.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "kernels-1.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    "kernels-1.1-cp310-cp310-manylinux_2_28_x86_64.whl",
    "kernels-1.1-py3-none-win_amd64.whl",
    "kernels-1.2rc1-py3-none-any.whl",
    "kernels-1.3-py3-none-any.whl",
    "kernels-1.4-py3-none-any.whl",
    "kernels-2.0.tar.gz",
    "other-9.9-py3-none-any.whl",
    "kernels-x-y.whl",
]


def choices(shop: Shop, **more: str) -> NamingChoices:
    return NamingChoices(**{"index_url": f"{shop.url}/simple/", **LINUX, **more})


@pytest.mark.parametrize("as_json", [True, False])
def test_the_wheel_that_pip_would_take(as_json: bool) -> None:
    with index() as shop:
        about = {"kernels-1.3-py3-none-any.whl": {"yanked": "broken"}, "kernels-1.4-py3-none-any.whl": {"requires-python": ">=3.12"}}
        shop.project("kernels", FILES if as_json else FILES[:5], as_json=as_json, **about)
        asked = choices(shop)
        assert pypi.wheel_unit("Kernels", asked).shown == "pypi:Kernels==1.1/kernels-1.1-cp311-cp311-manylinux_2_28_x86_64.whl"
        assert [each.shown for each in pypi.releases_of("kernels", asked)] == ["1.2rc1", "1.1", "1.0"]
        assert pypi.wheel_unit("kernels==1.0", asked).path == f"{shop.url}/files/{FILES[0]}"
        assert pypi.wheel_unit("kernels", choices(shop, platform="win_amd64")).path.endswith("win_amd64.whl")
        if as_json:
            assert pypi.wheel_unit("kernels==1.3", asked).path.endswith("kernels-1.3-py3-none-any.whl"), "yanked, and asked for"
            assert pypi.wheel_unit("kernels", choices(shop, python_version="3.12")).shown.startswith("pypi:kernels==1.4/")
            assert "application/vnd.pypi.simple.v1+json" in shop.seen[0][1]["accept"]
        for wanted, words in (("kernels==7", "no wheel of this version"), ("absent", "no index has it"), ("../x", "name of a project")):
            with pytest.raises(InputError, match=words):
                pypi.wheel_unit(wanted, asked)
        with pytest.raises(InputError, match=r"no wheel for macosx_11_0_arm64 and Python 3\.11"):
            pypi.wheel_unit("kernels==1.0", choices(shop, platform="macosx_11_0_arm64"))


def test_the_tags_are_those_of_packaging() -> None:
    assert wanted_tags(None, None) == list(sys_tags())
    found = [str(tag) for tag in wanted_tags("manylinux_2_28_x86_64", "3.10")]
    assert found.index("cp310-cp310-manylinux_2_28_x86_64") < found.index("cp310-cp310-manylinux2014_x86_64") < found.index("py3-none-any")
    assert not any("manylinux_2_31" in tag or "aarch64" in tag or "cp311" in tag for tag in found)
    for platform, version in (("a b", None), (None, "2.7"), (None, "x")):
        with pytest.raises(InputError):
            wanted_tags(platform, version)


def test_pip_s_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"XDG_CONFIG_DIRS": str(tmp_path / "none"), "PIP_CONFIG_FILE": "", "VIRTUAL_ENV": str(tmp_path / "env")}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.config/pip").mkdir(parents=True)
    (tmp_path / "env").mkdir()
    if not Path("/etc/pip.conf").exists():
        assert pip_indexes(none) == (PYPI,)
    (tmp_path / "home/.config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://one/simple\nextra_index_url =\n  https://two/\n  https://three/\n"
    )
    assert pip_indexes(none) == ("https://one/simple", "https://two/", "https://three/")
    (tmp_path / "env/pip.conf").write_text("[install]\nindex-url = https://four/%s/\n")
    assert pip_indexes(none)[0] == "https://four/%s/"
    assert pip_indexes({**none, "PIP_INDEX_URL": "https://five/"})[0] == "https://five/"
    assert pip_indexes({**none, "PIP_NO_INDEX": "1"}) == ()
    (tmp_path / "env/pip.conf").write_bytes(b"\xff\xfe[[[")
    assert pip_indexes(none)[0] == "https://one/simple"


def test_netrc_has_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    with index() as shop:
        shop.project("kernels", ["kernels-1.0-py3-none-any.whl"])
        shop.wheel("kernels-1.0-py3-none-any.whl", {"kernels/k.so": library(61)})
        shop.before = lambda handler: (
            handler.headers.get("Authorization") != "Basic " + base64.b64encode(b"me:s3cret").decode() and (handler.head(401, 0) or True)
        )
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        done = run("doctor", "pypi:kernels", "--index", f"{shop.url}/simple", "--gpu", "GTX 1060")
        assert done.returncode == 0, done.stderr
        assert "s3cret" not in done.stdout + done.stderr
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        assert run("doctor", "pypi:kernels", "--index", f"{shop.url}/simple", "--gpu", "GTX 1060").returncode == 3
    assert with_credentials("/a/path") == "/a/path"
    assert with_credentials("https://a:b@host/") == "https://a:b@host/"


def test_doctor_reads_the_wheel_by_ranges(run: Run) -> None:
    with index() as shop:
        shop.project("kernels", ["kernels-1.0+cu118-py3-none-any.whl", "big-1.0-py3-none-any.whl"])
        shop.wheel(
            "kernels-1.0+cu118-py3-none-any.whl",
            {"kernels/k.so": library(61, needed=b"libcudart.so.12\0"), "kernels/data.txt": b"x" * (4 << 20)},
        )
        done = run("doctor", "pypi:kernels", "--index", f"{shop.url}/simple", "--gpu", "GTX 1060", "--format", "json")
        document = json.loads(done.stdout)
        jsonschema.validate(document, json.loads((ROOT / "fatpatch/verdicts/doctor-2.schema.json").read_text()))
        assert [(file["outcome"], file["contradicts_name"]) for file in document["files"]] == [
            ("runs", "the name says CUDA 11.8, but its libraries load the runtime of CUDA 12")
        ]
        assert shop.sent["/files/kernels-1.0+cu118-py3-none-any.whl"] < 1 << 20
        text = run("doctor", "pypi:kernels==1.0+cu118", "--index", f"{shop.url}/simple", "--gpu", "GTX 1060").stdout
        assert "The name is wrong: the name says CUDA 11.8" in " ".join(text.split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch-2.9.0+cu128-cp311-cp311-linux_x86_64.whl", (12, 8)),
        ("nvidia-cublas-cu12 12.9.1", (12, None)),
        ("cupy_cuda12x-14.0-cp311-cp311-manylinux2014_x86_64.whl", (12, None)),
        ("libx_cuda118.so", (11, 8)),
        ("dgl-2.1.0+cu12.1-cp311", (12, 1)),
        ("kernels-1.0-py3-none-any.whl", None),
        ("cucumber-12-py3-none-any.whl", None),
        ("cudf_polars-26.2-py3-none-any.whl", None),
    ],
)
def test_what_a_name_promises(name: str, expected: tuple[int, int | None] | None) -> None:
    assert claimed(name) == expected


def test_an_index_that_serves_other_names(run: Run) -> None:
    with index() as shop:
        shop.project("kernels", ["evil-1.0-py3-none-any.whl", "kernels_plus-1.0-py3-none-any.whl"])
        with pytest.raises(InputError, match="no index has it"):
            pypi.wheel_unit("kernels", choices(shop))
        shop.pages["/simple/kernels/"] = json.dumps(
            {"files": [{"url": "file:///etc/kernels-1.0-py3-none-any.whl"}, {"url": "s3://bucket/kernels-1.0-py3-none-any.whl"}]}
        )
        with pytest.raises(InputError, match="no index has it"):
            pypi.wheel_unit("kernels", choices(shop))
        shop.pages["/kernels"] = json.dumps({"name": "other", "versions": {"1.0.0": {"dist": {"tarball": "URL/x.tgz"}}}})
        with pytest.raises(InputError, match="has no versions"):
            npm.package_unit("kernels", NamingChoices(index_url=shop.url))


def test_a_wheel_that_changes_between_requests(run: Run) -> None:
    with index() as shop:
        shop.project("kernels", ["kernels-1.0-py3-none-any.whl"])
        shop.wheel("kernels-1.0-py3-none-any.whl", {"pad.bin": b"\0" * (1 << 20), "kernels/k.so": library(61)})
        first, path = dict(shop.files), "/files/kernels-1.0-py3-none-any.whl"

        def change(handler: object) -> bool:
            if sum(each == path for each, _ in shop.seen) == 2:
                shop.files = {path: first[path][:-1] + b"!"}
            return False

        shop.before = change
        done = run("doctor", "pypi:kernels", "--index", f"{shop.url}/simple", "--gpu", "GTX 1060")
        assert (done.returncode, "changed while it was read" in done.stderr) == (3, True), done.stderr


def test_npm(run: Run) -> None:
    with index() as shop:
        optional = {"2.0.0": {"@k/linux-x64-cuda": "2.0.0", "@k/win-x64-cuda": "2.0.0", "@k/linux-x64-vulkan": "2.0.0"}}
        shop.package(
            "kernels", {"1.0.0": {"k.node": library(61)}, "2.0.0": {"index.js": b"//"}, "2.1.0-beta.1": {"index.js": b"//"}}, optional
        )
        shop.package("@k/linux-x64-cuda", {"2.0.0": {"bins/k.node": library(90)}})
        asked = NamingChoices(index_url=shop.url)
        assert [each.version for each in npm.versions_of("kernels", asked)] == ["2.1.0-beta.1", "2.0.0", "1.0.0"]
        assert [part.shown for part in npm.package_unit("kernels", asked).parts] == [
            "npm:kernels@2.0.0/kernels-2.0.0.tgz",
            "npm:kernels@2.0.0/@k.linux-x64-cuda-2.0.0.tgz",
        ]
        assert run("doctor", "npm:kernels", "--index", shop.url, "--gpu", "H100").returncode == 0
        assert run("doctor", "npm:kernels@1.0.0", "--index", shop.url, "--gpu", "H100").returncode == 1
        shop.sent.clear()
        done = run("diff", "npm:kernels@1.0.0", "npm:kernels@2.0.0", "--index", shop.url)
        assert (done.returncode, "drops GTX 10 series: 63 products; adds Hopper" in done.stdout) == (1, True), done.stdout
        fetched = {path: size for path, size in shop.sent.items() if path.endswith(".tgz")}
        assert fetched == {path: len(shop.files[path]) for path in fetched}  # each once, though it is read twice
        assert len(fetched) == 3
        for wanted in ("kernels@9.9.9", "absent", "UPPER CASE", "@x"):
            with pytest.raises(FatpatchError):
                npm.package_unit(wanted, asked)
        for page in ("{", "[]", '{"name": "kernels", "versions": 3}', '{"name": "kernels", "versions": {"1.0.0": 3}}'):
            shop.pages["/kernels"] = page
            with pytest.raises(FatpatchError):
                npm.package_unit("kernels", asked)


def test_dependencies_are_those_of_pip(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real pip against the index."""
    with index() as shop:
        meta = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n{}"
        for name, version, needs, archs in (("top", "1.0", "Requires-Dist: low>=2\n", (61, 90)), ("low", "2.5", "", (90,))):
            info = f"{name}-{version}.dist-info"
            shop.wheel(
                f"{name}-{version}-py3-none-any.whl",
                {f"{name}/k.so": library(*archs), f"{info}/METADATA": meta.format(name, version, needs).encode(),
                 f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", f"{info}/RECORD": b""},
            )  # fmt: skip
            shop.project(name, [f"{name}-{version}-py3-none-any.whl"])
        monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        done = run("doctor", "pypi:top", "--deps", "--index", f"{shop.url}/simple", "--gpu", "GTX 1060")
        assert (done.returncode, "the weakest link is low 2.5" in " ".join(done.stdout.split())) == (1, True), done.stdout + done.stderr
    for report in (b"", b"[]", b'{"install": [{}]}'):
        with pytest.raises(InputError):
            dependencies.units_of(report, "x")
    assert run("doctor", "x.so", "--deps", "--gpu", "H100").returncode == 2


def test_audit_of_a_wheel_for_another_platform(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linux, windows = (f"kernels-1.0-cp310-cp310-{platform}.whl" for platform in ("manylinux_2_28_x86_64", "win_amd64"))
    with index() as shop:
        shop.project("kernels", [linux, windows])
        for name, arch in ((linux, 61), (windows, 90)):
            shop.wheel(name, {"kernels/lib.so": library(arch)})
        monkeypatch.setenv("PIP_INDEX_URL", f"{shop.url}/simple")
        database = tmp_path / "index.db"
        asked = ("audit", "pypi:kernels", "--db", database, "--gpu", "H100", "--python-version", "3.10")
        done = run(*asked, "--platform", "win_amd64")
        assert done.returncode == 0, done.stderr
        assert "1 of 1 library with code for its vendor run" in done.stderr
        assert run(*asked, "--platform", "manylinux_2_28_x86_64").returncode == 0
        assert "win_amd64" in (answer := run("query", "--db", database, "targets").stdout), answer
        assert run(*asked, "--platform", "macosx_11_0_arm64").returncode == 3
