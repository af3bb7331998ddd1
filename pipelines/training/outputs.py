"""What a method says of rows whose labels it does not see."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.errors import ConfigError
from heads.batch import Side, gather
from heads.methods import Method
from pipelines import tasks
from pipelines.data.opening import Opened
from pipelines.data.rows import Rows
from pipelines.measures.validators import VALIDATORS, Predictions

Outputs = dict[str, NDArray[Any]]
COLLAPSED = 1e-3  # mean norm; trained features have norms around 1


@dataclass(frozen=True)
class Point:
    """An evaluation point: what the method says of the test rows, labels unseen."""

    facts: dict[str, float]
    outputs: Outputs


def look(method: Method, step: int, test: Rows, opened: Opened) -> Point:
    """Outputs on the test rows after `step` steps, and what the validators say of the training rows."""
    return Point({"step": step, **scores(method, opened)}, outputs(method, test, opened))


def scores(method: Method, opened: Opened) -> dict[str, float]:
    """Validator -> score, of all that can be computed of the run; draws nothing and sees no label of the target."""
    names, sides = opened.config.validators, opened.sides
    needs = {need for name in names for need in VALIDATORS[name].needs}
    task = opened.config.task
    if not task.has_class_scores:  # then a validator is the task's own measure on the side that it is named after
        looked = {name: outputs(method, sides[name], opened) for name in names}
        return {name: task.choice(task.measure(of, {}, method.net, opened.clusters)) for name, of in looked.items()}
    p: dict[str, dict[str, Tensor]] = {}
    for side in needs & {"source_val", "target"}:
        said = outputs(method, sides[side], opened)
        z = {task: torch.from_numpy(said[task]).to(opened.device) for task in opened.spec.classes}
        p[side] = {task: z_NK.softmax(1) for task, z_NK in z.items()}
    y = sides["source_val"].y if "source_val" in needs else {}
    seen = Predictions(p, y, features(method, sides) if "features" in needs else {})
    return {name: VALIDATORS[name].score(seen) for name in names}


def outputs(method: Method, rows: Rows, opened: Opened) -> Outputs:
    """Output -> (rows, ...) of `predict` in eval mode, draws nothing.

    Where feeds say `each`, every window is predicted by itself: scores are then log of the mean softmax, and other
    outputs their mean, over the windows that the row has in one of these feeds. In retrieval "visual" (rows, M) is of
    the rows, "text" (captions, M) of their captions, and "clip" (captions,) the row of each caption, which the method
    does not see.
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

    with looking(method):
        said = gather(rows.sweep(), windows_averaged)
        if rows.captions:
            said |= gather(rows.captions.table.sweep(), windows_averaged)
    for name, out in said.items():
        least = -torch.inf if name in opened.spec.classes else torch.finfo(out.dtype).min  # -inf: a probability of 0
        if not bool(((out >= least) & (out < torch.inf)).all()):  # so is NaN refused
            raise ConfigError(f"output {name!r} is not finite; lower optim.lr, or set optim.clip_norm (for example 20)")
    kept = {name: out.cpu().numpy() for name, out in said.items()}
    return kept | {"clip": rows.captions.row.numpy()} if rows.captions else kept


@contextmanager
def looking(method: Method) -> Iterator[None]:
    """Eval mode without gradients, and the mode of before afterwards."""
    training = method.training
    method.eval()
    with torch.no_grad():
        yield
    method.train(training)


def _mean(out_BT: Tensor, there_BT: Tensor) -> Tensor:
    """Mean over the windows that are there."""
    weight_BT = there_BT.reshape(*there_BT.shape, *[1] * (out_BT.dim() - 2))
    return (out_BT * weight_BT).sum(1) / weight_BT.sum(1)


def features(method: Method, sides: Mapping[str, Rows]) -> dict[str, Tensor]:
    """Side -> (N, D): what `encode` says of the modalities that all sides have, side by side, in eval mode."""

    def look(side: Side) -> dict[str, Tensor]:
        return method.net.encode(Side(side.x, side.present, {}, side.domain, side.index))

    with looking(method):
        f = {name: gather(rows.sweep(), look) for name, rows in sides.items()}
    shared = [m for m in next(iter(f.values())) if all(m in of for of in f.values())]
    return {name: torch.cat([of[m] for m in shared], 1) for name, of in f.items()}


def feature_norms(method: Method, rows: Rows) -> dict[tuple[str, str], float]:
    """(task, modality) -> mean L2 norm of the features that enter the task's classifier, over rows that have it."""
    parts = method.net.parts

    def look(side: Side) -> dict[str, Tensor]:
        f = method.net.encode(side)
        return {m: torch.stack([f_BD[:, part].norm(dim=1) for part in parts.values()], 1) for m, f_BD in f.items()}

    with looking(method):
        seen = gather(rows.sweep(), look)  # modality -> (rows, labels)
    found: dict[tuple[str, str], float] = {}
    for m, h in seen.items():
        there = rows.present[m].any(1) if m in rows.present else slice(None)  # a fused feature is in every row
        if len(h[there]):
            found |= {(task, m): float(mean) for task, mean in zip(parts, h[there].mean(0), strict=True)}
    return found


def collapsed(method: Method, sides: Iterable[Rows]) -> list[str]:
    """Modalities whose features are all but zero on some side: their losses look aligned, and nothing revives them.

    None of a retrieval net: its embeddings have length 1 by construction.
    """
    if tasks.load(method.net.task).unit_length:
        return []
    norms = [feature_norms(method, rows) for rows in sides]
    return sorted({m for of in norms for (_, m), norm in of.items() if norm < COLLAPSED})
