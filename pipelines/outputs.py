"""What a method says of rows whose labels it does not see."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.batch import Side, gather
from heads.methods import Method
from pipelines.batches import Rows
from pipelines.metrics import topk_accuracy
from pipelines.opening import Opened

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Point:
    """An evaluation point: what the method says of the test rows, labels unseen."""

    facts: dict[str, float]
    outputs: Outputs


def look(method: Method, step: int, test: Rows, opened: Opened) -> Point:
    """Outputs on the test rows after `step` steps, and the accuracy on held-out source rows where there are any."""
    facts: dict[str, float] = {"step": step}
    if held := opened.sides.get("source_val"):
        said = outputs(method, held, opened)
        right = [topk_accuracy(said[task], y.cpu().numpy(), 1) for task, y in held.y.items()]
        facts["source_val"] = float(np.mean(right))
    return Point(facts, outputs(method, test, opened))


def outputs(method: Method, rows: Rows, opened: Opened) -> Outputs:
    """Output -> (rows, ...) of `predict` in eval mode, draws nothing.

    Where feeds say `each`, every window is predicted by itself: scores are then log of the mean softmax, and other
    outputs their mean.
    """
    each = [m for m, feed in rows.feeds.items() if feed.test == "each"]

    def one_window(side: Side, k: int) -> dict[str, Tensor]:
        x = {m: x[:, k : k + 1] if m in each else x for m, x in side.x.items()}
        present = {m: there[:, k : k + 1] if m in each else there for m, there in side.present.items()}
        said = method.predict(Side(x, present, {}, side.domain, side.index))
        return {name: out.softmax(1) if name in opened.spec.classes else out for name, out in said.items()}

    def windows_averaged(side: Side) -> dict[str, Tensor]:
        side = Side(side.x, side.present, {}, side.domain, side.index)
        if not each:
            return method.predict(side)
        said = [one_window(side, k) for k in range(side.x[each[0]].shape[1])]
        mean = {name: torch.stack([out[name] for out in said]).mean(0) for name in said[0]}
        return {name: out.log() if name in opened.spec.classes else out for name, out in mean.items()}

    training = method.training
    method.eval()
    with torch.no_grad():
        said = gather(rows.sweep(), windows_averaged)
    method.train(training)
    return {name: out.cpu().numpy() for name, out in said.items()}
