"""The engine of several devices of this machine: a process for each, with its own networks and decoding threads.

A process asks for the next clip whenever one of its decoding threads is free, so a fast device gets more clips. Its
parts come home, and this process keeps them.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from featcache import parallel
from featcache.errors import ConfigError, FeatcacheError
from featcache.extractors import Extractor
from featcache.manifest import Manifest
from featcache.windows import Plan
from pipelines.extraction.assembly import Part
from pipelines.extraction.engine import Job, Local
from pipelines.extraction.extractors import Order

NEXT = "next"  #: the question for another clip; the answer is a `Job`, or None when there are none left


class _Work(NamedTuple):
    """All that the process of a device needs."""

    order: Order
    device: str
    wanted: tuple[str, ...]  #: the extractors to load
    manifest: Manifest
    plan: Plan
    workers: int
    made: dict[str, Any]  #: extractor -> recipe and facts of the process that keeps the parts


class Devices:
    """An engine with a process per device. workers: decoding threads of all of them together."""

    def __init__(
        self,
        manifest: Manifest,
        extractors: Sequence[Extractor],
        plan: Plan,
        *,
        order: Order,
        devices: Sequence[str],
        workers: int,
    ) -> None:
        self.busy, self.notes = 0.0, list[str]()
        wanted = tuple(extractor.name for extractor in extractors)
        made = {extractor.name: (extractor.recipe, extractor.facts) for extractor in extractors}
        each = max(1, workers // len(devices))
        self._works = [_Work(order, device, wanted, manifest, plan, each, made) for device in devices]

    def parts(self, jobs: Iterator[Job]) -> Generator[Part, None, None]:
        """Yield the part of each job and extractor as soon as it is whole."""
        try:
            with closing(parallel.conversing(_serve, self._works)) as messages:
                for message, reply in messages:
                    if message == NEXT:
                        reply(next(jobs, None))
                    elif isinstance(message, Part):
                        yield message
                    else:
                        self.busy += message / len(self._works)
        except BrokenProcessPool as error:
            fix = "the rows computed so far are kept: run the same command again"
            raise FeatcacheError(parallel.advised(error, fix)) from error


def _serve(work: _Work) -> None:
    """Compute clips on a device until there are none left."""
    loaded = replace(work.order, runtime=replace(work.order.runtime, device=work.device)).load()
    extractors = [extractor for extractor in loaded if extractor.name in work.wanted]
    for extractor in extractors:
        recipe, facts = work.made[extractor.name]
        if (extractor.recipe, extractor.facts) != (recipe, facts):
            raise ConfigError(
                f"{extractor.name} on {work.device} has {extractor.facts}, and on the first device {facts}: its rows "
                "would have other last digits; name devices of one kind"
            )
    engine = Local(work.manifest, extractors, work.plan, work.workers)
    with closing(engine.parts(_jobs())) as parts:
        for part in parts:
            parallel.tell(part)
    parallel.tell(engine.busy)


def _jobs() -> Iterator[Job]:
    while job := parallel.ask(NEXT):
        yield job
