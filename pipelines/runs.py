"""What a finished run leaves: RUNS/<run id>/ with its configuration, facts, log, weights and outputs.

    config.json   the RunConfig
    run.json      facts: versions, seconds, what was read (fingerprints), the Spec, the evaluation points
    log.jsonl     one line per step: the terms of the loss
    head.pt       state dict of the method, net included
    outputs.npz   what `predict` said of the test rows at the kept points: (points, rows, ...) each, and `rows`

A folder is written under another name and renamed, so it is there whole or not at all.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.errors import ConfigError
from heads import nets
from heads.batch import Spec
from heads.methods import Method
from pipelines import typed
from pipelines.config import RunConfig, method_class


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read configuration and facts; ConfigError when there is no run, or not one of ours."""
        try:
            config = RunConfig.from_json(json.loads((folder / "config.json").read_text()))
            return cls(folder, config, json.loads((folder / "run.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"no finished run at {folder}; `featcache train-head` makes it") from None
        except json.JSONDecodeError as error:
            raise ConfigError(f"{folder} is not readable as a run ({error}); delete it and train again") from None

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Output -> (points, rows, ...) at the kept points; "rows" are manifest rows (rows,)."""
        with np.load(self.folder / "outputs.npz") as arrays:
            return dict(arrays)

    @property
    def points(self) -> list[dict[str, float]]:
        """The kept evaluation points: step, and accuracy on source_val where rows are held out."""
        points: list[dict[str, float]] = self.facts["points"]
        return points

    def log(self) -> list[dict[str, float]]:
        """The terms of the loss, step by step."""
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    def method(self, device: str = "cpu") -> Method:
        """The trained method, in eval mode."""
        facts = self.facts["spec"]
        shapes = {m: tuple(shape) for m, shape in facts["shapes"].items()}
        spec = Spec(**{**facts, "shapes": shapes, "domains": tuple(facts["domains"])})
        method = build(self.config, spec).to(device)
        method.load_state_dict(torch.load(self.folder / "head.pt", map_location=device, weights_only=True))
        return method.eval()


def load_method(folder: Path, device: str = "cpu") -> Method:
    """The trained method of a run folder, in eval mode: `load_method(path).predict(side)`."""
    return Run.open(folder).method(device)


def build(config: RunConfig, spec: Spec) -> Method:
    """The run's method on its net, freshly drawn from torch's global stream: the net first, so all methods share it."""
    try:
        net = nets.load(typed.name_of(config.net)).NET(config.net, spec)
        method: Method = method_class(config)(config.method, spec, net)
    except ValueError as error:
        raise ConfigError(f"{config.id}: {error}") from error
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
