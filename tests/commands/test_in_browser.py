"""The page in a real browser: it loads, filters, sorts and zooms, by keyboard too; 19,015 kernels stay fluid."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser
from conftest import SAMPLES

from fatpatch.api.contents import Block, Holder, ReportContents
from fatpatch.commands.report.text import report
from fatpatch.verdicts.all_gpus import Answer
from fatpatch.verdicts.library_facts import Cell, LibraryFacts, ModuleKernels, TargetFacts

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

ROWS = "[...document.querySelectorAll('#heat tbody tr')].filter(row => row.children.length > 1)"
MANY = 19_015


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def silent(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: no message in the console, nothing asked of a network."""
    opened: Page = request.getfixturevalue("page")
    opened.messages.clear()
    opened.requests.clear()
    yield
    assert opened.messages == []
    assert all(url.startswith("file:") for url in opened.requests)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    path = tmp_path_factory.mktemp("pages") / "demo.html"
    assert run("report", SAMPLES / "demo.llamafile", "-o", path).returncode == 0
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "large.html"
    path.write_text(report(many(MANY), None), "utf-8")
    return path


def many(count: int) -> ReportContents:
    """A library with as many kernels as the largest real one, in ten targets and 500 modules."""
    targets = ["sm_50", "sm_60", "sm_61", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "compute_100"]
    kernels = {}
    for index in range(count):
        name = f"_Z{len(f'gemm_{index % 97}')}gemm_{index % 97}ILi{index}ELi128EfEvPKT1_S2_PS0_iiiiiiiiiiiiiiii"
        here = [target for at, target in enumerate(targets) if (index + at) % 11]
        kernels[name] = {
            target: Cell(16 + index % 200, index % 4096, index % 3, None, 512 + index, "stub" if index % 50 == 0 else "real")
            for target in here
        }
    facts = LibraryFacts(
        path="",
        name="liblarge.so",
        file="liblarge.so",
        locator="liblarge.so",
        container="elf",
        size=700_000_000,
        gpu_size=690_000_000,
        digest="",
        targets={target: TargetFacts(500, 69_000_000, 200_000_000) for target in targets},
        kernels=kernels,
        modules=tuple(ModuleKernels(f"fatbin[{index}]", frozenset(), frozenset(targets)) for index in range(500)),
    )
    blocks = tuple(Block(f"fatbin[{index}]", frozenset(), target, 1000 * (index + 1)) for index in range(500) for target in targets)
    holder = Holder("liblarge.so", facts, {target: Answer("runs", True, "its own code") for target in targets}, blocks, None)
    return ReportContents(("liblarge.so",), (holder,), (), "")


def test_loads(page: Page, demo: Path) -> None:
    page.open(demo)
    assert page.ask("document.getElementById('count').textContent") == "7 of 7 kernels"
    assert page.ask(f"{ROWS}.length") == 7
    assert page.ask(f"{ROWS}.map(row => row.children[1].textContent)").count("stub") == 5
    assert page.ask("document.querySelectorAll('#map rect.box').length") == 3
    assert page.ask("document.getElementById('legend').textContent.length") > 20


def test_filters(page: Page, demo: Path) -> None:
    page.open(demo)
    page.type("#filter", "VEC_q<2")
    assert page.ask(f"{ROWS}.map(row => row.firstChild.title)") == ["void mul_mat_vec_q<2, 32>(int const*, int const*, float*, int, int)"]
    page.type("#filter", "/q8_[01]/")
    assert page.ask("document.getElementById('count').textContent") == "3 of 7 kernels"
    page.type("#filter", "/(/")
    assert page.ask("document.getElementById('filter').getAttribute('aria-invalid')") == "true"
    page.type("#filter", "no such kernel")
    assert page.ask(f"{ROWS}.length") == 0
    page.type("#filter", "")
    page.choose("#only", "stubs")
    assert page.ask("document.getElementById('count').textContent") == "5 of 7 kernels"
    page.choose("#only", "holes")
    assert page.ask("document.getElementById('count').textContent") == "0 of 7 kernels"


def test_sorts_by_keyboard(page: Page, demo: Path) -> None:
    page.open(demo)
    page.ask("document.querySelectorAll('#heat thead button')[3].focus()")
    page.key("Enter")
    values = page.ask(f"{ROWS}.map(row => Number(row.children[3].textContent))")
    assert values == sorted(values, reverse=True)
    assert page.ask("document.querySelectorAll('#heat thead th')[3].getAttribute('aria-sort')") == "descending"
    page.key("Enter")
    assert page.ask(f"{ROWS}.map(row => Number(row.children[3].textContent))") == sorted(values)
    assert page.ask("document.querySelectorAll('#heat thead th')[0].getAttribute('aria-sort')") == "none"


def test_other_values_and_files(page: Page, demo: Path) -> None:
    page.open(demo)
    before = page.ask(f"{ROWS}.map(row => row.children[2].textContent)")
    page.choose("#metric", "3")
    after = page.ask(f"{ROWS}.map(row => row.children[2].textContent)")
    assert before != after
    assert all(int(value) % 16 == 0 for value in after)  # bytes of code
    page.choose("#holder", "1")
    assert page.ask("document.getElementById('count').textContent") == "7 of 7 kernels"


def test_treemap_by_keyboard(page: Page, demo: Path) -> None:
    page.open(demo)
    boxes = page.ask("[...document.querySelectorAll('#map g')].map(g => g.getAttribute('aria-label'))")
    assert boxes == ["sm_70: 29.1 kB", "sm_75: 28.6 kB", "sm_60: 22.5 kB"]
    areas = page.ask("[...document.querySelectorAll('#map .frame')].map(f => (f.width.baseVal.value + 1) * (f.height.baseVal.value + 1))")
    total = page.ask("document.getElementById('map').clientWidth * document.getElementById('map').clientHeight")
    assert [round(area / total, 3) for area in areas] == [round(size / 80152, 3) for size in (29088, 28576, 22488)]
    page.ask("document.querySelector('#map g').focus()")
    page.key("Enter")
    assert page.ask("document.querySelectorAll('#map g').length") == 1
    assert page.ask("document.getElementById('map-title').textContent") == "sm_70: 29.1 kB"
    page.key("Escape")
    assert page.ask("document.querySelectorAll('#map g').length") == 3
    page.choose("#split", "family-target")
    names = page.ask("[...document.querySelectorAll('#map g')].map(g => g.getAttribute('aria-label').split(':')[0])")
    assert set(names) == {"mul_mat_q8_0", "mul_mat_vec_q", "quantize_q8_1", "rms_norm_f32"}


def test_light_and_dark(page: Page, demo: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.open(demo)
        grounds.append(page.ask("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    page.ask("document.getElementById('theme').click()")
    assert page.ask("getComputedStyle(document.body).backgroundColor") == grounds[0]
    page.ask("document.getElementById('theme').click()")
    assert page.ask("getComputedStyle(document.body).backgroundColor") == grounds[1]
    page.send("Emulation.setEmulatedMedia", features=[])


def contrast(page: Page, selector: str) -> float:
    """The contrast of text and ground of the first such element (WCAG 2.2, 1.4.3)."""
    script = """(element => {
      const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
      let ground = element; while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
      const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(ground).backgroundColor)].sort((x, y) => y - x);
      return (a + .05) / (b + .05); })(document.querySelector(%r))"""
    return float(page.ask(script % selector))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, large: Path, scheme: str) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(large)
    selectors = [
        ".pill.good",
        "p.soft",
        "a",
        "#heat tbody th",
        "#heat td.stub",
        "#heat td.none",
        *(f"#heat td.q{index}" for index in range(8)),
    ]
    ratios = {selector: contrast(page, selector) for selector in selectors if page.ask(f"document.querySelector({selector!r}) !== null")}
    assert len(ratios) >= 12
    assert {selector: ratio for selector, ratio in ratios.items() if ratio < 4.5} == {}
    page.send("Emulation.setEmulatedMedia", features=[])


def test_19015_kernels_are_fluid(page: Page, large: Path) -> None:
    page.open(large)
    assert int(page.ask("document.documentElement.dataset.ready")) < 2000
    assert page.ask("document.getElementById('count').textContent") == "19,015 of 19,015 kernels"
    assert page.ask(f"{ROWS}.length") < 120
    frames = page.ask("""(async () => { const heat = document.getElementById('heat'), spans = [];
      for (let at = 0; at < 60; at += 1) { heat.scrollTop = at * 7000;
        const start = performance.now();
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        spans.push(performance.now() - start); }
      return spans.sort((a, b) => a - b); })()""")
    assert frames[len(frames) // 10] < 100  # two frames, on a machine that draws without a GPU and may have other work
    page.ask("document.getElementById('heat').scrollTop = 1e9")
    page.settle()
    assert page.ask(f"{ROWS}.at(-1).getAttribute('aria-rowindex')") == str(MANY + 1)
    took = page.ask("""(() => { const start = performance.now(); const field = document.getElementById('filter');
      field.value = 'gemm_9<'; field.dispatchEvent(new Event('input')); return performance.now() - start; })()""")
    assert took < 300
    assert page.ask("document.getElementById('count').textContent") == f"{len(range(9, MANY, 97))} of 19,015 kernels"


def test_prints(page: Page, large: Path) -> None:
    page.open(large)
    page.ask("dispatchEvent(new Event('beforeprint'))")
    assert page.ask(f"{ROWS}.length") == 400
    assert "Printed: the first 400 of 19015 kernels of liblarge.so." in page.ask("document.getElementById('legend').textContent")
    page.send("Emulation.setEmulatedMedia", media="print")
    assert page.ask("[...document.querySelectorAll('#heat thead button')].every(button => button.getBoundingClientRect().width > 20)")
    assert page.ask("document.getElementById('theme').getBoundingClientRect().width") == 0
    page.send("Emulation.setEmulatedMedia", media="")
    page.ask("dispatchEvent(new Event('afterprint'))")
    assert page.ask(f"{ROWS}.length") < 120
    assert len(page.send("Page.printToPDF", printBackground=True)["data"]) > 10_000


def test_narrow(page: Page, demo: Path) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=500, height=900, deviceScaleFactor=1, mobile=False)
    page.open(demo)
    assert page.ask("document.documentElement.scrollWidth") <= 500
    page.send("Emulation.clearDeviceMetricsOverride")


OVERFLOW = """[...document.querySelectorAll('.scroll, #heat.files')].filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent.slice(0, 60) + ' ' + e.scrollWidth + ' ' + e.clientWidth)"""


@pytest.fixture(scope="module")
def pages(demo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> list[Path]:
    """A report of one file and of all samples, and the page of an index."""
    folder = tmp_path_factory.mktemp("more")
    files = sorted(SAMPLES.glob("*.so")) + sorted(SAMPLES.glob("*.dll"))
    assert run("report", *files, "-o", folder / "all.html").returncode == 0
    assert run("audit", *files, "--db", folder / "i.sqlite", "--html", folder / "audit.html").returncode == 0
    return [demo, folder / "all.html", folder / "audit.html"]


def test_nothing_is_cut_off_on_a_phone(page: Page, pages: list[Path]) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    for path in pages:
        page.open(path)
        page.ask("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert page.ask("document.documentElement.scrollWidth") <= 390, path
        assert [words for words in page.ask(OVERFLOW) if not words.startswith(("library", "kernel"))] == [], path
        seen = "document.getElementById('heat').getBoundingClientRect().right"
        assert page.ask(f"{ROWS}[0].children[1].getBoundingClientRect().right <= {seen}"), "a target beside the name"
    page.send("Emulation.clearDeviceMetricsOverride")


def test_nothing_is_cut_off_on_paper(page: Page, pages: list[Path]) -> None:
    """A4 with margins of 1 cm, at 96 dots an inch."""
    page.send("Emulation.setDeviceMetricsOverride", width=718, height=1047, deviceScaleFactor=1, mobile=False)
    for path in pages:
        page.open(path)
        page.ask("dispatchEvent(new Event('beforeprint'))")
        page.send("Emulation.setEmulatedMedia", media="print")
        page.settle()
        assert page.ask(OVERFLOW) == [], path
        assert page.ask("document.getElementById('heat').scrollWidth - document.getElementById('heat').clientWidth") <= 1, path
        assert page.ask("document.documentElement.scrollWidth") <= 718, path
        page.send("Emulation.setEmulatedMedia", media="")
        page.ask("dispatchEvent(new Event('afterprint'))")
    page.send("Emulation.clearDeviceMetricsOverride")


def test_long_names_keep_what_differs_and_targets_stay_visible(page: Page, tmp_path: Path) -> None:
    long = "ns::Kernel<" + "ns::Deep<int, float>, " * 40
    names = [f"void {long}ns::Row<{index}>, {'ns::Same<char>, ' * 40}false>(ns::Params)" for index in range(5)]
    contents = many(5)
    facts = contents.holders[0].facts
    kernels = dict(zip(names, facts.kernels.values(), strict=True))
    holder = contents.holders[0]._replace(facts=facts._replace(kernels=kernels))
    path = tmp_path / "long.html"
    path.write_text(report(contents._replace(holders=(holder,)), None), "utf-8")
    page.open(path)
    shown = page.ask(f"{ROWS}.map(row => row.firstChild.textContent)")
    assert len(set(shown)) == 5, shown
    assert all(f"Row<{index}>" in text for index, text in enumerate(shown)), shown
    assert page.ask(
        f"{ROWS}[0].children[8].getBoundingClientRect().right <= document.getElementById('heat').getBoundingClientRect().right + 1"
    )
    assert page.ask("[...document.querySelectorAll('#heat thead button')].every(b => b.scrollWidth <= b.parentNode.clientWidth)")


def test_cards_and_tables_of_an_index_agree(page: Page, run: Run, tmp_path: Path) -> None:
    data = (SAMPLES / "donor.dll").read_bytes()
    (tmp_path / "cut.dll").write_bytes(data[:20000])
    (tmp_path / "gone.so").symlink_to("nowhere")
    run("audit", SAMPLES / "demo.llamafile", SAMPLES / "hipdemo.dll", tmp_path / "cut.dll", tmp_path / "gone.so",
        "--db", tmp_path / "i.sqlite", "--html", tmp_path / "a.html")  # fmt: skip
    page.open(tmp_path / "a.html")
    cards = dict(page.ask("[...document.querySelectorAll('.facts li')].map(e => [e.lastChild.textContent, e.firstChild.textContent])"))
    rows = page.ask("document.querySelectorAll('#errors tbody tr').length")
    assert int(cards["files not read"]) == 1
    assert int(cards["files not read"]) + int(cards["parts not read"]) == rows
    assert page.ask("document.querySelector('#errors p').textContent") == f"1 file and {cards['parts not read']} parts of files."
    totals = page.ask("[...document.querySelectorAll('#gpus tbody tr')].map(e => [e.children[1].textContent, e.children[3].textContent])")
    of = {target[:2]: int(words.split(" of ")[1]) for target, words in totals}
    assert of["sm"] + of["gf"] == int(cards["libraries"]) == 4
    assert page.ask("document.getElementById('count').textContent") == "4 of 4 libraries"


def test_names_are_said_once(page: Page, pages: list[Path]) -> None:
    page.open(pages[1])
    assert page.ask("[...document.querySelectorAll('#holder option')].map(e => e.textContent)")[0] == "donor.so"
    page.open(pages[2])
    folder = str(SAMPLES) + "/"
    assert f"All names begin with {folder}" in page.ask("document.getElementById('legend').textContent")
    assert page.ask(f"{ROWS}.map(row => row.firstChild.textContent)") == page.ask(
        f"{ROWS}.map(row => row.firstChild.title.slice({len(folder)}))"
    )


def test_diff(page: Page, run: Run, tmp_path: Path) -> None:
    fixed, made = tmp_path / "fixed.llamafile", tmp_path / "diff.html"
    assert run("graft", SAMPLES / "demo.llamafile", "--from", SAMPLES / "donor.dll", "--target", "sm_61", "-o", fixed).returncode == 0
    assert run("report", "--diff", SAMPLES / "demo.llamafile", fixed, "-o", made).returncode == 0
    page.open(made)
    assert page.ask(f"{ROWS}.map(row => row.children[2].textContent)") == ["new"] * 7
    assert page.ask(f"{ROWS}.map(row => row.children[1].textContent)").count("stub") == 5
    page.choose("#only", "gone")
    assert page.ask(f"{ROWS}.length") == 0
    page.choose("#only", "new")
    assert page.ask(f"{ROWS}.length") == 7
