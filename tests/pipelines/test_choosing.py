"""Choosing hyper-parameters by validators: which candidate each takes, what it costs, and what is no candidate."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from featcache.errors import ConfigError
from heads.methods import rna, shot
from pipelines.cli import main
from pipelines.config import Optim, Preparation
from pipelines.evaluation.results import append
from pipelines.experiments import Experiment
from pipelines.tables import choosing
from pipelines.tables.choosing import choices, evaluated, groups, spearman
from tests.helpers.result_rows import config, result
from tests.helpers.stores import write_all

ADAPTED = config("RNA (UDA)", ("day",), "night", 0, target="night")
#: lambda_g -> accuracy, snd (it ranks as the accuracy does), entropy (lower is better: it ranks the other way round)
SWEPT = {0.1: (0.5, 1.0, 0.2), 0.3: (0.7, 1.2, 0.5), 1.0: (0.6, 1.1, 0.4)}


def toy(rows, runs=Path("nowhere")):
    return evaluated(Experiment("toy", "", ()), rows, runs)


def table(rows, experiment):
    return choosing.table(rows, experiment).text()


def swept(seed=0, base=ADAPTED, **changes):
    rows = []
    for g, values in SWEPT.items():
        run = replace(base, method=rna.Params(lambda_g=g), seed=seed, **changes)
        metrics = ("top1", "validator/snd", "validator/entropy")
        rows += [result(run, value, metric) for metric, value in zip(metrics, values, strict=True)]
    return rows


def chosen(rows):
    (candidates,) = groups(rows, toy(rows), "top1").values()
    return {choice.rule: choice for choice in choices(candidates)}


def test_what_each_rule_takes_and_what_it_costs():
    choice = chosen(swept())
    assert list(choice) == ["entropy", "snd", "oracle"]
    assert [choice[rule].name for rule in choice] == [f"method.lambda_g={g}" for g in (0.1, 0.3, 0.3)]
    assert [choice[rule].accuracy for rule in choice] == [0.5, 0.7, 0.7]
    assert [choice[rule].cost for rule in choice] == pytest.approx([0.2, 0, 0])
    assert [choice[rule].correlation for rule in choice] == pytest.approx([-1, 1, 1])


def test_candidates_are_compared_by_the_metric_of_the_experiment():
    rows = [
        *swept(),
        *(replace(row, metric="mean_class", value=row.value / 2) for row in swept() if row.metric == "top1"),
    ]
    assert "| top1 |" in table(rows, toy(rows))
    assert "| mean_class |" in table(rows, replace(toy(rows), metric="mean_class"))


def test_the_order_of_evaluation_makes_no_difference():
    """Of equal candidates a rule takes the last one of the experiment."""
    of = toy([*swept(), *swept(base=config("RNA (UDA)", ("night",), "day", 0, target="day"))])
    rows = [result(run, 0.5, metric) for run in of.runs for metric in ("top1", "validator/snd")]
    assert table(rows[::-1], of) == table(rows, of)
    assert re.search(r"day→night \| +oracle \| +method.lambda_g=1.0 \|", table(rows, of))


def test_candidates_of_different_recipes_are_noted():
    rows = swept()
    assert "DIFFERENT FEATURES" not in table(rows, toy(rows))
    rows[0] = replace(rows[0], recipes={"rgb": "c" * 64, "audio": "b" * 64})
    assert "DIFFERENT FEATURES: feed rgb" in table(rows, toy(rows))


def test_seeds_are_averaged_where_all_candidates_have_them():
    other = [replace(row, value=row.value + 0.2) if row.metric == "top1" else row for row in swept(seed=1)]
    assert chosen([*swept(), *other])["snd"].accuracy == pytest.approx(0.8)
    assert chosen([*swept(), *other[3:]])["snd"].accuracy == 0.7  # the first candidate lacks seed 1
    apart = [*swept()[:3], *other[3:6]]
    assert groups(apart, toy(apart), "top1") == {}


def test_rows_shifts_and_experiments_are_kept_apart_and_an_oracle_is_no_candidate():
    elsewhere = [replace(row, experiment="another") for row in swept(seed=1)]
    perfect = result(replace(ADAPTED, select="oracle"), 1.0)
    other = config("source-only", ("day",), "night", 0)
    rows = [*swept(), *elsewhere, perfect, result(other, 0.9)]
    assert groups(rows, toy(rows), "top1") == groups(swept(), toy(swept()), "top1")
    both = [*swept(), *swept(base=config("RNA (UDA)", ("night",), "day", 0, target="day"))]
    assert list(groups(both, toy(both), "top1")) == [("RNA (UDA)", "day→night"), ("RNA (UDA)", "night→day")]


def test_a_candidate_with_the_default_preparation_is_named_by_it():
    """Although its configuration does not write the default."""
    runs = [replace(ADAPTED, preparation=Preparation(units=units)) for units in ("none", "domain")]
    rows = [result(run, value) for run, value in zip(runs, (0.5, 0.6), strict=True)]
    (candidates,) = groups(rows, toy(rows), "top1").values()
    assert {candidate.name for candidate in candidates} == {f"preparation.units={u}" for u in ("none", "domain")}


def test_runs_that_differ_in_their_start_only_are_refused():
    rows = [result(replace(ADAPTED, init_from=first), 0.5) for first in ("one", "two")]
    with pytest.raises(ConfigError, match="init_from"):
        groups(rows, toy(rows), "top1")


@pytest.mark.parametrize("start_is_a_row", [True, False])
def test_source_free_runs_stand_under_the_source_they_start_from(start_is_a_row, tmp_path):
    """SHOT sees no source, so D1→D3 and D2→D3 differ in `init_from` alone. A start without a result is on disk."""
    rows = []
    for source in ("D1", "D2"):
        for lr in (0.1, 0.3):
            first = config("source-only" * start_is_a_row, (source,), "D3", 0, optim=Optim(lr=lr))
            if start_is_a_row:
                rows.append(result(first, 0.4))
            else:
                (tmp_path / first.id).mkdir()
                (tmp_path / first.id / "config.json").write_text(json.dumps(first.to_json()))
            adapted = replace(
                first, row="SHOT", method=shot.Params(), source=(), target="D3", epoch="target", init_from=first.id
            )
            rows.append(result(adapted, lr))
    by_row = groups(rows, toy(rows, tmp_path), "top1")
    of_shot = {
        shift: [(c.name, c.accuracy) for c in candidates]
        for (row, shift), candidates in by_row.items()
        if row == "SHOT"
    }
    assert of_shot == {shift: [("optim.lr=0.1", 0.1), ("optim.lr=0.3", 0.3)] for shift in ("D1→D3", "D2→D3")}


def test_a_model_whose_outputs_count_in_two_ways_is_one_candidate():
    """The way that all three candidates have is compared; the one that λ_g = 0.1 has too is no fourth candidate."""
    again = [replace(row, value=0.9) for row in swept(eval_every=1, keep=2, select="mean")[:3]]
    for rows in ([*swept(), *again], [*again, *swept()]):
        assert groups(rows, toy(rows), "top1") == groups(swept(), toy(swept()), "top1")
    alone = [*swept()[:3], *again]
    assert groups(alone, toy(alone), "top1") == {}


def test_rank_correlation():
    """Ranks 1, 2, 3, 4 against 2, 1, 4, 3: 1 - 6 Σ d² / (n (n² - 1)) = 1 - 24/60."""
    assert spearman([1.0, 2.0, 3.0, 4.0], [0.2, 0.1, 0.9, 0.5]) == pytest.approx(0.6)
    assert spearman([1.0, 1.0, 2.0], [5.0, 5.0, 9.0]) == pytest.approx(1)
    assert spearman([1.0, 1.0], [0.2, 0.1]) != spearman([1.0, 1.0], [0.2, 0.1])  # NaN


def test_the_command_prints_the_choices_and_says_what_is_missing(tmp_path):
    write_all(tmp_path / "stores")
    path = tmp_path / "runs" / "results.jsonl"
    words = ["choose", str(tmp_path / "stores" / "toy"), "--runs", str(tmp_path / "runs")]
    append(path, swept()[:3])
    alone = CliRunner().invoke(main, words)
    assert alone.exit_code == 1
    assert "no row of 'toy'" in alone.output
    assert "sweep toy --grid" in alone.output
    append(path, swept())
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in result.output.splitlines()]
    assert lines[0] == ["row", "shift", "rule", "chosen", "top1", "lost", "rank correlation"]
    assert lines[2] == ["RNA (UDA)", "day→night", "entropy", "method.lambda_g=0.1", "50.0", "20.0", "-1.00"]
    assert lines[-1] == ["RNA (UDA)", "day→night", "oracle", "method.lambda_g=0.3", "70.0", "0.0", ""]
    assert result.output.strip() == table(swept(), toy(swept())).strip()


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ("Night 2021 (labels)", "LABELS SEEN: rgb, by Night 2021 (night)"),
        ("not known", "rgb: not known"),
        ("nothing", ""),
    ],
)
def test_the_data_behind_features_is_noted(recorded, words):
    rows = [replace(row, trained_on={"rgb": recorded}) for row in swept()]
    made = replace(toy(rows), data={"day": ("Day 2020",), "night": ("Night 2021",)})
    text = " ".join(table(rows, made).split())
    assert words in text
    assert ("trained on" in text) == bool(words)


BACK = config("RNA (UDA)", ("night",), "day", 0, target="day")


def lines(text):
    """Rule -> chosen, accuracy, lost of the lines over all shifts."""
    grid = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {cells[2]: tuple(cells[3:6]) for cells in grid if cells[1:2] == ["all shifts"]}


def test_one_setting_for_all_shifts_has_the_best_mean_score():
    """Its mean accuracy, and what the setting with the best mean accuracy has more. Steps differ by shift."""
    there = swept()  # lambda_g 0.1, 0.3, 1: accuracy .5 .7 .6, snd 1.0 1.2 1.1, entropy .2 .5 .4
    back = swept(base=BACK, steps=7)
    scores = {"top1": (0.9, 0.4, 0.6), "validator/snd": (1.4, 1.1, 1.0), "validator/entropy": (0.3, 0.1, 0.2)}
    place = {name: iter(values) for name, values in scores.items()}
    back = [replace(row, value=next(place[row.metric])) for row in back]
    rows = [*there, *back]
    found = lines(table(rows, toy(rows)))
    assert found == {
        "entropy": ("method.lambda_g=0.1", "70.0", "0.0"),  # .25 .3 .3
        "snd": ("method.lambda_g=0.1", "70.0", "0.0"),  # 1.2 1.15 1.05
        "oracle": ("method.lambda_g=0.1", "70.0", "0.0"),  # .7 .55 .6
    }
    text = " ".join(table(rows, toy(rows)).split())
    assert "all shifts: one setting for all shifts" in text
    assert "oracle: chosen by the labels of the test rows" in text


def test_settings_that_a_shift_lacks_are_not_compared_over_all_shifts():
    more = [result(replace(ADAPTED, method=rna.Params(lambda_g=9.0)), 1.0, name) for name in ("top1", "validator/snd")]
    rows = [*swept(), *more, *swept(base=BACK)]
    assert set(lines(table(rows, toy(rows)))["snd"]) == {"method.lambda_g=0.3", "70.0", "0.0"}
    rows = [*swept()[:6], *swept(base=BACK)[3:]]  # 0.1 and 0.3, 0.3 and 1
    text = table(rows, toy(rows))
    assert lines(text) == {}
    assert "No line 'all shifts' of RNA (UDA): its 2 shifts do not share two" in text


def test_shifts_of_another_way_to_count_outputs_have_no_common_setting():
    rows = [*swept(), *swept(base=BACK, eval_every=1, keep=2, select="mean")]
    assert lines(table(rows, toy(rows))) == {}
    assert lines(table(swept(), toy(swept()))) == {}  # one shift
