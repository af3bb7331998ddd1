"""Run a method on unlabelled rows and collect its outputs."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from pipelines.config import Feed, RunConfig, method_class, net_class
from pipelines.data.opening import Opened
from pipelines.data.rows import Rows
from pipelines.measures.validators import VALIDATORS, Predictions

Outputs = dict[str, NDArray[Any]]
Look = Callable[[Side], dict[str, Tensor]]
ONCE = ("rows", "captions", "clip")  #: outputs that are equal at all points, and are kept once
COLLAPSED = 1e-3  #: mean norm below which features are dead; trained features have norms around 1
WIDE = 64  #: entries of a feature, per modality, below which balancing norms can leave nothing of it


@dataclass(frozen=True)
class Point:
    """An evaluation point: its step, the scores of the validators, and the outputs on the test rows."""

    facts: dict[str, float]
    outputs: Outputs


def look(method: Method, step: int, test: Rows, opened: Opened) -> Point:
    """Return the outputs on the test rows after `step` steps, and the validators' scores, which need no test rows."""
    return Point({"step": step, **scores(method, opened)}, outputs(method, test, opened))


def scores(method: Method, opened: Opened) -> dict[str, float]:
    """Validator -> score, for all validators that the run can use. Draws nothing and reads no label of the target."""
    names, sides = opened.config.validators, opened.sides
    needs = {need for name in names for need in VALIDATORS[name].needs}
    task = opened.config.task
    if names and not task.has_class_scores:  # source_val alone can score such runs: by their own measure
        held = sides["source_val"]
        truth = {label: y.cpu().numpy() for label, y in held.y.items()}
        values = task.measure(outputs(method, held, opened), truth, method.net, opened.clusters)
        return {"source_val": task.choice(values)}
    p: dict[str, dict[str, Tensor]] = {}
    for side in needs & {"source_val", "target"}:
        out = outputs(method, sides[side], opened)
        z = {label: torch.from_numpy(out[label]).to(opened.device) for label in opened.spec.classes}
        p[side] = {label: z_NK.softmax(1) for label, z_NK in z.items()}
    y = sides["source_val"].y if "source_val" in needs else {}
    evidence = Predictions(p, y, features(method, sides) if "features" in needs else {})
    return {name: VALIDATORS[name].score(evidence) for name in names}


def outputs(method: Method, rows: Rows, opened: Opened) -> Outputs:
    """Output -> array (rows, ...) of `predict` in eval mode; draws nothing.

    With feeds whose `test` is `each`, every window is predicted separately (`averaged`). Scores are then the log of the
    mean softmax, and other outputs the mean. In retrieval, "visual" (rows, M) are embeddings of the rows, "text"
    (captions, M) those of their captions, and "clip" (captions,) the row of each caption, which the method does not
    see.
    """
    return predicted(method, rows, opened.spec.classes)


def predicted(method: Method, rows: Rows, labels: Collection[str]) -> Outputs:
    """Return what `outputs` does. labels: those whose outputs are scores of classes."""
    classes = labels if has_separate_windows(rows) else ()

    def predict(side: Side) -> dict[str, Tensor]:
        return {name: out.softmax(1) if name in classes else out for name, out in method.predict(side).items()}

    with eval_mode(method):
        found = averaged(predict, rows)
        if rows.captions:
            found |= averaged(predict, rows.captions.table)
    found = {name: out.log() if name in classes else out for name, out in found.items()}
    for name, out in found.items():
        least = -torch.inf if name in labels else torch.finfo(out.dtype).min  # -inf: a probability of 0
        if not bool(((out >= least) & (out < torch.inf)).all()):  # false for NaN too
            raise ConfigError(f"output {name!r} is not finite; lower optim.lr, or set optim.clip_norm (for example 20)")
    kept = {name: out.cpu().numpy() for name, out in found.items()}
    return kept | {"clip": rows.captions.row.numpy()} if rows.captions else kept


@contextmanager
def eval_mode(method: Method) -> Iterator[None]:
    """Put the method into eval mode without gradients, and restore its mode afterwards."""
    training = method.training
    method.eval()
    with torch.no_grad():
        yield
    method.train(training)


# ----------------------------------------------------------------------------------------------------------- windows


def has_separate_windows(rows: Rows) -> bool:
    """True if feeds with `test=each` have their windows classified separately."""
    return bool(separate(rows.feeds))


def averaged(look: Look, rows: Rows, *, by_modality: bool = False) -> dict[str, Tensor]:
    """Name -> (rows, ...): what `look` returns of all rows, without their labels.

    With feeds whose `test` is `each`, `look` sees one of their windows at a time, next to all windows of other feeds.
    The result is the mean over the windows that the row has in one of these feeds, or by_modality, where names are
    modalities, over those that it has in the modality itself.
    """
    each = separate(rows.feeds)
    return gather(rows.sweep(), lambda side: over_windows(look, side, each, by_modality=by_modality))


def separate(feeds: Mapping[str, Feed]) -> list[str]:
    """Return the modalities whose windows are looked at separately."""
    return [m for m, feed in feeds.items() if feed.test == "each"]


def over_windows(look: Look, side: Side, each: Sequence[str], *, by_modality: bool = False) -> dict[str, Tensor]:
    """Return what `look` returns of a side, as a mean over the separate windows of the modalities `each`."""

    def window(k: int) -> Side:
        x, present = (
            {m: value[:, k : k + 1] if m in each else value for m, value in values.items()}
            for values in (side.x, side.present)
        )
        return Side(x, present, {}, side.domain, side.index)

    if not each:
        return look(Side(side.x, side.present, {}, side.domain, side.index))
    windows = [look(window(k)) for k in range(side.x[each[0]].shape[1])]
    in_any_BT = torch.stack([side.present[m] for m in each]).any(0)
    present = {m: side.present[m] for m in each} if by_modality else {}
    return {
        name: _mean(torch.stack([found[name] for found in windows], 1), present.get(name, in_any_BT))
        for name in windows[0]
    }


def _mean(out_BT: Tensor, present_BT: Tensor) -> Tensor:
    """Return the mean over the windows that are present, or over all windows of a row that has none: they are equal."""
    counted_BT = present_BT | ~present_BT.any(1, keepdim=True)
    weight_BT = counted_BT.reshape(*counted_BT.shape, *[1] * (out_BT.dim() - 2))
    return (out_BT * weight_BT).sum(1) / weight_BT.sum(1)


# ---------------------------------------------------------------------------------------------------------- features


def clip_features(method: Method, rows: Rows) -> dict[str, Tensor]:
    """Modality -> (N, D): the features that are classified, in eval mode; a clip's are the mean of its windows'."""
    with eval_mode(method):
        return averaged(method.features, rows, by_modality=True)


def projected_features(method: Method, rows: Rows) -> dict[str, Tensor]:
    """Modality -> (N, P): the same after the method's projection head; {} if it has none."""
    with eval_mode(method):
        return averaged(lambda side: method.projected(method.features(side)), rows, by_modality=True)


def features(method: Method, sides: Mapping[str, Rows]) -> dict[str, Tensor]:
    """Side -> (N, D): the features that are classified, concatenated over the modalities that all sides have."""
    f = {name: clip_features(method, rows) for name, rows in sides.items()}
    shared = [m for m in next(iter(f.values())) if all(m in f_side for f_side in f.values())]
    return {name: torch.cat([f_side[m] for m in shared], 1) for name, f_side in f.items()}


def looked_elsewhere(config: RunConfig) -> bool:
    """True if earlier versions looked at other features of such a run than those that are classified.

    They took all that the net encodes, and of windows that are classified separately the mean window.
    """
    own = method_class(config).features is not Method.features
    return own or net_class(config).fuses or any(feed.test == "each" for feed in config.feeds.values())


def clip_norms(method: Method, rows: Rows) -> dict[str, Tensor]:
    """Modality -> (N, label kinds): the L2 norms of the features that enter each label's classifier.

    Where windows are classified separately, the norm of a row is the mean of its windows' norms.
    """
    parts = method.parts

    def look(side: Side) -> dict[str, Tensor]:
        f = method.features(side)
        return {m: torch.stack([f_BD[:, part].norm(dim=1) for part in parts.values()], 1) for m, f_BD in f.items()}

    with eval_mode(method):
        return averaged(look, rows, by_modality=True)


def feature_norms(method: Method, rows: Rows) -> dict[tuple[str, str], float]:
    """(label kind, modality) -> mean of `clip_norms` over the rows that have the modality."""
    means: dict[tuple[str, str], float] = {}
    for m, h in clip_norms(method, rows).items():
        present = rows.present[m].any(1) if m in rows.present else slice(None)  # every row has a fused feature
        if len(h[present]):
            means |= {(label, m): float(mean) for label, mean in zip(method.parts, h[present].mean(0), strict=True)}
    return means


def one_class(outputs: Mapping[str, NDArray[Any]], opened: Opened) -> list[str]:
    """Name the class that every row is given, if there is one, for each label; no label of a row is read.

    With several label kinds, the name of the label comes first. Empty for a single row or class, and in other tasks.
    """
    found = []
    for label, names in opened.classes.items() if opened.config.task.has_class_scores else ():
        predicted = outputs[label].argmax(1)
        if len(names) > 1 and len(predicted) > 1 and (predicted == predicted[0]).all():
            found.append(names[predicted[0]] if len(opened.classes) == 1 else f"{label} {names[predicted[0]]}")
    return found


def stuck(method: Method, test: Mapping[str, NDArray[Any]], opened: Opened) -> list[str]:
    """Name the class that `one_class` finds on the test rows, if the method gives it to every training row, too.

    Test clips that really are of one class are no collapse. Training rows are those of the source, and without a source
    those of the target. No label of a row is read, and no row unless the test rows are given one class.
    """
    if not (given := one_class(test, opened)):
        return []
    rows = opened.sides["source" if "source" in opened.sides else "target"]
    trained = one_class(outputs(method, rows, opened), opened)
    return [name for name in given if name in trained]


def collapsed(method: Method, sides: Iterable[Rows]) -> list[str]:
    """Modalities whose features are almost zero on some side: their losses look aligned, and never recover.

    Always empty if the task's features have length 1 by construction.
    """
    if tasks.load(method.net.task).unit_length:
        return []
    norms = [feature_norms(method, rows) for rows in sides]
    return sorted({m for by_modality in norms for (_, m), norm in by_modality.items() if norm < COLLAPSED})


def collapse(vanished: Iterable[str], given: Iterable[str]) -> str:
    """Describe a collapse as text, from the results of `collapsed` and `stuck`; "" if there is none."""
    parts = [f"the features of {', '.join(vanished)} have vanished"] if vanished else []
    parts += [f"every test clip is given the class {', '.join(map(repr, given))}"] if given else []
    return "; ".join(parts)


def remedy(config: RunConfig) -> str:
    """Return the settings that keep a run from collapsing, for the command line.

    There are none where no trained net makes the predictions: without steps, and for classifiers of cached features.
    """
    if not config.steps or getattr(config.method, "features", "") == "pooled":
        return "where no trained net predicts, compare the features and labels of the domains"
    settings = []
    if config.preparation.units == "none" and not getattr(config.net, "standardise", False):
        settings.append("preparation.units=source")
    if getattr(config.net, "dim", WIDE) < WIDE:
        settings.append(f"net.dim={WIDE}")
    settings = settings or [f"optim.lr={config.optim.lr / 10:g}"]
    return "to avoid it, take " + " ".join(f"--set {setting}" for setting in settings)
