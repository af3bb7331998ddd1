"""Ctrl-C and SIGTERM: an orderly end within two seconds, whatever the program is doing.

The first signal raises `Stopped` in the main thread, so that every `finally` and `with` on its way does its work. Then
the process ends at once, because its other threads and Python's own end may take long.

Python runs signal handlers only between two steps of the main thread, and an orderly end may have to wait for threads.
Therefore a thread of its own, which the kernel wakes at once, ends a process that still lives after PATIENCE. Nothing
is lost then: whatever featcache writes survives a kill at any moment.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}  #: the signals that stop a program, with their names
PATIENCE = 1.0  #: seconds that an orderly end may take


class Stopped(KeyboardInterrupt):
    """Raised in the main thread when the program is to end because of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"Stopped by {SIGNALS[signal.Signals(self.number)]}"


@contextlib.contextmanager
def stoppable(last_words: Callable[[Stopped], None]) -> Iterator[None]:
    """Raise `Stopped` in this block at the first Ctrl-C or SIGTERM, and end the process when the block has ended.

    The exit code is that of shells: 130 after Ctrl-C, 143 after SIGTERM. Further signals are ignored.
    last_words: prints what a user should know; it is called once. Signals that are ignored (Ctrl-C in a shell
    script's background job) stay ignored. Outside the main thread the block is left alone.
    """
    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ending, stopped = threading.Lock(), 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = number
            raise Stopped(number)

    def end(number: int) -> None:
        if ending.acquire(blocking=False):  # the main thread and the watching thread may come here at the same time
            last_words(Stopped(number))
        os._exit(128 + number)

    def watch() -> None:
        while woken := os.read(reader, 1):  # the number of a signal
            if woken[0] in ours:
                time.sleep(PATIENCE)
                words = threading.Thread(target=end, args=(woken[0],), daemon=True)
                words.start()
                words.join(PATIENCE / 4)  # nobody may read what is printed
                os._exit(128 + woken[0])
        os.close(reader)

    threading.Thread(target=watch, name="signals", daemon=True).start()
    woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    finally:
        if stopped:  # also if another error has replaced `Stopped`
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            end(stopped)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        os.close(writer)
