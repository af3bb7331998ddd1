"""Queues in simulated time: a clock with processes, hardware that users share, and places that they take in turns.

A process is a generator that yields what it waits for.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count

Resume = Callable[[], None]
Process = Generator[Callable[[Resume], None], None, None]  #: yields waits, each of which calls what it is given


class Clock:
    """Simulated time, in seconds, and what happens in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._now = deque[Resume]()
        self._events: list[tuple[float, int, Resume]] = []
        self._numbers = count()  # events of one moment happen in their order

    def soon(self, call: Resume) -> None:
        """Call a function at this moment, after what was planned for it before."""
        self._now.append(call)

    def after(self, seconds: float, call: Resume) -> None:
        """Call a function after so many seconds."""
        heappush(self._events, (self.now + seconds, next(self._numbers), call))

    def start(self, process: Process) -> None:
        """Run a process until it ends; it continues when what it waits for has come."""

        def step() -> None:
            if wait := next(process, None):
                wait(step)

        self.soon(step)

    def run(self) -> None:
        """Let everything happen."""
        while self._now or self._events:
            if self._now:
                self._now.popleft()()
            else:
                self.now, _, call = heappop(self._events)
                call()


class Shared:
    """Cores, a GPU, a disk, a network. Users ask for a pace, and each gets the same part of it: all, if there is room.

    As the part is the same for all, one counter of the work that a pace of 1 would have done orders their ends.
    """

    def __init__(self, clock: Clock, capacity: float, others: float = 0.0) -> None:
        """others: the pace that users ask for who are not simulated."""
        self.capacity, self.others = capacity, others
        self.spent: defaultdict[str, float] = defaultdict(float)  # kind of work -> its amount
        self._clock, self._asked, self._done, self._since, self._plan = clock, 0.0, 0.0, 0.0, 0
        self._used, self._wanted = 0.0, 0.0
        self._ends: list[tuple[float, int, float, Resume]] = []
        self._numbers = count()

    def use(self, work: float, pace: float, kind: str) -> Callable[[Resume], None]:
        """Return a wait for work to be done, at this pace or a part of it."""

        def wait(resume: Resume) -> None:
            self._settle()
            self.spent[kind] += work
            self._asked += pace
            heappush(self._ends, (self._done + work / pace, next(self._numbers), pace, resume))
            self._expect()

        return wait

    def used(self) -> float:
        """Return the work that was done so far."""
        self._settle()
        return self._used

    def share(self) -> float:
        """Return the part of the pace that its users got of what they asked for, so far."""
        self._settle()
        return self._used / self._wanted if self._wanted else 1.0

    def _part(self) -> float:
        return min(1.0, self.capacity / (self._asked + self.others)) if self._ends else 1.0

    def _settle(self) -> None:
        """Count the work of the time that has passed."""
        passed, self._since = self._clock.now - self._since, self._clock.now
        self._done += passed * self._part()
        self._used += passed * self._part() * self._asked
        self._wanted += passed * self._asked

    def _expect(self) -> None:
        """Plan the next end; the one planned before is forgotten."""
        self._plan += 1
        if self._ends:
            plan, left = self._plan, self._ends[0][0] - self._done
            self._clock.after(max(0.0, left) / self._part(), lambda: self._end() if plan == self._plan else None)

    def _end(self) -> None:
        self._settle()
        _, _, pace, resume = heappop(self._ends)
        self._asked = self._asked - pace if self._ends else 0.0  # no rounding remains
        self._expect()
        resume()


class Places:
    """Threads, or room in a queue: each user takes a place, in the order of asking."""

    def __init__(self, clock: Clock, free: int) -> None:
        self.free = free
        self._clock, self._waiting = clock, deque[Resume]()

    def take(self, resume: Resume) -> None:
        """Wait for a place."""
        if self.free:
            self.free -= 1
            self._clock.soon(resume)
        else:
            self._waiting.append(resume)

    def give(self) -> None:
        """Give a place back, or a new one."""
        if self._waiting:
            self._clock.soon(self._waiting.popleft())
        else:
            self.free += 1
