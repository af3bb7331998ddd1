"""Small made-up specs, sides and batches for tests of heads: two or three modalities, one label or two, or captions."""

import inspect
import sys
from dataclasses import fields, replace

import torch

from heads.batch import Batch, Side, Spec
from heads.nets import adapter, gated
from tests.helpers.retrieval_problems import SPEC as CAPTIONED

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
SPECS = {"one label": SPEC, "two labels": EK, "captions": CAPTIONED}


def of(*tasks):
    """The specs of these tasks, by what they are."""
    return {name: spec for name, spec in SPECS.items() if ("retrieval" if spec.captions else "classification") in tasks}


def side(spec, rows=8, *, labelled, seed=0, domain=0):
    """Random rows with all windows present; rows numbered from 0. Captions are labels: a target has none."""
    generator = torch.Generator().manual_seed(seed)
    seen = {m: shape for m, shape in spec.shapes.items() if labelled or m not in spec.captions}
    x = {m: torch.randn(rows, spec.windows[m], *shape, generator=generator) for m, shape in seen.items()}
    return Side(
        x=x,
        present={m: torch.ones(v.shape[:2], dtype=torch.bool) for m, v in x.items()},
        y={label: torch.arange(rows) % k for label, k in spec.classes.items()} if labelled else {},
        domain=torch.full((rows,), domain),
        index=torch.arange(rows),
    )


def batch(spec, sides=("source", "target"), rows=8, seed=0):
    """A batch with these sides."""
    made = {
        "source": side(spec, rows, labelled=True, seed=seed, domain=0),
        "target": side(spec, rows, labelled=False, seed=seed + 1, domain=len(spec.domains) - 1),
    }
    return Batch(**{name: made[name] for name in sides})


def only(side, modalities):
    """The side with these modalities and no others."""
    x, present = ({m: v for m, v in of.items() if m in modalities} for of in (side.x, side.present))
    return replace(side, x=x, present=present)


def sweep(spec):
    """The sides of the spec as `begin_epoch` sees them: of clips, and of captions, two of each source row."""
    clips = spec.shapes.keys() - set(spec.captions)
    pairs = side(spec, 48, labelled=True, seed=3)
    rows = {
        "source": only(side(spec, 24, labelled=True), clips),
        "source_val": only(side(spec, 6, labelled=True, seed=2), clips),
        "target": side(spec, 18, labelled=False, seed=1, domain=1),
        "captions": replace(only(pairs, spec.captions), index=torch.arange(24).repeat_interleave(2)),
    }
    return lambda name: iter([rows[name]])


def without(side, modality, rows):
    """The side with a modality missing in these rows."""
    present = side.present[modality].clone()
    present[rows] = False
    x = side.x[modality] * present.reshape(*present.shape, *[1] * (side.x[modality].dim() - 2))
    return Side({**side.x, modality: x}, {**side.present, modality: present}, side.y, side.domain, side.index)


def net_for(module, spec):
    """The net that the method says it is for (`net: TheNet` in its class), or a simple one, where any will do."""
    simple = gated if spec.captions else adapter
    kind = sys.modules[inspect.get_annotations(module.METHOD).get("net", simple.NET).__module__]
    return kind.NET(kind.Params(**small(kind)), spec)


def small(module):
    """Sizes of a net or method that trains in no time: 8 for each of its widths and numbers of prototypes."""
    return {field.name: 8 for field in fields(module.Params) if field.name.endswith("dim") or field.name in ("N", "K")}
