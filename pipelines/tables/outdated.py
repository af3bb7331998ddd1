"""Results that tables leave out: numbers of features that are not classified, which earlier versions looked at.

Earlier versions measured norms, and the validator `dev`, on what the net encodes, and with `Feed(test="each")` on the
mean of the windows. Results since then are `classified`. Those of other runs have not changed. `evaluate` writes all
results of a kind at once, so an earlier one is left out without a word where its run has been measured again.
"""

from collections.abc import Iterable, Sequence

from featcache.wording import first
from pipelines.config import RunConfig
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.tables.cells import Note
from pipelines.training.outputs import looked_elsewhere

OF_FEATURES = ("norm", "cv_s", "cv_t", "cv_st")  #: metrics of feature norms, without /SIDE, /MODALITY and /LABEL


def current(rows: Sequence[Result], experiment: Experiment) -> list[Result]:
    """Return the results without those that are out of date or have been measured again.

    Coefficients of one kind of features, which earlier versions wrote as 0, are left out, too.
    """
    again, without = _measured_again(rows), _of_one_kind(rows)
    return [
        row
        for row in rows
        if not _is_outdated(row, experiment.by_id.get(row.run))
        and not _is_old(row, again)
        and (row.run, row.metric.partition("/")[0]) not in without
    ]


def feature_kinds(metrics: Iterable[str]) -> dict[str, set[str]]:
    """Return side -> the kinds of features that have norms there: modalities, or "fused"."""
    found: dict[str, set[str]] = {}
    for _, side, kind, *_ in (metric.split("/") for metric in metrics if metric.startswith("norm/")):
        found.setdefault(side, set()).add(kind)
    return found


def outdated(read: Sequence[Result], experiment: Experiment, rows: Sequence[Result]) -> list[Note]:
    """Return the note about results of the experiment that are out of date, if there are any.

    read: the results that the table reads. rows: all results, some of which may be of a later version.
    """
    again = _measured_again(rows)
    old = [row for row in read if _is_outdated(row, experiment.by_id.get(row.run)) and not _is_old(row, again)]
    names = list(dict.fromkeys(row.row for row in old))
    if not names:
        return []
    text = (
        f"OUT OF DATE: numbers of {first(names)} are left out, because an earlier version measured norms or the "
        f"validator dev on features that are not classified. To measure them again: {experiment.command}"
    )
    return [Note(text, loud=True)]


def _kind(row: Result) -> str:
    """Return "norms" or "dev", for what the result measures the features by or is chosen by; "" if it reads none."""
    if row.metric.partition("/")[0] in OF_FEATURES:
        return "norms"
    return "dev" if row.metric == "validator/dev" or row.select == "dev" else ""


def _is_outdated(row: Result, run: RunConfig | None) -> bool:
    """Return whether an earlier version measured the result on features that its run does not classify."""
    return not row.classified and run is not None and bool(_kind(row)) and looked_elsewhere(run)


def _measured_again(rows: Sequence[Result]) -> set[tuple[str, str]]:
    """Return (run, kind) of all results of classified features."""
    return {(row.run, _kind(row)) for row in rows if row.classified and _kind(row)}


def _of_one_kind(rows: Sequence[Result]) -> set[tuple[str, str]]:
    """Return (run, coefficient) of the sides on which one kind of features has norms: there is nothing to compare."""
    metrics: dict[str, set[str]] = {}
    for row in rows:
        metrics.setdefault(row.run, set()).add(row.metric)
    single = [
        (run, side) for run, of in metrics.items() for side, found in feature_kinds(of).items() if len(found) == 1
    ]
    return {(run, cv) for run, side in single for cv in (f"cv_{side[0]}", "cv_st")}


def _is_old(row: Result, again: set[tuple[str, str]]) -> bool:
    """Return whether a later version has measured the run again, and has no such result."""
    return not row.classified and (row.run, _kind(row)) in again
