"""The command `featcache sweep`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from featcache.errors import ConfigError
from featcache.wording import first
from pipelines.cli._shared import CORES, Job, done_so_far, experiment_options, note, once, progress_bar, shown_bar
from pipelines.cli._watching import tracking_options
from pipelines.cli.train_head import batch_option, train

if TYPE_CHECKING:
    from pipelines.experiments import Experiment, Grid, Setting
    from pipelines.sweeps.plan import Costs
    from pipelines.sweeps.search import Trial
    from pipelines.tracking import Tracking
    from pipelines.training.engine import Outcome
    from pipelines.training.watching import News


@click.command()
@experiment_options
@click.option(
    "--grid",
    "values",
    multiple=True,
    metavar="NAME=VALUES",
    help="Try these values of a setting, such as method.lambda_g=0.1,0.3,1; may be repeated. In a search, these "
    "are its choices.",
)
@click.option(
    "--search",
    metavar="random:N|tpe:N",
    help="Instead of a whole grid, try N settings of each row that Optuna proposes (pip install 'featcache[sweep]').",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=LOW..HIGH[,log]",
    help="Search a number in this range; without =, in the range that it declares or from a tenth to ten times of it; "
    "may be repeated.  [default without --grid: the declared ranges of the row's method]",
)
@click.option(
    "--by",
    metavar="VALIDATOR",
    help="Rank the trials of a search by this validator, or by oracle, which reads labels of the test rows.  "
    "[default: infomax, where the runs can use it]",
)
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Parallel runs.  [default: one per core]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@batch_option
@tracking_options
def sweep(
    job: Job,
    values: tuple[str, ...],
    search: str | None,
    ranges: tuple[str, ...],
    by: str | None,
    workers: int,
    device: str,
    batch: str,
    tracking: "Tracking",
) -> None:
    """Train and evaluate EXPERIMENT with several values of its settings, and compare them.

    The command prints its plan, trains the runs that are not finished, evaluates them, and prints the table of all
    settings and, as `featcache choose` does, the setting that each validator chooses without labels of the target. A
    row gets the settings that it has; a row without any of them is trained once. The runs are those of `train-head
    --set`, so `table` and `report` (with the same --grid) and `choose` read them. The same command resumes.

    \b
    Examples:
      featcache sweep kitchens --grid method.lambda_g=0.1,0.3,1 --grid optim.lr=0.01,0.03 --seeds 0..4
      featcache sweep stores/mine --only 'RNA (UDA)' --search tpe:40 --range method.lambda_g=0.01..10,log --by infomax
    """
    from pipelines.data.ahead import check_ahead
    from pipelines.experiments import parse_grid, swept

    grid = parse_grid(values)
    typed = {"grid": values, "search": [search] if search else [], "range": ranges, "by": [by] if by else []}
    words = [job.experiment.arguments, *(f"--{name} {quote(text)}" for name in typed for text in typed[name])]
    job = replace(job, experiment=replace(job.experiment, arguments=" ".join(words)))
    if not search:
        if by or ranges:
            option = "--by" if by else "--range"
            raise ConfigError(f"{option} belongs to a search; add --search tpe:40, or leave it out")
        if not grid:
            raise ConfigError("nothing to sweep; give --grid method.lambda_g=0.1,0.3,1, or --search tpe:40")
        job = replace(job, experiment=swept(job.experiment, grid))
    check_ahead(job.experiment.runs, job.stores, device)
    if search:
        _search(job, search, grid, ranges, by, workers, device, batch, tracking)
    else:
        _grid(job, workers, device, batch, tracking)


def _grid(job: Job, workers: int, device: str, batch: str, tracking: "Tracking") -> None:
    """Train, evaluate and compare all settings of a grid."""
    from pipelines.data.ahead import check_writable
    from pipelines.sweeps import plan

    check_writable(job.runs)
    todo = plan.unfinished(job.experiment, job.runs)
    costs = _costs(job, device) if todo else {}
    for line in plan.sentences(job.experiment, todo, costs, workers, device, batch):
        note(line)
    _conclude(job, train(job, workers, device, batch, tracking), workers, device)
    note(f"`featcache report {job.experiment.arguments}` draws a curve over each number")


def _costs(job: Job, device: str) -> "Costs":
    """Return the cost of each kind of runs; those without a finished run take a few short runs."""
    from pipelines.sweeps import plan

    with progress_bar("time a few steps of each kind of runs", "kind") as progress:
        return plan.costs(job.experiment, job.stores, job.runs, device, progress)


def _search(
    job: Job,
    search: str,
    grid: "Grid",
    texts: Sequence[str],
    by: str | None,
    workers: int,
    device: str,
    batch: str,
    tracking: "Tracking",
) -> None:
    """Search the rows of an experiment one after another; then evaluate and compare the complete settings."""
    from pipelines.data.ahead import check_writable
    from pipelines.experiments import with_settings
    from pipelines.sweeps import plan, scores, space
    from pipelines.sweeps import search as searches

    how, ranges, experiment = searches.parse_search(search), space.parse_ranges(texts), job.experiment
    by = searches.rule(experiment, by)
    rows = searches.searched(experiment, by, [*grid, *ranges])
    spaces = {row: space.space(experiment, row, grid, ranges) for row in rows}
    check_writable(job.runs)
    costs = _costs(job, device)
    for line in plan.of_search(experiment, spaces, how[1], by, costs, workers):
        note(line)
    others = [row for row in experiment.rows if row not in rows]
    kept = replace(job, experiment=experiment.changed(only=others))
    failed = train(kept, workers, device, batch, tracking) if others else []

    def hear(news: "News") -> None:
        tracking.hear(news)
        if news.loss is not None:
            bar.set_postfix_str(f"step {news.step} of a run, loss {news.loss:.3g}", refresh=False)
            bar.update(0)

    watching: dict[str, Any] = {"report": tracking.ended, "hear": hear, "logs": bool(tracking)}
    options: dict[str, Any] = {"workers": workers, "device": device, "batch": batch, **watching}
    score = scores.scorer(experiment, by, job.stores, job.runs, costs, **options)
    higher = scores.higher(experiment, by)
    tried: dict[str, list[Trial]] = {row: [] for row in rows}
    for row in rows:
        with shown_bar(f"search {row}", "trial", how[1]) as bar:
            for trials in searches.search(experiment, row, spaces[row], how, score, higher=higher):
                tried[row] += trials
                done_so_far(f"{len(tried[row])} of {how[1]} trials")
                bar.update(len(trials))
    ranked = {row: searches.best(trials, higher=higher) for row, trials in tried.items()}
    _print_trials(experiment, by, tried, ranked, higher)
    settings = [setting for row in experiment.rows for setting in _settings(row, ranked)]
    _conclude(replace(job, experiment=with_settings(experiment, settings)), failed, workers, device)


def _settings(row: str, ranked: "dict[str, list[Trial]]") -> "list[Setting]":
    """Return the complete settings of a row, the best first; a row that is not searched keeps its own."""
    from pipelines.experiments import Setting

    return [trial.setting for trial in ranked[row]] if row in ranked else [Setting(row)]


def _conclude(job: Job, trained: "list[Outcome]", workers: int, device: str) -> None:
    """Evaluate the runs of a sweep and compare its settings; exit code 1 if a run failed or has no result.

    Results are recorded under the rows of the experiment, so that `choose` compares the settings of a row.
    """
    from pipelines.evaluation.engine import Case, evaluate_all

    failed, name = {each.config.id for each in trained if each.status == "failed"}, job.experiment.name
    cases = [Case(run, name) for run in job.experiment.recorded.runs if run.row and run.id not in failed]
    with progress_bar(f"evaluate {name}", "run") as progress:
        outcomes = evaluate_all(
            cases,
            job.stores,
            job.runs,
            workers=workers,
            device=device,
            report=lambda _, done, total: progress(done, total),
        )
    lost = [(each.case.config, each.note) for each in outcomes if each.status == "failed"]
    if lost:
        note(f"{len(lost)} of {len(outcomes)} runs have no result:\n  " + first(once(lost), between="\n  "))
    if len(lost) < len(outcomes):
        _compare(job)
    if failed or lost:
        raise SystemExit(1)


def _compare(job: Job) -> None:
    """Print the table of a sweep, and the settings that validators choose."""
    from pipelines.evaluation import results
    from pipelines.tables import build, choosing

    rows, recorded = results.read(job.results), job.experiment.recorded
    click.echo(build.render(rows, job.experiment))
    of_sweep = [
        replace(row, row=recorded.by_id[row.run].row, experiment=recorded.name)
        for row in rows
        if row.run in recorded.by_id
    ]
    try:
        click.echo(choosing.table(of_sweep, recorded), nl=False)
    except ConfigError as error:  # a single setting, or runs that have failed
        note(str(error))


def _print_trials(
    experiment: "Experiment", by: str, tried: "dict[str, list[Trial]]", ranked: "dict[str, list[Trial]]", higher: bool
) -> None:
    """Print the trials of a search and the setting that is chosen for each row; ConfigError if no trial is complete."""
    from pipelines.measures.validators import ORACLE
    from pipelines.sweeps.search import lines, spelled
    from pipelines.tables.formats import pipes

    failed = Counter((trial.setting.row, trial.reason) for trials in tried.values() for trial in trials if trial.reason)
    for (row, reason), count in failed.items():
        note(f"{count} of {len(tried[row])} trials of {row} failed, the first with: {reason}")
    if not any(ranked.values()):
        raise ConfigError(f"no trial is complete; the first failed, because {next(iter(failed))[1]}")
    heading = f"{ORACLE} ({experiment.headline()})" if by == ORACLE else by
    grid = [["row", "setting", heading, "trial", "runs"]]
    click.echo(pipes(grid + [line for trials in tried.values() for line in lines(trials, higher=higher)]))
    for row, trials in ranked.items():
        if trials:
            who = f"{row} ({ORACLE})" if by == ORACLE else row
            click.echo(f"{who}: {by} chooses {spelled(trials[0].setting)} ({trials[0].setting.options})")
    click.echo()
