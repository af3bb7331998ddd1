"""Evaluation of many runs on this machine, in one process or in several.

Runs that are tested on the same rows share the data: stores are opened once, and test rows are loaded and pooled once,
in each process. A run is measured again only if its results are out of date (`Measurement`).
"""

import json
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from featcache.errors import FeatcacheError
from featcache.parallel import in_parallel
from pipelines.config import RunConfig
from pipelines.data.lacking import LeftOut
from pipelines.data.opening import Opened, open_run
from pipelines.data.rows import Rows
from pipelines.evaluation import results
from pipelines.evaluation.evaluate import Trained, described, measure, trained
from pipelines.evaluation.results import Earlier, Result
from pipelines.training.outputs import collapse
from pipelines.training.runs import NotTrainedError, changes, digest, fingerprints

RUNS_PER_PROCESS = 16  #: runs for which starting another process takes less time than it saves


@dataclass(frozen=True)
class Case:
    """A run to evaluate, and the experiment that its results name; they have the table row of the configuration."""

    config: RunConfig
    experiment: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run."""

    case: Case
    status: str  #: measured | kept (its results were up to date) | failed
    note: str = ""  #: the reason for its failure
    untrained: bool = False  #: True if it failed because it has to be trained, or trained again
    without: str = ""  #: the reason why it has no A-distances, if they are wanted
    collapse: str = ""  #: description of its collapse, if its features vanished or all its predictions are one class


Report = Callable[[Outcome, int, int], None]  #: called after each run with (outcome, runs done, all runs)


def evaluate_all(
    cases: Iterable[Case],
    stores: Path,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    again: bool = False,
    a_distance: bool = False,
    report: Report | None = None,
) -> list[Outcome]:
    """Evaluate runs and append their results to RUNS/results.jsonl; a run that fails does not stop the others.

    again: measure also runs whose results are up to date. a_distance: measure A-distances, too. Results of a run are
    appended as soon as it is measured. Returns one outcome per different run, in the order in which they ended.
    """
    raise NotImplementedError
