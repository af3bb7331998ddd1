"""Choosing hyper-parameters by validators: which candidate each takes, what it costs, and what is no candidate."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from featcache.errors import ConfigError
from heads.methods import rna
from pipelines.choosing import choices, groups, spearman, table
from pipelines.cli import main
from pipelines.results import append
from tests._result_rows import config, result
from tests._stores import write_all

ADAPTED = config("RNA (UDA)", ("day",), "night", 0, target="night")
#: lambda_g -> accuracy, snd (it ranks as the accuracy does), entropy (lower is better: it ranks the other way round)
SWEPT = {0.1: (0.5, 1.0, 0.2), 0.3: (0.7, 1.2, 0.5), 1.0: (0.6, 1.1, 0.4)}


def swept(seed=0, **changes):
    rows = []
    for g, values in SWEPT.items():
        run = replace(ADAPTED, method=rna.Params(lambda_g=g), seed=seed, **changes)
        metrics = ("top1", "validator/snd", "validator/entropy")
        rows += [result(run, value, metric) for metric, value in zip(metrics, values, strict=True)]
    return rows


def chosen(rows):
    (candidates,) = groups(rows, "toy", "top1").values()
    return {choice.rule: choice for choice in choices(candidates)}


def test_what_each_rule_takes_and_what_it_costs():
    found = chosen(swept())
    assert list(found) == ["entropy", "snd", "oracle"]
    assert [found[rule].name for rule in found] == [f"method.lambda_g={g}" for g in (0.1, 0.3, 0.3)]
    assert [found[rule].accuracy for rule in found] == [0.5, 0.7, 0.7]
    assert [found[rule].cost for rule in found] == pytest.approx([0.2, 0, 0])
    assert [found[rule].correlation for rule in found] == pytest.approx([-1, 1, 1])


def test_seeds_are_averaged_where_all_candidates_have_them():
    other = [replace(row, value=row.value + 0.2) if row.metric == "top1" else row for row in swept(seed=1)]
    assert chosen([*swept(), *other])["snd"].accuracy == pytest.approx(0.8)
    assert chosen([*swept(), *other[3:]])["snd"].accuracy == 0.7  # the first candidate lacks seed 1
    assert groups([*swept()[:3], *other[3:6]], "toy", "top1") == {}


def test_rows_shifts_and_experiments_are_kept_apart_and_an_oracle_is_no_candidate():
    elsewhere = [replace(row, experiment="another") for row in swept(seed=1)]
    perfect = result(replace(ADAPTED, select="oracle"), 1.0)
    other = config("source-only", ("day",), "night", 0)
    rows = [*swept(), *elsewhere, perfect, result(other, 0.9)]
    assert groups(rows, "toy", "top1") == groups(swept(), "toy", "top1")
    back = [replace(row, source=("night",), test="day") for row in swept(steps=3)]
    assert list(groups([*swept(), *back], "toy", "top1")) == [
        ("RNA (UDA)", "day→night"), ("RNA (UDA)", "night→day")
    ]  # fmt: skip


def test_runs_that_differ_in_their_start_only_are_refused():
    rows = [result(replace(ADAPTED, init_from=first), 0.5) for first in ("one", "two")]
    with pytest.raises(ConfigError, match="differ in the run they start from only"):
        groups(rows, "toy", "top1")


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
    assert "no row of 'toy' has two candidates with 'top1' on the same seeds; train and evaluate it" in alone.output
    append(path, swept())
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 0, told.output
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in told.output.splitlines()]
    assert lines[0] == ["row", "shift", "rule", "chosen", "top1", "lost", "rank correlation"]
    assert lines[2] == ["RNA (UDA)", "day→night", "entropy", "method.lambda_g=0.1", "50.0", "20.0", "-1.00"]
    assert lines[-1] == ["RNA (UDA)", "day→night", "oracle", "method.lambda_g=0.3", "70.0", "0.0", ""]
    assert told.output.strip() == table(swept(), "toy").strip()
