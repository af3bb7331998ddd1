"""Experiments: which runs make a table. The folder is the registry: `experiments/kitchens.py` is `kitchens`.

An experiment file has a docstring (command, minutes, what to expect), `RUNS`, and `PUBLISHED` where a paper printed
numbers: table row -> {"D1→D2": per cent, ...}. A user's own file, anywhere, has the same.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError
from heads.methods import rna, source_only
from pipelines.config import Feed, Optim, RunConfig, override
from pipelines.opening import DONE, NOT_TRIED, open_manifest
from pipelines.typed import unknown

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Experiment:
    """A table to be: its runs, in the order of its rows."""

    name: str
    doc: str
    runs: tuple[RunConfig, ...]
    published: dict[str, dict[str, float]] | None = None  #: row -> shift "D1→D2" -> per cent
    typed: str = ""  #: what stands for it on the command line, options included; "": its name

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the table's rows, in order."""
        return tuple(dict.fromkeys(run.row for run in self.runs if run.row))

    def changed(self, settings: Sequence[str] = (), seeds: str | None = None, only: Sequence[str] = ()) -> "Experiment":
        """The experiment with `a.b=value` settings, with these seeds ("0,1,2") instead of its own, or only these rows.

        A run that others start from moves with them; settings of the method leave it alone, as they mean the row's.
        Raises ConfigError for a row that is not there, seeds that are no whole numbers, and bad settings.
        """
        for row in only:
            if row not in self.rows:
                raise unknown("row", row, self.rows)
        by_id = {run.id: run for run in self.runs}
        runs: dict[tuple[str, str], RunConfig] = {}  # of equal ones, one

        def renew(run: RunConfig, seed: int | None) -> str:
            first = by_id.get(run.init_from or "")
            start = renew(first, seed) if first else run.init_from
            mine = [setting for setting in settings if run.row or not setting.startswith("method")]
            moved = replace(run, init_from=start, seed=run.seed if seed is None else seed)
            new = override(moved, *mine) if mine else moved
            runs[new.id, new.row] = new
            return new.id

        for run in self.runs:
            if not only or run.row in only:
                for seed in [None] if seeds is None else _seeds(seeds):
                    renew(run, seed)
        return replace(self, runs=tuple(runs.values()))


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

    Supervised-target has no source of its own, so a target that several shifts share is trained on once.
    """
    shifts, seeds = tuple(shifts), tuple(seeds)
    supervised = source_only.Params()
    rows: dict[str, list[tuple[Any, str, str | None, str]]] = {
        "source-only": [(supervised, s, None, t) for s, t in shifts],
        "RNA (DG)": [(rna_params, s, None, t) for s, t in shifts],
        "RNA (UDA)": [(rna_params, s, t, t) for s, t in shifts],
        "supervised-target": [(supervised, t, None, t) for t in dict.fromkeys(t for _, t in shifts)],
    }
    return tuple(
        RunConfig(
            manifest=manifest,
            method=method,
            net=net,
            feeds=feeds,
            row=row,
            source=(source,),
            target=target,
            test=test,
            absent=absent,
            steps=steps,
            epoch="source",
            batch=batch,
            optim=optim,
            seed=seed,
        )
        for row, runs in rows.items()
        for method, source, target, test in runs
        for seed in seeds
    )


def default(folder: Path) -> Experiment:
    """The grid on all finished stores of a folder, with kitchens' hyper-parameters, over every ordered pair of domains.

    A clip without some modality (a video without sound) is masked. Domains without labelled train or test clips take no
    part on that side.
    """
    from pipelines.experiments import kitchens

    manifest = open_manifest(folder.parent, folder.resolve().name)
    stores = finished(folder)
    modalities = [store.modality for store in stores]
    feeds = {s.modality if modalities.count(s.modality) == 1 else s.name: Feed(s.name) for s in stores}
    teaching = [domain for domain in manifest.domains if _labelled(manifest, domain, "train")]
    tested = [d for d in manifest.domains if manifest.rows(domain=d, split="train") and _labelled(manifest, d, "test")]
    shifts = [(source, target) for source in teaching for target in tested if source != target]
    if not shifts:
        raise ConfigError(
            f"manifest {manifest.name!r} has no shift to train on: it takes a domain with labelled train clips and "
            "another one with train clips and labelled test clips"
        )
    whole = all((store.state == DONE).all() for store in stores)
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
    except SyntaxError as error:
        raise ConfigError(f"{path} line {error.lineno}: {error.msg}") from None
    return module


def _from_module(name: str, module: ModuleType) -> Experiment:
    runs = getattr(module, "RUNS", None)
    if not isinstance(runs, tuple | list) or not runs or not all(isinstance(run, RunConfig) for run in runs):
        raise ConfigError(f"experiment {name!r} ({module.__file__}) needs RUNS, a tuple of RunConfig")
    return Experiment(name, (module.__doc__ or "").strip(), tuple(runs), getattr(module, "PUBLISHED", None))
