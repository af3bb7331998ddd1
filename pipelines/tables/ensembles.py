"""The ensemble of each row of a table: one number for all its seeds together, next to the mean of the single runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.errors import ConfigError
from pipelines import tasks
from pipelines.evaluation.ensembles import ensemble
from pipelines.experiments import Experiment
from pipelines.tables.build import planned_runs
from pipelines.tables.cells import Ensemble, Line, Note, Table
from pipelines.tables.notes import RunIds
from pipelines.tables.slices import loud_first
from pipelines.training.runs import Run

NOTE = (
    "Ensemble: the metric of the mean of the class probabilities of a row's seeds, at the outputs that the selection "
    "rule takes, mean over shifts. `61.2 (N = 3)` is one ensemble of 3 seeds and no mean of 3 runs, so it has no ±: "
    "compare ensembles with ensembles of as many seeds."
)
NONE = "No ensemble: no row has results of two seeds or more at all its shifts."


def with_ensembles(table: Table, experiment: Experiment, stores: Path, runs: Path) -> Table:
    """Return the table with the ensemble of each row whose runs are all measured and have two seeds or more.

    ConfigError if the metric is not one of class probabilities.
    """
    if not experiment.task.has_class_scores or not tasks.metric(table.metric).compute:
        raise ConfigError(
            f"--ensemble averages class probabilities, and {table.metric!r} is not computed from these; choose "
            "--metric from top1, top5, mean_class, macro_f1 and ece, with /LABEL behind it if there are several"
        )
    planned = planned_runs(experiment, table.metric)
    lines = [line if line.quoted else _line(line, table, planned, stores, runs) for line in table.all_lines]
    note = Note(NOTE if any(line.ensemble for line in lines) else NONE)
    return replace(table, all_lines=tuple(lines), notes=loud_first([note], table.notes))


def _line(line: Line, table: Table, planned: RunIds, stores: Path, runs: Path) -> Line:
    seeds = tuple(line.mean.values)  # none unless all cells are complete and have the same seeds
    if len(seeds) < 2:
        return line
    values = [
        ensemble([Run.open(runs / run) for run in planned[line.method, shift].values()], stores)[table.metric]
        for shift in table.shifts
    ]
    factor = 100 if tasks.metric(table.metric).is_share else 1
    return replace(line, ensemble=Ensemble(factor * float(np.mean(values)), seeds))
