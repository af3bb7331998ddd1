"""Result rows: one JSON line per run and metric, appended, never edited. Tables are made from nothing else."""

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from featcache.errors import ConfigError
from pipelines import settings


@dataclass(frozen=True)
class Result:
    """One measured number and everything needed to know what it means."""

    run: str  #: run id
    experiment: str
    row: str  #: table row
    source: tuple[str, ...]  #: labelled domains
    target: str | None  #: unlabelled domain
    test: str  #: evaluated domain
    seed: int
    metric: str  #: one of `featcache list metrics`, where there are several labels with /LABEL
    value: float  #: accuracies, R@K and GM are shares in [0, 1]
    n: int  #: rows it was measured on; in retrieval, clips
    select: str  #: rule that chose the outputs: last, mean, a validator, or oracle (labels of the test rows)
    fidelity: str  #: exact | adapter | surrogate
    untrained: tuple[str, ...]  #: modalities whose extractor had untrained weights
    recipes: dict[str, str]  #: modality -> sha256 of what makes its features what they are
    read: dict[str, str]  #: fingerprints of stores, manifest and earlier run that were read
    config: dict[str, Any]  #: the RunConfig as JSON
    version: str  #: of featcache
    collapsed: tuple[str, ...] = ()  #: modalities whose features died in training (mean norm below 1e-3)
    tier: str = ""  #: where the features lay in training, see pipelines/data/tiers.py


def append(path: Path, results: Iterable[Result]) -> None:
    """Add lines at the end of a JSONL file; a line that an earlier, killed write left torn is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(asdict(result)) + "\n" for result in results)
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            lines = "\n" + lines
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Result]:
    """All results of a file; of the same run and metric the later line counts. Torn lines are reported as warnings."""
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
                f"{path} line {number} is torn or no result, and was left out ({error}); evaluate again", stacklevel=2
            )
            continue
        results[result.run, result.metric] = result
    return list(results.values())


def _parse(data: dict[str, Any]) -> Result:
    """A Result from its JSON; keys of a newer version are left out."""
    if not isinstance(data, dict):
        raise TypeError(f"{data!r} is not a group of settings")
    known = {field.name for field in fields(Result)}
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items() if key in known}
    result = Result(**values)
    settings.verify(result, Result, "")
    return result
