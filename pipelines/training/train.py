"""Train one head on cached features: a RunConfig -> RUNS/<run id>.

The loop is the same for every method. Methods differ in their files in heads/methods, runs in their RunConfig. Labels
of the target and of the test rows are not read here: `evaluate` compares outputs with them.
"""

import platform
import time
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil, isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import featcache
from featcache import plugins
from featcache.errors import ConfigError
from featcache.files import claimed, remove_abandoned
from featcache.machine import cores
from heads.batch import Batch
from heads.methods import Method
from pipelines.config import Optim, Preparation, RunConfig
from pipelines.data.draws import Draw, batches, draws
from pipelines.data.opening import Opened, open_run
from pipelines.data.rows import Rows
from pipelines.measures.validators import best
from pipelines.training.optimizers import optimizers, update
from pipelines.training.outputs import ONCE, Point, collapsed, eval_mode, look, stuck
from pipelines.training.runs import UNITS_OF, Run, build, fingerprints, out_of_date, write
from pipelines.training.shared import Shared
from pipelines.training.watching import Log, Watch, logs_of

Players = dict[str, list[tuple[Optim, torch.optim.Optimizer]]]  #: player -> optimisers of its parameters
PREFETCH_BYTES = 4 << 20  #: a smaller batch is drawn faster than it is passed between threads


def train(
    config: RunConfig,
    stores: Path,
    runs: Path,
    device: str = "cpu",
    memory: int | None = None,
    workers: int = 1,
) -> Path:
    """Train a run and return its folder, as `train_unless_done` does."""
    return train_unless_done(config, stores, runs, device, memory, workers)[0]


def train_unless_done(
    config: RunConfig,
    stores: Path,
    runs: Path,
    device: str = "cpu",
    memory: int | None = None,
    workers: int = 1,
    watch: Watch | None = None,
) -> tuple[Path, str]:
    """Train a run, unless there is a finished one on the same features; return its folder and the reason for training.

    The reason is "" if nothing was trained, else as in `out_of_date`.
    memory: bytes of RAM to use (default: all that is free). workers: number of simultaneous runs that share it. watch:
    receives the steps while they are made.
    Raises BusyError while another process trains the same run.
    """
    opened = open_run(config, stores, device, memory=memory, workers=workers)
    folder, read = runs / config.id, fingerprints(opened, runs)
    remove_abandoned(folder)
    if not out_of_date(folder, read):
        return folder, ""
    with claimed(folder):
        if stale := out_of_date(folder, read):  # else another process has trained it just now
            _train(config, opened, folder, read, stale, workers, watch or Watch())
    return folder, stale


def _train(
    config: RunConfig, opened: Opened, folder: Path, read: dict[str, str], stale: str, workers: int, watch: Watch
) -> None:
    """Train a run and write its folder. stale: the reason for training it, as `out_of_date` returns it."""
    began = time.perf_counter()
    with closing(opened.features):
        method = start(config, opened, folder.parent)
        opened.measure()
        test = opened.test()
        log, points = fit(method, config, opened, test, watch, prefetch=worth_prefetching(opened, workers))
        facts = {"read": read, "note": stale, "seconds": round(time.perf_counter() - began, 3)}
        save(folder, config, opened, test, method, log, points, facts)


def start(config: RunConfig, opened: Opened, runs: Path) -> Method:
    """Build the method of a run by its seed, which also seeds all that it draws later."""
    torch.manual_seed(config.seed)
    method = build(config, opened.spec).to(opened.device)
    code = plugins.digests(type(config.method).__module__)  # another file of a plug-in may compute other tensors
    method.shared = Shared(
        runs / ".shared" / sha256(repr(code).encode()).hexdigest()[:12] if code else runs / ".shared"
    )
    if config.init_from:
        copy_weights(Run.open(runs / config.init_from), method, opened)
    return method


class Head:
    """A method in training: everything of its run except the steps."""

    def __init__(
        self, method: Method, config: RunConfig, opened: Opened, test: Rows, watch: Watch | None = None
    ) -> None:
        self.method, self.config, self.opened, self.test = method, config, opened, test
        self.watch = watch or Watch()
        self.log: Log = []
        self.points: list[Point] = []  #: the kept evaluation points
        self.weights: dict[str, Tensor] = {}  # weights of the best point, if only this one is kept

    def begin(self) -> None:
        """Begin the training: the net reads whole sides."""
        self.method.train()
        with eval_mode(self.method):
            self.method.net.begin(self.opened.sweep)

    def begin_epoch(self, epoch: int) -> dict[str, list[Tensor]]:
        """Begin an epoch, and return the pools from which batches are drawn from now on, if they change."""
        try:
            with eval_mode(self.method):
                return self.method.begin_epoch(epoch, self.opened.sweep) or {}
        except ValueError as error:  # hyper-parameters that do not fit these rows, as in `build`
            raise ConfigError(str(error)) from error

    def stepped(self, step: int) -> None:
        """Keep an evaluation point if there is one after so many steps; the last one belongs to `end`."""
        if step in self.config.points[:-1]:
            self.keep(step)

    def keep(self, step: int) -> None:
        """Look at the outputs after so many steps."""
        self.points.append(look(self.method, step, self.test, self.opened))
        self.watch.point(self.config.id, self.points[-1].facts)
        if self.config.keeps_best:
            select = self.config.select
            self.points[:] = [self.points[best(select, [point.facts[select] for point in self.points])]]
            if self.points[0].facts["step"] == step:
                self.weights.update({name: value.clone() for name, value in self.method.state_dict().items()})

    def end_epoch(self, log: Log) -> None:
        """Record the terms of an epoch's steps; ConfigError if training has failed."""
        self.log += log
        check_finite(log, self.method)

    def end(self) -> None:
        """Look at the end. If only the best point is kept, the method then has that point's weights."""
        self.keep(self.config.steps)
        if self.weights:
            self.method.load_state_dict(self.weights)


def save(
    folder: Path,
    config: RunConfig,
    opened: Opened,
    test: Rows,
    method: Method,
    log: Log,
    points: list[Point],
    facts: dict[str, Any],
) -> None:
    """Write the folder of a trained run, with these facts and those that are the same however it was trained."""
    facts = {
        **facts,
        "recipes": {m: store.recipe_sha256 for m, store in opened.stores.items()},
        "features": {m: {"recipe": (s := opened.stores[m]).recipe, "windows": s.windows} for m in config.feeds},
        "classes": opened.classes,
        "untrained": [m for m, store in opened.stores.items() if store.weights_sha256.startswith("untrained")],
        "collapsed": collapsed(method, opened.sides.values()) if config.steps else [],  # nothing was trained
        "one_class": stuck(method, points[-1].outputs, opened),
        "points": [point.facts for point in points],
        "versions": {"featcache": featcache.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "device": opened.device,
        "tier": opened.features.tier,
        "tier_why": opened.features.why,
    }
    outputs = {
        name: np.stack([point.outputs[name] for point in points]) for name in points[-1].outputs if name not in ONCE
    }
    outputs["rows"] = np.asarray(test.rows)
    if test.captions:
        outputs |= {"captions": np.asarray(test.captions.table.rows), "clip": points[-1].outputs["clip"]}
    units = opened.prepare.state_dict() if opened.prepare else {}
    weights = method.state_dict() | {f"{UNITS_OF}{name}": value for name, value in units.items()}
    write(folder, config, opened.spec, facts, log=log, weights=weights, outputs=outputs)


def fit(
    method: Method, config: RunConfig, opened: Opened, test: Rows, watch: Watch | None = None, *, prefetch: bool = False
) -> tuple[Log, list[Point]]:
    """Train a method alone. Returns the terms of each step and the kept evaluation points.

    If only the best point is kept, the method has that point's weights in the end. watch: receives the steps while they
    are made. prefetch: a thread draws the next batch during a step; the batches are the same.
    """
    head = Head(method, config, opened, test, watch)
    head.watch.begin(config)
    players = {who: optimizers(method, parameters, config) for who, parameters in method.players().items()}
    sides = draws(config, opened.sides)
    head.begin()
    for epoch, steps in enumerate(epochs(config, opened.sides)):
        use(sides, head.begin_epoch(epoch))
        terms: list[dict[str, Tensor]] = []
        with batches(sides, len(steps), prefetch=prefetch) as stream:
            for step, batch in zip(steps, stream, strict=True):
                terms.append(train_step(method, players, batch, step / config.steps))
                head.watch.stepped(step + 1, terms[-1])
                head.stepped(step + 1)
        head.end_epoch(logs_of(terms, steps.start, 1)[0])
    head.end()
    return head.log, head.points


def train_step(method: Method, players: Players, batch: Batch, progress: float) -> dict[str, Tensor]:
    """Make one step, and return its terms."""
    step_terms: dict[str, Tensor] = {}
    for who, terms in method.rounds(batch, progress):
        method.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        for player in who.split():
            for optim, optimizer in players[player]:
                update(optim, optimizer, progress)
        step_terms |= terms
    return {name: term.detach() for name, term in step_terms.items()}


def epochs(config: RunConfig, sides: dict[str, Rows]) -> list[range]:
    """Return the steps of each epoch; one without steps if the run has none."""
    length = steps_per_epoch(config, sides)
    return [range(first, min(first + length, config.steps)) for first in range(0, max(1, config.steps), length)]


def use(sides: dict[str, Draw], pools: dict[str, list[Tensor]]) -> None:
    """Draw from these pools from now on."""
    for side, rows in pools.items():
        if side not in sides:
            raise ValueError(f"begin_epoch gave pools of {side!r}, but this run draws from: {', '.join(sides)}")
        sides[side].use(rows)


def worth_prefetching(opened: Opened, workers: int) -> bool:
    """True if a thread that draws ahead saves time: for large batches, when a core is free for it."""
    spec, sizes = opened.spec, dict(zip(("source", "target"), opened.config.batch, strict=True))
    rows = sum(size for side, size in sizes.items() if side in opened.sides)
    row_bytes = 4 * sum(spec.windows[m] * prod(shape) for m, shape in spec.shapes.items())
    return rows * row_bytes >= PREFETCH_BYTES and cores() > workers


def steps_per_epoch(config: RunConfig, sides: dict[str, Rows]) -> int:
    """Steps between two calls of begin_epoch: a number, or one pass over the source or the target."""
    if isinstance(config.epoch, int):
        return config.epoch
    return ceil(len(sides[config.epoch]) / config.batch[("source", "target").index(config.epoch)])


def check_finite(log: Log, method: Method) -> None:
    """Raise ConfigError if a term or a weight is not finite, and name the first one."""
    remedy = "lower optim.lr, or set optim.clip_norm (for example 20)"
    for terms in log:
        for name, value in terms.items():
            if not isfinite(value):
                raise ConfigError(f"term {name} is {value} at step {terms['step']}; {remedy}")
    for name, parameter in method.named_parameters():
        if not parameter.isfinite().all():
            raise ConfigError(f"the weights {name} are not finite after the last step; {remedy}")


def copy_weights(first: Run, method: Method, opened: Opened) -> None:
    """Copy the weights that an earlier run and this one share by name and shape; they must include the whole net.

    The features must be prepared alike. Units by source are copied, too: a run without a source cannot measure them.
    """
    config = opened.config
    if first.config.preparation != config.preparation:
        raise ConfigError(
            f"init_from {first.config.id} has {_spelled(first.config.preparation)}, but this run has "
            f"{_spelled(config.preparation)}; give both the same preparation"
        )
    current = method.state_dict()
    earlier, units = first.weights
    shared = {name: value for name, value in earlier.items() if name in current and value.shape == current[name].shape}
    if missing := [name for name in current if name.startswith("net.") and name not in shared]:
        raise ConfigError(
            f"init_from {first.config.id} has another net: it lacks {missing[0]}, or has it in another shape"
        )
    method.load_state_dict(shared, strict=False)
    if opened.prepare and config.preparation.units == "source" and not config.source:
        expected = opened.prepare.state_dict()
        for name, value in expected.items():
            if name not in units or units[name].shape != value.shape:
                raise ConfigError(
                    f"init_from {first.config.id} has no units of the modality {name.partition(':')[2]!r} in this "
                    "run's shape, and a run without a source cannot measure them; give both runs the same feeds"
                )
        opened.prepare.load_state_dict({name: units[name] for name in expected})


def _spelled(preparation: Preparation) -> str:
    return f"preparation.rows={preparation.rows} and preparation.units={preparation.units}"
