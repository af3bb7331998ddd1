"""Results that tables leave out: numbers of features that are not classified, which earlier versions looked at.

Earlier versions measured norms, and the validator `dev`, on what the net encodes, and with `Feed(test="each")` on the
mean of the windows. Results since then are `classified`. Those of other runs have not changed.
"""

from collections.abc import Sequence

from featcache.wording import first
from pipelines.config import RunConfig
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.tables.cells import Note
from pipelines.training.outputs import looked_elsewhere

OF_FEATURES = ("norm", "cv_s", "cv_t", "cv_st")  #: metrics of feature norms, without /SIDE, /MODALITY and /LABEL


def current(rows: Sequence[Result], experiment: Experiment) -> list[Result]:
    """Return the results without those that are out of date."""
    return [row for row in rows if not _is_outdated(row, experiment.by_id.get(row.run))]


def outdated(rows: Sequence[Result], experiment: Experiment) -> list[Note]:
    """Return the note about results of the experiment that are out of date, if there are any."""
    names = list(dict.fromkeys(row.row for row in rows if _is_outdated(row, experiment.by_id.get(row.run))))
    if not names:
        return []
    text = (
        f"OUT OF DATE: numbers of {first(names)} are left out, because an earlier version measured norms or the "
        f"validator dev on features that are not classified. To measure them again: {experiment.command}"
    )
    return [Note(text, loud=True)]


def _is_outdated(row: Result, run: RunConfig | None) -> bool:
    if row.classified or run is None:
        return False
    of_norms, of_dev = row.metric.partition("/")[0] in OF_FEATURES, row.metric == "validator/dev" or row.select == "dev"
    return (of_norms or of_dev) and looked_elsewhere(run)
