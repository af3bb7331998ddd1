"""The runs of a table, opened once for the sections about all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import FeatcacheError
from pipelines.experiments import Experiment
from pipelines.tables.build import planned_runs
from pipelines.training.runs import Run, explained


@dataclass(frozen=True)
class Opened:
    """The finished runs of a table by their ids, and the reasons for those that are missing or damaged."""

    runs: Mapping[str, Run]
    reasons: Mapping[str, str]

    def summary(self, runs: Iterable[str]) -> list[str]:
        """Return a sentence with the first reason of these runs, and the number of the others; [] without any."""
        return shortened(self.reasons[run] for run in runs if run in self.reasons)


def shortened(reasons: Iterable[str]) -> list[str]:
    """Return the first of these different reasons with the number of the others; [] without any."""
    found = list(dict.fromkeys(reasons))
    more = len(found) - 1
    return [found[0] + (f" ({more} more {'is' if more == 1 else 'are'} missing.)" if more else "")] if found else []


def open_runs(experiment: Experiment, runs: Path) -> Opened:
    """Open all runs that the rows of an experiment show."""
    found, reasons = dict[str, Run](), dict[str, str]()
    for run in dict.fromkeys(run for seeds in planned_runs(experiment).values() for run in seeds.values()):
        try:
            found[run] = Run.open(runs / run)
        except (FeatcacheError, OSError) as error:
            reasons[run] = f"No run {run}: {explained(error, runs / run)}."
    return Opened(found, reasons)
