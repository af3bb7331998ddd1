"""Windows of many clips become batches and clips again; sources are read ahead in threads, but not far."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from featcache.errors import FeatcacheError, MediaAbsentError
from featcache.extractors import Extractor
from featcache.media import Nothing, Piece
from pipelines.extraction.assembly import Assembly, Gathering
from pipelines.extraction.interleaved import interleaved


class Double(Extractor):
    name = "double"
    row_shape = (1,)
    batch = 4

    def __init__(self, fails=()):
        super().__init__(None)
        self.fails, self.sizes = fails, []

    def __call__(self, windows):
        self.sizes.append(len(windows))
        if any(value in self.fails for value in windows[:, 0]):
            raise ValueError("cannot")
        return (2 * windows).astype(np.float32)


def assembled(extractor, clips):
    """{row: Part} of clips given as {row: [values of the windows, a Nothing, ...]}, their windows in turns."""
    kept = {}
    with Assembly([extractor], lambda part: kept.update({part.row: part})) as assembly:
        parts = {row: Gathering(row, extractor) for row in clips}
        for turn in range(max(len(values) for values in clips.values())):
            for row, values in clips.items():
                if turn < len(values):
                    value = values[turn]
                    window = np.array([value]) if not isinstance(value, Nothing) else None
                    piece = value if window is None else Piece("double", turn, len(values), window, turn, turn + 1)
                    assembly.add(parts[row], piece)
        for part in parts.values():
            assembly.add(part, None)
        assembly.end()
    return kept


def test_windows_of_several_clips_share_batches_and_come_back_to_theirs():
    extractor = Double()
    kept = assembled(extractor, {7: [1, 2, 3], 8: [4, 5], 9: [6, 7, 8, 9, 10]})
    assert extractor.sizes == [4, 4, 2]
    assert {row: part.features.ravel().tolist() for row, part in kept.items()} == {
        7: [2, 4, 6],
        8: [8, 10],
        9: [12, 14, 16, 18, 20],
    }
    assert kept[9].times.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]


def test_an_error_costs_only_the_clip_whose_window_it_is():
    kept = assembled(Double(fails={5}), {7: [1, 2, 3], 8: [4, 5], 9: [6, 7]})
    assert str(kept[8].reason) == "double stopped with ValueError: cannot"
    assert kept[7].features.ravel().tolist() == [2, 4, 6]
    assert kept[9].reason is None


def test_windows_that_came_before_the_reason_do_not_count():
    reason = MediaAbsentError("no")
    kept = assembled(Double(), {7: [1, 2, Nothing("double", reason)], 8: [3]})
    assert kept[7].reason is reason
    assert kept[8].features.tolist() == [[6]]


def test_a_window_that_comes_again_is_not_computed_again():
    extractor, kept = Double(), []
    with Assembly([extractor], kept.append) as assembly:
        part = Gathering(0, extractor)
        for number in (0, 1, 0, 1, 2):
            assembly.add(part, Piece("double", number, 3, np.array([number]), 0, 1))
        assembly.add(part, None)
        assembly.end()
    assert extractor.sizes == [3]
    assert kept[0].features.ravel().tolist() == [0, 2, 4]


def test_a_clip_that_lacks_windows_is_not_done():
    extractor, kept = Double(), []
    with Assembly([extractor], kept.append) as assembly:
        for row, numbers in enumerate([(0, 2), ()]):
            part = Gathering(row, extractor)
            for number in numbers:
                assembly.add(part, Piece("double", number, 3, np.array([number]), 0, 1))
            assembly.add(part, None)
        assembly.end()
    reasons = [str(part.reason) for part in kept]
    assert ["2 of 3 windows" in reasons[0], "0 of 0 windows" in reasons[1]] == [True, True]
    assert all(reason.endswith("please report it") for reason in reasons)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: device-side assert\n\ntriggered")])
def test_no_clip_is_blamed_for_a_device_that_dies(error):
    class Dying(Double):
        def __call__(self, windows):
            raise error

    with pytest.raises(FeatcacheError, match=rf"double .*{type(error).__name__}.*kept.*again"):
        assembled(Dying(), {7: [1, 2], 8: [3]})


def test_a_wrong_number_of_rows_is_an_error():
    class Short(Double):
        def __call__(self, windows):
            return super().__call__(windows)[:-1]

    kept = assembled(Short(), {7: [1, 2]})
    assert "double stopped with ValueError: 0 rows for 1 windows" in str(kept[7].reason)


# -------------------------------------------------------------------------------------------------------- interleaved


def test_every_item_comes_once_and_the_end_after_the_last():
    found = {job: [] for job in range(9)}
    for job, item in interleaved(iter(range(9)), lambda job: iter(range(job)), workers=3, bound=2):
        assert None not in found[job]
        found[job].append(item)
    assert found == {job: [*range(job), None] for job in range(9)}


def test_threads_stand_still_when_enough_waits():
    made = []

    def read(job):
        for k in range(100):
            made.append(k)
            yield k

    with closing(interleaved(iter(range(5)), read, workers=2, bound=3)) as items:
        next(items)
        time.sleep(0.3)
        assert len(made) <= 3 + 2 + 1  # waiting, in the hands of two threads, taken
    assert len(made) <= 3 + 2 + 1 + 2


def test_jobs_are_asked_for_only_when_they_are_needed_and_in_the_callers_thread():
    asked = []

    def jobs():
        for job in range(100):
            asked.append(threading.current_thread())
            yield job

    with closing(interleaved(jobs(), lambda job: iter([job]), workers=2, bound=50)) as items:
        next(items)
        assert len(asked) == 4
    assert set(asked) == {threading.current_thread()}


def test_an_error_in_a_thread_is_raised_here_and_no_thread_is_left():
    def read(job):
        yield job
        if job == 3:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(interleaved(iter(range(50)), read, workers=2, bound=4))
    assert threading.active_count() == before
