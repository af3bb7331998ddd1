"""Jobs in processes of their own, which end with this process, however it ends, and leave Ctrl-C to it."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.resource_tracker import ensure_running
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")

LAST_SECONDS = 0.5  #: seconds that killed processes may take to end; less than `stopping.PATIENCE`

_imports: list[str] = []


def import_first(*modules: str) -> None:
    """Import these modules once for all processes, because their jobs would import them one by one."""
    _imports.extend(modules)


def in_parallel(function: Callable[[J], R], jobs: deque[J], workers: int) -> Generator[tuple[J, R], None, None]:
    """Yield (job, function(job)) for each job, in the order in which they end; errors of the function are raised.

    jobs: a queue, to which the caller may append more jobs meanwhile. workers: number of processes; with one, the jobs
    are done in this process. The processes import the calling script, which therefore needs the guard
    `if __name__ == "__main__":`. Closing the generator kills them, with the jobs that they are doing.
    Raises BrokenProcessPool when one of the processes dies.
    """
    if workers <= 1:
        while jobs:
            job = jobs.popleft()
            yield job, function(job)
        return
    context = _context(function)
    processes: list[BaseProcess] = []
    idle: list[Connection[Any, Any]] = []
    busy: dict[Connection[Any, Any], J] = {}
    try:
        with ThreadPoolExecutor(1, "start") as starter:  # Ctrl-C interrupts only the main thread, so no start is halved
            starter.submit(ensure_running).result()  # started with the first process, it would unblock Ctrl-C there
            while jobs or busy:
                while jobs and (idle or len(processes) < workers):
                    if not idle:
                        ours, theirs = context.Pipe()
                        processes.append(context.Process(target=_work, args=(theirs,), daemon=True))
                        starter.submit(_start, processes[-1]).result()
                        theirs.close()
                        idle.append(ours)
                    connection = idle.pop()
                    busy[connection] = jobs.popleft()
                    _send(connection, (function, busy[connection]))
                ready = wait(list(busy))
                for connection in [connection for connection in busy if connection in ready]:
                    result, error = _received(connection)
                    job = busy.pop(connection)
                    idle.append(connection)
                    if error:
                        raise error
                    yield job, result
    finally:
        started = [process for process in processes if process.pid]
        for process in started:
            process.kill()
        until = time.monotonic() + LAST_SECONDS
        for process in started:
            process.join()
            _wait_for_end(process, until)


def _wait_for_end(process: BaseProcess, until: float) -> None:
    """Wait until a killed process holds nothing any more, such as the locks of files, or until that time.

    The process is a child of the server on Linux. If a signal to all has killed the server too, `join` does not wait.
    """
    if process.pid is None or not hasattr(os, "pidfd_open"):  # not Linux, or a Python that was built for an old one
        return
    try:
        end = os.pidfd_open(process.pid)
    except OSError:  # it is gone, or the kernel is older than 5.3
        return
    try:
        wait([end], timeout=max(0.0, until - time.monotonic()))
    finally:
        os.close(end)


def _context(function: Callable[..., Any]) -> ForkServerContext | SpawnContext:
    """Return the way to start processes: on Linux as copies of a server that has imported the function.

    The copies start at once and share the memory of the libraries. Copies of this process itself would have its threads
    in an unknown state; the server has no other threads than those that libraries start and stop themselves.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", None) or "__main__"
    own = [module] if module != "__main__" else []  # each process imports the calling script, with its guard
    context.set_forkserver_preload([*own, *_imports])  # no effect if this process has a server already
    return context


def _start(process: BaseProcess) -> None:
    """Start a process that Ctrl-C does not reach: it inherits the blocked signals of this thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()


def _send(connection: "Connection[Any, Any]", message: object) -> None:
    try:
        connection.send(message)
    except OSError:
        raise BrokenProcessPool("a process ended before it got a job") from None


def _received(connection: "Connection[Any, Any]") -> tuple[Any, Exception | None]:
    """Return the result of a job, or its error."""
    try:
        result, error = connection.recv()
    except (EOFError, OSError):
        raise BrokenProcessPool("a process ended in the middle of a job") from None
    return result, error


def _work(connection: "Connection[Any, Any]") -> None:
    """Do the jobs of the parent process one by one; it kills this process when there are none left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # if other code has started the server, without `_start`
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    while True:
        try:
            connection.send_bytes(_answer(connection.recv_bytes()))
        except (EOFError, OSError):  # the parent has ended
            return


def _answer(message: bytes) -> memoryview:
    """Do a pickled job; return its result and its error, pickled. One of them is None.

    A RuntimeError replaces an error that cannot be pickled, or that the parent could not unpickle.
    """
    try:
        function, job = ForkingPickler.loads(message)
        return ForkingPickler.dumps((function(job), None))
    except Exception as error:
        try:
            answer = ForkingPickler.dumps((None, error))
            ForkingPickler.loads(answer)
            return answer
        except Exception:  # classes of errors may have any constructor and any attributes
            return ForkingPickler.dumps((None, RuntimeError(repr(error))))


def _end_with_parent() -> None:
    """Wait for the end of the parent process, even one by SIGKILL, and end this process at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
