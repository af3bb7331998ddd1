"""Rows and settings of CoDT's tables [CoDT: Liu & Wang 2022, ECCV], which differ only in their data.

`codt_supplement` lists what is from the supplement, from the released code, and ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from heads.methods import codt
from heads.nets import stgcn
from pipelines.config import Feed, Optim, RunConfig
from pipelines.experiments._rows import SEEDS, Row, runs

PASSES, BATCH = 150, 128  #: passes of a stage over the target, and rows of a batch's side
FIRST = {"optim": Optim(lr=0.1)}  #: settings of the first stage that differ from those of the second
VARIANTS = {"BM+OCM+CCM-FP": "fp", "BM+OCM+CCM-PF": "pf"}  #: row -> variant of CCM


def rows(params: codt.Params, first: Mapping[str, Any]) -> dict[str, Row]:
    """A first stage, which no table shows, and BM, OCM, and CCM in all variants, which start from it.

    first: fields of the first stage's runs that differ from the others'.
    """
    base = replace(params, lambda_cls=0, lambda_cot=0)
    return {
        "first stage": Row(replace(base, strong=False), shown=False, changes=first),
        "BM": Row(base, start="first stage"),
        "BM+OCM": Row(replace(params, lambda_cot=0), start="first stage"),
        "BM+OCM+CCM": Row(params, start="first stage"),
        **{row: Row(replace(params, variant=variant), start="first stage") for row, variant in VARIANTS.items()},
    }


@dataclass(frozen=True)
class Shift:
    """A shift of a table: its features and its length."""

    feeds: Mapping[str, Feed]  #: the first one for B0, the last one for B1
    clips: int  #: number of training clips of the target


def table(shifts: Mapping[tuple[str, str], Shift], methods: Mapping[str, Row]) -> Iterator[RunConfig]:
    """Yield the runs of these methods on each (source, target); the manifest of both is called SOURCE_TARGET."""
    for pair, shift in shifts.items():
        yield from runs(
            methods,
            [pair],
            SEEDS,
            manifest="_".join(pair),
            net=stgcn.Params(),
            feeds=dict(shift.feeds),
            absent="drop",
            steps=PASSES * ceil(shift.clips / BATCH),
            epoch="target",
            batch=(BATCH, BATCH),
            optim=Optim(lr=0.01),
            fidelity="exact",
        )
