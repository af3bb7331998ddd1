"""Small specs, sides and batches of random features: modalities with one label kind or two, captions, or skeletons.

The contract tests run on them, and tests of a single method or net can use them as well.
"""

import inspect
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

import torch

from heads.batch import Batch, Side, Spec, Sweep, stack_sides
from heads.nets import Net, adapter, gated, stgcn

SPEC = Spec(
    shapes={"rgb": (6,), "flow": (5,)},
    windows={"rgb": 3, "flow": 2},
    classes={"label": 4},
    rows={"source": 24, "target": 18, "source_val": 6},
    domains=("a", "b"),
)
EK = Spec(
    shapes={"rgb": (6,), "flow": (5,), "audio": (2, 2)},
    windows={"rgb": 3, "flow": 2, "audio": 1},
    classes={"noun": 5, "verb": 3},
    rows={"source": 24, "target": 18, "source_val": 6},
    domains=("a", "b", "c"),
)
CAPTIONED = Spec(  # three experts, two caption modalities: tokens, and one row per sentence
    shapes={"object": (6,), "action": (5,), "scene": (2, 2), "words": (7,), "sentence": (4,)},
    windows={"object": 3, "action": 2, "scene": 1, "words": 5, "sentence": 1},
    classes={},
    rows={"source": 24, "target": 18, "source_val": 6, "captions": 48},
    domains=("a", "b"),
    captions=("words", "sentence"),
)
SKELETONS = Spec(  # clustering: the layout that both domains share, and the target's own
    shapes={"shared": (3, 8, 15, 2), "own": (3, 8, 20, 2)},
    windows={"shared": 1, "own": 1},
    classes={"label": 3},
    rows={"source": 24, "target": 18},
    domains=("a", "b"),
    clusters=4,
)
SPECS = {  #: task -> its specs, by a short description
    "classification": {"one label": SPEC, "two labels": EK},
    "retrieval": {"captions": CAPTIONED},
    "clustering": {"skeletons": SKELETONS},
}
SIMPLE = {"classification": adapter.NET, "retrieval": gated.NET, "clustering": stgcn.NET}  #: task -> its simplest net


def task_of(spec: Spec) -> str:
    """Return the task of a spec: only retrieval has captions, and only clustering has clusters."""
    return "retrieval" if spec.captions else "clustering" if spec.clusters else "classification"


def specs_for(tasks: Collection[str]) -> dict[str, Spec]:
    """Return the specs of these tasks by a short description."""
    return {name: spec for task in SPECS if task in tasks for name, spec in SPECS[task].items()}


def side(spec: Spec, rows: int = 8, *, labelled: bool, seed: int = 0, domain: int = 0) -> Side:
    """Draw rows with all windows present, numbered from 0.

    Captions count as labels: a target has none. In clustering, labelled rows have the first modality only.
    """
    generator = torch.Generator().manual_seed(seed)
    unseen = spec.captions if not labelled else tuple(spec.shapes)[1:] if spec.clusters else ()
    shapes = {m: shape for m, shape in spec.shapes.items() if m not in unseen}
    x = {m: torch.randn(rows, spec.windows[m], *shape, generator=generator) for m, shape in shapes.items()}
    return Side(
        x=x,
        present={m: torch.ones(v.shape[:2], dtype=torch.bool) for m, v in x.items()},
        y={label: torch.arange(rows) % k for label, k in spec.classes.items()} if labelled else {},
        domain=torch.full((rows,), domain),
        index=torch.arange(rows),
    )


def batch(spec: Spec, sides: Sequence[str] = ("source", "target"), rows: int = 8, seed: int = 0) -> Batch:
    """Draw a batch with these sides."""
    drawn = {
        "source": side(spec, rows, labelled=True, seed=seed, domain=0),
        "target": side(spec, rows, labelled=False, seed=seed + 1, domain=len(spec.domains) - 1),
    }
    return Batch(**{name: drawn[name] for name in sides})


def together(batches: Sequence[Batch]) -> Batch:
    """Stack the batches of several runs: each tensor gets a second dimension, of runs."""
    sides = {name: [getattr(batch, name) for batch in batches] for name in ("source", "target")}
    return Batch(**{name: stack_sides(of_side) for name, of_side in sides.items() if of_side[0] is not None})


def only(side: Side, modalities: Collection[str]) -> Side:
    """Return the side with these modalities and no others."""
    x, present = ({m: v for m, v in values.items() if m in modalities} for values in (side.x, side.present))
    return replace(side, x=x, present=present)


def row(side: Side, k: int) -> Side:
    """Return a side of the row k, without labels."""
    x, present = ({m: v[k : k + 1] for m, v in values.items()} for values in (side.x, side.present))
    return Side(x, present, {}, side.domain[k : k + 1], side.index[k : k + 1])


def without(side: Side, modality: str, rows: Any) -> Side:
    """Return the side with a modality missing in these rows, given as a slice or a list of row numbers."""
    present = side.present[modality].clone()
    present[rows] = False
    x = side.x[modality] * present.reshape(*present.shape, *[1] * (side.x[modality].dim() - 2))
    return Side({**side.x, modality: x}, {**side.present, modality: present}, side.y, side.domain, side.index)


def sweep(spec: Spec) -> Sweep:
    """Return the sweep that `begin_epoch` takes: over clips, and over captions, two of each source row."""
    clips = spec.shapes.keys() - set(spec.captions)
    pairs = side(spec, 48, labelled=True, seed=3)
    sides = {
        "source": only(side(spec, 24, labelled=True), clips),
        "source_val": only(side(spec, 6, labelled=True, seed=2), clips),
        "target": side(spec, 18, labelled=False, seed=1, domain=1),
        "captions": replace(only(pairs, spec.captions), index=torch.arange(24).repeat_interleave(2)),
    }
    return lambda name: iter([sides[name]])


def net_for(module: ModuleType, spec: Spec) -> Net:
    """Build the net that the method's class names (`net: TheNet`), or else the simplest one of the spec's task."""
    net_class = inspect.get_annotations(module.METHOD, eval_str=True).get("net", SIMPLE[task_of(spec)])
    file = sys.modules[net_class.__module__]
    net: Net = file.NET(file.Params(**small(file)), spec)
    return net


def small(module: ModuleType) -> dict[str, int]:
    """Return sizes with which a net or method trains in no time: 8 for its widths and its numbers of prototypes."""
    names = [field.name for field in fields(module.Params)]
    return {name: 8 for name in names if name.endswith("dim") or name in ("N", "K", "width")}
