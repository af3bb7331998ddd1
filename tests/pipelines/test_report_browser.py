"""Reports in a real browser: what is visible on a desktop, a phone, in the dark and on paper, and what can be clicked.

The tests need playwright (`pip install -e '.[dev]'`) and Chromium (`apt install chromium`), and are skipped elsewhere.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from heads.methods import mmd
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
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
#: Headings of sections whose content has no height.
EMPTY = """() => [...document.querySelectorAll("section")]
  .filter(s => ![...s.querySelectorAll(":scope > :not(h2, p.soft)")].some(e => e.getBoundingClientRect().height > 8))
  .map(s => s.querySelector("h2").textContent)"""
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
    clusters = replace(clustering_run(), row="BM")
    kinds = {
        "classification": [replace(run, seed=seed) for run in (plain, adapted) for seed in (0, 1)],
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
    texts = "main :is(th, td, li, p, figcaption)"
    plain = opened(name, java_script_enabled=False).locator(texts).all_text_contents()
    assert [text for text in opened(name).locator(texts).all_text_contents() if text] == [
        text for text in plain if text
    ]


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
