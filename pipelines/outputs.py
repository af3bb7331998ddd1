"""What a method says of rows whose labels it does not see."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.errors import ConfigError
from heads.batch import Side, gather
from heads.methods import Method
from pipelines.batches import Rows
from pipelines.metrics import topk_accuracy
from pipelines.opening import Opened

Outputs = dict[str, NDArray[Any]]
COLLAPSED = 1e-3  # mean norm; trained features have norms around 1


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
    outputs their mean, over the windows that the row has in one of these feeds.
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
        there_BT = torch.stack([side.present[m] for m in each]).any(0)
        there_BT = there_BT | ~there_BT.any(1, keepdim=True)  # a row without these modalities says the same each time
        mean = {name: _mean(torch.stack([out[name] for out in said], 1), there_BT) for name in said[0]}
        return {name: out.log() if name in opened.spec.classes else out for name, out in mean.items()}

    training = method.training
    method.eval()
    with torch.no_grad():
        said = gather(rows.sweep(), windows_averaged)
    method.train(training)
    for name, out in said.items():
        if not bool((out < torch.inf).all()):  # so is NaN refused; -inf is a probability of 0
            raise ConfigError(f"output {name!r} is not finite; lower optim.lr, or set optim.clip_norm (for example 20)")
    return {name: out.cpu().numpy() for name, out in said.items()}


def _mean(out_BT: Tensor, there_BT: Tensor) -> Tensor:
    """Mean over the windows that are there."""
    weight_BT = there_BT.reshape(*there_BT.shape, *[1] * (out_BT.dim() - 2))
    return (out_BT * weight_BT).sum(1) / weight_BT.sum(1)


def feature_norms(method: Method, rows: Rows) -> dict[tuple[str, str], float]:
    """(task, modality) -> mean L2 norm of the features that enter the task's classifier, over rows that have it."""
    parts = method.net.parts

    def look(side: Side) -> dict[str, Tensor]:
        f = method.net.encode(side)
        return {m: torch.stack([f_BD[:, part].norm(dim=1) for part in parts.values()], 1) for m, f_BD in f.items()}

    training = method.training
    method.eval()
    with torch.no_grad():
        seen = gather(rows.sweep(), look)  # modality -> (rows, tasks)
    method.train(training)
    found: dict[tuple[str, str], float] = {}
    for m, h in seen.items():
        there = rows.present[m].any(1) if m in rows.present else slice(None)  # a fused feature is in every row
        if len(h[there]):
            found |= {(task, m): float(mean) for task, mean in zip(parts, h[there].mean(0), strict=True)}
    return found


def collapsed(method: Method, sides: Iterable[Rows]) -> list[str]:
    """Modalities whose features are all but zero on some side: their losses look aligned, and nothing revives them."""
    norms = [feature_norms(method, rows) for rows in sides]
    return sorted({m for of in norms for (_, m), norm in of.items() if norm < COLLAPSED})
