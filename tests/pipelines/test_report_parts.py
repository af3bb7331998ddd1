"""Parts of a report: tables of all metrics, intervals, classes, wrong clips, curves, settings, and what is missing."""

import json
import re
import shutil
from dataclasses import replace
from html import escape, unescape

import numpy as np
import pytest

from pipelines.measures.outcomes import Outcomes, encode
from pipelines.report import curves as curves_module
from pipelines.report import marks, page
from pipelines.report import wrong as wrong_module
from pipelines.report.classes import classes
from pipelines.report.conditions import conditions
from pipelines.report.curves import curves
from pipelines.report.metrics import gains, others, tones
from pipelines.report.metrics import results as metrics_section
from pipelines.report.opened import open_runs
from pipelines.report.steps import counting, steps
from pipelines.report.write import write
from pipelines.tables.build import build, difference
from pipelines.tables.slices import by_class
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers import stores
from tests.helpers.result_rows import experiment, norm_rows, result, rows
from tests.pipelines.test_report import HOSTILE, Page, folders, report  # noqa: F401 (a fixture)


def measured(**by_metric):
    """Results of the toy: top1, and other metrics with another number."""
    toy = experiment()
    more = [result(run, value, metric) for metric, value in by_metric.items() for run in toy.runs]
    return [*rows(toy), *norm_rows(toy), *more]


def cells(html):
    """The lines of all tables of a piece of markup, as texts without markup."""
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.S)
    return [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in lines
    ]


# ------------------------------------------------------------------------------------------------------------- metrics


def test_every_metric_has_its_table_and_the_headline_is_shown_first():
    results = measured(top5=0.9, mean_class=0.4)
    toy = experiment()
    html = metrics_section(toy, build(results, toy), results)
    titles = re.findall(r'<label for="[^"]+">([^<]+)</label>', html)
    assert titles == ["top1", "top5", "mean_class", "all metrics"]
    assert re.findall(r'id="metric-(\d+)" checked', html) == ["0"]
    lines = cells(html)
    for metric in titles[:-1]:
        table = build(results, toy, metric)
        for line in table.lines:
            assert [text(line).whole for text in table.columns.values()] in lines
    means = [build(results, toy, metric).lines[1].mean.text(1) for metric in titles[:-1]]
    assert ["RNA (UDA)", *means] in lines


def test_one_metric_needs_no_switch():
    assert "radio" not in metrics_section(experiment(), build(rows(experiment()), experiment()), rows(experiment()))


def test_metrics_are_in_the_order_of_their_task_without_those_of_other_sections():
    results = [*measured(macro_f1=0.1, top5=0.9), *(result(run, 0.1, "validator/bnm") for run in experiment().runs)]
    assert others(experiment(), "top1", results) == ["top5", "macro_f1"]


def test_intervals_are_next_to_the_deviations():
    toy = experiment(seeds=(0, 1))
    right = {"source-only": [0] * 30 + [1] * 20, "RNA (UDA)": [0] * 10 + [1] * 40, "supervised-target": [1] * 50}
    results = []
    for run in toy.runs:
        outcomes = Outcomes(np.array(right[run.row]), np.ones(50, np.int64), "0a1b2c3d")
        results.append(result(run, outcomes.value, clips=encode(outcomes)))
    table = build(results, toy)
    line = table.lines[1]
    assert line.interval is not None
    (text,) = re.findall(r'<text class="value"[^>]*>(\+40[^<]*)</text>', write_text(toy, results))
    assert text == f"{line.gain.text(1, '+')} {table.ends(line.interval)}"


def write_text(toy, results, folder=None, **options):
    """The page without runs and stores."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as made:
        here = Path(folder or made)
        write(toy, results, here / "runs", here / "stores", here / "page.html", **options)
        return (here / "page.html").read_text()


# ------------------------------------------------------------------------------------------------------------- classes


def test_classes_are_those_of_the_table_by_class_with_the_change_of_each_row():
    toy, results = experiment(), []
    for run in toy.runs:
        right = {"source-only": 2, "RNA (UDA)": 4, "supervised-target": 5}[run.row]
        counts = {"cut": (right, 5, 5), HOSTILE: (5 - right, 5, 5)}
        results.append(result(run, 0.5, by_class=counts))
    sliced = by_class(results, toy)
    base, adapted, _ = sliced.lines
    lines = cells(classes(toy, build(results, toy), results))
    for name in ("cut", HOSTILE):
        change = difference(adapted.cells[name], base.cells[name]).text(1, "+")
        assert [name, "10", base.cells[name].text(1), adapted.cells[name].text(1), change] in lines


def test_results_without_counts_of_classes_have_the_reason():
    text = write_text(experiment(), rows(experiment()))
    assert re.search(r"<li><b>Class by class</b>: [^<]*measure them again", text)


# --------------------------------------------------------------------------------------------------------------- wrong


def test_wrong_clips_have_truth_prediction_and_picture(folders):  # noqa: F811
    text = report(folders)
    section = text.partition("Wrong answers of RNA (UDA)</h2>")[2].partition("</section>")[0]
    lines = {line[1]: line for line in cells(section) if len(line) > 3 and line[0] != "picture"}
    of_day = {"day0": "cut", "day1": "stir", "day2": HOSTILE}
    names = sorted(of_day.values())
    given = dict(zip(of_day, ("0", "1", "1"), strict=True))  # classes of the kept outputs
    wrong = {clip for clip, truth in of_day.items() if names[int(given[clip])] != truth}
    assert {clip for clip in lines if clip in of_day} == wrong
    for clip in wrong:
        assert of_day[clip] in lines[clip]
        assert names[int(given[clip])] in lines[clip]
    assert section.count("<img") == len(cells(section)) - 1  # every clip, on both shifts


def test_most_wrong_clips_are_left_out_by_number_and_pictures_by_cost(folders, monkeypatch):  # noqa: F811
    monkeypatch.setattr(wrong_module, "LISTED", 2)
    monkeypatch.setattr(wrong_module, "PICTURES", 1)
    section = report(folders).partition("Wrong answers of RNA (UDA)</h2>")[2].partition("</section>")[0]
    assert len(cells(section)) == 1 + 2
    assert section.count("<img") == 1
    assert "2 of them" in section


def test_a_single_row_has_its_wrong_clips_too(folders):  # noqa: F811
    alone = replace(experiment(), runs=tuple(run for run in experiment().runs if run.row == "source-only"))
    text = report(folders, alone)
    assert "compared with" not in text
    assert "Wrong answers of source-only</h2>" in text


# -------------------------------------------------------------------------------------------------------------- curves


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of a row with several kept points."""
    folder = tmp_path_factory.mktemp("curves")
    stores.write_all(folder / "stores")
    runs = [stores.run(seed=seed, steps=12, eval_every=4, keep=3, select="last") for seed in (0, 1)]
    for run in runs:
        train(run, folder / "stores", folder / "runs")
    return folder, runs


def of_runs(runs):
    return replace(experiment(), name="toy", runs=tuple(runs))


def test_every_term_and_validator_has_a_panel_with_a_line_per_seed(trained):
    folder, runs = trained
    toy = of_runs(runs)
    opened = open_runs(toy, folder / "runs")
    html = curves(toy, build([], toy), opened)
    run = opened.runs[runs[0].id]
    terms = list(run.log()[0])[1:]
    scores = [f"validator {name}" for name in run.points[0] if name != "step"]
    assert re.findall(r'<text class="name"[^>]*>([^<]+)</text>', html) == [*terms, *scores]
    assert html.count("<polyline") == 2 * (len(terms) + len(scores))
    first, last = run.log()[0][terms[0]], run.log()[-1][terms[0]]
    assert f"<title>seed 0: {first:.4g} to {last:.4g}</title>" in html
    assert html.count("<circle") >= 2 * 3 * len(scores)


def test_long_runs_are_read_at_equal_distances_up_to_their_last_step(trained, monkeypatch):
    folder, runs = trained
    run = Run.open(folder / "runs" / runs[0].id)
    assert [line["step"] for line in run.log(5)] == [0, 5, 10, 11]
    monkeypatch.setattr(curves_module, "READ", 3)
    monkeypatch.setattr(curves_module, "DRAWN", 3)
    terms = curves_module._terms(run)
    values = [line[next(iter(terms))] for line in run.log(4)]
    assert [step for step, _ in next(iter(terms.values()))][::2] == [1, 12]
    assert next(iter(terms.values()))[0][1] == pytest.approx(np.mean(values[:2]))


def test_runs_that_are_missing_are_counted_once(tmp_path):
    toy = experiment()
    text = write_text(toy, rows(toy))
    (reason,) = re.findall(r"<li><b>Training curves</b>: (.*?)</li>", text)
    assert f"({len(toy.runs) - 1} more are missing.)" in reason


# ------------------------------------------------------------------------------------------------------------ settings


def test_settings_are_split_into_shared_and_own_ones(trained):
    folder, runs = trained
    toy = of_runs([*runs, *(replace(run, row="slow", steps=24) for run in runs)])
    opened = open_runs(toy, folder / "runs")
    html = conditions(toy, build([], toy), opened)
    assert re.search(r"<details><summary>Settings of all rows.*<li>batch=", html)
    assert [toy.rows[0], "steps=12"] in cells(html)
    assert ["slow", "steps=24"] in cells(html)


def test_time_machine_and_versions_are_those_of_the_runs(trained):
    folder, runs = trained
    facts = json.loads((folder / "runs" / runs[0].id / "run.json").read_text())
    assert facts["host"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["date"])
    html = conditions(of_runs(runs), build([], of_runs(runs)), open_runs(of_runs(runs), folder / "runs"))
    (line,) = [line for line in cells(html) if line[:2] == [runs[0].row, "2"]]
    assert facts["date"][:16].replace("T", " ") in line[5]
    assert line[6:] == [facts["host"], "cpu"]
    assert ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) in html


def test_settings_without_runs_have_the_reason_and_no_seconds(trained, tmp_path):
    folder, runs = trained
    toy = of_runs(runs)
    html = conditions(toy, build([], toy), open_runs(toy, tmp_path))
    assert runs[0].id in html
    assert "econds" not in html
    shutil.copytree(folder / "runs" / runs[1].id, tmp_path / runs[1].id)
    half = conditions(toy, build([], toy), open_runs(toy, tmp_path))
    assert runs[0].id in half
    assert "econds" in half


def test_runs_of_earlier_versions_have_no_date(folders):  # noqa: F811
    assert "not recorded" in report(folders)


# ---------------------------------------------------------------------------------------------------------------- page


def test_a_section_without_content_is_an_item_or_nothing():
    assert page.section("Heading", "An introduction.", "", "") == ""
    item = page.section("Heading", "An introduction.", "", reasons=["No file <a>."])
    assert isinstance(item, page.Absent)
    assert "No file &lt;a&gt;." in page.lacking([item])
    assert page.lacking([]) == ""
    assert "No file" in page.section("Heading", "", "<p>content</p>", reasons=["No file."])


def test_no_section_of_a_page_is_empty(folders, tmp_path):  # noqa: F811
    for text in (report(folders), write_text(experiment(), []), report(folders, results=[])):
        for section in re.findall(r"<section>(.*?)</section>", text, re.S):
            heading = re.search("<h2>(.*?)</h2>", section)[1]
            content = re.sub(r'<h2>.*?</h2>|<p class="soft">.*?</p>|<h3>.*?</h3>', "", section, flags=re.S)
            assert content.strip(), f"{heading} has no content"
        assert not re.search(r'<div class="(strip|panels|scroll)[^"]*"></div>', text)


def test_panels_of_a_partial_sweep_have_the_measured_rows_only():
    toy = experiment()
    measured = [row for row in rows(toy) if row.row == "source-only" and row.target == row.test]
    some = [row for row in rows(toy) if row.row == "source-only"][:1]
    for results in (measured, some, []):
        text = write_text(toy, results)
        for image in re.findall("<svg.*?</svg>", text, re.S):
            assert re.search("<(rect|circle|polygon|polyline|path)", image)
            assert ">–</text>" not in image
    assert "There are no results yet" in write_text(toy, [])
    assert f"1 of {len(toy.rows)} rows have results" in write_text(toy, some)


def test_backticks_are_code_and_sections_have_links():
    assert page.paragraph("Run `a <b>` now.") == '<p class="soft">Run <code>a &lt;b&gt;</code> now.</p>'
    sections = [page.section(f"Part {k} → <b>", "", "<p>content</p>") for k in range(6)]
    links = re.findall('href="#([^"]+)"', page.contents(sections))
    assert links == [re.search('id="([^"]+)"', section)[1] for section in sections]
    assert len({*links}) == 6
    assert page.contents(sections[:2]) == ""


def test_a_row_has_one_colour_on_the_whole_page():
    toy = experiment()
    table = build(rows(toy), toy)
    assert tones(table) == {"source-only": "base", "RNA (UDA)": "m0", "supervised-target": "reference"}
    assert re.findall('class="mark (line-[^"]+)"', gains(table)) == ["line-m0", "line-reference"]


@pytest.mark.parametrize("room", [45, 80, 200])
def test_names_are_cut_in_their_middle_to_the_room_that_they_have(room):
    for name in ("RNA lr=0.0001, weight=0.5, steps=100", "方法 " * 20, "WWWWWWWWWWWWWWWWWWWWW", "m", HOSTILE * 3):
        shown = marks.fit(name, room, 13)
        assert shown == name or marks.width(shown, 13) <= room
        assert shown == name or (shown[0], shown[-1]) == (name[0], name[-1]) or len(shown) < 4
        assert (f"<title>{escape(name)}</title>" in marks.label(0, 0, name, "name", room)) == (shown != name)


def test_the_remark_of_an_experiment_is_no_alarm():
    toy = replace(experiment(), note="The paper names no split.")
    text = write_text(toy, rows(toy))
    assert '<p class="remark" role="note">The paper names no split.</p>' in text
    assert not re.search(r'class="alarm"[^>]*>The paper', text)
    assert text.count("The paper names no split.") == 1


def test_long_names_may_be_broken_where_words_meet():
    (head,) = re.findall("<th [^>]*>(.*?)</th>", page.table(["source→mean/a_b&"], []))
    assert head == "source→<wbr/>mean/<wbr/>a_<wbr/>b&amp;"


def test_progress_ends_with_all_steps(folders):  # noqa: F811
    told = []
    toy = experiment()
    out = folders / "page.html"
    write(toy, rows(toy), folders / "runs", folders / "stores", out, progress=lambda *now: told.append(now))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][0] == told[-1][1] > 10


def test_steps_within_steps_are_counted():
    told = []
    with counting(lambda *now: told.append(now)):
        for _ in steps("ab"):
            list(steps("xyz"))
    assert told[-1] == (8, 8)
    list(steps("no page is written"))
