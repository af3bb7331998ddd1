"""Rows of a table: methods on the same shifts, with equal settings except those that a row changes.

>>> from heads.methods import dann, source_only
>>> from heads.nets import adapter
>>> from pipelines.config import Feed
>>> rows = {"source-only": Row(source_only.Params()), "DANN": Row(dann.Params())}
>>> made = runs(rows, [("D1", "D2")], (0, 1), manifest="epic8", net=adapter.Params(), feeds={"rgb": Feed("i3d-rgb")})
>>> [(run.row, run.source, run.target, run.seed) for run in made][:3]
[('source-only', ('D1',), None, 0), ('source-only', ('D1',), None, 1), ('DANN', ('D1',), 'D2', 0)]
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from featcache.errors import ConfigError
from heads.methods import rna, source_only
from pipelines.config import Feed, Optim, Preparation, RunConfig


@dataclass(frozen=True)
class Row:
    """A method of a table and its inputs: a run feeds the method only sides that it may see."""

    method: Any  #: Params of a file in heads/methods
    target: bool | None = None  #: True if it sees the target, without labels; None: if its method needs a target
    supervised: bool = False  #: True if it learns from the target's labels instead of the source's
    start: str = ""  #: name of the row whose runs it starts from
    shown: bool = True  #: False for a stage that others start from and that the table does not show
    #: fields of its RunConfigs that differ from those of the other rows
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Passes:
    """The `steps` of a run as passes over its source, or over its target if its method sees no source."""

    count: int
    clips: Mapping[str, int]  #: domain -> number of training clips

    def steps(self, domains: tuple[str, ...], batch: int) -> int:
        """Steps of `count` passes over all clips of these domains; the last batch of a pass may be smaller."""
        return self.count * ceil(sum(self.clips[domain] for domain in domains) / batch)


@dataclass(frozen=True)
class Whole:
    """A batch of `size` rows: half of each side, or all from one side if the run sees only that side.

    MM-SADA's code fills its batch with source rows where there is no target. A tuple as `batch` fixes the rows of both
    sides instead, whether or not a run sees the other side.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise ConfigError(f"Whole({self.size}) cannot be halved between source and target; take an even number")

    @property
    def halves(self) -> tuple[int, int]:
        """The rows of source and of target where a run sees both."""
        return self.size // 2, self.size // 2

    def sides(self, source: bool, target: bool) -> tuple[int, int]:
        """Return `batch` of a run that sees these sides; the number of a side that it does not see is not used."""
        return self.halves if source and target else (self.size, self.size)


def runs(
    rows: Mapping[str, Row], shifts: Iterable[tuple[str | tuple[str, ...], str]], seeds: Iterable[int], **common: Any
) -> tuple[RunConfig, ...]:
    """The RunConfigs of each row on each (source or sources, target) shift and seed, with the fields `common`.

    `steps` may be Passes, because domains differ in size; `batch` may be Whole. Passes count steps in which a side has
    half of a Whole batch, so all rows of a shift have the same steps (a run of one side passes over it twice as often).
    A supervised row has no source: a target that several shifts share gets one run.
    """
    shifts, seeds, made = tuple(shifts), tuple(seeds), dict[tuple[str, tuple[str, ...], str, int], RunConfig]()
    for name, row in rows.items():
        for source, target in shifts:
            for seed in seeds:
                sources = (source,) if isinstance(source, str) else source
                taught = (target,) if row.supervised else sources
                if (name, taught, target, seed) not in made:
                    start = made[row.start, sources, target, seed].id if row.start else None
                    config = _run(row, taught, target, {**common, **row.changes, "seed": seed, "init_from": start})
                    made[name, taught, target, seed] = replace(config, row=name) if row.shown else config
    return tuple(made.values())


def _run(row: Row, source: tuple[str, ...], target: str, settings: dict[str, Any]) -> RunConfig:
    method = sys.modules[type(row.method).__module__].METHOD
    sees_target = "target" in method.needs if row.target is None else row.target
    sees_source = "source" in method.needs + method.may
    epoch: dict[str, Any] = {} if "epoch" in settings else {"epoch": "source" if sees_source else "target"}
    batch = settings.get("batch")
    if isinstance(passes := settings.get("steps"), Passes):
        of_source, of_target = batch.halves if isinstance(batch, Whole) else settings["batch"]
        domains, size = (source, of_source) if sees_source else ((target,), of_target)
        settings = {**settings, "steps": passes.steps(domains, size)}
    adapts = sees_target and not row.supervised
    if isinstance(batch, Whole):
        settings = {**settings, "batch": batch.sides(sees_source, adapts)}
    return RunConfig(
        method=row.method,
        source=source if sees_source else (),
        target=target if adapts else None,
        test=target,
        **settings,
        **epoch,
    )


SEEDS = (0, 1, 2)


def grid(
    manifest: str,
    feeds: dict[str, Feed],
    shifts: Iterable[tuple[str, str]],
    *,
    net: Any,
    rna_params: rna.Params,
    optim: Optim,
    steps: int,
    batch: tuple[int, int] | Whole,
    absent: str = "refuse",
    test_split: str = "test",
    preparation: Preparation | None = None,
    seeds: Iterable[int] = SEEDS,
) -> tuple[RunConfig, ...]:
    """The runs of source-only, RNA (DG), RNA (UDA) and supervised-target on every (source, target) shift.

    They differ only in the method. RNA (DG) aligns modalities, so it is left out if there is only one.
    Supervised-target has no source, so a target that several shifts share gets one run. It is left out if the test
    rows are the train rows, whose labels it would have learned.
    """
    rows = {
        "source-only": Row(source_only.Params()),
        **({"RNA (DG)": Row(rna_params)} if len(feeds) > 1 else {}),
        "RNA (UDA)": Row(rna_params, target=True),
        **({"supervised-target": Row(source_only.Params(), supervised=True)} if test_split != "train" else {}),
    }
    return runs(
        rows,
        shifts,
        seeds,
        manifest=manifest,
        net=net,
        feeds=feeds,
        absent=absent,
        test_split=test_split,
        preparation=preparation or Preparation(),
        steps=steps,
        batch=batch,
        optim=optim,
    )
