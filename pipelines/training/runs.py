"""The folder of a finished run: RUNS/<run id>/ with its configuration, facts, log, weights and outputs.

    config.json   the RunConfig
    run.json      facts: versions, seconds, fingerprints of everything read, the Spec, the evaluation points
    log.jsonl     one line per step: the terms of the loss
    head.pt       state dict of the method, net included, at the last kept point
    outputs.npz   outputs of `predict` on the test rows at the kept points, (points, rows, ...) each, and `rows`;
                  in retrieval "visual" of clips and "text" of `captions`, with the clip of each caption in `clip`;
                  in clustering "feature_B0", "feature_B1", and where there are clusters "cluster_B0", "cluster_B1"

A folder is written under another name and renamed, so it is complete or absent. Later damage (a full disk, an
interrupted copy) is noticed when the folder is opened.
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
from featcache.untrusted import not_stored
from featcache.untrusted.npy import check_npz
from heads import nets
from heads.batch import Spec
from heads.methods import Method
from pipelines import settings
from pipelines.config import RunConfig, method_class
from pipelines.data.opening import Opened

T = TypeVar("T")
FACTS = ("read", "note", "recipes", "untrained", "collapsed", "points", "spec")  #: keys that every run.json has


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read configuration and facts; ConfigError when the run is missing or one of its files is damaged."""
        if not folder.is_dir():
            raise ConfigError(f"no finished run at {folder}; train it with `featcache train-head`")
        run = cls(folder, _sound(folder / "config.json", _config), _sound(folder / "run.json", _facts))
        _sound(folder / "log.jsonl", run.check_log)
        for name in ("head.pt", "outputs.npz"):
            _sound(folder / name, _check_zip)
        _sound(folder / "head.pt", _check_stored)
        _sound(folder / "outputs.npz", check_npz)
        return run

    def check_log(self, path: Path) -> None:
        """Raise ValueError unless the log has all steps and its last line is complete."""
        lines = path.read_text(encoding="utf-8").splitlines()
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
        """The terms of the loss at each step."""
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]

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
    """Return `read(path)`; ConfigError with the fix if the file of a run is missing or damaged."""
    try:
        return read(path)
    except (FileNotFoundError, ValueError, TypeError, ConfigError) as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise ConfigError(f"{path} {problem}; train the run again with `featcache train-head`") from None


def _config(path: Path) -> RunConfig:
    return RunConfig.from_json(json.loads(path.read_text(encoding="utf-8")))


def _facts(path: Path) -> dict[str, Any]:
    facts = json.loads(path.read_text(encoding="utf-8"))
    for name in FACTS:
        if name not in facts:
            raise ValueError(f"it has no {name!r}")
    return dict(facts)


def _check_zip(path: Path) -> None:
    """Check that weights or outputs are a zip archive; its directory is at the end, so a truncated file has none."""
    if path.stat().st_size == 0 or not zipfile.is_zipfile(path):
        raise ValueError("it is cut off, or not an archive of torch or numpy")


def _check_stored(path: Path) -> None:
    """Raise ValueError for weights that torch.save has not written, which may unpack to many times their bytes."""
    with zipfile.ZipFile(path) as archive:
        if problem := not_stored(archive.infolist(), path.stat().st_size):
            raise ValueError(f"it {problem}")


def build(config: RunConfig, spec: Spec) -> Method:
    """Build the run's net and method with weights from torch's global stream; the net first, so methods share it."""
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
    """Write a run's folder, replacing an older one of that name."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed here
    partial.mkdir(parents=True)
    contents = {
        "config.json": json.dumps(config.to_json(), indent=1) + "\n",
        "run.json": json.dumps({**facts, "spec": asdict(spec)}, indent=1) + "\n",
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in log),
    }
    for name, content in contents.items():
        (partial / name).write_text(content, encoding="utf-8")
    torch.save(dict(weights), partial / "head.pt")
    np.savez(partial / "outputs.npz", **outputs)  # type: ignore[arg-type]
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


# --------------------------------------------------------------------------------------------------------- earlier runs


def fingerprints(opened: Opened, runs: Path) -> dict[str, str]:
    """Name -> fingerprint of everything, except the configuration, that a run's result depends on."""
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
    """Names of the things that have changed since the run read them, as text; "" if none has."""
    return ", ".join(name for name in read if run.facts["read"].get(name) != read[name])


def out_of_date(folder: Path, read: dict[str, str]) -> str:
    """The reason for training a run: "" if it is up to date, "new" if there is none, else the changes."""
    if not folder.exists():
        return "new"
    try:
        changed = changes(Run.open(folder), read)
    except ConfigError as error:
        return f"trained again, because {str(error).partition(';')[0]}"
    return f"trained again, because these have changed: {changed}" if changed else ""
