"""The outcomes of test clips in a line of results: exact, short, and refused where they are damaged."""

import numpy as np
import pytest

from pipelines import tasks
from pipelines.measures.outcomes import Outcomes, checksum, decode, encode, of_clips, together

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
@pytest.mark.parametrize("most", [1, 9, 255, 256, 10**6])
@pytest.mark.parametrize("same", [True, False])
def test_outcomes_come_back_exactly(n, most, same):
    answers = np.full(n, most) if same else RNG.integers(1, most + 1, n)
    found = decode(encode(Outcomes(RNG.integers(0, answers + 1), answers, "0a1b2c3d")))
    again = decode(encode(found))
    assert (again.right == found.right).all()
    assert (found.answers == answers).all()
    assert found.clips == "0a1b2c3d"


def test_ten_thousand_clips_take_less_than_two_kilobytes():
    assert len(encode(of_clips(RNG.random(10_000) < 0.5))) < 1800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0a1b2c3d 3 3",
        "0a1b2c3d -3 3 8:eNpjZGAGAAAJAAU=",
        "0a1b2c3d 0 3 8:eNpjZGAGAAAJAAU=",
        "0a1b2c3d 2 3 8:eNpjZGAGAAAJAAU=",  # three numbers
        "0a1b2c3d 4 3 8:eNpjZGAGAAAJAAU=",
        "0a1b2c3d 3 2 8:eNpjZGAGAAAJAAU=",  # 3 right out of 2
        "0a1b2c3d 3 0 8:eNpjZGAGAAAJAAU=",
        "0a1b2c3d 3 9999999999 8:eNpjZGAGAAAJAAU=",
        "0a1b2c3d 3 3 7:eNpjZGAGAAAJAAU=",
        "0a1b2c3d 3 3 8:eNpjZGAGAAAJAAU",
        "0a1b2c3d 3 3 8:AAAA",
    ],
)
def test_damaged_outcomes_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        decode(text)


def test_a_small_text_that_would_unpack_to_much_memory_is_refused():
    bomb = encode(of_clips(np.zeros(10**7, bool))).replace(" 10000000 ", " 10 ")
    assert len(bomb) < 5000
    with pytest.raises(ValueError, match="10 clips"):
        decode(bomb)


def test_the_checksum_is_that_of_the_manifest_and_of_the_rows_in_order():
    rows = np.array([3, 5, 7])
    others = checksum("ab", rows[::-1]), checksum("ac", rows), checksum("ab", rows[:2])
    assert checksum("ab", rows.astype(np.int32)) == checksum("ab", rows)
    assert checksum("ab", rows) not in others


def test_classification_keeps_the_right_clips_of_each_label_and_of_all_at_once():
    scores = {label: RNG.random((30, 4)) for label in ("verb", "noun")}
    truth = {label: RNG.integers(0, 4, 30) for label in scores}
    values = tasks.load("classification").measure(scores, truth, None, 0)
    assert {name: kept.value for name, kept in values.outcomes.items()} == pytest.approx(
        {name: values[name] for name in ("top1/verb", "top1/noun", "top1/action")}
    )
    both = values.outcomes["top1/verb"].right * values.outcomes["top1/noun"].right
    assert (values.outcomes["top1/action"].right == both).all()
    (one,) = tasks.load("classification").measure({"label": scores["verb"]}, {"label": truth["verb"]}, None, 0).outcomes
    assert one == "top1"


@pytest.mark.parametrize("clusters", [2, 4, 6])
def test_clustering_keeps_the_clips_whose_cluster_is_matched_with_their_class(clusters):
    y = RNG.integers(3, 7, 60)
    outputs = {"feature_B0": RNG.random((60, 3)), "cluster_B0": RNG.random((60, clusters))}
    values = tasks.load("clustering").measure(outputs, {"label": y}, None, clusters)
    assert {name: kept.value for name, kept in values.outcomes.items()} == pytest.approx(
        {name: values[name] for name in ("acc_hungarian/B0", "acc_hungarian/B0/kmeans")}
    )
    assert set(values.outcomes["acc_hungarian/B0/kmeans"].answers) == {10}


def test_points_are_summed_clip_by_clip():
    points = [of_clips(np.array(right)) for right in ([True, False, True], [True, False, False])]
    assert together(points).right.tolist() == [2, 0, 1]
    assert together(points).value == 0.5
