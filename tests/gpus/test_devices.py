"""GPU names against capabilities written down by hand, and every row of the tables through ``find``."""

from __future__ import annotations

import re

import pytest

from fatpatch.base.errors import InputError
from fatpatch.gpus.devices import Device, all_devices, candidates, family, find, generation
from fatpatch.gpus.products import products

NVIDIA = {
    "GTX 680": 30, "Tesla K80": 37, "K40m": 35, "GTX 750 Ti": 50, "GeForce 940M": 50, "Quadro M2000": 52, "GTX 980": 52, "GTX 980 Ti": 52,
    "M60": 52, "Jetson Nano": 53, "Jetson TX1": 53, "P100": 60, "Tesla P100-PCIE-16GB": 60, "Quadro GP100": 60, "GTX 1050": 61,
    "GTX 1060": 61, "GTX 1080 Ti": 61, "GT 1030": 61, "P104-100": 61, "P106-100": 61, "P40": 61, "Tesla P4": 61, "MX150": 61,
    "Quadro P2000": 61, "Titan Xp": 61, "Jetson TX2": 62, "V100": 70, "Titan V": 70, "Quadro GV100": 70, "Xavier": 72, "T4": 75,
    "RTX 2060": 75, "RTX 2080 Ti": 75, "GTX 1650": 75, "GTX 1660 Ti": 75, "T1000": 75, "Quadro RTX 6000": 75, "Titan RTX": 75,
    "A100": 80, "A100-SXM4-80GB": 80, "A30": 80, "RTX 3050": 86, "RTX 3060": 86, "RTX 3060 Laptop": 86, "RTX 3090": 86, "A10": 86,
    "A40": 86, "RTX A6000": 86, "Orin": 87, "AGX Orin": 87, "RTX 4060": 89, "RTX 4090": 89, "L4": 89, "L40S": 89, "RTX 6000 Ada": 89,
    "H100": 90, "H100 PCIe": 90, "H200": 90, "GH200": 90, "B200": 100, "GB200": 100, "B300": 103, "Thor": 110, "RTX 5070 Ti": 120,
    "RTX 5090": 120, "RTX PRO 6000 Blackwell Server Edition": 120, "GB10": 121,
}  # fmt: skip
AMD = {
    "RX 580": "gfx803", "Vega 56": "gfx900", "Radeon VII": "gfx906", "MI50": "gfx906", "MI100": "gfx908", "MI210": "gfx90a",
    "MI250X": "gfx90a", "MI300X": "gfx942", "MI325X": "gfx942", "MI355X": "gfx950", "RX 5700 XT": "gfx1010", "RX 5500 XT": "gfx1012",
    "RX 6800": "gfx1030", "RX 6900 XT": "gfx1030", "RX 6700 XT": "gfx1031", "RX 6600": "gfx1032", "Radeon 680M": "gfx1035",
    "RX 7900 XTX": "gfx1100", "RX 7800 XT": "gfx1101", "RX 7600": "gfx1102", "Radeon 780M": "gfx1103", "Radeon 890M": "gfx1150",
    "Radeon 8060S": "gfx1151", "RX 9060 XT": "gfx1200", "RX 9070 XT": "gfx1201", "Radeon PRO W6800": "gfx1030",
}  # fmt: skip


@pytest.mark.parametrize(("name", "arch"), NVIDIA.items())
def test_nvidia(name: str, arch: int) -> None:
    device = find(name)
    assert (device.vendor, device.target, device.arch) == ("nvidia", f"sm_{arch}", arch)
    assert find(f"NVIDIA {name.upper()}").arch == arch
    assert find(f"  {name.lower()} ").arch == arch


@pytest.mark.parametrize(("name", "gfx"), AMD.items())
def test_amd(name: str, gfx: str) -> None:
    assert (find(name).vendor, find(name).target, find(name).arch) == ("amd", gfx, None)
    assert find(f"AMD {name.lower()}").target == gfx


@pytest.mark.parametrize(
    ("text", "name", "target"),
    [
        ("1060", "GeForce GTX 1060", "sm_61"),
        ("gtx1060", "GeForce GTX 1060", "sm_61"),
        ("GeForce 1060", "GeForce GTX 1060", "sm_61"),
        ("gtx 750ti", "GeForce GTX 750 Ti", "sm_50"),
        ("rtx3060ti", "GeForce RTX 3060 Ti", "sm_86"),
        ("1660 super", "GeForce GTX 1660 SUPER", "sm_75"),
        ("P40", "Tesla P40", "sm_61"),
        ("Tesla A100", "A100", "sm_80"),
        ("NVIDIA Tesla T4", "Tesla T4", "sm_75"),
        ("AMD Radeon\u2122 RX 6800", "Radeon RX 6800", "gfx1030"),
        ("AMD Radeon(TM) 780M Graphics", "Radeon 780M Graphics", "gfx1103"),
        ("Quadro A4000", "RTX A4000", "sm_86"),
        ("1060 max-q", "GeForce GTX 1060 with Max-Q Design", "sm_61"),
        ("7900xtx", "Radeon RX 7900 XTX", "gfx1100"),
        ("AMD Radeon RX 6800", "Radeon RX 6800", "gfx1030"),
        ("6800", "Radeon RX 6800", "gfx1030"),
        ("GeForce GTX TITAN X", "GeForce GTX TITAN X", "sm_52"),
        ("TITAN X (Pascal)", "TITAN X (Pascal)", "sm_61"),
    ],
)
def test_spellings(text: str, name: str, target: str) -> None:
    assert (find(text).name, find(text).target) == (name, target)


def test_parts_and_laptops() -> None:
    assert find("GTX 1060").segment == "geforce"
    assert find("RTX 3060 Laptop").segment == "geforce laptop"
    assert find("RTX 4090 Laptop").chip == "AD103"
    assert find("RTX 4090").chip == "AD102"
    assert find("1060").note == ""
    for text, dropped in (("GTX 1060 Mobile", "mobile"), ("RTX 3080 12GB", "12gb"), ("RTX 4060 Ti 16 GB", None)):
        if dropped is not None:
            assert f"no name with '{dropped}'" in find(text).note
    assert find("RTX 3080 12GB").name == "GeForce RTX 3080"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm_61", ("nvidia", "compute capability 6.1", "sm_61", 61)),
        ("sm61", ("nvidia", "compute capability 6.1", "sm_61", 61)),
        ("SM_90a", ("nvidia", "compute capability 9.0", "sm_90", 90)),
        ("sm_120f", ("nvidia", "compute capability 12.0", "sm_120", 120)),
        ("compute_61", ("nvidia", "compute capability 6.1", "sm_61", 61)),
        ("6.1", ("nvidia", "compute capability 6.1", "sm_61", 61)),
        ("12.1", ("nvidia", "compute capability 12.1", "sm_121", 121)),
        ("gfx1031", ("amd", "gfx1031", "gfx1031", None)),
        ("gfx90a:sramecc+:xnack-", ("amd", "gfx90a:sramecc+:xnack-", "gfx90a:sramecc+:xnack-", None)),
    ],
)
def test_targets(text: str, expected: tuple[str, str, str, int | None]) -> None:
    assert find(text) == Device(*expected, segment="", chip=None, note="")


def test_thor_had_another_name() -> None:
    assert find("sm_101").arch == 101
    assert "sm_110" in find("sm_101").note


@pytest.mark.parametrize(
    ("text", "name", "target"),
    [
        ("10de:1c03", "GeForce GTX 1060 6GB", "sm_61"),
        ("1c03", "GeForce GTX 1060 6GB", "sm_61"),
        ("1C03", "GeForce GTX 1060 6GB", "sm_61"),
        ("0x1c03", "GeForce GTX 1060 6GB", "sm_61"),
        ("0x1C0310DE", "GeForce GTX 1060 6GB", "sm_61"),
        ("01:00.0 VGA controller [0300]: NVIDIA Corporation GP106 [GeForce GTX 1060 6GB] [10de:1c03] (rev a1)", "GeForce GTX 1060 6GB", "sm_61"),
        ("10de:1380", "GeForce GTX 750 Ti", "sm_50"),
        ("10de:11c7", "GeForce GTX 750 Ti", "sm_30"),
        ("10de:1381", "GeForce GTX 750", "sm_50"),
        ("10de:1407", "GeForce GTX 750", "sm_52"),
        ("10de:119a", "GeForce GTX 860M", "sm_30"),
        ("10de:1140", "GeForce 710M", "sm_21"),
        ("10de:2330", "H100 80GB HBM3", "sm_90"),
        ("1002:744c", "Radeon RX 7900 XT", "gfx1100"),
        ("1002:1902", "Radeon 820M Graphics", "gfx1153"),
    ],
)  # fmt: skip
def test_pci_ids(text: str, name: str, target: str) -> None:
    assert find(text).target == target
    assert find(text).name == name


def test_chips() -> None:
    assert (find("GP106").target, find("AD102").arch) == ("sm_61", 89)
    assert find("Navi 31").target == "gfx1100"


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("GTX 750", {"sm_50", "sm_52"}),
        ("GeForce GTX 860M", {"sm_30", "sm_50"}),
        ("GT 730", {"sm_21", "sm_30", "sm_35"}),
        ("GeForce 820M", {"sm_21", "sm_30"}),
        ("GeForce GT 720", {"sm_30", "sm_35"}),
        ("Radeon Pro Vega 20", {"gfx904", "gfx906"}),
        ("Radeon 840M", {"gfx1152", "gfx1153"}),
    ],
)
def test_a_name_of_several_chips_asks_for_the_pci_id(text: str, targets: set[str]) -> None:
    with pytest.raises(InputError, match="several GPUs are called") as caught:
        find(text)
    hint = caught.value.hint or ""
    assert set(re.findall(r"\((sm_\d+|gfx\w+),", hint)) == targets
    assert "lspci -nn" in hint
    assert ("nvidia-smi --query-gpu=pci.device_id --format=csv" in hint) == text.startswith("G")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("RTX 6000", ["Quadro RTX 6000 (sm_75)", "RTX 6000 Ada Generation (sm_89)"]),
        ("RTX 4000", ["Quadro RTX 4000 (sm_75)", "RTX PRO 4000 Blackwell (sm_120)", "RTX 4000 Ada Generation (sm_89)"]),
        ("Titan X", ["TITAN X (Pascal) (sm_61)", "GeForce GTX TITAN X (sm_52)"]),
        ("780M", ["Radeon 780M (gfx1103)", "GeForce GTX 780M (sm_30)"]),
        ("5600M", ["Radeon RX 5600M (gfx1010)", "Radeon Pro 5600M (gfx1011)"]),
    ],
)
def test_short_names_that_differ_in_target_are_listed(text: str, named: list[str]) -> None:
    with pytest.raises(InputError, match="different targets") as caught:
        find(text)
    assert all(each in (caught.value.hint or "") for each in named)


def test_no_more_than_eight_candidates() -> None:
    with pytest.raises(InputError) as caught:
        find("GTX")
    assert len(re.findall(r"\(sm_\d+\)", caught.value.hint or "")) == 8
    assert re.search(r"and \d+ more", caught.value.hint or "")


@pytest.mark.parametrize("text", ["Graphics Device", "AMD Radeon Graphics", "GeForce GPU"])
def test_placeholders_never_decide(text: str) -> None:
    with pytest.raises(InputError, match="does not identify the GPU") as caught:
        find(text)
    assert "PCI id" in (caught.value.hint or "")


def test_a_doubtful_row_does_not_outvote_the_driver() -> None:
    for text in ("GTX 750 Ti", "GeForce GT 1030"):
        assert "(sm_30, GK10" in find(text).note


@pytest.mark.parametrize("text", ["GTX 480", "GTX 580", "Quadro 6000", "GeForce 9800 GT", "Radeon GTX 1060"])
def test_names_that_are_not_there_do_not_become_others(text: str) -> None:
    """A GTX 480 is Fermi and no RX 480, a Quadro 6000 is no Quadro RTX 6000."""
    with pytest.raises(InputError, match="no GPU named"):
        find(text)


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        find("GTX 1066")
    assert "GeForce GTX 1060 (sm_61)" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text", ["", "  ", "x" * 1000, "sm_99", "sm_61a", "sm_89f", "1.0", "99.9", "gfx1", "gfx9999", "gfx11-generic", "10de:ffff", "0xffff", "\x00", "²", "gfx\uff19\uff10a", "sm_\uff16\uff11", "gfx", "1060\u00b2", "()", "*"]
)  # fmt: skip
def test_other_text_is_an_input_error_with_a_hint(text: str) -> None:
    with pytest.raises(InputError) as caught:
        find(text)
    assert caught.value.hint
    assert len(str(caught.value)) < 400


def answer(name: str) -> Device | InputError:
    try:
        return find(name)
    except InputError as error:
        return error


def test_every_row_gives_its_own_target_or_asks() -> None:
    doubtful = {("GeForce GT 1030", "sm_30"), ("GeForce GTX 750 Ti", "sm_30")}
    own = asked = 0
    for product in products():
        found = answer(product.name)
        if isinstance(found, InputError):
            asked += 1
            assert "several GPUs are called" in found.message or "does not identify" in found.message, product
            assert f"({product.target}" in (found.hint or ""), product
        elif (product.name, product.target) in doubtful:
            assert f"({product.target}, {product.chips[0]})" in found.note
        else:
            own += 1
            assert found.target == product.target, product
            assert found.name.lower().replace(" ", "") == product.name.lower().replace(" ", ""), product
    assert own > 830
    assert asked < 45


def test_every_pci_id_gives_one_target() -> None:
    vendors = {"nvidia": "10de", "amd": "1002"}
    count = 0
    for product in products():
        for digits in product.pci_ids:
            assert re.fullmatch("[0-9a-f]{4}", digits)
            assert find(f"{vendors[product.vendor]}:{digits}").target == product.target, product
            count += 1
    assert count > 900


def test_the_tables_say_how_certain_they_are() -> None:
    words = {
        "nvidia": {"driver", "page", "pci", "other", "doubtful"},
        "amd": {"runtime", "document", "chip", "build", "unsure", "doubtful"},
    }
    for product in products():
        assert product.certainty in words[product.vendor]
    assert find("Radeon 820M").note
    assert find("MI450").note
    assert find("Jetson AGX Thor").note == "the name is from a community list"


def test_candidates() -> None:
    names = [device.name for device in candidates("1060")]
    assert names[0] == "GeForce GTX 1060"
    assert set(names) == {f"GeForce GTX 1060{extra}" for extra in ("", " 3GB", " 5GB", " 6GB", " with Max-Q Design")}
    assert {device.arch for device in candidates("sm_89")} == {89}
    assert {device.target for device in candidates("Pascal")} == {"sm_60", "sm_61", "sm_62"} or candidates("Pascal")[0].name.startswith(
        "TITAN"
    )
    assert {device.target for device in candidates("GTX 750")} >= {"sm_50", "sm_52"}
    assert [device.target for device in candidates("10de:1c03")] == ["sm_61"]
    assert candidates("no such thing") == ()
    assert [device.target for device in candidates("gfx909")] == ["gfx909"]


def test_lists() -> None:
    assert len(all_devices()) > 850
    assert {device.arch for device in all_devices() if device.name == "GeForce RTX 5090"} == {120}
    expected = {21: "Fermi", 30: "Kepler", 53: "Maxwell", 61: "Pascal", 70: "Volta", 72: "Volta", 75: "Turing", 80: "Ampere", 87: "Ampere"}
    expected |= {
        89: "Ada",
        90: "Hopper",
        100: "Blackwell",
        103: "Blackwell",
        107: "Rubin",
        110: "Blackwell",
        121: "Blackwell",
        65: "Pascal",
        130: "",
        5: "",
    }
    assert {arch: generation(arch) for arch in expected} == expected
    assert (family("sm_61"), family("gfx1030"), family("gfx7")) == ("Pascal", "RDNA2", "")
