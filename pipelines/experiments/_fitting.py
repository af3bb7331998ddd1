"""The rows that feeds, domains and a net can serve: each is built once, before anything is trained."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from heads.batch import Batch, Side, Spec
from pipelines.config import RunConfig
from pipelines.data.opening import Opened, open_run
from pipelines.experiments._choice import Shift
from pipelines.experiments._rows import Row, runs
from pipelines.training.runs import build

FEW = 4  #: rows of a drawn batch
NARROW = {"dim": 8, "layers": 1}  #: sizes of a net that is only tried


def with_starts(name: str, row: Row, every: Mapping[str, Row]) -> dict[str, Row]:
    """Return a row after the rows that it starts from, and the rows on its own net that it is compared with."""
    before = with_starts(row.start, every[row.start], every) if row.start else {}
    own_net = {
        other: of
        for other, of in every.items()
        if other.startswith("source-only, ") and "net" in of.changes and of.changes["net"] == row.changes.get("net")
    }
    return {**before, **own_net, name: row}


def faults(
    rows: Mapping[str, Row], every: Mapping[str, Row], stores: Path, shift: Shift, common: dict[str, Any]
) -> dict[str, str]:
    """Return row -> the reason why its method cannot be built on these feeds, domains and net.

    every: all rows of the recipe, from which rows may start. stores: the folder of all stores. A ValueError is a
    reason. With any other error, such as one of a plug-in, the row stays, so that only its own runs fail.
    """
    found: dict[str, str] = {}
    opened: dict[str, Opened] = {}  # feeds -> stores
    for name, row in rows.items():
        try:
            config = runs(with_starts(name, row, every), [shift], (0,), **common)[-1]
            feeds = str(config.to_json()["feeds"])
            if feeds not in opened:
                opened[feeds] = open_run(config, stores)
            with torch.random.fork_rng(devices=[]):
                _try(config, replace(opened[feeds], config=config).spec)
        except ValueError as error:
            found[name] = str(error)
        except Exception:  # it is a mistake in the file of a method or net, or needs what only a whole run has
            continue
    return found


def _try(config: RunConfig, spec: Spec) -> None:
    """Build the method of a run without its numbers; on a net that fuses modalities, narrow, also take its first loss.

    Not every method works on fused features, and only its first loss shows that. ValueError for what the run would
    refuse.
    """
    with torch.device("meta"):
        fuses = build(config, spec).net.fuses
    if fuses:
        narrow = {each.name: NARROW[each.name] for each in fields(config.net) if each.name in NARROW}
        method = build(replace(config, net=replace(config.net, **narrow)), spec)
        given = [side for side in ("source", "target") if getattr(config, side)]
        next(iter(method.rounds(Batch(**{side: _drawn(spec, side) for side in given}), 0.0)))


def _drawn(spec: Spec, name: str) -> Side:
    """Draw a side of a few rows with all modalities."""
    rows = {m: torch.randn(FEW, spec.windows[m], *shape) for m, shape in spec.shapes.items()}
    present = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in rows.items()}
    y = {label: torch.arange(FEW) % count for label, count in spec.classes.items()} if name == "source" else {}
    number = 0 if name == "source" else len(spec.domains) - 1
    return Side(rows, present, y, torch.full((FEW,), number), torch.arange(FEW))
