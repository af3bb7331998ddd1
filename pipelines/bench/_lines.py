"""Lines of the table of benchmarks, and the tools that measure them."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Line = tuple[str, str, float, float, Callable[[float], str]]
"""Name, name of the plain way, cost of ours, cost of the plain way, and a function that prints a cost."""

Benchmark = Callable[[Path], Iterator[Line]]  #: takes an empty folder that all benchmarks of a call share

ROUNDS = 5


def alternate(
    ours: Callable[[int], object],
    plain: Callable[[int], object],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median seconds of both functions, called in turns after a warm-up, so that a slow moment hits both.

    Each function receives the number of the round: 0 in the warm-up, then 1, 2, ...
    clock: time.thread_time for computations of one thread, on a machine with other work.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, times in zip((ours, plain), seconds, strict=True):
            began = clock()
            run(number)
            times.append(clock() - began)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def run_apart(code: str, *arguments: str) -> str:
    """Run Python code in a process of its own, because peak memory is counted per process; return its output."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, encoding="utf-8").stdout


def peak_bytes() -> int:
    """Peak memory of this process so far (VmHWM of Linux)."""
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) << 10
