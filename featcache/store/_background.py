"""Work in the background, one call after the other."""

import contextlib
import threading
from collections.abc import Callable


class Background:
    """Calls that run one after the other in threads, while the thread that starts them continues.

    Each call runs once, and in the order of the starts: a thread first waits for the calls before its own. What
    interrupts the starting thread, such as Ctrl-C, does not reach a call, except one whose thread could not be started:
    `wait` runs that call, and raises the interruption as its error.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []  #: those that `wait` has not settled, in order

    def start(self, call: Callable[[], object]) -> None:
        """Run the call after those before it, and return at once."""
        one = _Call(call, self._calls[-1] if self._calls else None)
        self._calls.append(one)
        with contextlib.suppress(RuntimeError):  # the system has no more threads, or Python is ending
            one.thread.start()

    def wait(self, most: int = 0) -> None:
        """Wait until at most so many calls are left, and raise the first error of the others."""
        settled = self._calls[: max(0, len(self._calls) - most)]
        for call in settled:
            if call.thread.ident is not None:
                call.thread.join()
            call.run()
        del self._calls[: len(settled)]
        for call in settled:
            if call.error is not None:
                raise call.error

    def check(self) -> None:
        """Raise the first error of the calls that have ended."""
        if self._calls and self._calls[0].ended:
            self.wait(sum(not call.ended for call in self._calls))


class _Call:
    def __init__(self, call: Callable[[], object], before: "_Call | None") -> None:
        self._call: Callable[[], object] | None = call
        self.thread = threading.Thread(target=self.run, name="featcache store")
        self._before, self._lock, self.ended = before, threading.Lock(), False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the call, after the one before it; if another thread runs it, wait, and if it has ended, do nothing."""
        with self._lock:
            if self._before is not None:
                self._before.run()
                self._before = None
            try:
                call, self._call = self._call, None
                if call is not None:
                    call()
            except BaseException as error:
                self.error = error
            self.ended = True
