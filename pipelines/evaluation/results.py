"""Results: one JSON line per run and metric, appended and never edited. Tables are made only from these lines."""

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from featcache.errors import ConfigError
from pipelines import settings


@dataclass(frozen=True)
class Result:
    """One measured number, with everything that is needed to interpret it."""

    run: str  #: run id
    experiment: str
    row: str  #: table row
    source: tuple[str, ...]  #: labelled domains
    target: str | None  #: unlabelled domain
    test: str  #: evaluated domain
    seed: int
    metric: str  #: a name from `featcache list metrics`, with /LABEL or /SIDE/MODALITY behind it if there are several
    value: float  #: accuracies, R@K and GM are shares in [0, 1]
    n: int  #: number of test rows; in retrieval, of clips
    select: str  #: rule that selected the kept point: last, mean, a validator, or oracle (labels of the test rows)
    fidelity: str  #: exact | adapter | surrogate
    untrained: tuple[str, ...]  #: modalities whose extractor had untrained weights
    recipes: dict[str, str]  #: modality -> sha256 of the recipe of its features
    read: dict[str, str]  #: fingerprints of the stores, the manifest and the earlier run that were read
    config: dict[str, Any]  #: the RunConfig as JSON
    version: str  #: version of featcache
    collapsed: tuple[str, ...] = ()  #: modalities with dead features after training (mean norm below 1e-3)
    leaks: tuple[
        str, ...
    ] = ()  #: features that give a label away, see featcache/leaks.py; not written if there are none
    tier: str = ""  #: tier of the features in training, see pipelines/data/tiers.py
    trained_on: dict[str, str] = field(
        default_factory=dict
    )  #: feed -> data that the network behind its features was trained on, see featcache/training_data.py
    limits: tuple[str, ...] = ()  #: "KIND: explanation" of what the classes of the rows keep the number from reaching


def append(path: Path, results: Iterable[Result]) -> None:
    """Append lines to a JSONL file. If a killed process left a torn line at its end, start a new line first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(_to_json(result)) + "\n" for result in results)
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            lines = "\n" + lines
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _to_json(result: Result) -> dict[str, Any]:
    data = asdict(result)
    return data if result.leaks else {key: value for key, value in data.items() if key != "leaks"}


def read(path: Path) -> list[Result]:
    """Read all results of a file. Torn lines cause warnings.

    A later line replaces an earlier one of the same run and metric.
    """
    try:
        lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        raise ConfigError(f"no results at {path}; `featcache evaluate` writes them") from None
    results: dict[tuple[str, str], Result] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            result = _parse(json.loads(line))
        except (json.JSONDecodeError, TypeError, ConfigError) as error:
            warnings.warn(
                f"{path} line {number} is torn or not a result, and was left out ({error}); evaluate again",
                stacklevel=2,
            )
            continue
        results[result.run, result.metric] = result
    return list(results.values())


def _parse(data: dict[str, Any]) -> Result:
    """Make a Result from its JSON, without the keys that a newer version added."""
    if not isinstance(data, dict):
        raise TypeError(f"{data!r} is not a group of settings")
    names = {field.name for field in fields(Result)}
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items() if key in names}
    result = Result(**values)
    settings.verify(result, Result, "")
    return result
