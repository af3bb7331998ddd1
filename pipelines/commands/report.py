"""The HTML page about an experiment: the function of `featcache report`."""

import warnings
from collections.abc import Iterable
from pathlib import Path

from featcache.arguments import PathLike, several
from featcache.errors import ArgumentsError, FeatcacheError
from featcache.progress import Progress, reporting
from pipelines.commands.jobs import Chosen, Seeds, job, shifts_and_columns
from pipelines.data.ahead import check_ahead
from pipelines.evaluation import results
from pipelines.experiments import Choice
from pipelines.report import write as page
from pipelines.settings import Words


def write_report(
    experiment: Chosen,
    stores: PathLike | None = None,
    runs: PathLike = "runs",
    *,
    method: str | Iterable[str] = (),
    feeds: str | Iterable[str] = (),
    shift: str | Iterable[str] = (),
    net: str = "",
    task: str = "",
    set: Words = (),
    seeds: Seeds | None = None,
    only: str | Iterable[str] = (),
    grid: Words = (),
    compare: tuple[str, str] | None = None,
    out: PathLike | None = None,
    progress: Progress | bool = False,
) -> Path:
    """Write a self-contained HTML page about an experiment, and return its path.

    experiment, stores, runs, method, feeds, net, task, set, seeds, only: as in `pipelines.train`.
    grid: as in `pipelines.sweep`.
    shift: columns of the table, such as "D1→D2" or "D1->D2", to draw the figures of single clips on; in a folder of
        stores, "D1:D2" leaves only this shift in the table, too.
    compare: two rows to compare (default: the first and the best one). out: file (default: RUNS/EXPERIMENT.html).
    progress: as in `pipelines.train`, of the parts of the page.

    Raises ConfigError if there are no results, and for names that the table does not have. Warns if stores are missing,
    because the page then lacks what is read from them.
    """
    if compare is not None and len(compare) != 2:
        raise ArgumentsError(f"compare is {compare!r}; name two rows")
    pairs, columns = shifts_and_columns(experiment, several(shift))
    choice = Choice.of(method, feeds, pairs, net, task)
    made = job(experiment, stores, runs, choice, set=set, seeds=seeds, only=only, grid=grid)
    try:
        check_ahead(made.experiment.runs, made.stores)
    except FeatcacheError as error:
        warnings.warn(f"the page will lack what is read from stores: {error}", stacklevel=2)
    path = Path(out) if out else made.runs / f"{made.experiment.name}.html"
    rows = results.read(made.results)
    with reporting(progress, "report", "part") as moved:
        page.write(
            made.experiment, rows, made.runs, made.stores, path, shifts=columns, compared=compare, progress=moved
        )
    return path
