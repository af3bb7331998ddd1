"""A generator that reads sources in threads, a bounded number of items ahead of its consumer."""

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
    """Yield (job, item) for each item of `read(job)`, as they arrive, and (job, None) at the end of a job.

    `workers` threads read one job each. At most `bound` items wait; a thread with another item blocks until there is
    room. `jobs` is advanced in the caller's thread, and only for the next jobs. An exception in `read` is raised here.
    When the caller stops early, each thread stops at its next item.
    """
    waiting: queue.Queue[tuple[J, T] | _Ended[J]] = queue.Queue(bound)
    stopped = threading.Event()

    def put(entry: tuple[J, T] | _Ended[J]) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(entry, timeout=0.1)
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
        for job in islice(jobs, 2 * workers):  # so that a thread that finishes its job has the next one at once
            pool.submit(work, job)
            running += 1
        while running:
            entry = waiting.get()
            if not isinstance(entry, _Ended):
                yield entry
                continue
            if entry.error is not None:
                raise entry.error
            running -= 1
            for job in islice(jobs, 1):
                pool.submit(work, job)
                running += 1
            yield entry.job, None
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
