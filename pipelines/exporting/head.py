"""The head of a run as one function of rows as they are in the stores.

It takes the windows that tests take, prepares their features, and predicts, all as the run does.

Shapes: B clips or captions, T windows of a stored row, k windows that a draw takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.batch import Side
from pipelines.config import Feed
from pipelines.data.gathering import centres, mean
from pipelines.data.opening import Opened
from pipelines.training.outputs import ONCE, over_windows, separate
from pipelines.training.runs import Run

PRESENT = ".present"  #: suffix of the input that marks the windows which a row has; no modality has a dot in its name


@dataclass(frozen=True)
class Input:
    """An input of a head: the rows of a store, or a mask of their windows."""

    dtype: torch.dtype
    shape: tuple[int, ...]  #: of one row
    rows: str  #: "clips" or "captions"; inputs of the same kind have equally many rows
    varies: bool = False  #: rows may be longer than shape[0] windows: those of the store differ in their number


def inputs(run: Run, opened: Opened) -> dict[str, Input]:
    """Return the inputs of a run's head: of each modality that the test sees (B, T, *row_shape), as in its store.

    "MODALITY.present" (B, T) is an input where rows of the store have fewer than T windows, or where the run masks
    modalities that a row lacks. All other heads take rows with all windows of all modalities. Where rows of the store
    differ in their number of windows, those of new clips may have more than T.
    """
    found = {}
    for m, feed in run.config.tested.items():
        store, rows = opened.stores[m], "captions" if feed.captions else "clips"
        ragged = bool(((store.length > 0) & (store.length < store.windows)).any())
        found[m] = Input(getattr(torch, store.layout.dtype), (store.windows, *store.row_shape), rows, ragged)
        if ragged or run.config.absent == "mask":
            found[m + PRESENT] = Input(torch.bool, (store.windows,), rows, ragged)
    return found


def kept(run: Run) -> list[str]:
    """Return the names of the outputs that the run keeps of its test rows."""
    return [name for name in run.outputs if name not in ONCE]


class Standalone(nn.Module):
    """A run's method in eval mode, with the draws and the preparation of its tests, for rows of its test domain."""

    def __init__(self, run: Run, opened: Opened) -> None:
        super().__init__()
        domains = opened.domains
        self.domain = domains.index(run.config.test) if run.config.test in domains else -1
        self.method = run.method()
        self.method.specialise(self.domain)
        self.prepare = opened.prepare
        feeds = run.config.tested
        self.tables = [
            {m: feed for m, feed in feeds.items() if bool(feed.captions) == captions} for captions in (False, True)
        ]
        self.names = kept(run)
        self.classes = tuple(run.facts.spec.classes) if separate(feeds) else ()
        self.requires_grad_(False).eval()

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs that a run keeps, of the rows in `inputs` by name."""
        outputs: dict[str, Tensor] = {}
        for feeds in filter(None, self.tables):
            side = self.side(feeds, features)
            outputs |= over_windows(self.predict, side, separate(feeds))
        return {name: outputs[name].log() if name in self.classes else outputs[name] for name in self.names}

    def predict(self, side: Side) -> dict[str, Tensor]:
        """Return the outputs of rows, with probabilities in place of scores that are averaged over windows."""
        predicted = self.method.predict(side)
        return {name: out.softmax(1) if name in self.classes else out for name, out in predicted.items()}

    def side(self, feeds: Mapping[str, Feed], features: dict[str, Tensor]) -> Side:
        """Return the prepared rows of these feeds."""
        rows = features[next(iter(feeds))]
        index = torch.arange(rows.shape[0], device=rows.device)
        domain, x, present = torch.full_like(index, self.domain), {}, {}
        for m, feed in feeds.items():
            x[m], present[m] = taken(feed.test, features[m].float(), features.get(m + PRESENT))
            if self.prepare:
                x[m] = self.prepare(m, x[m].clone(), present[m], domain)
        return Side(x, present, {}, domain, index)


def taken(draw: str, x_BT: Tensor, present_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the windows that a draw takes of stored rows (B, k, *row_shape), and the mask of those that exist (B, k).

    present_BT: a mask of the windows; None: each row has all T.
    """
    if present_BT is None:
        present_BT, length_B = torch.ones(x_BT.shape[:2], dtype=torch.bool, device=x_BT.device), None
    else:
        x_BT = x_BT.where(present_BT.reshape(*present_BT.shape, *[1] * (x_BT.dim() - 2)), 0.0)
        length_B = present_BT.sum(1)
    if draw == "mean":
        return mean(x_BT, present_BT)
    chosen = centres(draw, x_BT.shape[1] if length_B is None else length_B)
    if chosen is None:
        return x_BT, present_BT
    if length_B is None:
        return x_BT[:, chosen], present_BT[:, chosen]
    place = chosen.reshape(*chosen.shape, *[1] * (x_BT.dim() - 2)).expand(-1, -1, *x_BT.shape[2:])
    return x_BT.gather(1, place), present_BT.gather(1, chosen)
