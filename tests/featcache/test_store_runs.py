"""Rows written in runs, and blocks committed in the background. Kills are in test_store_crash.py."""

import contextlib
import errno
import itertools
import os
import shutil
import signal
import threading
import time

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import FeatureStore
from featcache.errors import StoreError
from featcache.store import StoreWriter, _block, _format, _lease
from featcache.store._background import Background
from featcache.store._checksums import joined
from featcache.store.check import problems, repair
from featcache.store.copying import Place, copy
from featcache.store.provenance import _made_rows
from featcache.store.writer import left
from tests.featcache.test_store import RECIPE, files, manifest, open_writer, rows

N = 40
TIMES = np.arange(float(2 * N)).reshape(N, 2)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(_format.Layout, "block_rows", 4)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 2)


def open_large(path, **more):
    return open_writer(path, manifest(N), **more)


@contextlib.contextmanager
def in_time(seconds=20):
    """Raise TimeoutError in place of waiting for ever."""

    def late(number, frame):
        raise TimeoutError("waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@given(st.data())
@settings(deadline=None, max_examples=8)
def test_runs_give_the_bytes_of_single_rows(tmp_path_factory, data):
    """Whatever the order and the sizes of runs, the numbers of windows, the dtypes, the notes, and rows without any."""
    path = tmp_path_factory.mktemp("runs")
    dtype = data.draw(st.sampled_from(["float16", "float32", "float64"]))
    recipe = RECIPE | {"dtype": data.draw(st.sampled_from(["float16", "float32"]))}
    ragged = data.draw(st.booleans())
    lengths = data.draw(st.lists(st.integers(1, 2), min_size=N, max_size=N)) if ragged else [2] * N
    values = [x[:t].astype(dtype) for x, t in zip(rows(N), lengths, strict=True)]
    starts = [x[:t] for x, t in zip(TIMES, lengths, strict=True)]
    notes = data.draw(st.lists(st.sampled_from(["", "", "a note: é"]), min_size=N, max_size=N))
    failed = data.draw(st.sets(st.integers(0, N - 1), max_size=5))
    order = data.draw(st.permutations([row for row in range(N) if row not in failed]))
    if data.draw(st.booleans()):
        order.sort()
    with open_large(path / "a.zarr", recipe=recipe) as writer:
        for row in range(N):
            if row in failed:
                writer.failed(row, "broken")
            else:
                writer.done(row, values[row], starts[row], starts[row] + 1, notes[row])
    with open_large(path / "b.zarr", recipe=recipe) as writer:
        while order:
            size = data.draw(st.integers(1, 25))
            run, order = order[:size], order[size:]
            x, start, note = ([of[row] for row in run] for of in (values, starts, notes))
            stop = [of + 1 for of in start]
            if not ragged and data.draw(st.booleans()):
                x, start, stop, run = np.array(x), np.array(start), np.array(stop), np.array(run)
            writer.done_many(run, x, start, stop, note if any(note) else ())
        for row in failed:
            writer.failed(row, "broken")
    assert files(path / "a.zarr") == files(path / "b.zarr")
    assert problems(path / "b.zarr") == [f"clip {f'{row:03}'!r} failed: broken" for row in sorted(failed)]


def test_a_run_is_one_write_of_features_and_one_of_records(tmp_path, monkeypatch):
    written, pwrite = [], os.pwrite
    monkeypatch.setattr(_format.Layout, "block_rows", 64)
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: (written.append(os.readlink(f"/proc/self/fd/{fd}")), pwrite(fd, data, at))[1]
    )
    with open_large(tmp_path / "t.zarr") as writer:
        writer.done_many([], rows(0), TIMES[:0], TIMES[:0])
        assert written == []
        assert writer.claim(0)
        written.clear()
        writer.done_many(range(5, 30), rows(25), TIMES[:25], TIMES[:25])
        assert [place.rpartition(".")[2] for place in written] == ["shard", "log"]
        written.clear()
        writer.done_many([1, 2, 3, 31, 30], rows(5), TIMES[:5], TIMES[:5])
        assert [place.rpartition(".")[2] for place in written] == ["shard", "shard", "shard", "log"]


def test_copies_of_rows_are_runs(tmp_path, monkeypatch):
    """Whatever their order in the other store, they are written in one call; two rows have no features."""
    with open_large(tmp_path / "a.zarr") as writer:
        writer.failed(3, "broken")
        writer.absent(9, "no sound")
        write(writer, *writer.pending)
    runs, real = [], StoreWriter.done_many
    monkeypatch.setattr(StoreWriter, "done_many", lambda *args: (runs.append([*args[1]]), real(*args)))
    source = FeatureStore.open(tmp_path / "a.zarr")
    with open_large(tmp_path / "b.zarr") as writer:
        copy(writer, [Place(row, source, row) for row in reversed(range(N))])
    assert runs == [[row for row in range(N) if row not in (3, 9)]]
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")


def test_a_run_with_a_bad_row_writes_nothing(tmp_path):
    x, t = rows(8), TIMES[:8]
    infinite, large = x.copy(), x.astype(np.float64)
    infinite[5, 0, 0, 0], large[6] = np.inf, -1e6
    with open_large(tmp_path / "t.zarr") as writer:
        for run, features, start, words in (
            (range(8), infinite, t, "row 5 has values that are not finite"),
            (range(8), infinite.astype(np.float16), t, "row 5 has values that are not finite"),
            (range(8), [*infinite], t, "row 5 has values that are not finite"),
            (range(8), large, t, r"row 6 reaches 1e\+06, beyond float16"),
            (range(8), x[:, :, :2], t, "row 0 has shape"),
            (range(8), [*x[:6], x[6, :0], x[7]], t, r"row 6 has shape \(0, 3, 2\)"),
            (range(8), x, t[:, :1], "row 0 has 2 windows, but start of shape"),
            (range(9), x, t, "9 rows, but features of 8, start of 8, stop of 8"),
            ([0, 1, 2, 3, 1, 5, 6, 7], x, t, "row 1 is given twice"),
        ):
            with pytest.raises(StoreError, match=words):
                writer.done_many(run, features, start, start)
        assert writer.pending == list(range(N))
        writer.done_many(range(8), x, t, t)
        with pytest.raises(StoreError, match="row 3 is already written"):
            writer.done_many(range(3, 9), x[:6], t[:6], t[:6])
        assert writer.pending == list(range(8, N))


def test_a_run_ends_at_the_block_of_another_writer(tmp_path):
    """As it does row by row: what comes before that block is written."""
    with open_large(tmp_path / "t.zarr") as writer, open_large(tmp_path / "t.zarr") as other:
        assert other.claim(9)
        with pytest.raises(StoreError, match=rf"rows 8-11 are being written by process {os.getpid()} on "):
            writer.done_many(range(16), rows(16), TIMES[:16], TIMES[:16])
        assert writer.pending == list(range(8, N))


@given(st.integers(1, 3000), st.integers(1, 70), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_a_checksum_of_parts_is_that_of_the_whole(size, count, seed):
    data = np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)
    checksums = np.array([google_crc32c.value(part.tobytes()) for part in data], np.uint32)
    assert joined(checksums, size) == google_crc32c.value(data.tobytes())


# ---------------------------------------------------------------------------------------------------- in the background


class Gate:
    """Holds the commits of blocks until it is opened."""

    def __init__(self, monkeypatch, error=None):
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        real = _block.Block._put_in_place

        def held(block, small_files):
            self.entered.release()
            assert self.open.wait(20)
            if error is not None:
                raise error
            real(block, small_files)

        monkeypatch.setattr(_block.Block, "_put_in_place", held)


def write(writer, *run):
    writer.done_many(run, rows(N)[[*run]], TIMES[[*run]], TIMES[[*run]] + 1)


def test_rows_are_written_while_a_block_is_committed(tmp_path, monkeypatch):
    path, gate = tmp_path / "t.zarr", Gate(monkeypatch)
    with in_time(), open_large(path) as writer, open_large(path) as other:
        write(writer, 0, 1, 2, 3)
        assert gate.entered.acquire(timeout=20)
        write(writer, 4, 5, 6)
        assert not writer.claim(2)
        assert not other.claim(2)  # the lease is held until the thread has ended
        assert not (path / "state" / "c" / "0").exists()
        gate.open.set()
        assert writer.pending == list(range(7, N))  # waits for the thread
        assert (path / "state" / "c" / "0").exists()


def moments(path, patch, writer):
    """Write row 1, the last one that block 0 needs, and return copies of the store after each step of the commit."""
    copies = []

    def step(name, real):
        def copied(*args):
            result = real(*args)
            copies.append(shutil.copytree(path, path.with_name(f"{len(copies)}.zarr")))
            return result

        patch.setattr(_block, name, copied)

    with in_time(), writer:
        copies.append(shutil.copytree(path, path.with_name("0.zarr")))
        for name in ("write_file", "_remove", "sync_folder"):
            step(name, getattr(_block, name))
        write(writer, 1)
    return [*copies, path]


@pytest.mark.parametrize("again", [False, True])
def test_no_row_of_a_block_looks_untried_at_any_moment_of_its_commit(tmp_path, again):
    """Whatever moments of another writer's commit the reads of `state` and the journal meet, in this order."""
    path = tmp_path / "t.zarr"
    writer = open_large(path)
    write(writer, 0, 2, 3)
    if again:
        writer.failed(1, "broken")
        writer.close()
        writer = open_large(path)
        writer.retry_failed()
    else:
        writer.claim(1)
    with pytest.MonkeyPatch.context() as patch:
        copies = moments(path, patch, writer)
    layout = FeatureStore.open(path).layout
    copies = copies if again else copies[1:]  # in the first one, row 1 is untried
    held = [(_block.committed_states(of, 0, layout), _block.read_log(of, 0, layout)) for of in copies]
    assert sum(states[0] == 0 for states, _ in held) >= 5  # moments at which the journal vouches for the rows
    for i, j, k in itertools.combinations_with_replacement(range(len(held)), 3):
        states = iter([held[i][0], held[k][0]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_block, "committed_states", lambda *_, states=states: next(states))
            patch.setattr(_block, "read_log", lambda *_, log=held[j][1]: log)
            assert _block.recorded(path, 0, layout).untried(range(4)) == [], (i, j, k)


def failed_rows(writer):
    writer.retry_failed()
    return writer.pending


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (lambda writer: writer.pending, list(range(4, N))),
        (failed_rows, [3, *range(4, N)]),
        (lambda writer: left(FeatureStore.open(writer.path)), N - 4),
        (lambda writer: [row for row, _ in _made_rows(FeatureStore.open(writer.path))], [0, 1, 2]),
    ],
    ids=["pending", "retry_failed", "left", "made"],
)
@pytest.mark.parametrize("late", ["state", "journal"])
def test_a_block_that_is_committed_between_two_reads_is_not_missed(tmp_path, monkeypatch, read, found, late):
    """Another writer commits a block before the first journal, or before the first `state`, is read."""
    path, gate = tmp_path / "t.zarr", Gate(monkeypatch)
    with in_time(), open_large(path) as reader:
        other = open_large(path)
        write(other, 0, 1, 2)
        other.failed(3, "broken")
        name = {"state": "committed_states", "journal": "read_log"}[late]
        real = getattr(_block, name)

        def after_the_commit(*args):
            monkeypatch.setattr(_block, name, real)
            gate.open.set()
            other.close()
            return real(*args)

        monkeypatch.setattr(_block, name, after_the_commit)
        assert read(reader) == found


def test_few_blocks_wait_for_their_commit(tmp_path, monkeypatch):
    """The rows of a store do not run ahead of the disk: two blocks wait, the third makes its writer wait."""
    gate = Gate(monkeypatch)
    with in_time(), open_large(tmp_path / "t.zarr") as writer:
        write(writer, *range(8))
        waits = threading.Thread(target=write, args=(writer, 8, 9, 10, 11))
        waits.start()
        waits.join(0.05)
        assert waits.is_alive()
        assert gate.entered.acquire(timeout=20)
        assert not gate.entered.acquire(blocking=False)  # one at a time
        gate.open.set()
        waits.join()


def full():
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["claim", "done", "failed", "pending", "retry_failed", "close"])
def test_a_full_disk_in_the_background_is_an_error_of_the_next_call(tmp_path, monkeypatch, call):
    path, patch = tmp_path / "t.zarr", pytest.MonkeyPatch()
    gate = Gate(patch, full())
    writer = open_large(path)
    write(writer, 0, 1, 2, 3)
    gate.open.set()
    while not writer._commits._calls[0].ended:
        time.sleep(0.001)
    calls = {
        "claim": lambda: writer.claim(4),
        "done": lambda: write(writer, 4),
        "failed": lambda: writer.failed(4, "x"),
        "pending": lambda: writer.pending,
        "retry_failed": writer.retry_failed,
        "close": writer.close,
    }
    with in_time(), pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        calls[call]()
    if call != "close":
        write(writer, 5)  # raised once
        writer.close()
    patch.undo()
    assert repair(path) == []  # nobody holds the store's lock
    with open_large(path) as writer:
        assert writer.pending == [row for row in range(4, N) if call == "close" or row != 5]
        write(writer, *writer.pending)
    with open_large(tmp_path / "whole.zarr") as writer:
        write(writer, *range(N))
    assert files(path) == files(tmp_path / "whole.zarr")


def test_an_error_in_the_block_is_not_lost_behind_that_of_the_thread(tmp_path, monkeypatch):
    Gate(monkeypatch, full()).open.set()

    def fail_while_writing():
        with open_large(tmp_path / "t.zarr") as writer:
            write(writer, 0, 1, 2, 3)
            raise ValueError("of the caller")

    with pytest.raises(OSError, match="No space") as caught:
        fail_while_writing()
    assert isinstance(caught.value.__context__, ValueError)


def test_the_store_is_locked_until_an_interrupted_close_has_ended(tmp_path, monkeypatch):
    """Ctrl-C while `close` waits for a thread: the thread ends its work, and then releases the store."""
    path, gate = tmp_path / "t.zarr", Gate(monkeypatch)
    writer = open_large(path)
    write(writer, *range(6))

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert _lease.lock(path, alone=True) is None
    gate.open.set()
    with in_time():
        while (lock := _lease.lock(path, alone=True)) is None:
            time.sleep(0.001)
        _lease.free(lock)
    with open_large(path) as writer:
        assert writer.pending == list(range(6, N))


def test_a_forked_child_leaves_the_store_to_its_parent(tmp_path, monkeypatch):
    """Even if it was forked while a thread commits: it has no such thread to wait for."""
    path, gate = tmp_path / "t.zarr", Gate(monkeypatch)
    with in_time(), open_large(path) as writer:
        write(writer, *range(7))
        assert gate.entered.acquire(timeout=20)
        child = os.fork()
        if not child:
            written = 0
            try:
                for call in (lambda: writer.pending, lambda: writer.claim(8), lambda: write(writer, 7)):
                    with contextlib.suppress(StoreError):
                        call()
                        written += 1
                writer.close()
            finally:
                os._exit(written)
        assert os.waitpid(child, 0)[1] == 0
        assert _lease.lock(path, alone=True) is None  # the child has not released it
        gate.open.set()
    with open_large(path) as writer:
        assert writer.pending == list(range(7, N))
        write(writer, *writer.pending)
    assert problems(path) == []


def test_without_threads_blocks_are_committed_all_the_same(tmp_path, monkeypatch):
    def none_left(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with in_time(), open_large(tmp_path / "t.zarr") as writer:
        write(writer, *range(N))
    assert FeatureStore.open(tmp_path / "t.zarr").counts()["done"] == N


def test_calls_are_left_to_their_threads(monkeypatch):
    """Even if `wait` comes first: Ctrl-C would end a call half way in the thread that waits."""

    class Late(threading.Thread):
        def run(self):
            time.sleep(0.02)
            super().run()

    monkeypatch.setattr("featcache.store._background.threading.Thread", Late)
    background, ran_in = Background(), []
    with in_time():
        for _ in range(3):
            background.start(lambda: ran_in.append(threading.current_thread()))
        background.wait()
    assert len(ran_in) == 3
    assert threading.main_thread() not in ran_in


def test_calls_run_once_and_in_order_though_a_wait_is_interrupted():
    background, ran, gate = Background(), [], threading.Event()
    background.start(lambda: (gate.wait(20), ran.append(0)))
    for k in (1, 2, 3):
        background.start(lambda k=k: ran.append(k))

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            background.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    gate.set()
    with in_time():
        background.wait()
    assert ran == [0, 1, 2, 3]


def test_rows_that_fail_to_be_written_again_keep_what_they_were(tmp_path, monkeypatch):
    """The features of a finished row were overwritten, and its record was not: the block's own files still have it."""
    path = tmp_path / "t.zarr"
    with open_large(path) as writer:
        write(writer, *range(N))
    before = files(path)

    def no_records(block, records):
        raise full()

    with open_large(path) as writer:
        writer.renew([1])
        assert writer.claim(1)
        writer._blocks[0]._take_over()
        with monkeypatch.context() as patch:
            patch.setattr(_block.Block, "_record", no_records)
            with pytest.raises(OSError, match="No space"):
                writer.done_many([1], rows(N)[[7]], TIMES[[7]], TIMES[[7]])
    open_large(path).close()
    assert files(path) == before
    assert problems(path) == []
