"""Sweeps and searches of settings: the function of `featcache sweep`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING, Any

from featcache.arguments import PathLike, one_of
from featcache.cluster import check_engine
from featcache.errors import ConfigError
from featcache.progress import Bar, Bars, Opens, Progress, bars
from pipelines.commands.jobs import Chosen, Job, Seeds, job
from pipelines.commands.train import BATCH, Say, places, summarised, tracked, trained
from pipelines.data.ahead import check_ahead, check_writable
from pipelines.evaluation import results
from pipelines.evaluation.engine import Case, evaluate_all
from pipelines.evaluation.engine import Outcome as Evaluated
from pipelines.experiments import Choice, Experiment, Grid, Setting, parse_grid, swept, with_settings
from pipelines.measures.validators import ORACLE
from pipelines.settings import Words, as_words
from pipelines.sweeps import plan
from pipelines.tables import choosing
from pipelines.tables.build import build
from pipelines.tables.cells import Table
from pipelines.tables.choosing import Choices
from pipelines.tables.formats import Note, Shown
from pipelines.tracking import Tracking
from pipelines.training.engine import Outcome, Pool
from pipelines.training.watching import News

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.sweeps.search import Trial


@dataclass(frozen=True, repr=False)
class Trials(Shown):
    """The trials of a search: complete ones, the best of each row first, then the pruned and the failed ones."""

    by: str  #: the rule that ranks them
    cells: list[list[str]]
    ranked: "dict[str, list[Trial]]"  #: row -> its complete trials, the best first
    tried: "list[Trial]"

    @property
    def grid(self) -> list[list[str]]:
        """The cells as text, headings first."""
        return self.cells

    @property
    def below(self) -> tuple[Note, ...]:
        """The setting that is chosen for each row."""
        return tuple(map(Note, self.chosen))

    @property
    def chosen(self) -> list[str]:
        """The setting that the rule chooses for each row, as text."""
        from pipelines.sweeps.search import spelled

        best = {row: trials[0].setting for row, trials in self.ranked.items() if trials}
        oracle = f" ({ORACLE})" if self.by == ORACLE else ""
        return [f"{row}{oracle}: {self.by} chooses {spelled(best[row])} ({best[row].options})" for row in best]

    def records(self) -> list[dict[str, Any]]:
        """The numbers: a record per trial, with its settings."""
        return [
            {
                "row": trial.setting.row,
                **trial.setting.values,
                self.by: trial.score,
                "trial": trial.state.name.lower(),
                "runs": trial.runs,
                "reason": trial.reason,
            }
            for trial in self.tried
        ]

    def __repr__(self) -> str:
        return f"Trials({len(self.tried)} trials of {len(self.ranked)} rows, by {self.by})"


@dataclass(frozen=True, repr=False)
class Sweep:
    """The outcome of a sweep: its table shows the rows of all settings, its choices those that validators choose."""

    experiment: Experiment  #: with a row for each setting
    trained: tuple[Outcome, ...]
    evaluated: tuple[Evaluated, ...]
    results: results.Results
    table: Table | None  #: None if no run has a result
    choices: Choices | None
    no_choices: str  #: the reason why there are no choices
    trials: Trials | None  #: of a search

    @property
    def whole(self) -> bool:
        """True if every run is trained and has its results."""
        return "failed" not in {*(each.status for each in self.trained), *(each.status for each in self.evaluated)}

    def frame(self) -> "pd.DataFrame":
        """Return the results of its runs: a line per run and metric, with the fields of `Result` as columns."""
        return self.results.of(self.experiment.by_id).frame()

    def __repr__(self) -> str:
        settings, runs = len(self.experiment.swept), len(self.experiment.by_id)
        return f"Sweep({self.experiment.name!r}, {settings} settings, {runs} runs)"

    def _repr_html_(self) -> str:
        parts = [part for part in (self.trials, self.table, self.choices) if part]
        return "".join(part._repr_html_() for part in parts)


def sweep(
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
    search: str | None = None,
    range: Words = (),
    by: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
    batch: str = "auto",
    engine: str = "local",
    address: str | None = None,
    gpus: float | None = None,
    track: str | Iterable[str] = (),
    track_to: PathLike | None = None,
    note: Say | None = None,
    progress: Progress | Bars | bool = False,
) -> Sweep:
    """Train and evaluate an experiment with several values of its settings, and compare them.

    experiment, stores, runs, method, feeds, shift, net, task: as in `pipelines.train`.
    set, seeds, only, workers, device, batch, engine, address, gpus, track, track_to, note: as in `pipelines.train`.
    grid: values of settings, {"method.lambda_g": [0.1, 0.3]} or "method.lambda_g=0.1,0.3"; in a search its choices.
    search: "random:N" or "tpe:N" to try N settings of each row that Optuna proposes, instead of a whole grid.
    range: numbers to search, {"method.lambda_g": "0.01..10,log"} or "method.lambda_g=0.01..10,log"; without "=" in the
        range that the number declares (default without grid: the declared ranges of each row's method).
    by: validator that ranks trials, or "oracle", which reads labels of the test rows (default: infomax, if possible).
    progress: True for bars, or a callback (done, total), for each part of the work in turn.

    Raises ConfigError for settings that no row has, for arguments that belong to a search without one, and if no trial
    is complete.
    """
    one_of("batch", batch, BATCH)
    check_engine(engine, device, address, gpus)
    made = job(experiment, stores, runs, Choice.of(method, feeds, shift, net, task), set=set, seeds=seeds, only=only)
    made, values = _asked(made, as_words(grid), search, as_words(range), by)
    here = device if engine == "local" else "cpu"
    check_ahead(made.experiment.runs, made.stores, here)
    say = note or (lambda text: None)
    if made.left_out:
        say(made.left_out)
    place = places(engine, address, gpus, device, workers)
    with tracked(made, track, track_to, note) as tracking, place as (pool, count):
        work = _Work(made, count, device, here, batch, say, bars(progress), tracking, pool)
        return _search(work, search, values, as_words(range), by) if search else _grid(work)


def _asked(
    made: Job, grid: Sequence[str], search: str | None, range: Sequence[str], by: str | None
) -> tuple[Job, Grid]:
    """Return the job with a row for each setting of a grid, or for a search unchanged, and the values of the grid."""
    typed = {"grid": grid, "search": [search] if search else [], "range": range, "by": [by] if by else []}
    options = [f"--{name} {quote(text)}" for name, texts in typed.items() for text in texts]
    named = replace(made.experiment, arguments=" ".join([made.experiment.arguments, *options]))
    made, values = replace(made, experiment=named), parse_grid(grid)
    if not search:
        if by or range:
            option = "--by" if by else "--range"
            raise ConfigError(f"{option} belongs to a search; add --search tpe:40, or leave it out")
        if not values:
            raise ConfigError("nothing to sweep; give --grid method.lambda_g=0.1,0.3,1, or --search tpe:40")
        made = replace(made, experiment=swept(named, values))
    return made, values


@dataclass(frozen=True)
class _Work:
    """A job, and the way to do it."""

    job: Job
    workers: int
    device: str  #: of training
    here: str  #: device of what this process does itself: the plan and the evaluation
    batch: str
    say: Say
    bars: Opens
    tracking: Tracking
    pool: Pool | None

    def train(self, job: Job) -> list[Outcome]:
        """Train the runs of a job."""
        with summarised(self.say) as report, self.bars(f"train {job.experiment.name}", "step") as progress:
            how = self.workers, self.device, self.batch
            return trained(job, *how, report, self.say, progress, self.tracking, self.pool)

    def costs(self) -> plan.Costs:
        """Return the cost of each kind of runs; those without a finished run take a few short runs."""
        with self.bars("time a few steps of each kind of runs", "kind") as progress:
            return plan.costs(self.job.experiment, self.job.stores, self.job.runs, self.here, progress)


def _grid(work: _Work) -> Sweep:
    """Train, evaluate and compare all settings of a grid."""
    job = work.job
    check_writable(job.runs)
    todo = plan.unfinished(job.experiment, job.runs)
    costs = work.costs() if todo else {}
    for line in plan.sentences(job.experiment, todo, costs, work.workers, work.device, work.batch):
        work.say(line)
    return _compared(work, job, work.train(job), None)


def _search(work: _Work, search: str, grid: Grid, texts: Sequence[str], by: str | None) -> Sweep:
    """Search the rows of an experiment one after another; then evaluate and compare the complete settings."""
    from pipelines.sweeps import scores, space
    from pipelines.sweeps import search as searches

    job, experiment = work.job, work.job.experiment
    how, ranges, by = searches.parse_search(search), space.parse_ranges(texts), searches.rule(experiment, by)
    rows = searches.searched(experiment, by, [*grid, *ranges])
    spaces = {row: space.space(experiment, row, grid, ranges) for row in rows}
    check_writable(job.runs)
    costs = work.costs()
    for line in plan.of_search(experiment, spaces, how[1], by, costs, work.workers):
        work.say(line)
    others = [row for row in experiment.rows if row not in rows]
    made = work.train(replace(job, experiment=experiment.changed(only=others))) if others else []
    higher = scores.higher(experiment, by)
    tried: dict[str, list[Trial]] = {row: [] for row in rows}

    def hear(news: News) -> None:
        work.tracking.hear(news)
        if isinstance(progress, Bar) and news.loss is not None:
            count, state = len(tried[row]), f"step {news.step} of a run, loss {news.loss:.3g}"
            progress.show(count, how[1], f"{count} of {how[1]} trials", state)

    options: dict[str, Any] = {"workers": work.workers, "device": work.device, "batch": work.batch, "hear": hear}
    options |= {"report": work.tracking.ended, "logs": bool(work.tracking), "pool": work.pool, "here": work.here}
    score = scores.scorer(experiment, by, job.stores, job.runs, costs, **options)
    for row in rows:
        with work.bars(f"search {row}", "trial") as progress:
            for trials in searches.search(experiment, row, spaces[row], how, score, higher=higher):
                tried[row] += trials
                progress(len(tried[row]), how[1])
    found = _trials(work, by, tried, higher)
    settings = [
        setting
        for row in experiment.rows
        for setting in ([trial.setting for trial in found.ranked[row]] if row in found.ranked else [Setting(row)])
    ]
    return _compared(work, replace(job, experiment=with_settings(experiment, settings)), made, found)


def _trials(work: _Work, by: str, tried: "dict[str, list[Trial]]", higher: bool) -> Trials:
    """Return the trials of a search as a table; note the failed ones, and raise ConfigError if none is complete."""
    from pipelines.sweeps import search as searches

    ranked = {row: searches.best(trials, higher=higher) for row, trials in tried.items()}
    failed = Counter((trial.setting.row, trial.reason) for trials in tried.values() for trial in trials if trial.reason)
    for (row, reason), count in failed.items():
        work.say(f"{count} of {len(tried[row])} trials of {row} failed, the first with: {reason}")
    if not any(ranked.values()):
        raise ConfigError(f"no trial is complete; the first failed, because {next(iter(failed))[1]}")
    heading = f"{ORACLE} ({work.job.experiment.headline()})" if by == ORACLE else by
    lines = [line for trials in tried.values() for line in searches.lines(trials, higher=higher)]
    cells = [["row", "setting", heading, "trial", "runs"], *lines]
    return Trials(by, cells, ranked, [trial for trials in tried.values() for trial in trials])


def _compared(work: _Work, job: Job, made: Sequence[Outcome], trials: Trials | None) -> Sweep:
    """Evaluate the runs of a sweep and compare its settings.

    Results are recorded under the rows of the experiment, so that `choose` compares the settings of a row.
    """
    failed, name = {each.config.id for each in made if each.status == "failed"}, job.experiment.name
    recorded = job.experiment.recorded
    cases = [Case(run, name) for run in recorded.runs if run.row and run.id not in failed]
    with work.bars(f"evaluate {name}", "run") as progress:
        outcomes = evaluate_all(
            cases,
            job.stores,
            job.runs,
            workers=work.workers,
            device=work.here,
            report=lambda _, done, total: progress(done, total),
        )
    rows, table, choices, reason = results.Results(), None, None, ""
    if any(each.status != "failed" for each in outcomes):
        rows = results.read(job.results)
        table = build(rows, job.experiment)
        of_sweep = [row for row in rows if row.run in recorded.by_id]
        of_sweep = [replace(row, row=recorded.by_id[row.run].row, experiment=recorded.name) for row in of_sweep]
        try:
            choices = choosing.table(of_sweep, recorded)
        except ConfigError as error:  # a single setting, or runs that have failed
            reason = str(error)
    return Sweep(job.experiment, tuple(made), tuple(outcomes), rows, table, choices, reason, trials)
