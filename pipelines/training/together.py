"""The training of several runs in one pass: one forward and backward pass makes a step of each.

Every run has its own method, seed, random streams, batches, learning rates, clipping and evaluation points, and fails
by itself. The first steps equal those of the run alone to rounding; then they drift apart, as between processors.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby

import torch
from torch import Generator, Tensor

from heads.batch import Batch, mapped
from heads.methods import Method
from heads.stacked import Stack
from pipelines.config import Optim, RunConfig
from pipelines.data.draws import Draw, Together, batches, draw_batch, draws
from pipelines.training.optimizers import optimizers, update_each
from pipelines.training.train import Head, epochs, train_step, use
from pipelines.training.watching import Log, logs_of

ROUNDS, SINGLE_STEPS = 3, 4  #: of `gain`: rounds after a warm-up, and steps of a run alone in each


class Streams:
    """The global random streams of torch, of the CPU and the device, as they are for one run."""

    def __init__(self, device: str) -> None:
        self.shared = [torch.default_generator]
        if torch.device(device).type == "cuda":
            self.shared.append(torch.cuda.default_generators[torch.cuda._utils._get_device_index(device, True)])
        self.own = [Generator(g.device).set_state(g.get_state()) for g in self.shared]

    @property
    def device(self) -> Generator:
        """The stream of the device, from which losses draw."""
        return self.own[-1]

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Make the global streams those of this run, and restore them afterwards."""
        before = [g.get_state() for g in self.shared]
        for g, own in zip(self.shared, self.own, strict=True):
            g.set_state(own.get_state())
        try:
            yield
        finally:
            for g, own, state in zip(self.shared, self.own, before, strict=True):
                own.set_state(g.get_state())
                g.set_state(state)


class PassError(Exception):
    """An error in a step of several heads, with its cause."""

    def __init__(self, cause: Exception, culprits: list[int]) -> None:
        super().__init__(*cause.args)
        self.cause = cause
        self.culprits = culprits  #: positions of the heads whose step also fails alone


class Pass:
    """The steps of several heads in one pass. Heads with equal optimisers come one after the other (`by_optim`)."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self.stack = Stack([head.method for head in heads])
        first = heads[0].method
        self.objectives = first.objectives()
        names = {id(p): name for name, p in first.named_parameters()}
        self.players: dict[str, list[tuple[Optim, torch.optim.Optimizer, list[str], slice]]] = {}
        for who, parameters in first.players().items():
            self.players[who] = []
            for part, config in _slices([head.config for head in heads]):
                for optim, optimizer in optimizers(first, parameters, config):
                    (group,) = optimizer.param_groups
                    trained = [names[id(p)] for p in group["params"]]
                    group["params"] = [self.stack.memory[name][part] for name in trained]
                    self.players[who].append((optim, optimizer, trained, part))

    def step(self, batch: Batch, progress: float, streams: Sequence[Generator]) -> dict[str, Tensor]:
        """Make one step of each head, and return the terms, name -> (K,).

        streams: one per head, or a single one from which all draw the same numbers. PassError if it fails, after which
        no head can be used any more.
        """
        try:
            return self._step(batch, progress, streams)
        except Exception as error:
            methods = self.stack.methods
            culprits = [k for k, method in enumerate(methods) if _fails(method, _of_head(batch, k), progress)]
            raise PassError(error, culprits) from error

    def _step(self, batch: Batch, progress: float, streams: Sequence[Generator]) -> dict[str, Tensor]:
        step_terms: dict[str, Tensor] = {}
        for who, objective in self.objectives:
            terms = self.stack.terms(batch, progress, streams, objective)
            self.stack.backward(terms)
            for player in who.split():
                for optim, optimizer, names, part in self.players[player]:
                    gradients = [self.stack.gradient(name, part) for name in names]
                    update_each(optim, optimizer, gradients, progress)
            step_terms |= terms
        return {name: term.detach() for name, term in step_terms.items()}


def _of_head(batch: Batch, k: int) -> Batch:
    """Return the batch of a head, from one whose sides are (B, K, ...), or (B, ...) if all share them."""
    sides = {name: side for name in ("source", "target") if (side := getattr(batch, name)) is not None}
    return Batch(
        **{name: mapped(lambda v: v[:, k], side) if side.index.dim() == 2 else side for name, side in sides.items()}
    )


def _fails(method: Method, batch: Batch, progress: float) -> bool:
    """Return whether a step of a method fails alone, as that of a run that explodes in linear algebra."""
    try:
        for _, objective in method.objectives():
            torch.stack(list(method(batch, progress, objective).values())).sum().backward()
    except Exception:
        return True
    return not all(p.isfinite().all() for p in method.parameters())


def by_optim(config: RunConfig) -> str:
    """Return a key by which runs are sorted so that those with equal optimisers come one after the other."""
    return repr((config.optim, config.optim_for))


def _slices(configs: Sequence[RunConfig]) -> Iterator[tuple[slice, RunConfig]]:
    """Yield the neighbours that have equal optimisers, and the configuration of the first of them."""
    begin = 0
    for _, members in groupby(configs, by_optim):
        count = len(list(members))
        yield slice(begin, begin + count), configs[begin]
        begin += count


def fit_together(heads: Sequence[Head], streams: Sequence[Streams], *, prefetch: bool = False) -> dict[int, Exception]:
    """Train heads of equal form, and return head number -> error, for those that failed as they would have alone.

    An error of the pass itself is raised, a PassError if it is that of a step, and leaves all heads unfinished.
    """
    config, failed = heads[0].config, dict[int, Exception]()
    own = [draws(head.config, head.opened.sides) for head in heads]
    sides = _together(own)

    def each(do: Callable[[Head, int], None]) -> None:
        """Do this for each head that has not failed."""
        for k, head in enumerate(heads):
            if k not in failed:
                try:
                    do(head, k)
                except Exception as error:
                    failed[k] = error
                    head.method.train()  # an error in an evaluation leaves it in eval mode

    def begin_epoch(head: Head, k: int, epoch: int) -> None:
        with streams[k].resumed():
            if epoch == 0:
                head.begin()
            use(own[k], head.begin_epoch(epoch))

    passes, watch = Pass(heads), heads[0].watch
    watch.begin(*(head.config for head in heads))
    for epoch, steps in enumerate(epochs(config, heads[0].opened.sides)):
        each(partial(begin_epoch, epoch=epoch))
        if len(failed) == len(heads):
            break
        passes.stack.refresh(failed)
        drawn, terms = _generators(streams), list[dict[str, Tensor]]()
        with batches(sides, len(steps), prefetch=prefetch) as stream:
            for step, batch in zip(steps, stream, strict=True):
                terms.append(passes.step(batch, step / config.steps, drawn))
                watch.stepped(step + 1, terms[-1])
                each(lambda head, _, step=step: head.stepped(step + 1))  # type: ignore[misc]
        for other in streams if len(drawn) == 1 else ():
            other.device.set_state(drawn[0].get_state())
        each(partial(_end_epoch, logs=logs_of(terms, steps.start, len(heads))))
    each(lambda head, _: head.end())
    passes.stack.release()
    return failed


def _end_epoch(head: Head, k: int, logs: list[Log]) -> None:
    head.end_epoch(logs[k])


def _together(own: Sequence[dict[str, Draw]]) -> dict[str, Together]:
    return {side: Together([draws[side] for draws in own]) for side in own[0]}


def _generators(streams: Sequence[Streams]) -> list[Generator]:
    """Return the device's stream of each head; only one if all would draw the same, as in a grid of one seed."""
    generators = [stream.device for stream in streams]
    state = generators[0].get_state()
    return generators[:1] if all(torch.equal(g.get_state(), state) for g in generators[1:]) else generators


def gain(heads: Sequence[Head], streams: Sequence[Streams]) -> float:
    """Return how many times faster a pass trains these heads than one by one, from a few steps of copies of them."""
    copies = [Head(copy.deepcopy(head.method).train(), head.config, head.opened, head.test) for head in heads]
    alone = copy.deepcopy(heads[0].method).train()
    config, sides, progress = heads[0].config, heads[0].opened.sides, 0.5
    players = {who: optimizers(alone, parameters, config) for who, parameters in alone.players().items()}
    own, passes = draws(config, sides), Pass(copies)
    shared = _together([draws(head.config, head.opened.sides) for head in heads])
    generators = [Generator(g.device).set_state(g.get_state()) for g in _generators(streams)]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with Streams(heads[0].opened.device).resumed():  # what is drawn here is not missing later
        for _ in range(ROUNDS + 1):
            began = _clock(heads[0].opened.device)
            for _ in range(SINGLE_STEPS):
                train_step(alone, players, draw_batch(own), progress)
            between = _clock(heads[0].opened.device)
            passes.step(draw_batch(shared), progress, generators)
            seconds[True].append(_clock(heads[0].opened.device) - between)
            seconds[False].append((between - began) / SINGLE_STEPS)
    return len(heads) * min(seconds[False][1:]) / min(seconds[True][1:])


def _clock(device: str) -> float:
    """Return the seconds of work so far: CPU time, which other processes do not change, or time on another device."""
    if torch.device(device).type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
