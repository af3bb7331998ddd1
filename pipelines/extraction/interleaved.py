"""Sources read in threads, ahead of whoever wants what is in them, but never far ahead."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

J = TypeVar("J")
T = TypeVar("T")


@dataclass(frozen=True)
class _Ended(Generic[J]):
    job: J
    error: BaseException | None = None


def interleaved(
    jobs: Iterator[J], read: Callable[[J], Iterator[T]], *, workers: int, bound: int
) -> Generator[tuple[J, T | None], None, None]:
    """(job, item) for each item that `read(job)` gives, as they come, and (job, None) where a job has come to its end.

    `workers` threads read a job each; at most `bound` items wait, and threads with more stand still. `jobs` is asked
    in the caller's thread, for the next jobs only. What `read` raises is raised here. When the caller stops early, so
    do the threads, each at its next item.
    """
    waiting: queue.Queue[tuple[J, T] | _Ended[J]] = queue.Queue(bound)
    stopped = threading.Event()

    def put(thing: tuple[J, T] | _Ended[J]) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(thing, timeout=0.1)
            except queue.Full:
                continue

    def work(job: J) -> None:
        error = None
        try:
            for item in read(job):
                put((job, item))
                if stopped.is_set():
                    break
        except BaseException as raised:  # the caller's thread raises it again
            error = raised
        put(_Ended(job, error))

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    running = 0
    try:
        for job in islice(jobs, 2 * workers):  # a thread that is done with its job finds the next one there
            pool.submit(work, job)
            running += 1
        while running:
            thing = waiting.get()
            if not isinstance(thing, _Ended):
                yield thing
                continue
            if thing.error is not None:
                raise thing.error
            running -= 1
            for job in islice(jobs, 1):
                pool.submit(work, job)
                running += 1
            yield thing.job, None
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
