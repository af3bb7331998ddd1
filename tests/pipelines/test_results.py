"""The JSONL file of result rows: round trip, later lines win, torn lines are told."""

import dataclasses
import json
import warnings

import pytest

from featcache.errors import ConfigError
from pipelines.evaluation.results import Result, append, read

ONE = Result(
    run="rna_day_on-night_s0_1",
    experiment="toy",
    row="RNA (DG)",
    source=("day", "dusk"),
    target=None,
    test="night",
    seed=0,
    metric="top1",
    value=1 / 3,
    n=39,
    select="last",
    fidelity="adapter",
    untrained=("rgb",),
    recipes={"rgb": "ab"},
    read={"store rgb": "cd"},
    config={"method": {"name": "rna"}},
    version="0.1.0",
)


ONE_LINE = json.dumps(dataclasses.asdict(ONE))


def but(**changes):
    return dataclasses.replace(ONE, **changes)


def test_round_trip_in_order(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    append(path, [ONE, but(metric="top5")])
    append(path, [but(run="other")])
    assert read(path) == [ONE, but(metric="top5"), but(run="other")]
    assert len(path.read_text().splitlines()) == 3


def test_leaks_are_in_a_line_only_if_there_are_some(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE, but(metric="top5", leaks=("rgb (store hog): ...",))])
    assert ["leaks" in json.loads(line) for line in path.read_text().splitlines()] == [False, True]
    assert read(path)[1].leaks == ("rgb (store hog): ...",)


def test_the_later_line_of_a_run_and_metric_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE, but(metric="top5"), but(value=0.5)])
    assert read(path) == [but(value=0.5), but(metric="top5")]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_told_and_the_next_append_is_whole(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    append(path, [ONE, but(metric="top5")])
    path.write_bytes(path.read_bytes()[:-cut])
    if cut == 1:  # only the line's end is gone: nothing is lost
        assert read(path) == [ONE, but(metric="top5")]
    else:
        with pytest.warns(UserWarning, match="results.jsonl line 2 .*left out.*evaluate again"):
            assert read(path) == [ONE]
    append(path, [but(metric="mean_class")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(path)[-1] == but(metric="mean_class")


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "3",
        "[]",
        "{}",
        ONE_LINE.replace("0.3333333333333333", '"abc"'),
        ONE_LINE.replace('"seed": 0', '"seed": null'),
        ONE_LINE.replace("0.3333333333333333", "NaN"),
        ONE_LINE.replace('["rgb"]', "3"),
    ],
)
def test_a_line_that_is_no_result_is_told(tmp_path, line):
    assert line != ONE_LINE
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    path.write_text(path.read_text() + line + "\n")
    with pytest.warns(UserWarning, match="line 2 .*left out.*evaluate again"):
        assert read(path) == [ONE]


def test_lines_from_before_collapse_was_told_are_read(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    path.write_text(path.read_text().replace(', "collapsed": []', ""))
    assert read(path) == [ONE]


def test_fields_of_a_newer_version_are_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 0, "mood": "good"'))
    assert read(path) == [ONE]


def test_no_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no results at .*none.jsonl.*`featcache evaluate`"):
        read(tmp_path / "none.jsonl")
