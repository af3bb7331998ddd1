"""Arithmetic of windows: hand-worked numbers and invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import ConfigError
from featcache.windows import Plan, placed, sample_times


def test_segments_have_their_centres():
    np.testing.assert_allclose(Plan("segments", 4).centres(2.0, 4.0), [2.25, 2.75, 3.25, 3.75])


def test_uniform_leaves_out_the_ends():
    np.testing.assert_allclose(Plan("uniform", 3).centres(2.0, 4.0), [2.5, 3.0, 3.5])


def test_one_window_lies_in_the_middle_under_both_plans():
    for kind in ("segments", "uniform"):
        np.testing.assert_allclose(Plan(kind, 1).centres(1.0, 4.0), [2.5])


def test_plans_are_written_as_they_are_read():
    for text in ("segments:5", "uniform:1"):
        assert str(Plan.parse(text)) == text


@pytest.mark.parametrize("text", ["segments", "segments:0", "segments:-1", "segments:2.5", "dense:3", "", ":5"])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(ConfigError, match="KIND:COUNT.* one of segments, uniform, inner"):
        Plan.parse(text)


def test_samples_are_the_middles_of_equal_steps():
    np.testing.assert_allclose(sample_times(5.0, 0.0, 10.0, count=2, rate=1.0), [4.5, 5.5])
    np.testing.assert_allclose(sample_times(5.0, 0.0, 10.0, count=3, rate=2.0), [4.5, 5.0, 5.5])


def test_a_window_over_the_edge_moves_inside():
    np.testing.assert_allclose(sample_times(0.1, 0.0, 10.0, count=4, rate=2.0), [0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(sample_times(9.9, 0.0, 10.0, count=4, rate=2.0), [8.25, 8.75, 9.25, 9.75])


def test_windows_are_placed_inside_the_clip_or_in_its_middle():
    assert placed(3.0, 2.0, 6.0, 1.5) == 3.0
    assert placed(2.1, 2.0, 6.0, 1.5) == 2.75
    assert placed(5.9, 2.0, 6.0, 1.5) == 5.25
    assert placed(2.1, 2.0, 6.0, 5.0) == 4.0


def test_a_clip_shorter_than_the_window_repeats_its_ends():
    times = sample_times(1.1, 1.0, 2.0, count=4, rate=2.0)  # wanted: 0.75, 1.25, 1.75, 2.25 around 1.5
    np.testing.assert_allclose(times, [1.0, 1.25, 1.75, 2.0])
    assert times[-1] < 2.0  # the end is not part of the clip


times = st.floats(0, 1e4, allow_nan=False)


@given(times, st.floats(1e-3, 1e3), st.floats(0, 1), st.integers(1, 64), st.floats(0.1, 120))
def test_samples_ascend_inside_the_clip(start, length, where, count, rate):
    stop = start + length
    found = sample_times(start + where * length, start, stop, count, rate)
    assert found.shape == (count,)
    assert (np.diff(found) >= 0).all()
    assert (found >= start).all()
    assert (found < stop).all()


@given(times, st.floats(1e-3, 1e3), st.sampled_from(["segments", "uniform"]), st.integers(1, 50))
def test_centres_are_symmetric_and_ascend_inside_the_clip(start, length, kind, count):
    centres = Plan(kind, count).centres(start, start + length)
    assert centres.shape == (count,)
    assert ((centres > start) & (centres < start + length)).all()
    np.testing.assert_allclose((centres + centres[::-1]) / 2, start + length / 2)
