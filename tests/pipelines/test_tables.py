import csv
import io
import re
from dataclasses import replace

import pytest

from featcache.errors import ConfigError
from heads.methods import rna
from pipelines import experiments
from pipelines.config import Feed
from pipelines.data.lacking import NO_FEATURES
from pipelines.experiments import Experiment
from pipelines.experiments._papers import Printed
from pipelines.tables.build import build, norms_table, render
from pipelines.tables.cells import INTERVAL, Cell
from tests.helpers.result_rows import config, experiment, norm_rows, result, rows


def cells(markdown, *, whole=False):
    """Row name -> texts of its cells, and the heading under ''; unless `whole` without marks and intervals."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not whole:
        kept = [k for k, head in enumerate(split[0]) if head != INTERVAL]
        split = [[re.sub(r"^(\*\*|_)(.*?)\1", r"\2", line[k]) for k in kept] for line in split]
    return {"": split[0], **{line[0]: line[1:] for line in split[2:]}}


def one_line(results, experiment):
    """The Markdown table on one line, so that wrapped notes can be looked for."""
    return " ".join(render(results, experiment).split())


@pytest.fixture
def toy():
    return experiment()


def test_a_hand_worked_table(toy):
    table = cells(render(rows(toy), toy), whole=True)
    assert table == {
        "": ["method", "day→night", "night→day", "mean", "vs source-only", "95 % interval"],
        "source-only": ["50.0 ± 10.0", "**20.0 ± 0.0**", "35.0 ± 5.0", "", ""],
        "RNA (UDA)": ["**60.0 ± 10.0**", "**20.0 ± 10.0**", "**40.0 ± 10.0**", "+5.0 ± 5.0", "[-7.4, +17.4] n.d."],
        "supervised-target †": ["91.0 ± 1.0", "81.0 ± 1.0", "86.0 ± 1.0", "+51.0 ± 4.0", "[+41.1, +60.9]"],
    }
    assert list(table)[1:] == ["source-only", "RNA (UDA)", "supervised-target †"]


def test_the_order_of_result_rows_does_not_matter(toy):
    assert render(rows(toy)[::-1], toy) == render(rows(toy), toy)


def test_notes_say_what_the_numbers_are(toy):
    text = " ".join(render(rows(toy), toy).split())
    assert "Top-1 accuracy in per cent on the test rows; mean ± sample std over 3 seeds (0, 1, 2)." in text
    assert "Selection: last" in text
    assert "Fidelity: adapter" in text
    assert "audio bbbbbbbb, rgb aaaaaaaa" in text
    assert "featcache 0.1.0" in text
    assert "MISSING" not in text
    assert "UNTRAINED" not in text


def test_two_shifts_fit_into_a_terminal_and_columns_line_up(toy):
    lines = render(rows(toy), toy).splitlines()
    assert max(map(len, lines)) <= 120
    bars = [[k for k, char in enumerate(line) if char == "|"] for line in lines if line.startswith("|")]
    assert all(places == bars[0] for places in bars)


def test_a_loss_is_shown_as_a_loss(toy):
    worse = [replace(row, value=row.value - 0.2) if row.row == "RNA (UDA)" else row for row in rows(toy)]
    assert cells(render(worse, toy))["RNA (UDA)"][-1] == "-15.0 ± 5.0"


def test_one_seed_has_no_deviation():
    toy = experiment(seeds=(1,))
    text = render(rows(toy), toy)
    assert cells(text)["RNA (UDA)"] == ["60.0", "20.0", "40.0", "+5.0"]
    assert "seed 1 only, so without ±" in text


def test_a_number_that_rounds_to_zero_has_no_minus():
    assert Cell({0: -0.04}, (0,)).text(1, "+") == "+0.0"
    assert Cell({0: -0.06}, (0,)).text(1, "+") == "-0.1"


def test_a_missing_cell_is_named_and_not_averaged_over(toy):
    some = [row for row in rows(toy) if not (row.row == "RNA (UDA)" and row.test == "day")]
    text = " ".join(render(some, toy).split())
    assert cells(render(some, toy))["RNA (UDA)"] == ["60.0 ± 10.0", "–", "–", "–"]
    assert "MISSING: RNA (UDA) 3 of 6 (night→day seeds 0, 1, 2)." in text
    assert "featcache train-head toy && featcache evaluate toy" in text


def test_missing_seeds_are_counted_in_the_cell_and_empty_the_mean(toy):
    some = [row for row in rows(toy) if not (row.row == "source-only" and row.test == "night" and row.seed == 2)]
    table = cells(render(some, toy))
    assert table["source-only"][:3] == ["45.0 ± 7.1 [2 of 3 seeds]", "20.0 ± 0.0", "–"]
    assert table["RNA (UDA)"][-1] == "–"  # its gain has no partner for seed 2
    assert "source-only 1 of 6 (day→night seed 2)" in render(some, toy)
    assert "mean ± sample std over 3 seeds (0, 1, 2)." in one_line(some, toy)


def test_without_any_results_the_plan_is_still_shown(toy):
    table = cells(render([], toy))
    assert table["RNA (UDA)"] == ["–"] * 4
    text = one_line([], toy)
    assert "Top-1 accuracy in per cent on the test rows; no results yet." in text
    assert "MISSING: source-only all 6; RNA (UDA) all 6; supervised-target all 6. To make them" in text


def test_notes_speak_of_the_seeds_that_are_there_not_of_those_that_are_planned(toy):
    one = [row for row in rows(toy) if row.seed == 1]
    assert "test rows; seed 1 only, so without ±. Selection" in one_line(one, toy)
    assert "seeds, which differ by row" not in one_line([row for row in one if row.row == "RNA (UDA)"], toy)
    some = [row for row in rows(toy) if row.seed == 1 or row.row == "source-only"]
    assert "by row: source-only: 3 seeds (0, 1, 2); RNA (UDA): 1 seed (1); supervised-target: 1 seed (1)." in one_line(
        some, toy
    )


def test_many_missing_rows_and_shifts_are_counted_and_the_first_ones_named():
    shifts = [("D1", f"D{k}") for k in range(2, 7)]
    runs = [config(f"row {r}", (s,), t, seed) for r in range(12) for s, t in shifts for seed in (0, 1)]
    many = Experiment("many", "", tuple(runs))
    first_seed = [result(run, 0.5) for run in runs if run.seed == 0]
    text = one_line(first_seed, many)
    assert "**MISSING: row 0 5 of 10 (D1→D2, D1→D3, D1→D4, … and 2 more seed 1); row 1 5 of 10 (" in text
    assert "row 9 5 of 10 (D1→D2, D1→D3, D1→D4, … and 2 more seed 1); … and 2 more. To make them" in text
    assert "row 10 5 of 10" not in text


def test_rows_may_have_different_seeds_by_design(toy):
    runs = tuple(run for run in toy.runs if run.row != "supervised-target" or run.seed == 0)
    fewer = replace(toy, runs=runs)
    text = render(rows(fewer), fewer)
    assert cells(text)["supervised-target †"] == ["90.0", "80.0", "85.0", "+55.0"]
    assert "MISSING" not in text
    assert "supervised-target: 1 seed (0)" in text.replace("\n  ", " ")


def test_a_shift_that_a_row_does_not_plan_is_not_missing(toy):
    runs = tuple(run for run in toy.runs if run.row != "RNA (UDA)" or run.test == "night")
    fewer = replace(toy, runs=runs)
    assert cells(render(rows(fewer), fewer))["RNA (UDA)"] == ["60.0 ± 10.0", "n/a", "n/a", "n/a"]
    assert "MISSING" not in render(rows(fewer), fewer)


def test_supervised_target_stands_under_every_shift_into_its_domain():
    shifts = (("D1", "D3"), ("D2", "D3"))
    runs = [config("source-only", (s,), t, 0) for s, t in shifts] + [config("supervised-target", ("D3",), "D3", 0)]
    three = Experiment("three", "", tuple(runs))
    table = cells(render([result(run, 0.5) for run in runs], three))
    assert table["supervised-target †"] == ["50.0", "50.0", "50.0", "+0.0"]


def test_several_sources_are_one_column():
    runs = (config("source-only", ("D1", "D2"), "D3", 0),)
    assert cells(render([result(runs[0], 0.25)], Experiment("dg", "", runs)))[""] == ["method", "D1+D2→D3"]


def test_two_runs_for_one_cell_are_refused(toy):
    twice = replace(toy, runs=(*toy.runs, config("source-only", ("day",), "night", 0, steps=7)))
    with pytest.raises(ConfigError, match=r"two runs for row 'source-only', day→night, seed 0"):
        render([], twice)


def test_published_numbers_stand_beside_ours_with_the_fidelity():
    toy = experiment(published={"RNA (UDA)": {"day→night": 57.33, "night→day": 52.84}})
    table = cells(render(rows(toy), toy))
    assert table[""][1] == "fidelity"
    assert table["RNA (UDA)"][:4] == ["adapter", "60.0 ± 10.0 (57.33)", "20.0 ± 10.0 (52.84)", "40.0 ± 10.0"]
    assert table["source-only"][1] == "50.0 ± 10.0"
    assert "(57.33)" not in render([replace(r, metric="mean_class") for r in rows(toy)], toy, "mean_class")
    assert max(map(len, render(rows(toy), toy).splitlines())) <= 145


def test_rows_that_no_run_makes_are_quoted_where_the_paper_has_them():
    """Before the row that follows them, in every format; never compared, never the best, absent in other metrics."""
    numbers = {
        "source-only": {"mean": 40.0},
        "source-only of TA3N": {"day→night": Printed("41.20")},
        "RNA (UDA)": {"day→night": 57.0},
        "SCAN": {"day→night": 99.0, "mean": 98.0},
    }
    toy = experiment(published=numbers)
    toy = replace(toy, quoted=("source-only of TA3N", "SCAN"))
    text = render(rows(toy), toy)
    table = cells(text)
    assert list(table)[1:] == ["source-only", "source-only of TA3N", "RNA (UDA)", "supervised-target †", "SCAN"]
    assert table["source-only of TA3N"] == ["quoted", "(41.20)", "n/a", "n/a", ""]
    assert table["SCAN"] == ["quoted", "(99.0)", "n/a", "(98.0)", ""]
    assert re.search(r"Quoted .*: source-only of TA3N, SCAN\.", " ".join(text.split()))
    made = build(rows(toy), toy)
    assert [line.method for line in made.lines] == ["source-only", "RNA (UDA)", "supervised-target"]
    assert made.best.method == "RNA (UDA)"
    assert "SCAN,day→night,,,0,,,99.0,quoted" in render(rows(toy), toy, format="csv")
    assert "SCAN & quoted & (99.0)" in render(rows(toy), toy, format="latex")
    per_class = [replace(row, metric="mean_class") for row in rows(toy)]
    assert "SCAN" not in render(per_class, toy, "mean_class")
    assert "TA3N" not in render(rows(toy), toy.changed(only=["source-only"]))


def test_a_quoted_row_is_there_once_and_only_in_a_table_of_all_rows():
    toy = experiment(published={row: {"mean": 40.0} for row in ("source-only", "SCAN", "RNA (UDA)")})
    toy = replace(toy, quoted=("SCAN",))
    twins = [replace(run, select="oracle") for run in toy.runs if run.row == "RNA (UDA)"]
    text = render(rows(toy), replace(toy, runs=(*toy.runs, *twins)))
    assert text.count("| SCAN") == 1
    assert "RNA (UDA) (oracle)" in text
    assert "SCAN" not in render(rows(toy), toy.changed(only=["source-only", "RNA (UDA)"]))


def test_no_quoted_row_is_before_the_row_that_others_are_compared_with():
    numbers = {row: {"mean": 40.0} for row in ("SCAN", "source-only", "VSRN", "RNA (UDA)")}
    toy = replace(experiment(published=numbers), quoted=("SCAN", "VSRN"))
    assert list(cells(render(rows(toy), toy)))[1:4] == ["source-only", "SCAN", "VSRN"]


def test_a_quoted_row_whose_only_number_is_a_mean_is_left_out_of_a_table_of_one_shift():
    toy = replace(experiment(published={"SCAN": {"mean": 98.0}}), quoted=("SCAN",))
    assert "SCAN" in render(rows(toy), toy)
    one = replace(toy, runs=tuple(run for run in toy.runs if run.test == "night"))
    assert "SCAN" not in render(rows(one), one)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, True),
        ({"only": ["source-only", "RNA (UDA)"], "seeds": "0"}, True),
        ({"settings": ["select=oracle"]}, True),
        ({"only": ["RNA (UDA)", "supervised-target"]}, False),
        ({"settings": ["net.dim=8"], "only": ["RNA (UDA)", "supervised-target"]}, False),
    ],
)
def test_a_published_gain_is_shown_only_over_the_first_row_of_the_whole_experiment(changes, shown):
    toy = experiment(published={"RNA (UDA)": {"gain": 4.5}, "supervised-target": {"gain": Printed("+51.0")}})
    some = toy.changed(**changes).changed()
    gains = [line.gain.published for line in build([], some).lines]
    assert gains == ([None, 4.5, 51.0] if shown else [None] * 3)[: len(gains)]
    assert ("(+51.0)" in render([], some)) == (shown and "supervised-target" in some.rows)


def test_a_printed_mean_is_kept_when_it_is_given():
    toy = experiment(published={"source-only": {"mean": 46.21}})
    assert cells(render(rows(toy), toy))["source-only"][-2] == "35.0 ± 5.0 (46.21)"


@pytest.mark.parametrize("column", ["day→night", "mean"])
def test_a_published_number_never_stands_without_fidelity_and_its_note(column):
    toy = experiment(published={"source-only": {column: 46.21}})
    text = render(rows(toy), toy)
    assert cells(text)["source-only"][0] == "adapter"
    assert "In parentheses: published numbers" in " ".join(text.split())


def test_published_numbers_of_other_metrics_stand_in_their_own_tables():
    toy = experiment(published={"source-only": {"day→night": {"top1": 46.2, "mean_class": 31.5, "cv_s": 0.126}}})
    assert cells(render(rows(toy), toy))["source-only"][1] == "50.0 ± 10.0 (46.2)"
    per_class = [replace(row, metric="mean_class") for row in rows(toy)]
    assert cells(render(per_class, toy, "mean_class"))["source-only"][1] == "50.0 ± 10.0 (31.5)"
    top5 = [replace(row, metric="top5") for row in rows(toy)]
    assert cells(render(top5, toy, "top5"))["source-only"][0] == "50.0 ± 10.0"


def test_published_norms_stand_beside_ours():
    (shift, *_), less = experiment().columns.values(), {"source-only": {"day→night": {"cv_s": 0.126}}}
    toy = experiment(published=less)
    one = replace(toy, runs=tuple(run for run in toy.runs if toy.columns[run.id] == shift))
    text = norms_table([*rows(one), *norm_rows(one)], one)
    assert cells(text)["source-only"][0] == "0.500 ± 0.000 (0.126)"
    assert "In parentheses: published numbers" in " ".join(text.split())
    assert "parentheses" not in norms_table([*rows(toy), *norm_rows(toy)], experiment())


def test_fidelity_is_said_per_row_where_it_differs(toy):
    runs = tuple(replace(run, fidelity="exact") if run.row == "source-only" else run for run in toy.runs)
    mixed = replace(toy, runs=runs)
    text = " ".join(render(rows(mixed), mixed).split())
    assert re.search(r"Fidelity: adapter \([^)]*\); exact \([^)]*\): source-only\.", text)


def test_a_method_that_stands_for_another_says_so(toy, monkeypatch):
    monkeypatch.setattr(rna.METHOD, "surrogate", "norms for maps")
    text = render(rows(toy), toy)
    assert cells(text)["RNA (UDA)"][0] == "surrogate"
    assert cells(text)["source-only"][0] == "adapter"
    assert "Surrogates: RNA (UDA): norms for maps." in " ".join(text.split())
    assert "Surrogates:" not in render([row for row in rows(toy) if row.row == "source-only"], toy)
    with pytest.raises(ConfigError, match="fidelity='exact', but method 'rna' is a surrogate: norms for maps"):
        config("RNA (UDA)", ("day",), "night", 0, fidelity="exact")


@pytest.mark.parametrize("format", ["markdown", "csv", "latex"])
def test_untrained_weights_are_loud_in_every_format(toy, format):
    text = render([replace(row, untrained=("rgb",)) for row in rows(toy)], toy, format=format)
    assert "UNTRAINED WEIGHTS in rgb" in " ".join(text.split())


def test_features_that_give_the_label_away_are_loud(toy):
    leak = "rgb (store hog): number 3 of 8 (from 0) is a function of the label in all 36 clips that have one"
    text = " ".join(render([replace(row, leaks=(leak,)) for row in rows(toy)], toy).split())
    assert f"LABELS IN FEATURES, or one-hot columns: {leak}." in text
    assert "LABELS IN FEATURES" not in render(rows(toy), toy)


def test_features_of_several_recipes_are_not_compared_in_silence(toy):
    changed = [replace(row, recipes={"rgb": "c" * 64}) if row.seed == 0 else row for row in rows(toy)]
    assert "DIFFERENT FEATURES: feed rgb was made by 2 recipes (aaaaaaaa, cccccccc)" in render(changed, toy)


def test_shifts_may_have_features_of_their_own(toy):
    """As CoDT's, whose data sets differ in joints; then a row may still not read another store than those beside it."""

    def moved(row):
        feeds = row.config["feeds"]
        return replace(
            row, recipes={"rgb": "c" * 64}, config={**row.config, "feeds": {**feeds, "rgb": {"store": "own"}}}
        )

    assert "DIFFERENT FEATURES" not in render([moved(row) if row.test == "day" else row for row in rows(toy)], toy)
    assert "DIFFERENT FEATURES" in render([moved(row) if row.row == "RNA (UDA)" else row for row in rows(toy)], toy)


def test_features_of_one_recipe_but_different_bytes_are_not_compared_in_silence(toy):
    read = {"store rgb": "1" * 64, "store audio": "2" * 64, "manifest": "3" * 64}
    other = {"source-only": "4" * 64}
    same = [replace(row, read=read) for row in rows(toy)]
    assert "DIFFERENT CONTENT" not in render(same, toy)
    for name, what in (("store rgb", "store toy/hog"), ("manifest", "manifest toy")):
        mixed = [replace(row, read=read | {name: other.get(row.row, read[name])}) for row in same]
        text = one_line(mixed, toy)
        assert f"DIFFERENT CONTENT: {what} was read in 2 states ({read[name][:8]}, 44444444)" in text
        assert text.count("DIFFERENT CONTENT") == 1


def test_a_row_on_another_store_is_no_other_content_of_the_same_store(toy):
    feeds = {"rgb": Feed("hof"), "audio": Feed("logmel")}
    two = replace(toy, runs=tuple(replace(r, feeds=feeds) if r.row == "RNA (UDA)" else r for r in toy.runs))
    shas = {"RNA (UDA)": "4" * 64}
    read = [replace(row, read={"store rgb": shas.get(row.row, "1" * 64)}) for row in rows(two)]
    assert "DIFFERENT CONTENT" not in render(read, two)


def test_the_number_of_test_clips_is_said(toy):
    some = [replace(row, n=40) if row.test == "day" else row for row in rows(toy)]
    assert "Test clips: day→night 50, night→day 40." in one_line(some, toy)
    assert "DIFFERENT TEST CLIPS" not in one_line(some, toy)


def test_a_column_over_different_test_clips_is_loud(toy):
    some = [replace(row, n=47) if row.row == "RNA (UDA)" and row.test == "night" else row for row in rows(toy)]
    text = one_line(some, toy)
    assert "**DIFFERENT TEST CLIPS in day→night: source-only 50, RNA (UDA) 47, supervised-target 50;" in text
    assert "DIFFERENT TEST CLIPS in night→day" not in text
    assert "Test clips:" not in text


def test_vanished_features_are_named_by_row_shift_seeds_and_modality(toy):
    dead = [run.id for run in toy.runs if run.row == "RNA (UDA)" and run.test == "night" and run.seed > 0]
    some = [replace(row, collapsed=("audio",)) if row.run in dead else row for row in rows(toy)]
    text = one_line(some, toy)
    assert "**COLLAPSED FEATURES: RNA (UDA) day→night (seeds 1, 2): audio." in text
    assert text.count("COLLAPSED") == 1
    assert "COLLAPSED" not in one_line(rows(toy), toy)


def test_classes_that_limit_the_numbers_are_named_once_per_shift(toy):
    """Not in the rows that train on the target itself, which have no shift."""
    limits = ("ONE CLASS: all have 'cut'", "UNSEEN CLASSES: 3 of 9 test clips have no equal")
    made = [replace(row, limits=limits if row.source == ("day",) else limits[:1]) for row in rows(toy)]
    text = one_line(made, toy)
    assert text.count("ONE CLASS in day→night, night→day: all have 'cut'.") == 1
    assert text.count("UNSEEN CLASSES in day→night: 3 of 9 test clips have no equal.") == 1


def test_clips_without_features_are_named_whatever_a_row_was_trained_on(toy):
    """Also in the row that trains on the target, and in the table of norms."""
    limit = f"{NO_FEATURES}: 2 of 19 test clips have no features, so they are not scored: a, b"
    made = [replace(row, limits=(limit,) if row.row.startswith("super") else ()) for row in rows(toy)]
    assert one_line(made, toy).count(f"{NO_FEATURES} in day→night, night→day: 2 of 19 test clips") == 1
    assert "2 of 19 test clips" in render(made, toy, format="csv")
    norms = [replace(row, limits=(limit,)) for row in norm_rows(toy)]
    assert norms_table(norms, toy).count("2 of 19") == 1


def test_collapsed_runs_are_named_under_the_table_of_norms_too(toy):
    dead = [
        replace(row, collapsed=("rgb",)) if row.row == "RNA (UDA)" and row.seed == 1 else row for row in norm_rows(toy)
    ]
    (line,) = [line for line in norms_table(dead, toy).splitlines() if "COLLAPSED FEATURES" in line]
    assert line.startswith("- **")
    assert "RNA (UDA) day→night (seed 1): rgb" in line
    assert "COLLAPSED" not in norms_table(norm_rows(toy), toy)


def test_settings_that_were_changed_are_named(toy):
    """With their old and new values, in every format, and with the rows where these differ."""
    changed = toy.changed(("steps=3", "batch=(4,4)"))
    assert "CHANGED SETTINGS: steps: 2 -> 3; batch: 64,64 -> 4,4" in one_line(rows(changed), changed)
    for format in ("csv", "latex"):
        assert "steps: 2 -" in render(rows(changed), changed, format=format)
    of_rna = toy.changed(("method.lambda_g=0.5", "method.lambda_c=0.1"), only=("RNA (UDA)",))
    assert "method.lambda_g: 1.0 -> 0.5; method.lambda_c: 0.1 (--set)" in one_line(rows(of_rna), of_rna)
    assert "method.lambda_g: 1.0 -> 0.5" in norms_table(norm_rows(of_rna), of_rna)
    both = toy.changed(("method=rna",), only=("source-only", "RNA (UDA)"))
    assert "method: source_only -> rna (source-only, method=rna), rna (RNA (UDA)) (--set)" in one_line([], both)
    swept = experiments.swept(toy.changed(("steps=3",)), {"method.lambda_g": ("0.1", "1")})
    assert "CHANGED SETTINGS: steps: 2 -> 3 (--set)" in one_line([], swept)
    assert "CHANGED" not in one_line(rows(toy), toy)


def test_runs_whose_batches_came_in_another_order_are_told(toy):
    """Those of the tier `streaming`: by row, with their number where the row has others as well."""
    tiers = {"source-only": "streaming", "RNA (UDA)": "mapped", "supervised-target": "resident"}
    some = [replace(row, tier=tiers[row.row]) for row in rows(toy)]
    mixed = [replace(row, tier="streaming") if row.row == "RNA (UDA)" and row.seed == 0 else row for row in some]
    assert "Streamed: source-only. " in one_line(some, toy)
    assert "Streamed: source-only, RNA (UDA) (2 of 6 runs). Features" in one_line(mixed, toy)
    assert "Streamed" not in one_line([replace(row, tier="mapped") for row in some], toy)
    assert "Streamed" not in one_line(rows(toy), toy)  # lines from before the tier was told


def test_labels_of_the_test_domain_are_seen_through_init_from():
    """A stage that learned from night's labels makes a row tested on night a reference, however many stages between."""
    stage = config("", ("night",), "night", 0)
    between = config("", ("day",), "night", 0, init_from=stage.id)
    leaky = config("RNA (UDA)", ("day",), "night", 0, target="night", init_from=between.id)
    clean = config("source-only", ("day",), "night", 0)
    both = Experiment("leak", "", (stage, between, clean, leaky))
    table = build([result(clean, 0.4), result(leaky, 0.9)], both)
    assert {line.method: line.label_free for line in table.lines} == {"source-only": True, "RNA (UDA)": False}
    assert "† trained on labels of the test domain" in one_line([], both)


def test_a_start_outside_the_experiment_is_said():
    run = config("RNA (UDA)", ("day",), "night", 0, target="night", init_from="elsewhere_0")
    text = one_line([], Experiment("toy", "", (run,)))
    assert "**UNKNOWN START: RNA (UDA) starts from elsewhere_0" in text


def test_adapting_to_the_test_clips_is_said(toy):
    assert "Transductive" not in one_line([], toy)
    transductive = replace(toy, runs=tuple(replace(run, train_split="test") if run.target else run for run in toy.runs))
    assert "Transductive: RNA (UDA) adapted to the test clips" in one_line([], transductive)


def test_several_tasks_are_headed_by_all_of_them_right(toy):
    some = [replace(r, metric=m, value=v) for r in rows(toy) for m, v in (("top1/verb", 0.9), ("top1/action", 0.25))]
    text = render(some, replace(toy, published={"RNA (UDA)": {"mean": 30.0}}))
    assert cells(text)["RNA (UDA)"][-2] == "25.0 ± 0.0 (30.0)"
    assert "Top-1 accuracy on all labels of a clip at once in per cent" in " ".join(text.split())


def test_only_true_strays_are_counted_when_rows_are_chosen(toy):
    some = rows(toy)
    for part in (toy.changed(only=("source-only",)), toy.changed(seeds="0"), toy.changed(("steps=7",))):
        assert "Left out" not in render(some, part)
        assert re.search(r"Left out: .* \(1\)\.", render([*some, replace(some[0], run="older")], part))


def test_runs_that_the_experiment_no_longer_describes_are_mentioned(toy):
    old = replace(result(toy.runs[0], 0.99), run="older")
    text = render([*rows(toy), old], toy)
    assert re.search(r"Left out: .* \(1\)\.", text)
    assert cells(text) == cells(render(rows(toy), toy))


def test_an_unknown_metric_lists_the_known_ones(toy):
    with pytest.raises(ConfigError, match=r"'top7'.*'toy'.*top1"):
        render(rows(toy), toy, "top7")


def test_an_unknown_format_lists_the_known_ones(toy):
    with pytest.raises(ConfigError, match="markdown, csv, latex"):
        render(rows(toy), toy, format="docx")


def test_csv_reads_back(toy):
    strange = replace(toy, runs=tuple(replace(run, row=run.row.replace("RNA", 'RNA, "x"')) for run in toy.runs))
    lines = list(csv.DictReader(io.StringIO(render(rows(toy), strange, format="csv"))))
    by_cell = {(line["method"], line["column"]): line for line in lines}
    line = by_cell['RNA, "x" (UDA)', "mean"]
    assert (line["mean"], line["std"], line["n_seeds"], line["seeds"]) == ("40.0", "10.0", "3", "0 1 2")
    assert by_cell['RNA, "x" (UDA)', "vs source-only"]["mean"] == "5.0"
    assert len(lines) == 3 * 3 + 2


def test_csv_names_missing_seeds(toy):
    text = render(rows(toy)[1:], toy, format="csv")
    first = next(csv.DictReader(io.StringIO(text)))
    assert (first["n_seeds"], first["missing_seeds"]) == ("2", "0")


def test_latex_escapes_what_tex_would_read_as_commands(toy):
    strange = replace(toy, runs=tuple(replace(run, row=run.row.replace("RNA", r"R_1 & 50% \x{#}")) for run in toy.runs))
    text = render(rows(toy), strange, format="latex")
    assert r"R\_1 \& 50\% \textbackslash{}x\{\#\} (UDA) & \textbf{60.0 $\pm$ 10.0} &" in text
    assert r"day$\rightarrow$night" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {5}


def test_markdown_escapes_the_column_separator(toy):
    strange = replace(toy, runs=tuple(replace(run, row=run.row.replace("RNA", "a|b")) for run in toy.runs))
    assert r"a\|b (UDA)" in render(rows(toy), strange)


def test_norms_and_their_change(toy):
    text = norms_table([*rows(toy), *norm_rows(toy)], toy)
    assert cells(text)["source-only"] == ["0.500 ± 0.000", "", "0.500 ± 0.000", "", "0.500 ± 0.000", ""]
    assert cells(text)["RNA (UDA)"] == ["0.200 ± 0.000", "-60 %"] * 3
    assert "supervised-target" not in text  # it has no two sides


def test_a_source_without_norms_is_named_with_the_reason(toy):
    """Its runs have norms of the target only."""
    assert "No CV source" not in norms_table(norm_rows(toy), toy)
    one_sided = ("norm/source", "cv_s", "cv_st")
    some = [row for row in norm_rows(toy) if row.source != ("day",) or not row.metric.startswith(one_sided)]
    (note,) = [line for line in norms_table(some, toy).splitlines() if "No CV source" in line]
    assert "day→night" in note
    assert "no test clip of the source day" in note
    assert "night→day" not in note


def test_norms_of_several_tasks_have_columns_of_their_own(toy):
    more = [replace(row, metric=f"{row.metric}/verb") for row in norm_rows(toy)]
    assert cells(norms_table(more, toy))[""][1::2] == ["CV source verb", "CV target verb", "CV both verb"]


def test_a_stage_that_no_row_shows_only_lends_its_source():
    stage = config("", ("day",), "night", 0)
    adapted = config("RNA (UDA)", ("day",), "night", 0, init_from=stage.id)
    object.__setattr__(adapted, "source", ())  # as a source-free method has it; RNA itself would refuse
    both = Experiment("free", "", (stage, adapted))
    assert cells(render([result(adapted, 0.5)], both))[""] == ["method", "day→night"]


def test_results_on_other_stores_are_named(toy):
    """As where another extractor has filled a store since: --feeds brings the earlier table back."""
    other = replace(config("RNA (UDA)", ("day",), "night", 0, target="night"), feeds={"rgb": Feed("i3d")})
    assert "Some read other stores: i3d." in one_line([*rows(toy), result(other, 0.5)], toy)
    assert "other stores" not in one_line(rows(toy), toy)
