"""Commands in processes of their own, as a shell starts them, and what becomes of them after a signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT


def command(*words, module="pipelines.cli", **options):
    """Start a command of featcache as the leader of its own group, which a terminal's Ctrl-C reaches as a whole."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
        **options,
    )


def heed_ctrl_c():
    """Heed SIGINT even if these tests are a background job of a shell script, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def listening(process):
    """Wait until a command handles signals, which it does before it does anything else; False if it has ended."""

    def caught():
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        return process.poll() is not None or int(status.get("SigCgt", "0"), 16) >> (signal.SIGTERM - 1) & 1

    return bool(wait_for(caught)) and process.poll() is None


def stopped(process, how):
    """Send a signal, "SIGINT", "SIGINT to all", ...; return (exit code, seconds, stderr) once the process has ended."""
    name, _, to_all = how.partition(" ")
    began = time.monotonic()
    (os.killpg if to_all else os.kill)(process.pid, getattr(signal, name))
    process.wait(timeout=60)
    seconds = time.monotonic() - began
    return process.returncode, seconds, process.communicate(timeout=60)[1]


def children(pid):
    """The worker processes of a command: its children, or those of the server that forks them on Linux."""
    return [
        worker
        for child, arguments in _started_by(pid)
        if b"resource_tracker" not in arguments  # which ends a little later
        for worker in ([each for each, _ in _started_by(child)] if b"forkserver" in arguments else [child])
    ]


def descendants(pid):
    """All processes that a process has started, with those that these have started."""
    started = [child for child, _ in _started_by(pid)]
    return [process for child in started for process in (child, *descendants(child))]


def _started_by(pid):
    """Process -> its arguments, of all that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = parent_of(stat.parent.name)
            arguments = (stat.parent / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if parent == pid:
            found.append((int(stat.parent.name), arguments))
    return found


def parent_of(pid):
    """The process that has started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alive(pid):
    """True if a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=20):
    """True once all processes have ended."""
    return wait_for(lambda: not any(map(alive, pids)), seconds)


def wait_for(ready, seconds=60):
    """Wait until `ready()` is true; return whether it is."""
    until = time.monotonic() + seconds
    while not (met := ready()) and time.monotonic() < until:
        time.sleep(0.01)
    return met
