"""What a finished run leaves: RUNS/<run id>/ with its configuration, facts, log, weights and outputs.

    config.json   the RunConfig
    run.json      facts: versions, seconds, what was read (fingerprints), the Spec, the evaluation points
    log.jsonl     one line per step: the terms of the loss
    head.pt       state dict of the method, net included, at the last kept point
    outputs.npz   what `predict` said of the test rows at the kept points: (points, rows, ...) each, and `rows`; in
                  retrieval "visual" is of clips, "text" of `captions`, of which `clip` says whose they are;
                  in clustering "feature_B0", "feature_B1", and where there are clusters "cluster_B0", "cluster_B1"

A folder is written under another name and renamed, so it is there whole or not at all. What happens to it later (a full
disk, an interrupted copy) is noticed when it is opened.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import registry
from featcache.errors import ConfigError
from heads import nets
from heads.batch import Spec
from heads.methods import Method
from pipelines import settings
from pipelines.config import RunConfig, method_class
from pipelines.data.opening import Opened

T = TypeVar("T")
FACTS = ("read", "note", "recipes", "untrained", "collapsed", "points", "spec")  #: run.json has at least these


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read configuration and facts; ConfigError when there is no run, or one with a damaged file."""
        if not folder.is_dir():
            raise ConfigError(f"no finished run at {folder}; `featcache train-head` makes it")
        run = cls(folder, _sound(folder / "config.json", _config), _sound(folder / "run.json", _facts))
        _sound(folder / "log.jsonl", run.check_log)
        for name in ("head.pt", "outputs.npz"):
            _sound(folder / name, _check_zip)
        return run

    def check_log(self, path: Path) -> None:
        """ValueError unless a log has all steps, the last one whole."""
        lines = path.read_text().splitlines()
        if len(lines) != self.config.steps:
            raise ValueError(f"it has {len(lines)} of {self.config.steps} steps")
        if lines:
            json.loads(lines[-1])

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Output -> (points, rows, ...) at the kept points; "rows" are manifest rows (rows,).

        In retrieval "captions" (c,) are rows of the manifest of captions, and "clip" (c,) positions in "rows".
        """
        with np.load(self.folder / "outputs.npz") as arrays:
            return dict(arrays)

    @property
    def points(self) -> list[dict[str, float]]:
        """The kept evaluation points: step, and the score of every validator whose rows the run has."""
        points: list[dict[str, float]] = self.facts["points"]
        return points

    def log(self) -> list[dict[str, float]]:
        """The terms of the loss, step by step."""
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    def method(self, device: str = "cpu") -> Method:
        """The trained method, in eval mode."""
        facts = self.facts["spec"]
        shapes = {m: tuple(shape) for m, shape in facts["shapes"].items()}
        named = {name: tuple(facts.get(name, ())) for name in ("domains", "captions")}
        spec = Spec(**{**facts, **named, "shapes": shapes})
        method = build(self.config, spec).to(device)
        method.load_state_dict(torch.load(self.folder / "head.pt", map_location=device, weights_only=True))
        return method.eval()


def _sound(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file of a run; a missing or damaged one is named, with the fix."""
    try:
        return read(path)
    except (FileNotFoundError, ValueError, TypeError, ConfigError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise ConfigError(f"{path} {what}; `featcache train-head` makes the run again") from None


def _config(path: Path) -> RunConfig:
    return RunConfig.from_json(json.loads(path.read_text()))


def _facts(path: Path) -> dict[str, Any]:
    facts = json.loads(path.read_text())
    for name in FACTS:
        if name not in facts:
            raise ValueError(f"it has no {name!r}")
    return dict(facts)


def _check_zip(path: Path) -> None:
    """Weights and outputs are zip archives, whose directory stands at the end: a cut file has none."""
    if path.stat().st_size == 0 or not zipfile.is_zipfile(path):
        raise ValueError("it is cut off, or no archive of torch or numpy")


def build(config: RunConfig, spec: Spec) -> Method:
    """The run's method on its net, freshly drawn from torch's global stream: the net first, so all methods share it."""
    try:
        net = registry.load(nets, settings.name_of(config.net), "net").NET(config.net, spec)
        method: Method = method_class(config)(config.method, spec, net)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return method


def write(
    folder: Path,
    config: RunConfig,
    spec: Spec,
    facts: dict[str, Any],
    *,
    log: list[dict[str, float]],
    weights: Mapping[str, Tensor],
    outputs: dict[str, NDArray[Any]],
) -> None:
    """Write a run's folder, in place of an older one of that name."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed here
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config.to_json(), indent=1) + "\n")
    (partial / "run.json").write_text(json.dumps({**facts, "spec": asdict(spec)}, indent=1) + "\n")
    (partial / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    torch.save(dict(weights), partial / "head.pt")
    np.savez(partial / "outputs.npz", **outputs)  # type: ignore[arg-type]
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


# ---------------------------------------------------------------------------------------------------- what came before


def what_is_read(opened: Opened, runs: Path) -> dict[str, str]:
    """Name -> fingerprint of everything that a run's result depends on beside its configuration."""
    read = {f"store {m}": store.fingerprint for m, store in opened.stores.items()}
    read["manifest"] = opened.manifest.sha256
    if opened.captions:
        read["captions"] = opened.captions.manifest.sha256
    if first := opened.config.init_from:
        try:
            path = Run.open(runs / first).folder / "head.pt"
        except ConfigError as error:
            raise ConfigError(f"init_from names {first}, which is not a finished run in {runs} ({error})") from None
        read["init_from"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return read


def changes(run: Run, read: dict[str, str]) -> str:
    """What the run read that is another now, in words; "" when all is as it was."""
    return ", ".join(name for name in read if run.facts["read"].get(name) != read[name])


def out_of_date(folder: Path, read: dict[str, str]) -> str:
    """Why a run must be trained: "" when it need not, "new" when there is none, else what has changed since."""
    if not folder.exists():
        return "new"
    try:
        changed = changes(Run.open(folder), read)
    except ConfigError as error:
        return f"trained again, for {str(error).partition(';')[0]}"
    return f"trained again, for these have changed: {changed}" if changed else ""
