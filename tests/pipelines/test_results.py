"""The JSONL file of result rows: round trip, later lines win, torn lines are told."""

import dataclasses
import fcntl
import json
import os
import re
import threading
import warnings

import google_crc32c
import pytest

from featcache.errors import ConfigError
from pipelines.evaluation.results import Result, append, damage, read

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


@pytest.mark.parametrize("some", [{"leaks": ("rgb (store hog): ...",)}, {"clips": "0a1b2c3d 1 1 1:eNoDAAAAAAE="}])
def test_leaks_and_outcomes_are_in_a_line_only_if_there_are_some(tmp_path, some):
    path = tmp_path / "results.jsonl"
    append(path, [ONE, but(metric="top5", **some)])
    assert [some.keys() <= json.loads(line).keys() for line in path.read_text().splitlines()] == [False, True]
    assert read(path) == [ONE, but(metric="top5", **some)]


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
        with pytest.warns(UserWarning, match=r"results.jsonl' \(line 2\).*`featcache evaluate`"):
            assert read(path) == [ONE]
    append(path, [but(metric="mean_class")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(path)[-1] == but(metric="mean_class")


@pytest.mark.parametrize("reader", [True, False], ids=["read", "append"])
def test_nobody_comes_between_the_halves_of_a_line(tmp_path, reader):
    """Another process, here another open file, has written half of its line when we read or append."""
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    line, other = f"{json.dumps(dataclasses.asdict(but(run='other')))}\n".encode(), but(run="third")
    seen = []
    with path.open("ab", buffering=0) as file, warnings.catch_warnings():
        warnings.simplefilter("error")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:100])
        thread = threading.Thread(target=lambda: seen.append(read(path) if reader else append(path, [other])))
        thread.start()
        thread.join(0.1)
        assert not seen
        file.write(line[100:])
        fcntl.flock(file, fcntl.LOCK_UN)
        thread.join(60)
        assert seen == [[ONE, but(run="other")] if reader else None]
        assert read(path) == [ONE, but(run="other")] + [other] * (not reader)


@pytest.mark.slow
def test_processes_that_append_and_read_at_once(tmp_path):
    """Four processes append lines of 20 KB, which no single write keeps whole, while another one reads."""
    path, long = tmp_path / "results.jsonl", "x" * 20_000
    append(path, [ONE])
    writers = []
    for k in range(4):
        if not (child := os.fork()):
            for n in range(50):
                append(path, [but(run=f"{k} {n} {long}"), but(run=f"{k} {n} again {long}")])
            os._exit(0)
        writers.append(child)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while writers:
            read(path)
            if os.waitpid(writers[0], os.WNOHANG)[0]:
                writers.pop(0)
        assert len(read(path)) == 1 + 4 * 50 * 2


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
    with pytest.warns(UserWarning, match=r"results.jsonl' \(line 2\).*`featcache evaluate`"):
        assert read(path) == [ONE]


def without_checksum(path):
    """Rewrite a file as an earlier version wrote it."""
    path.write_text(re.sub(', "crc32c": "[0-9a-f]{8}"}$', "}", path.read_text(), flags=re.MULTILINE))


def test_lines_from_before_collapse_was_told_are_read(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    without_checksum(path)
    assert "crc32c" not in path.read_text()
    path.write_text(path.read_text().replace(', "collapsed": []', ""))
    assert read(path) == [ONE]


def test_fields_of_a_newer_version_are_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    without_checksum(path)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 0, "mood": "good"'))
    assert read(path) == [ONE]


def test_the_last_key_is_the_checksum_of_the_line_without_it(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    line = json.loads(path.read_text())
    assert list(line)[-1] == "crc32c"
    without_checksum(path)
    assert line.pop("crc32c") == f"{google_crc32c.value(path.read_bytes().rstrip()):08x}"
    assert json.loads(path.read_text()) == line


def test_damaged_lines_are_counted_in_one_warning_until_they_are_measured_again(tmp_path):
    """Each flipped bit of the second line, and zeros over the first: never another number, and the others stay."""
    path, many = tmp_path / "results.jsonl", [ONE, but(metric="top5"), but(metric="mean_class", value=0.25)]
    append(path, many)
    whole = path.read_bytes()
    first, second, _ = (len(line) for line in whole.splitlines(keepends=True))
    for place in range(first, first + second - 1, 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            kept = read(path)
        assert set(map(repr, kept)) <= set(map(repr, many))
        assert {row.metric for row in kept} >= {"top1", "mean_class"}
    path.write_bytes(bytes(first - 1) + whole[first - 1 :].replace(b"0.25", b"0.75"))
    with pytest.warns(UserWarning, match="2 damaged") as caught:
        results = read(path)
    assert results == [but(metric="top5")]
    (warning,) = caught
    assert re.search(r"2 damaged lines.*'.*/results.jsonl' \(lines 1, 3\).*`featcache evaluate`", str(warning.message))
    assert damage(results) in str(warning.message)
    append(path, many)
    with pytest.warns(UserWarning, match=r"1 damaged line .*\(line 1\)"):  # nobody knows what it held
        assert read(path) == [but(metric="top5"), ONE, many[2]]
    path.write_bytes(path.read_bytes()[first:])
    assert undamaged(path) == [but(metric="top5"), ONE, many[2]]


def undamaged(path):
    """The results of a file without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = read(path)
    assert damage(results) == damage([ONE]) == ""
    return results


def test_only_a_later_line_of_its_run_and_metric_replaces_a_damaged_line(tmp_path):
    """Two experiments share the file; the newer line of one is damaged, so its older number must not be a result."""
    path, new = tmp_path / "results.jsonl", but(value=0.875)
    append(path, [but(value=0.25), new])
    path.write_bytes(path.read_bytes().replace(b"0.875", b"0.675"))
    for other in (but(run="another", experiment="other"), but(metric="top5")):
        append(path, [other])
        with pytest.warns(UserWarning, match=r"1 damaged line .*\(line 2\)"):
            assert "(line 2)" in damage(read(path))
    append(path, [new])
    assert undamaged(path)[0] == new


@pytest.mark.parametrize("line", [b"{}", b"[1]", b'{"run": "x"}', b'{"run": "' + ONE.run.encode() + b'"}', b"\0" * 400])
def test_a_line_that_names_no_number_is_named_until_it_is_removed(tmp_path, line):
    path = tmp_path / "results.jsonl"
    append(path, [ONE])
    path.write_bytes(line + b"\n" + path.read_bytes())
    for _ in range(2):
        append(path, [ONE])
        with pytest.warns(UserWarning, match=r"1 damaged line .*\(line 1\).*remove"):
            assert read(path) == [ONE]
    path.write_bytes(path.read_bytes()[len(line) + 1 :])
    assert undamaged(path) == [ONE]


CLIPS = f"0a1b2c3d 9 1 1:{'ab+/' * 500}"  #: as long as two lines without


@pytest.mark.parametrize("now", ["", CLIPS])
@pytest.mark.parametrize("before", ["", CLIPS])
@pytest.mark.parametrize("gap", [0, 30, 300])
def test_a_line_that_ran_into_the_next_one_is_named_although_one_of_them_is_measured_again(tmp_path, gap, before, now):
    """Damage to the end of a line, and to the start of the next one, hides the number of the next one, too."""
    path, one = tmp_path / "results.jsonl", but(clips=now)
    append(path, [but(clips=before), but(run="other", clips=before)])
    whole = path.read_bytes()
    end = whole.index(b"\n")
    path.write_bytes(whole[: end - gap] + bytes(2 * gap + 1) + whole[end + gap + 1 :])
    append(path, [one])
    with pytest.warns(UserWarning, match=r"1 damaged line .*\(line 1\)"):
        assert read(path) == [one]


@pytest.mark.parametrize("now", ["", CLIPS])
@pytest.mark.parametrize("before", ["", CLIPS])
def test_a_damaged_line_is_replaced_whichever_of_the_two_has_outcomes_of_clips(tmp_path, before, now):
    path, one = tmp_path / "results.jsonl", but(clips=now)
    append(path, [but(clips=before)])
    path.write_bytes(path.read_bytes().replace(b"0.333", b"0.334"))
    append(path, [one])
    assert undamaged(path) == [one]


def test_the_path_in_a_warning_has_no_control_characters(tmp_path):
    path = tmp_path / "a\x1b[31m\n" / "results.jsonl"
    append(path, [ONE])
    path.write_bytes(b"\0" * 40)
    with pytest.warns(UserWarning, match=r"1 damaged line .*a\\x1b\[31m\\n/results.jsonl' \(line 1\)"):
        assert read(path) == []


def test_no_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no results at .*none.jsonl.*`featcache evaluate`"):
        read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e308])
@pytest.mark.parametrize("of", ["value", "by_class"])
def test_a_number_that_no_table_can_average_is_refused_where_it_is_made_and_where_it_is_read(tmp_path, of, number):
    wrong = {"value": number} if of == "value" else {"by_class": {"cut": (1.0, number, 2.0)}}
    with pytest.raises(ConfigError, match=re.escape(f"top1 of run {ONE.run} is {number}")):
        but(**wrong)
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(dataclasses.asdict(ONE) | wrong) + "\n" + json.dumps(dataclasses.asdict(but(run="b"))))
    with pytest.warns(UserWarning, match="line 1"):
        found = read(path)
    assert [result.run for result in found] == ["b"]
    assert "1 damaged line" in damage(found)
