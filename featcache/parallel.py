"""Jobs in processes of their own, which end with this process, however it ends, and leave Ctrl-C to it."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.resource_tracker import ensure_running
from typing import Any, NamedTuple, TypeVar

from featcache import plugins
from featcache.errors import FeatcacheError

J = TypeVar("J")
R = TypeVar("R")
REACH = (
    "a worker finds installed packages, the folders of --plugins, and what the calling script defines outside of "
    "functions; with one worker no job is sent"
)
Hear = Callable[[Any], None]  #: called with each message that a job sends
LAST_SECONDS = 0.5  #: seconds that killed processes may take to end; less than `stopping.PATIENCE`
SERVER_GONE = 255  #: exit code of a process whose server ended before it could report the code

_imports: list[str] = []
_hearing: list[Hear] = []  #: the last one receives the messages of this process's job
_replies: list[Callable[[], Any]] = []  #: the last one waits for the reply to such a message


class WorkerEnded(BrokenProcessPool):
    """A worker process was killed, or ended in the middle of a job: the same jobs may succeed another time."""


class _Message(NamedTuple):
    """A message of a job, on its way to the parent process."""

    content: Any


def import_first(*modules: str) -> None:
    """Import these modules once for all processes, because their jobs would import them one by one."""
    _imports.extend(modules)


def advised(error: BrokenProcessPool, fix: str) -> str:
    """Return the message of an error, with this fix if another try may succeed: with jobs that can be sent."""
    return f"{error}; {fix}" if isinstance(error, WorkerEnded) else str(error)


def tell(message: object) -> None:
    """Give a message to the caller of `in_parallel`, from inside a job; nothing happens if nobody hears it."""
    if _hearing:
        _hearing[-1](message)


def ask(message: object) -> Any:
    """Give a message to the caller of `conversing`, from inside a job, and return the reply."""
    tell(message)
    return _replies[-1]()


def in_parallel(
    function: Callable[[J], R], jobs: deque[J], workers: int, hear: Hear | None = None
) -> Generator[tuple[J, R], None, None]:
    """Yield (job, function(job)) for each job, in the order in which they end; errors of the function are raised.

    jobs: a queue, to which the caller may append more jobs meanwhile. workers: number of processes; with one, the jobs
    are done in this process. hear: called in this process with each message that a job sends (`tell`), in order and
    before the job's result. The processes import the calling script, which therefore needs the guard
    `if __name__ == "__main__":`. Closing the generator kills them, with the jobs that they are doing.
    Raises BrokenProcessPool, with the cause, when a process cannot load its job; WorkerEnded when a process dies.
    """
    if workers <= 1:
        while jobs:
            job = jobs.popleft()
            with heard_by(hear):
                result = function(job)
            yield job, result
        return
    context = _context(function)
    processes: dict[Connection[Any, Any], BaseProcess] = {}
    answered: set[Connection[Any, Any]] = set()
    idle: list[Connection[Any, Any]] = []
    busy: dict[Connection[Any, Any], J] = {}
    try:
        with ThreadPoolExecutor(1, "start") as starter:  # Ctrl-C interrupts only the main thread, so no start is halved
            starter.submit(ensure_running).result()  # started with the first process, it would unblock Ctrl-C there
            while jobs or busy:
                while jobs and (idle or len(processes) < workers):
                    if not idle:
                        idle.append(_begun(context, starter, processes))
                    connection = idle.pop()
                    busy[connection] = jobs.popleft()
                    _send(connection, (function, busy[connection]))
                ready = wait(list(busy))
                for connection in [connection for connection in busy if connection in ready]:
                    answer = _received(connection, processes[connection], connection in answered)
                    answered.add(connection)
                    if isinstance(answer, _Message):
                        if hear:
                            hear(answer.content)
                        continue
                    result, error = answer
                    job = busy.pop(connection)
                    idle.append(connection)
                    if error:
                        raise error
                    yield job, result
    finally:
        _kill(processes.values())


def conversing(
    function: Callable[[J], None], jobs: Sequence[J]
) -> Generator[tuple[Any, Callable[[object], None]], None, None]:
    """Do each job in a process of its own, all at once, and yield (message, reply) for each message that one sends.

    A job sends messages with `tell`, and waits for the reply with `ask`; the caller calls reply(answer) for these.
    Errors of the function are raised. Closing the generator kills the processes; see `in_parallel`, also for errors.
    """
    context = _context(function)
    processes: dict[Connection[Any, Any], BaseProcess] = {}
    try:
        with ThreadPoolExecutor(1, "start") as starter:
            starter.submit(ensure_running).result()
            for job in jobs:
                _send(_begun(context, starter, processes), (function, job))
        running = {*processes}
        answered: set[Connection[Any, Any]] = set()
        while running:
            ready = wait([*running])
            for connection in [connection for connection in running if connection in ready]:
                answer = _received(connection, processes[connection], connection in answered)
                answered.add(connection)
                if isinstance(answer, _Message):
                    yield answer.content, partial(_send, connection)
                    continue
                if answer[1]:
                    raise answer[1]
                running.discard(connection)
    finally:
        _kill(processes.values())


def _begun(
    context: ForkServerContext | SpawnContext,
    starter: ThreadPoolExecutor,
    processes: "dict[Connection[Any, Any], BaseProcess]",
) -> "Connection[Any, Any]":
    """Start a process that waits for jobs, add it to the others, and return the connection to it."""
    ours, theirs = context.Pipe()
    processes[ours] = context.Process(target=_work, args=(theirs, plugins.described()), daemon=True)
    starter.submit(_start, processes[ours]).result()
    theirs.close()
    return ours


def _kill(processes: Iterable[BaseProcess]) -> None:
    """Kill the processes that have started, and wait until they hold nothing any more."""
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


@contextmanager
def heard_by(hear: Hear | None) -> Iterator[None]:
    """Give the messages of jobs in this process to `hear`."""
    _hearing.append(hear or (lambda _: None))
    try:
        yield
    finally:
        _hearing.pop()


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
    script = vars(sys.modules["__main__"])
    file = script.get("__file__")
    if file and not os.path.exists(file):  # a script that Python reads from a pipe, which nobody can import
        script["__file__"] = None
    try:
        process.start()
    finally:
        if file:
            script["__file__"] = file


def packed(message: object) -> bytes:
    """Return the bytes of a job, (function, argument), for `answer`; BrokenProcessPool if it cannot be sent."""
    try:
        return bytes(ForkingPickler.dumps(message))
    except Exception as error:  # of many types
        raise BrokenProcessPool(f"a job cannot be sent to a worker process ({_named(error)}); {REACH}") from error


def unpacked(content: bytes | memoryview) -> Any:
    """Return what `packed` or `answer` was given; only for bytes of a process that this program has started."""
    return ForkingPickler.loads(content)


def _send(connection: "Connection[Any, Any]", message: object) -> None:
    content = packed(message)
    with suppress(OSError):  # the process has ended; `_received` gives the reason
        connection.send_bytes(content)


def _received(
    connection: "Connection[Any, Any]", process: BaseProcess, began: bool
) -> _Message | tuple[Any, Exception | None]:
    """Return a message of a job, or its result and its error. began: the process has done a job before."""
    try:
        answer: _Message | tuple[Any, Exception | None] = connection.recv()
    except (EOFError, OSError):
        raise _end(process, began) from None
    return answer


def _end(process: BaseProcess, began: bool) -> BrokenProcessPool:
    """Return the error of a process that has ended, with the way in which it ended."""
    process.join(5)
    code = process.exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name
        return WorkerEnded(f"a worker process was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}")
    if code == SERVER_GONE and sys.platform == "linux":
        return WorkerEnded("the server that starts worker processes was killed (out of memory?)")
    if code and not began:
        script = getattr(sys.modules["__main__"], "__file__", None) or "the calling script"
        return BrokenProcessPool(
            f"a worker process ended with exit code {code}; its message is above. A worker imports {script}, whose "
            'actions therefore need the guard `if __name__ == "__main__":`'
        )
    return WorkerEnded(f"a worker process ended in the middle of a job, with exit code {code}")


def _work(connection: "Connection[Any, Any]", plugged: str | None) -> None:
    """Do the jobs of the parent process one by one; it kills this process when there are none left."""
    plugins.take(plugged)  # the server that this process is a copy of may be older than they are
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # if other code has started the server, without `_start`
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _hearing.append(lambda message: connection.send(_Message(message)))
    _replies.append(connection.recv)
    while True:
        try:
            connection.send_bytes(answer(connection.recv_bytes()))
        except (EOFError, OSError):  # the parent has ended
            return


def answer(message: bytes) -> memoryview:
    """Do a pickled job; return its result and its error, pickled. One of them is None.

    A RuntimeError replaces an error that cannot be pickled, or that the parent could not unpickle.
    """
    try:
        function, job = ForkingPickler.loads(message)
    except (Exception, SystemExit) as error:  # of the modules that are imported for it
        reason = BrokenProcessPool(f"a worker process cannot load its job ({_named(error)}); {REACH}")
        return ForkingPickler.dumps((None, reason))
    try:
        return ForkingPickler.dumps((function(job), None))
    except SystemExit as error:  # it would end this process, and then the parent
        return ForkingPickler.dumps((None, RuntimeError(repr(error))))
    except Exception as error:
        try:
            failed = ForkingPickler.dumps((None, error))
            ForkingPickler.loads(failed)
            return failed
        except Exception:  # classes of errors may have any constructor and any attributes
            return ForkingPickler.dumps((None, RuntimeError(repr(error))))


def _named(error: BaseException) -> str:
    """Return the message of an error; with its class, unless it is our own."""
    return str(error) if isinstance(error, FeatcacheError) else f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """Wait for the end of the parent process, even one by SIGKILL, and end this process at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
