"""Ctrl-C and SIGTERM: an orderly end within two seconds, whatever the program is doing.

The first signal raises `Stopped` in the main thread, so that every `finally` and `with` on its way does its work. Then
the process ends at once, because its other threads and Python's own end may take long.

Python runs signal handlers only between two steps of the main thread, and an orderly end may have to wait for threads.
Therefore a thread of its own, which the kernel wakes at once, ends a process that still lives after PATIENCE. Nothing
is lost then: whatever featcache writes survives a kill at any moment.
"""

import atexit
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
    """Run a program, in its main thread: Ctrl-C and SIGTERM raise `Stopped` in the block, and then end the process.

    The exit code is that of shells: 130 after Ctrl-C, 143 after SIGTERM. Further signals are ignored, and also those
    after the block, when only Python's own end is left. Signals that are ignored before (Ctrl-C in a shell script's
    background job) stay ignored. last_words: prints what a user should know; it is called once.
    """
    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ending, stopped, done = threading.Lock(), 0, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped and not done:
            stopped = number
            raise Stopped(number)

    def end(number: int) -> None:
        if ending.acquire(blocking=False):  # the main thread and the watching thread may come here at the same time
            last_words(Stopped(number))
        os._exit(128 + number)

    def watch() -> None:
        while (number := os.read(reader, 1)[0]) not in ours:
            pass  # a signal that a library handles, such as torch's loaders the end of a child process
        time.sleep(PATIENCE)
        if done and not stopped:  # the signal came after the block
            return
        words = threading.Thread(target=end, args=(number,), daemon=True)
        words.start()
        words.join(PATIENCE / 4)  # nobody may read what is printed
        os._exit(128 + number)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if not isinstance(args.exc_value, Stopped):  # raised in a callback that Python ignores errors of: `watch` ends
            hook(args)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    threading.Thread(target=watch, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, stop)
        atexit.register(signal.signal, number, signal.SIG_IGN)  # else signals kill a process that ends by itself
    try:
        yield
    finally:
        done = True
        if stopped:  # also if another error has replaced `Stopped`
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            end(stopped)
