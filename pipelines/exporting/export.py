"""Export the head of a finished run for use without featcache."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import featcache
from featcache import training_data
from featcache.arguments import PathLike
from featcache.errors import ConfigError
from featcache.files import check_new, write_file
from featcache.store.places import local
from pipelines import settings
from pipelines.config import fidelity, method_class
from pipelines.data.opening import Opened
from pipelines.data.stores import parts_of
from pipelines.exporting.formats import FORMATS, Arrays, Facts, Predict, needed, traced
from pipelines.exporting.head import PRESENT, Input, Standalone, inputs, kept
from pipelines.training.runs import NotTrainedError, Run, find_run

CHECKED = 64  #: test rows on which a written head is compared with the run's own outputs
LIMIT = 1e-4  #: differences by rounding are smaller on the device of the run
ELSEWHERE = 1e-2  #: those of other devices and of bfloat16


@dataclass(frozen=True)
class Exported:
    """An exported head."""

    path: Path
    facts: Facts  #: the facts that are in the file
    checked: int  #: number of test clips whose outputs were compared with those that the run keeps
    difference: float  #: the largest difference, relative to the largest output if that is above 1
    note: str  #: the reason why tables may have other numbers than this head; "" if there is none


def export_head(
    run: PathLike,
    out: PathLike,
    stores: PathLike = "stores",
    *,
    runs: PathLike = "runs",
    overwrite: bool = False,
) -> Exported:
    """Write the head of a finished run to a file of torch.export (.pt2) or ONNX (.onnx).

    The head takes rows as they are in the run's stores, by modality, and returns the outputs that the run keeps of its
    test rows. It is for the run's test domain. The written file is loaded again and compared with the run's outputs.

    run: the folder of a run, or its id in `runs`. out: the file; overwrite: replace one that exists.
    stores, runs: folders of all stores, and of all runs.
    Raises ConfigError if the run, its stores or its method cannot be exported.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise ConfigError(f"{out} ends in {out.suffix or 'nothing'!r}; a file of a head ends in {' or '.join(FORMATS)}")
    check_new(out, overwrite)
    form = FORMATS[out.suffix]
    for package in form.packages:
        needed(package)
    made = find_run(Path(run), Path(runs))
    try:
        opened = made.opened(local(stores, parts_of([made.config])))
    except NotTrainedError as error:
        own = ", ".join(f"{made.config.manifest}/{feed.store}.zarr" for feed in made.config.feeds.values())
        raise NotTrainedError(f"{error}, or name the folder that has its own {own} with --stores") from None
    try:
        program, taken = traced(Standalone(made, opened), inputs(made, opened))
        facts = facts_of(made, opened, taken)
        data = form.write(program, facts)
        checked, difference = compared(form.read(data), made, opened, taken)
    except ConfigError as error:
        method, net = settings.name_of(made.config.method), settings.name_of(made.config.net)
        raise ConfigError(f"run {made.config.id} (method {method}, net {net}) cannot be exported: {error}") from None
    write_file(out, data, shared=True)
    return Exported(out, facts, checked, difference, note_of(made))


def note_of(run: Run) -> str:
    """Return the reason why tables have other numbers than the weights that a run keeps; "" if there is none."""
    if not run.selects_elsewhere:
        return ""
    select, step = run.config.select, int(run.points[-1]["step"])
    return f"tables show select={select} of {len(run.points)} points of this run; the file has the last, step {step}"


def compared(predict: Predict, run: Run, opened: Opened, taken: dict[str, Input]) -> tuple[int, float]:
    """Compare a written head with the outputs that a run keeps; return the number of rows, and the difference.

    ConfigError if they differ by more than rounding could explain, or if a row depends on other rows.
    """
    here = run.facts.device == "cpu" and getattr(run.config.net, "precision", "") != "bfloat16"
    limit = LIMIT if here else ELSEWHERE
    rows: Arrays = {name: run.outputs[name][:CHECKED] for name in ("rows", "captions") if name in run.outputs}
    features = stored(run, opened, taken, rows)
    found = predict(features)
    kept = {name: run.outputs[name][-1][: len(value)] for name, value in found.items()}
    alone = predict({name: value[-1:] for name, value in features.items()})
    if _difference(alone, {name: value[-1:] for name, value in found.items()}) > limit:
        raise ConfigError(
            "its predictions of a clip depend on the other clips of the same test, which a file does not get"
        )
    if (difference := _difference(found, kept)) > limit:
        raise ConfigError(
            f"the outputs of the file differ from those of the run by {difference:.2g}; train the run again here "
            f"(it was made on {run.facts.device or 'an unknown device'})"
        )
    return len(rows["rows"]), difference


def stored(run: Run, opened: Opened, taken: dict[str, Input], rows: Arrays) -> Arrays:
    """Return these rows of the run's stores, as `taken` names them."""
    features: Arrays = {}
    for m, feed in run.config.tested.items():
        chosen, store = rows["captions" if feed.captions else "rows"], opened.stores[m]
        features[m] = store.read(chosen)
        if m + PRESENT in taken:
            features[m + PRESENT] = store.present[chosen]
    return features


def _difference(found: Arrays, expected: Arrays) -> float:
    """Return the largest difference of outputs, relative to the largest of them if that is above 1."""
    largest = 0.0
    for name, value in found.items():
        other = expected[name]
        differs = np.where(value == other, 0, np.abs(value.astype(float) - other))  # -inf equals -inf
        scale = np.abs(other[np.isfinite(other)]).max(initial=1)
        largest = max(largest, float(np.nan_to_num(differs, nan=np.inf).max(initial=0) / scale))
    return largest


# --------------------------------------------------------------------------------------------------------------- facts


def facts_of(run: Run, opened: Opened, taken: dict[str, Input]) -> Facts:
    """Return the facts that a file of a head contains, as JSON values."""
    config, spec = run.config, run.facts.spec
    return {
        "run": config.id,
        "row": config.row,
        "task": config.task.name,
        "method": settings.name_of(config.method),
        "net": settings.name_of(config.net),
        "fidelity": fidelity(config),
        "surrogate": method_class(config).surrogate,
        "source": list(config.source),
        "target": config.target,
        "domain": config.test,
        "classes": {label: list(names) for label, names in opened.classes.items()},
        "clusters": spec.clusters,
        "inputs": {name: _input(run, opened, name, each) for name, each in taken.items()},
        "outputs": {name: _output(run, name) for name in kept(run)},
        "select": config.select,
        "step": int(run.points[-1]["step"]),
        "versions": run.facts.versions,
        "exported_by": {"featcache": featcache.__version__, "torch": torch.__version__},
    }


def _input(run: Run, opened: Opened, name: str, given: Input) -> Facts:
    """Return the facts about an input; of features also those of their store."""
    T, *row_shape = given.shape
    windows = f"{T} or more" if given.varies else T
    facts: Facts = {"shape": [given.rows, windows, *row_shape], "dtype": str(given.dtype).removeprefix("torch.")}
    if name.endswith(PRESENT):
        return facts | {"content": "True for each window that the row has"}
    store, feed = opened.stores[name], run.config.feeds[name]
    return facts | {
        "content": "rows of the store",
        "store": feed.store,
        "test": feed.test,
        "recipe_sha256": store.recipe_sha256,
        "recipe": store.recipe,
        "licence": store.facts.get("licence", ""),
        "trained_on": training_data.of(store.recipe, store.facts),
    }


def _output(run: Run, name: str) -> Facts:
    """Return the facts about an output."""
    width = run.outputs[name].shape[2]
    kinds = {"feature": "features", "cluster": "scores of clusters; their softmax are probabilities"}
    content = kinds.get(name.partition("_")[0], "") if run.facts.spec.clusters else ""
    if name in run.facts.spec.classes:
        content = "scores of the classes; their softmax are probabilities"
    return {
        "shape": ["captions" if name == "text" and run.config.captions else "clips", width],
        "dtype": str(run.outputs[name].dtype),
        "content": content or "embeddings",
    }
