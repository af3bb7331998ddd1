"""Kill a writer before every STEPth line that it runs in featcache/store, resume, and compare with an unbroken run.

python -m tests.helpers.crash FOLDER STEP first|retry|extend      prints {"kills": n, "wrong": [lines...]}
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featcache import Clip, FeatureStore, Manifest
from featcache.errors import StoreError
from featcache.store import StoreWriter, _format
from featcache.store.check import problems

MANIFEST = Manifest("m", tuple(Clip(f"{i:03}", "d", "train", f"{i}.mp4") for i in range(7)))
FIRST = Manifest("m", MANIFEST.clips[:3])
RECIPE = {"extractor": "toy", "modality": "rgb", "weights_sha256": "none", "dtype": "float16"}
ROWS = np.random.default_rng(0).standard_normal((7, 2, 3)).astype(np.float32)
KILLED = 9


def job(path: Path, what: str, manifest: Manifest = MANIFEST) -> None:
    """Row 1 fails at first and is mended by a retry; row 5 is absent. `extend` begins with the first three clips.

    `retry` and `extend` write their rows at once.
    """
    with StoreWriter.open(path, manifest, RECIPE, row_shape=(3,), windows=2, facts={}) as writer:
        if what == "retry":
            writer.retry_failed()
        done = []
        for row in writer.pending:
            if row == 5:
                writer.absent(row, "no sound")
            elif row == 1 and what != "retry":
                writer.failed(row, "broken")
            elif what in ("retry", "extend"):
                done.append(row)
            else:
                writer.done(row, ROWS[row], np.array([row, row + 1.0]), np.array([row + 1.0, row + 2.0]))
        starts = np.array(done, int)[:, None] + np.arange(2.0)
        writer.done_many(done, [ROWS[row] for row in done], starts, starts + 1)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def lines_in(part: str, job: Callable[[], object]) -> int:
    """The number of lines of this part of the code that a job runs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if part not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        job()
    finally:
        sys.settrace(before)
    return count


def killed_at(line: int, part: str, job: Callable[[], object]) -> bool:
    """Run the job in a child that dies, without any clean-up, before its line-th line in this part of the code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    left = line

    def trace(frame, event, argument):
        nonlocal left
        if part not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left <= 0 < line:  # two threads may count at the same time
                os._exit(KILLED)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    job()
    os._exit(0)


def vouched_for_is_right(path: Path) -> bool:
    """Every row that `state` says is done has its features; read while nothing has been mended yet."""
    try:
        store = FeatureStore.open(path)
    except StoreError as error:
        return "no feature store" in str(error) or "being appended" in str(error)
    done = np.flatnonzero(store.state == 1)
    return np.array_equal(store.read(done), ROWS[done].astype(np.float16))


def main(folder: Path, step: int, what: str) -> None:
    _format.Layout.block_rows, _format.Layout.chunk_rows = 4, 2
    os.fsync = lambda descriptor: None  # a killed process loses no page cache; waiting for disks proves nothing
    before = folder / "before.zarr"  # what the job finds
    if what == "retry":
        job(before, "first")
    elif what == "extend":
        job(before, "first", FIRST)
    expected = folder / "expected.zarr"
    if before.exists():
        shutil.copytree(before, expected)
    job(expected, what)
    whole, failed = content(expected), problems(expected)
    kills, wrong, path = 0, [], folder / "t.zarr"
    while True:
        line = 1 + kills * step
        shutil.rmtree(path, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, path)
        if not killed_at(line, "featcache/store", lambda: job(path, what)):
            break
        kills += 1
        good = vouched_for_is_right(path)
        if what == "retry":  # resumed by a writer that does not retry: what was, or what is mended, to the byte
            plain = shutil.copytree(path, folder / "plain.zarr")
            job(plain, "first")
            good &= content(plain) in (whole, content(before))
            shutil.rmtree(plain)
        job(path, what)
        if not good or content(path) != whole or problems(path) != failed:
            wrong.append(line)
    left = sorted(p.name for p in folder.glob(".*.partial"))
    print(json.dumps({"kills": kills, "wrong": wrong, "left": left, "failed": failed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
