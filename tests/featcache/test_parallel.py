"""Jobs in processes: their results, their errors, and the end of the processes, however their parent ends."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from featcache import parallel
from featcache.errors import FeatcacheError
from featcache.parallel import in_parallel
from tests.conftest import ROOT
from tests.helpers.processes import alive, children, gone, heed_ctrl_c, parent_of, wait_for

SCRIPT = r"""
import os, sys, time
from collections import deque
from contextlib import closing
from featcache.parallel import in_parallel
from featcache.stopping import stoppable

def work(number):
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(60)

if __name__ == "__main__":
    with stoppable(lambda stop: print(stop, flush=True)):
        with closing(in_parallel(work, deque([1, 2, 3]), 2)) as results:
            list(results)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_jobs_that_are_added_later(workers):
    jobs, results = deque([-1, 2]), []
    for job, result in in_parallel(abs, jobs, workers):
        results.append((job, result))
        if job == -1:
            jobs.append(-3)
    assert sorted(results) == [(-3, 3), (-1, 1), (2, 2)]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_jobs_are_raised(workers):
    with (
        pytest.raises(FeatcacheError, match="wrong"),
        closing(in_parallel(_fail, deque(["wrong"]), workers)) as results,
    ):
        list(results)


def _adds(start):
    """Ask for numbers until there are none left, and send the sum."""
    while number := parallel.ask("next"):
        start += number
    parallel.tell(start)
    if start < 0:
        raise FeatcacheError(f"{start} is too small")


def _sums(starts, numbers):
    """The messages of jobs that ask for these numbers."""
    numbers = iter(numbers)
    with closing(parallel.conversing(_adds, starts)) as messages:
        return [message for message, reply in messages if message != "next" or reply(next(numbers, None))]


def test_jobs_that_ask_get_replies_and_their_errors_are_raised():
    sums = _sums([0, 10_000], range(1, 50))
    assert (len(sums), sum(sums)) == (2, 10_000 + 49 * 25)
    assert not children(os.getpid())
    with pytest.raises(FeatcacheError, match="-5 is too small"):
        _sums([-5], [])


def test_jobs_that_wait_for_a_reply_end_with_the_generator():
    with closing(parallel.conversing(_adds, [0, 0])) as messages:
        assert next(messages)[0] == "next"
        workers = children(os.getpid())
        assert len(workers) == 2
    assert gone(workers)


def _fail(text):
    raise FeatcacheError(text)


class OddError(Exception):
    """An error that can be pickled, but not unpickled."""

    def __init__(self, clip, reason):
        super().__init__(f"{clip}: {reason}")


class Unloadable:
    def __setstate__(self, state):
        raise ImportError(state)

    def __getstate__(self):
        return "no module"


def _odd(job):
    raise OddError("a.mp4", job)


def _with_lock(job):
    error = ValueError(job)
    error.lock = threading.Lock()
    raise error


def _lock(job):
    return threading.Lock()


@pytest.mark.parametrize(
    ("function", "job", "reason"),
    [
        (_odd, "no frames", r"OddError\('a.mp4: no frames'\)"),
        (_with_lock, "no frames", r"ValueError\('no frames'\)"),
        (_lock, "", "cannot pickle '_thread.lock'"),
        (str, Unloadable(), "no module"),
    ],
    ids=["error", "attribute of an error", "result", "job"],
)
def test_what_cannot_be_pickled_has_its_reason(function, job, reason):
    result, error = pickle.loads(parallel.answer(pickle.dumps((function, job))))
    assert result is None
    assert re.search(reason, repr(error))


def test_an_error_that_cannot_be_unpickled_is_raised_with_its_reason():
    with pytest.raises(RuntimeError, match=r"OddError.*a.mp4: no frames"):
        list(in_parallel(_odd, deque(["no frames"]), 2))


def test_a_process_that_dies_is_an_error_and_the_others_are_killed():
    jobs = deque([partial(time.sleep, 60), partial(os._exit, 1)])
    began = time.monotonic()
    with pytest.raises(BrokenProcessPool), closing(in_parallel(_call, jobs, 2)) as results:
        list(results)
    assert time.monotonic() - began < 30


@pytest.mark.skipif(sys.platform != "linux", reason="only there a server starts the processes")
def test_processes_have_ended_after_the_end_even_without_their_server():
    """A process with much memory takes a while to end."""
    with closing(in_parallel(_hold, deque([0, 2**29]), 2)) as results:
        next(results)
        server, workers = parent_of(children(os.getpid())[0]), children(os.getpid())
        assert wait_for(lambda: max(map(resident, workers)) > 2**29)
        os.kill(server, signal.SIGKILL)
        assert gone([server])
        assert all(map(alive, workers))
    assert not any(map(alive, workers))


def _hold(n):
    """Hold n bytes for a minute; without any, nothing."""
    held = bytearray(n)
    for k in range(0, n, 4096):  # the kernel gives a page when it is written to
        held[k] = 1
    time.sleep(60 if n else 0)


def resident(pid):
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _call(function):
    return function()


SLOW = pytest.mark.slow


def _kill(name):
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "jobs", "words"),
    [
        pytest.param(_kill, ["SIGKILL"], r"killed by SIGKILL \(out of memory\?\)", id="killed"),
        pytest.param(_kill, ["SIGTERM"], "killed by SIGTERM$", id="terminated", marks=SLOW),
        pytest.param(os._exit, [3], "exit code 3; its message is above.*guard", id="at its start", marks=SLOW),
        pytest.param(
            _call,
            [partial(int, 1), partial(int, 1), partial(os._exit, 3)],
            "in the middle of a job, with exit code 3",
            id="later",
            marks=SLOW,
        ),
        pytest.param(str, [Unloadable()], "cannot load its job.*no module.*--plugins", id="not loaded"),
        pytest.param(str, [lambda: 0], "cannot be sent.*lambda.*--plugins", id="not sent"),
    ],
)
def test_the_end_of_a_process_is_named(function, jobs, words):
    with pytest.raises(BrokenProcessPool, match=words) as error, closing(in_parallel(function, deque(jobs), 2)) as done:
        list(done)
    may_succeed = "killed" in words or "middle" in words  # elsewhere the same command ends in the same way
    assert parallel.advised(error.value, "try again").endswith("; try again") == may_succeed


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (SCRIPT.replace('if __name__ == "__main__":', "if True:"), "bootstrapping phase"),
        pytest.param(
            SCRIPT + "\nif __name__ != '__main__':\n    import no_such_module\n", "No module named", marks=SLOW
        ),
    ],
    ids=["no guard", "a script that only the parent can import"],
)
def test_a_script_that_workers_cannot_import_is_named(tmp_path, script, words):
    (tmp_path / "script.py").write_text(script)
    out, err = started(tmp_path / "script.py").communicate(timeout=60)
    assert words in err
    assert re.search(r"BrokenProcessPool: .*exit code 1; .*script.py, .*guard `if __name__", err)
    assert "out of memory" not in out + err


def test_a_script_in_a_pipe_has_workers_if_its_functions_are_those_of_a_module():
    lines = ["from collections import deque", "from featcache.parallel import in_parallel", "def own(x): return x", ""]
    for function, words in (("abs", "[(-1, 1)]"), ("own", "cannot load its job (AttributeError: Can't get attribute")):
        script = "\n".join([*lines, f"print(list(in_parallel({function}, deque([-1]), 2)))"])
        run = subprocess.run([sys.executable, "-"], input=script, text=True, capture_output=True, check=False, cwd=ROOT)
        assert words in run.stdout + run.stderr


def test_a_job_that_exits_is_an_error_and_ends_nothing():
    with pytest.raises(RuntimeError, match="SystemExit"), closing(in_parallel(sys.exit, deque([0]), 2)) as results:
        list(results)


def started(script):
    """A process in a group of its own that runs a script and heeds Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("SIGINT to all", 130, "Stopped by Ctrl-C\n"),  # as a terminal sends it
        ("SIGINT", 130, "Stopped by Ctrl-C\n"),
        ("SIGTERM", 143, "Stopped by SIGTERM\n"),
        ("SIGTERM to all", 143, "Stopped by SIGTERM\n"),
        ("SIGKILL", -9, ""),
    ],
)
def test_processes_end_with_their_parent(tmp_path, how, code, words):
    """No traceback of a worker, no orphan, no job begun after the end."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = started(script)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(map(alive, workers))
    name, _, to_all = how.partition(" ")
    (os.killpg if to_all else os.kill)(process.pid, getattr(signal, name))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, words, "")
    assert gone(workers)


@pytest.mark.slow
def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path):
    """From the start of the workers on, at 40 moments."""
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.replace("        with closing", '        print("ready", flush=True)\n        with closing')
    )
    for moment in range(40):
        process = started(script)
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment * 0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, "")
        assert gone([int(line) for line in out.splitlines() if line.isdecimal()])


def _count(number):
    for k in range(number):
        parallel.tell((number, k))
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_messages_of_a_job_come_in_order_and_before_its_result(workers):
    heard = []
    for job, result in in_parallel(_count, deque([3, 5]), workers, heard.append):
        assert job == result
        assert [k for number, k in heard if number == job] == list(range(job))
    assert sorted(heard) == [(number, k) for number in (3, 5) for k in range(number)]


@pytest.mark.parametrize("workers", [1, 2])
def test_messages_that_nobody_hears_are_dropped(workers):
    assert [result for _, result in in_parallel(_count, deque([2]), workers)] == [2]
    parallel.tell("outside a job")
