"""Experiments: which runs make a table. The folder is the registry: `experiments/kitchens.py` is `kitchens`.

An experiment file has a docstring (command, minutes, what to expect), `RUNS`, a `NOTE` where a reader of its numbers
has to know something, and `PUBLISHED` where a paper printed numbers: table row -> {"D1→D2": per cent, ..., "mean": per
cent}, of the table's default metric, or with {metric: number} in a number's place, {"D1→D2": {"top1/verb": 46.8}}. A
user's own file, anywhere, has the same.
"""

import importlib
import importlib.util
import pkgutil
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError, FeatcacheError
from heads.methods import rna, source_only
from pipelines._table_parts import RANKS
from pipelines.clustering import KMEANS, MEASURES
from pipelines.config import Feed, Optim, RunConfig, override
from pipelines.experiments._rows import Row
from pipelines.experiments._rows import runs as rows_of
from pipelines.loading import DONE, NOT_TRIED
from pipelines.opening import open_manifest
from pipelines.typed import unknown

SEEDS = (0, 1, 2)
METRICS = ("top1", "top5", "mean_class", "cv_s", "cv_t", "cv_st", "t2v", "v2t", "a_distance", *MEASURES)
"""What papers print; of several tasks METRIC/TASK, of retrieval t2v/R@1, v2t/MedR, a_distance/joint, ...; of clustering
nmi/B0, nmi/B0/kmeans, ..."""

Published = dict[str, dict[str, float | dict[str, float]]]  #: row -> "D1→D2" or "mean" -> number, or metric -> number


@dataclass(frozen=True)
class Experiment:
    """A table to be: its runs, in the order of its rows."""

    name: str
    doc: str
    runs: tuple[RunConfig, ...]
    published: Published | None = None  #: accuracies in per cent
    note: str = ""  #: what a reader of the numbers has to know: printed under the table, in bold
    typed: str = ""  #: what stands for it on the command line, options included; "": its name
    known: frozenset[str] = frozenset()  #: ids of the runs it had before `changed`

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the table's rows, in order."""
        return tuple(dict.fromkeys(run.row for run in self.runs if run.row))

    @property
    def task(self) -> str:
        """What its rows answer: classification, retrieval or clustering."""
        return next((run.task for run in self.runs if run.row), "classification")

    @cached_property
    def by_id(self) -> dict[str, RunConfig]:
        """The runs by their ids."""
        return {run.id: run for run in self.runs}

    def chain(self, run: RunConfig) -> list[RunConfig]:
        """The run, the one it starts from (`init_from`), the one that starts from, ..., as far as they are known."""
        chain = [run]
        while first := self.by_id.get(chain[-1].init_from or ""):
            chain.append(first)
        return chain

    @cached_property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Id of a run that a row shows -> the table's columns it stands in, such as "D1→D2".

        A run that learns from its test domain's own labels has no shift of its own: it stands in every column that
        ends in that domain. A run without a source (source-free adaptation) has the source of the run it starts from.
        """
        own: dict[str, str] = {}
        shifts: dict[str, str] = {}  # column -> tested domain
        for run in self.runs:
            if run.row:
                source = next((stage.source for stage in self.chain(run) if stage.source), ())
                own[run.id] = f"{_together(source)}→{run.test}"
                if source != (run.test,):
                    shifts[own[run.id]] = run.test

        def columns(shift: str, test: str) -> tuple[str, ...]:
            into = tuple(column for column, tested in shifts.items() if tested == test)
            return (shift,) if shift in shifts else into or (shift,)

        return {run: columns(shift, self.by_id[run].test) for run, shift in own.items()}

    def theirs(self, row: str, metric: str, headline: bool) -> dict[str, float]:
        """Column -> what was published of a row in this metric; plain numbers are of the headline metric.

        As of our own runs, where there is no number by a classifier of clusters it is that by k-means.
        """
        numbers = dict[str, float]()
        for column, number in (self.published or {}).get(row, {}).items():
            if isinstance(number, dict):
                for name in (metric, metric + KMEANS):
                    if name in number:
                        numbers.setdefault(column, number[name])
            elif headline:
                numbers[column] = number
        return numbers

    def changed(self, settings: Sequence[str] = (), seeds: str | None = None, only: Sequence[str] = ()) -> "Experiment":
        """The experiment with `a.b=value` settings, with these seeds ("0,1,2") instead of its own, or only these rows.

        A run that others start from moves with them, but is no row of the table unless asked for; settings of the
        method leave it alone then, as they mean the rows'.
        Raises ConfigError for a row that is not there, seeds that are no whole numbers, and bad settings.
        """
        for row in only:
            if row not in self.rows:
                raise unknown("row", row, self.rows)
        runs: dict[tuple[str, str], RunConfig] = {}  # of equal ones, one

        def renew(run: RunConfig, seed: int | None) -> str:
            first = self.by_id.get(run.init_from or "")
            start = renew(first, seed) if first else run.init_from
            row = run.row if run.row in (only or self.rows) else ""
            mine = [setting for setting in settings if row or not setting.startswith("method")]
            moved = replace(run, row=row, init_from=start, seed=run.seed if seed is None else seed)
            try:
                new = override(moved, *mine) if mine else moved
            except ConfigError as error:
                choose = "" if only or len(self.rows) < 2 else "; --only changes the rows that it names alone"
                raise ConfigError(f"row {row!r}: {error}{choose}" if row else str(error)) from None
            runs[new.id, new.row] = new
            return new.id

        for run in self.runs:
            if not only or run.row in only:
                for seed in [None] if seeds is None else _seeds(seeds):
                    renew(run, seed)
        return replace(self, runs=tuple(runs.values()), known=self.known | self.by_id.keys())


def _together(source: Sequence[str]) -> str:
    """Domains that teach together; of many the first and the last.

    >>> _together(["D1", "D2"]), _together(["S00", "S01", "S02", "S03", "S04"])
    ('D1+D2', 'S00..S04')
    """
    return "+".join(source) if len(source) <= 3 else f"{source[0]}..{source[-1]}"


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ConfigError(f"seeds {text!r} are not whole numbers separated by commas, such as 0,1,2") from None


def names() -> list[str]:
    """The experiments there are: the files of this folder that do not start with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(what: str | Path) -> Experiment:
    """By name; from a .py file; or the default experiment on a folder of stores, STORES/<manifest>."""
    path = Path(what)
    if str(what) in names():
        return _from_module(str(what), importlib.import_module(f"{__name__}.{what}"))
    if path.suffix == ".py":
        return _from_module(path.stem, _import(path))
    if (path / "manifest.csv").exists():
        return default(path)
    raise ConfigError(
        f"{unknown('experiment', str(what), names())}; or give a .py file, or a folder of stores (STORES/<manifest>, "
        "which has a manifest.csv)"
    )


def grid(
    manifest: str,
    feeds: dict[str, Feed],
    shifts: Iterable[tuple[str, str]],
    *,
    net: Any,
    rna_params: rna.Params,
    optim: Optim,
    steps: int,
    batch: tuple[int, int],
    absent: str = "refuse",
    seeds: Iterable[int] = SEEDS,
) -> tuple[RunConfig, ...]:
    """Source-only, RNA (DG), RNA (UDA) and supervised-target on every (source, target) shift: equal but for the method.

    RNA (DG) aligns modalities: it is left out where there is only one.
    Supervised-target has no source of its own, so a target that several shifts share is trained on once.
    """
    rows = {
        "source-only": Row(source_only.Params()),
        **({"RNA (DG)": Row(rna_params)} if len(feeds) > 1 else {}),
        "RNA (UDA)": Row(rna_params, target=True),
        "supervised-target": Row(source_only.Params(), supervised=True),
    }
    return rows_of(
        rows,
        shifts,
        seeds,
        manifest=manifest,
        net=net,
        feeds=feeds,
        absent=absent,
        steps=steps,
        batch=batch,
        optim=optim,
    )


def default(folder: Path) -> Experiment:
    """The grid on all finished stores of a folder, with kitchens' hyper-parameters, over every ordered pair of domains.

    A clip without some modality (a video without sound) is masked. `hog@flip` beside `hog` is a view of it, drawn in
    training. Domains without labelled train or test clips take no
    part on that side.
    """
    from pipelines.experiments import kitchens

    manifest = open_manifest(folder.parent, folder.resolve().name)
    stores = {store.path.stem: store for store in finished(folder)}
    views = {name: base for name in stores if (base := name.rpartition("@")[0]) in stores}
    modalities = [store.modality for name, store in stores.items() if name not in views]
    feeds = {}
    for name, store in stores.items():
        if name not in views:
            feed = Feed(name, views=tuple(view for view, base in views.items() if base == name))
            key = store.modality if modalities.count(store.modality) == 1 else name
            feeds[re.sub(r"[^\w-]", "-", key)] = feed
    teaching = [domain for domain in manifest.domains if _labelled(manifest, domain, "train")]
    tested = [d for d in manifest.domains if manifest.rows(domain=d, split="train") and _labelled(manifest, d, "test")]
    shifts = [(source, target) for source in teaching for target in tested if source != target]
    if not shifts:
        raise ConfigError(
            f"manifest {manifest.name!r} has no shift to train on: it takes a domain with labelled train clips and "
            "another one with train clips and labelled test clips"
        )
    whole = all((store.state == DONE).all() for store in stores.values())
    runs = grid(manifest.name, feeds, shifts, absent="refuse" if whole else "mask", **kitchens.RECIPE)
    taught = [run for run in runs if run.source[0] in teaching]  # supervised-target needs labels there
    doc = f"The default experiment on {', '.join(f'{m}: {feed.store}' for m, feed in feeds.items())}."
    return Experiment(manifest.name, doc, tuple(taught))


def finished(folder: Path) -> list[FeatureStore]:
    """The stores of a folder whose extraction is complete and gave something, by name."""
    stores = [FeatureStore.open(path) for path in sorted(folder.glob("*.zarr"))]
    usable = [store for store in stores if NOT_TRIED not in store.state and DONE in store.state]
    if not usable:
        there = ", ".join(store.name for store in stores) or "none at all"
        raise ConfigError(f"no finished store with features in {folder}; there are: {there}. `featcache extract` first")
    return usable


def _labelled(manifest: Manifest, domain: str, split: str) -> bool:
    """There is a clip, and every clip has every label."""
    rows, tasks = manifest.rows(domain=domain, split=split), manifest.classes.keys()
    return bool(rows and tasks) and all(manifest.clips[row].labels.keys() == tasks for row in rows)


def _import(path: Path) -> ModuleType:
    """The module of a user's file."""
    if not path.is_file():
        raise ConfigError(f"no experiment file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path}{_place(error, path)}: {_complaint(error)}") from error
    return module


def _place(error: Exception, path: Path) -> str:
    """` line N` of the file where it went wrong; "" when it cannot be told."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f" line {lines[-1]}" if lines and lines[-1] else ""


def _complaint(error: Exception) -> str:
    """Our own messages and the parser's speak for themselves; others need their class."""
    if isinstance(error, SyntaxError):
        return error.msg
    return str(error) if isinstance(error, FeatcacheError) else f"{type(error).__name__}: {error}"


def _from_module(name: str, module: ModuleType) -> Experiment:
    runs = getattr(module, "RUNS", None)
    if not isinstance(runs, tuple | list) or not runs or not all(isinstance(run, RunConfig) for run in runs):
        raise ConfigError(f"experiment {name!r} ({module.__file__}) needs RUNS, a tuple of RunConfig")
    published, note = getattr(module, "PUBLISHED", None), getattr(module, "NOTE", "")
    experiment = Experiment(name, (module.__doc__ or "").strip(), tuple(runs), published, note)
    _check_published(experiment, module)
    return experiment


def _check_published(experiment: Experiment, module: ModuleType) -> None:
    """Every published number stands beside a cell that the table has: a mistyped name would hide it."""
    if experiment.published is None:
        return
    columns = [*dict.fromkeys(column for columns in experiment.columns.values() for column in columns), "mean"]
    where = f"{module.__file__}: PUBLISHED"
    shape = f'{where} must be {{row: {{"D1→D2": per cent, ...}}, ...}}'
    if not isinstance(experiment.published, dict):
        raise ConfigError(f"{shape}, not {experiment.published!r}")
    for row, numbers in experiment.published.items():
        if row not in experiment.rows:
            raise ConfigError(f"{where}: {unknown('row', str(row), experiment.rows)}")
        if not isinstance(numbers, dict):
            raise ConfigError(f"{shape}; its row {row!r} has {numbers!r}")
        for column, number in numbers.items():
            if column not in columns:
                raise ConfigError(f"{where}[{row!r}]: {unknown('shift', str(column), columns)}")
            for metric, value in number.items() if isinstance(number, dict) else [("", number)]:
                place = f"{where}[{row!r}][{column!r}]" + (f"[{metric!r}]" if metric else "")
                if metric and metric.split("/")[0] not in METRICS:
                    raise ConfigError(f"{place}: {unknown('metric', metric, METRICS)}")
                most, unit = (1, "a coefficient") if metric.startswith("cv_") else (100, "per cent")
                if metric.startswith("a_distance/"):
                    most, unit = 2, "an A-distance"
                if metric.endswith(RANKS):
                    most, unit = 10**9, "a rank"
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                    raise ConfigError(f"{place}={value!r} must be {unit}, from 0 to {most}")
