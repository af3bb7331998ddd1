"""Interrupt a writer of runs at random moments, resume, and compare with a store that was written row by row.

python -m tests.helpers.kills FOLDER COUNT      prints {"kills": n, "stops": n, "midway": n, "wrong": [...]}
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from featcache import FeatureStore
from featcache.store import StoreWriter, _format
from featcache.store.check import problems
from tests.helpers.writers import BLOCK_ROWS, MANIFEST, RECIPE, content, fill, rows

PATIENCE = 60.0  #: seconds after which a process that should end is hanging
BROKEN = 3  #: exit code of a process with an error of its own


def job(path: Path, seed: int, begun: int | None = None) -> None:
    """Write the pending rows in runs of random sizes, some out of order. begun: a pipe for a byte at the start."""
    chance = random.Random(seed)
    with StoreWriter.open(path, MANIFEST, RECIPE, row_shape=(1024,), windows=2, facts={}) as writer:
        if begun is not None:
            os.write(begun, b"b")
        pending = writer.pending
        while pending:
            size = chance.choice((1, 3, 8, 30))
            run, pending = pending[:size], pending[size:]
            if chance.random() < 0.3:
                chance.shuffle(run)
            writer.done_many(run, rows(run), np.zeros((len(run), 2)), np.ones((len(run), 2)))


def child(path: Path, seed: int) -> int:
    """Start the job in a process that ends in order after Ctrl-C, with its threads; return when it has begun."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        code = 0
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                job(path, seed, writing)
            except (KeyboardInterrupt, SystemError):  # the latter where numpy was interrupted
                code = 1
            except BaseException:
                code = BROKEN
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and thread.ident and not thread.daemon:  # zarr has one
                    thread.join()
            os._exit(code)
        finally:
            os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return process


def ended(process: int) -> int | None:
    """The exit status of a process, or None, and its end, if it hangs."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if (of := os.waitpid(process, os.WNOHANG))[0]:
            return of[1]
        time.sleep(0.0005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def midway(path: Path) -> bool:
    """True if a block was interrupted between the renaming of its features and that of its `state`."""
    names = {name: {part.name for part in (path / name / "c").glob("*")} for name in ("features", "state")}
    return bool(names["features"] - names["state"])


def vouched_for_is_right(path: Path) -> bool:
    """Every row that `state` says is done has its features."""
    if not (path / "SHA256SUMS").exists():
        return True
    store = FeatureStore.open(path)
    done = np.flatnonzero(store.state)
    return np.array_equal(store.read(done), rows(done))


def main(folder: Path, count: int) -> None:
    _format.Layout.block_rows, _format.Layout.chunk_rows = BLOCK_ROWS, 1
    os.fsync = lambda descriptor: time.sleep(0.0002)  # a killed process loses no page cache
    sys.stdout, printed = open(os.devnull, "w"), sys.stdout  # noqa: SIM115
    fill(folder / "whole.zarr")
    whole, path, chance = content(folder / "whole.zarr"), folder / "t.zarr", random.Random(0)
    found = {"kills": 0, "stops": 0, "midway": 0, "wrong": []}
    while found["kills"] + found["stops"] < count:
        seed = found["kills"] + found["stops"]
        process = child(path, seed)
        time.sleep(chance.uniform(0, 0.1))
        stopping = seed % 5 == 4  # Ctrl-C, several times; else kill
        for _ in range(chance.choice((1, 2, 3)) if stopping else 1):
            os.kill(process, signal.SIGINT if stopping else signal.SIGKILL)
            time.sleep(chance.uniform(0, 0.002))
        status = ended(process)
        found["stops" if stopping else "kills"] += 1
        found["midway"] += midway(path)
        if status is None or os.waitstatus_to_exitcode(status) == BROKEN or not vouched_for_is_right(path):
            found["wrong"].append(seed)
        if status == 0 or seed == count - 1:  # it ended before the signal
            job(path, seed)
            if content(path) != whole or problems(path):
                found["wrong"].append(seed)
            shutil.rmtree(path)
    print(json.dumps(found), file=printed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
