"""Killed at any line of the store's code, or at any moment, a resumed writer ends with the bytes of an unbroken one."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from featcache import FeatureStore
from featcache.store import _format, check
from tests.conftest import ROOT
from tests.helpers import writers as _writers


def found_by(helper, *words):
    command = [sys.executable, "-m", f"tests.helpers.{helper}", *map(str, words)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("what", ["first", *(pytest.param(w, marks=pytest.mark.slow) for w in ("retry", "extend"))])
def test_killed_at_many_lines(tmp_path, what):
    found = found_by("crash", tmp_path, 131, what)
    assert found["kills"] >= 5
    assert found["wrong"] == []
    assert found["left"] == []
    assert found["failed"] == ([] if what == "retry" else ["clip '001' failed: broken"])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["first", "retry", "extend"])
def test_killed_at_every_third_line(tmp_path, what):
    found = found_by("crash", tmp_path, 3, what)
    assert found["kills"] >= 500
    assert found["wrong"] == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 250])
def test_runs_killed_at_random_moments(tmp_path, count):
    """A writer of runs, and the thread that commits its blocks: four of five are killed, one is stopped by Ctrl-C."""
    found = found_by("kills", tmp_path, count)
    assert found["wrong"] == []
    assert (found["kills"], found["stops"]) == (count * 4 // 5, count // 5)
    assert found["midway"] >= count // 8  # blocks that were interrupted during their commit


def start(path):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.writers", str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, 100])
def test_two_writers_killed_at_random_moments(tmp_path, kills, monkeypatch):
    """Two processes fill one store; one of them is killed, again and again, and a new one takes its place."""
    monkeypatch.setattr(_format.Layout, "block_rows", _writers.BLOCK_ROWS)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 1)
    path, whole = tmp_path / "t.zarr", tmp_path / "whole.zarr"
    _writers.fill(whole)
    chance = random.Random(0)
    writers = [start(path), start(path)]
    struck = new = 0
    while struck < kills:
        victim = chance.randrange(2)
        writers[victim].stdout.readline()  # it has begun; "done" or nothing when it has ended by itself
        time.sleep(chance.uniform(0, 0.05))
        if writers[victim].poll() is not None and path.exists():  # finished: begin another round of the same
            [writer.wait() for writer in writers]
            assert _writers.content(path) == _writers.content(whole)
            path.rename(tmp_path / f"done{struck}.zarr")
            writers = [start(path), start(path)]
            continue
        writers[victim].send_signal(signal.SIGKILL)
        writers[victim].wait()
        struck += 1
        store = FeatureStore.open(path) if (path / "SHA256SUMS").exists() else None
        if store is not None:
            done = np.flatnonzero(store.state)
            new += len(done) > 0
            assert np.array_equal(store.read(done), _writers.rows(done))
        writers[victim] = start(path)
    for writer in writers:
        writer.wait()
    _writers.fill(path)
    assert _writers.content(path) == _writers.content(whole)
    assert check.problems(path) == []
    assert new >= 3 * (kills - 1) // 8  # kills struck while there was something to lose
