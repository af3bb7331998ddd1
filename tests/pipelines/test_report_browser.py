"""Reports in a real browser: what is visible on a desktop, a phone, in the dark and on paper, and what can be clicked.

The tests need playwright (`pip install -e '.[dev]'`) and Chromium (`apt install chromium`), and are skipped elsewhere.
"""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from heads.methods import mmd
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
from pipelines.report import page as parts
from pipelines.report.write import write
from pipelines.training.train import train
from tests.helpers import stores
from tests.helpers.result_rows import config, result
from tests.helpers.skeleton_stores import run as clustering_run
from tests.helpers.skeleton_stores import write_all as skeleton_stores
from tests.helpers.words import retrieval_run, retrieval_stores

pytestmark = pytest.mark.slow
PAGES = ("classification", "retrieval", "clustering", "wide")
A4 = 703  #: pixels between the margins of a page, at 96 per inch

#: Elements that end outside of the page, except inside what scrolls by itself.
OUTSIDE = """limit => [...document.querySelectorAll("main *")]
  .filter(e => !e.closest("pre") && (limit.tables || !e.closest(".scroll")) && e.getClientRects().length)
  .filter(e => !e.closest("svg") || e.tagName === "svg")
  .map(e => [e.tagName, e.getBoundingClientRect().right, (e.textContent || "").slice(0, 40)])
  .filter(([, right]) => right > limit.right + 1)"""
#: Sections without content, and plots that have texts and lines only.
EMPTY = """() => [
  ...[...document.querySelectorAll("section")]
    .filter(s => ![...s.querySelectorAll(":scope > :not(h2, h3, p.soft)")]
      .some(e => e.getBoundingClientRect().height > 8)),
  ...[...document.querySelectorAll("section svg")]
    .filter(s => !s.querySelector("rect, circle, polygon, polyline, path")),
].map(e => (e.querySelector("h2") || e).outerHTML.slice(0, 80))"""
#: Texts of plots that end outside of their image, lie on another text, or have letters of fewer pixels than a limit.
UNREADABLE = """least => [...document.querySelectorAll("svg")].filter(s => s.getClientRects().length).flatMap(s => {
  const box = s.getBoundingClientRect(), scale = box.width / s.viewBox.baseVal.width;
  const texts = [...s.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()]);
  const found = texts.filter(([t, r]) => parseFloat(getComputedStyle(t).fontSize) * scale < least ||
    r.right > box.right + 2 || r.left < box.left - 2 || r.bottom > box.bottom + 2 || r.top < box.top - 2);
  const level = texts.filter(([t]) => !t.getAttribute("transform"));
  const meets = (r, o) => Math.min(r.right, o.right) - Math.max(r.left, o.left) > 3 &&
    Math.min(r.bottom, o.bottom) - Math.max(r.top, o.top) > 4;
  const over = level.filter(([t, r], k) => level.slice(k + 1).some(([, o]) => meets(r, o)));
  return [...found, ...over].map(([t]) => t.textContent);
})"""
#: Texts of tables, lists and plots that are visible.
VISIBLE = """() => [...document.querySelectorAll("main :is(th, td, li, figcaption, summary, svg text)")]
  .filter(e => e.checkVisibility({ contentVisibilityAuto: true }) && e.getClientRects().length)
  .map(e => e.textContent).filter(text => text.trim())"""


@pytest.fixture(scope="module")
def browser():
    """Chromium: that of the system, or that of playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        found = next(filter(None, map(shutil.which, names)), None) or playwright.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("Chromium is not installed (apt install chromium, or playwright install chromium)")
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> the file of a report."""
    folder = tmp_path_factory.mktemp("reports")
    stores.write_all(folder / "stores")
    skeleton_stores(folder / "stores")
    retrieval_stores(folder / "stores", copies=2)
    plain = stores.run(steps=4, eval_every=2, keep=2)
    adapted = replace(plain, method=mmd.Params(), target="night", row="MMD with a name that is rather long")
    others = [replace(adapted, row=name, steps=5 + k) for k, name in enumerate(("MMD lr=0.0003 " * 12, "方法 " * 20))]
    clusters = replace(clustering_run(), row="BM")
    kinds = {
        "classification": [replace(run, seed=seed) for run in (plain, adapted, *others) for seed in (0, 1)],
        "retrieval": [retrieval_run(seed=seed) for seed in (0, 1)],
        "clustering": [clusters, replace(clusters, seed=1)],
    }
    made = {}
    for name, runs in kinds.items():
        results = [
            line
            for run in runs
            for line in evaluate(train(run, folder / "stores", folder / "runs"), folder / "stores", name, row=run.row)
        ]
        experiment = Experiment(name, f"A {name} experiment.", tuple(runs), note="NOTE: a remark on the numbers.")
        made[name] = folder / f"{name}.html"
        write(experiment, results, folder / "runs", folder / "stores", made[name])
    made["wide"] = folder / "wide.html"
    many = wide()
    results = [result(run, 0.01 * k, by_class={"cut": (1, 2, 3)}) for k, run in enumerate(many.runs)]
    write(many, results, folder / "runs", folder / "none", made["wide"])
    return made


def wide():
    """A table with more columns than any screen of a phone has, and more rows than are read at a glance."""
    shifts = [(f"kitchen_{a}", f"restaurant_{a}") for a in "abcdefghi"]
    rows = [f"method {chr(97 + k) * 3}" for k in range(14)]
    runs = [config(row, (s,), t, seed) for row in rows for s, t in shifts for seed in (0, 1)]
    runs = [replace(run, steps=2 + rows.index(run.row)) for run in runs]
    return Experiment("wide", "Wide.", tuple(runs))


@pytest.fixture
def opened(browser, pages):
    """Open a report: (name, width, scheme) -> the page. No request but that of the file, and no message of errors."""
    contexts, messages, requests = [], [], []

    def open_page(name, width=1280, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"file://{pages[name]}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert all(url.endswith(".html") for url in requests if url.startswith("file"))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_nothing_is_cut_off_and_no_section_is_empty(opened, name, width, scheme):
    page = opened(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE, {"right": width, "tables": False}) == []
    assert page.evaluate(EMPTY) == []
    signs = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth + 1)
           .map(box => getComputedStyle(box, "::after").content)"""
    )
    assert all("scroll sideways" in sign for sign in signs)
    assert bool(signs) or name != "wide"
    values = page.locator(".tile b").evaluate_all(
        "of => of.map(b => [b.getClientRects().length, b.scrollWidth, b.clientWidth])"
    )
    assert all(lines == 1 and needed <= there for lines, needed, there in values)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "media", "least"), [(1280, "screen", 7), (390, "screen", 7), (A4, "print", 6.5)])
def test_plots_can_be_read(opened, name, width, media, least):
    page = opened(name, width)
    page.emulate_media(media=media)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate(UNREADABLE, least) == []


def test_long_names_of_rows_leave_room_for_the_numbers(opened):
    box = opened("classification").locator(".choice .scroll").first
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth + 1")
    assert ("MMD lr=0.0003 " * 12).strip() in box.text_content()


@pytest.mark.parametrize("name", PAGES)
def test_a_printed_page_shows_all_columns_all_metrics_and_what_is_folded(opened, name, tmp_path):
    page = opened(name, A4)
    on_screen = set(page.evaluate(VISIBLE))
    page.emulate_media(media="print")
    assert page.evaluate(OUTSIDE, {"right": A4, "tables": True}) == []
    assert page.evaluate(EMPTY) == []
    printed = set(page.evaluate(VISIBLE))
    assert on_screen <= printed
    assert printed >= set(
        page.locator("main :is(th, td, li)").evaluate_all("of => of.map(e => e.textContent).filter(t => t.trim())")
    )
    page.emulate_media(media="screen")
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    content = (tmp_path / "page.pdf").read_bytes()
    boxes = {tuple(map(round, map(float, box.split()))) for box in re.findall(rb"/MediaBox \[([\d. ]+)\]", content)}
    assert boxes == {(0, 0, 595, 842)}  # A4 in points
    assert page.locator("details[open]").count() == 0  # folded again


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_complete_without_scripts(opened, name):
    assert opened(name, java_script_enabled=False).evaluate(VISIBLE) == opened(name).evaluate(VISIBLE)


@pytest.mark.parametrize("name", PAGES[:3])
def test_the_switch_shows_one_metric_at_a_time(opened, name):
    page = opened(name)
    labels = page.locator(".switch > label")
    assert labels.count() > 2
    for k in range(labels.count()):
        labels.nth(k).click()
        shown = page.locator(".switch > .choice").evaluate_all("of => of.map(e => e.getClientRects().length > 0)")
        assert shown == [place == k for place in range(len(shown))]


def column(page, k):
    """The visible texts of column k of the first visible table."""
    rows = page.locator("table:visible").first.locator("tbody tr:visible")
    return rows.evaluate_all(f"of => of.map(row => row.cells[{k}].textContent)")


def test_columns_are_sorted_as_numbers_or_texts_and_back(opened):
    page = opened("wide")
    before = column(page, 1)
    button = page.locator("table:visible").first.locator("thead button").nth(1)
    numbers = sorted(before, key=lambda text: float(text.split()[0]))
    button.click()
    assert column(page, 1) == numbers
    button.click()
    assert column(page, 1) == numbers[::-1]
    button.focus()
    page.keyboard.press("Enter")
    assert column(page, 1) == before
    page.locator("table:visible").first.locator("thead button").nth(0).click()
    assert column(page, 0) == sorted(column(page, 0))


def printed(page, path):
    """The texts of the pages on paper."""
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not installed (apt install poppler-utils)")
    page.pdf(path=path, prefer_css_page_size=True)
    return subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("script", [True, False])
def test_each_printed_page_of_a_table_has_its_headings_and_all_rows_whatever_is_searched(
    opened, pages, tmp_path, script
):
    rows = [("", [parts.cell(f"clip {k}", head=True), parts.cell(str(k))]) for k in range(90)]
    pages["long"] = tmp_path / "long.html"
    pages["long"].write_text(parts.page("long", ["<header></header>", parts.table(["clip", "seconds"], rows)]))
    page = opened("long", java_script_enabled=script)
    if script:
        page.locator("input[type=search]").fill("nothing like this")
    sheets = [sheet for sheet in printed(page, tmp_path / "long.pdf").split("\f") if sheet.strip()]
    assert len(sheets) > 1
    assert all("seconds" in sheet for sheet in sheets)
    assert sum(sheet.count("clip ") - 1 for sheet in sheets) == 90


SORTED = {
    "dates": ["2026-11-28 12:00", "2026-11-29 09:00", "2026-11-30 12:44"],
    "ids": ["001_cut", "001_peel", "002_cut"],
    "years in ids": ["2024_a", "2024_b", "2024_c"],
    "numbers": ["-3.5 ± 1.0", "2.0 ± 0.5 (3.1)", "12.0 [1 of 3 seeds]", "–"],
    "intervals": ["[-12.0, +3.0] n.d.", "[-2.0, +3.0] n.d.", "[+1.0, +3.0]", "n/a"],
    "counts": ["2 of 10", "10 of 10", "12 of 10"],
    "pairs": ["0.1 / 0.9", "0.25 / –", "1.0 / 0.2"],
    "powers": ["1e-05", "0.002", "0.3"],
    "shares": ["-5 %", "+0 %", "+12 %"],
    "quoted": ["1.0", "20.0", "(10.0)"],
}


@pytest.mark.parametrize("kind", SORTED)
def test_a_column_is_sorted_by_number_only_if_its_cells_are_numbers(opened, pages, tmp_path, kind):
    expected = SORTED[kind]
    rows = [("", [parts.cell(text)]) for text in (*expected[1:], expected[0])]
    pages["sorted"] = tmp_path / "sorted.html"
    pages["sorted"].write_text(
        parts.page("x", ["<header></header>", parts.table([kind], rows, foot=[("", [parts.cell("0")])])])
    )
    page = opened("sorted")
    page.locator("thead button").click()
    assert column(page, 0) == expected
    assert page.locator("tfoot td").text_content() == "0"


def test_long_tables_can_be_searched(opened):
    page = opened("wide")
    box = page.locator("input[type=search]:visible").first
    box.fill("ccc METHOD")
    assert column(page, 0) == ["method ccc"]
    assert page.locator(".find output").first.text_content() == "1 of 14"
    box.fill("nothing like this")
    assert column(page, 0) == []
    box.fill("")
    assert len(column(page, 0)) == 14


def lightness(page):
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    return (red + green + blue) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_button_switches_between_light_and_dark(opened, scheme):
    page = opened("classification", scheme=scheme)
    assert (lightness(page) < 60) == (scheme == "dark")
    page.locator("button.colours").click()
    assert (lightness(page) < 60) == (scheme == "light")
    page.emulate_media(media="print")
    assert lightness(page) > 200  # paper is white
