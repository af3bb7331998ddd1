"""The command `featcache evaluate`."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.errors import FeatcacheError
from featcache.wording import first
from pipelines.cli._shared import CORES, Job, experiments_options, note, once, progress_bar

if TYPE_CHECKING:
    from pipelines.evaluation.engine import Case, Outcome


@click.command()
@experiments_options
@click.option("--all", "every_run", is_flag=True, help="Evaluate every run of RUNS, without EXPERIMENT.")
@click.option("--again", is_flag=True, help="Measure also the runs whose results are up to date.")
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Parallel runs.  [default: one per core]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--a-distance", is_flag=True, help="Also measure A-distances of source and target (retrieval; seconds per run)."
)
def evaluate(
    jobs: list[Job],
    folders: tuple[Path | None, Path],
    every_run: bool,
    again: bool,
    workers: int,
    device: str,
    a_distance: bool,
) -> None:
    """Evaluate the runs of each EXPERIMENT, or with --all every run of RUNS, on their test clips.

    The command compares outputs with test labels (`report` also does, for confusion matrices and clusters) and appends
    the metrics to RUNS/results.jsonl. A run is measured again only if it, its data or its results have changed, or if
    this version measures more. Results that were appended before Ctrl-C are kept.

    \b
    Examples:
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
      featcache evaluate --all --runs demo/runs --stores demo/stores --workers 2
    """
    from pipelines.evaluation.engine import RESULTS, evaluate_all

    if every_run and jobs:
        raise click.UsageError("--all evaluates every run of RUNS; leave EXPERIMENT out, or --all")
    if not every_run and not jobs:
        raise click.UsageError("name an EXPERIMENT, or evaluate every run of RUNS with --all")
    runs, began = folders[1], time.monotonic()
    groups, damaged = (_planned(jobs), list[str]()) if jobs else _found(folders[0] or Path("stores"), runs)
    advice = " and ".join(f"`featcache train-head {job.experiment.arguments}`" for job in jobs)
    advice = f"{advice or '`featcache train-head EXPERIMENT`'} train{'s' * (len(jobs) < 2)}"
    _check_runs(jobs, groups, runs, device, advice)
    total, outcomes = sum(map(len, groups.values())), list["Outcome"]()

    def ended(outcome: "Outcome", done: int, of: int) -> None:
        progress(len(outcomes) + done, total)

    with progress_bar(f"evaluate {', '.join(job.experiment.name for job in jobs) or runs}", "run") as progress:
        progress(0, total)
        for stores, cases in groups.items():
            outcomes += evaluate_all(
                cases, stores, runs, workers=workers, device=device, again=again, a_distance=a_distance, report=ended
            )
    counts = Counter([*(outcome.status for outcome in outcomes), *["failed"] * len(damaged)])
    note(f"{', '.join(f'{n} {status}' for status, n in counts.items())} in {time.monotonic() - began:.1f} s")
    if counts["failed"] < total:
        click.echo(runs / RESULTS)
    _print(outcomes, damaged, advice)


def _planned(jobs: Sequence[Job]) -> "dict[Path, list[Case]]":
    """Return folder of stores -> the runs that the tables of the experiments show, each once."""
    from pipelines.evaluation.engine import Case

    groups: dict[Path, dict[str, Case]] = {}
    for job in jobs:
        cases = {config.id: Case(config, job.experiment.name) for config in job.experiment.runs if config.row}
        groups[job.stores] = groups.get(job.stores, {}) | cases
    return {stores: list(cases.values()) for stores, cases in groups.items()}


def _found(stores: Path, runs: Path) -> "tuple[dict[Path, list[Case]], list[str]]":
    """Return folder of stores -> all runs of a folder of runs, and the errors of runs with damaged configurations."""
    from pipelines.evaluation.engine import cases_of

    cases, damaged = cases_of(runs)
    if not cases:
        text = "\n  ".join([f"{runs} has no run to evaluate; train some with `featcache train-head`", *damaged])
        raise click.ClickException(text)
    return {stores: cases}, damaged


def _check_runs(jobs: Sequence[Job], groups: "dict[Path, list[Case]]", runs: Path, device: str, advice: str) -> None:
    """Raise an error if there is no run, or if something keeps all runs from being evaluated."""
    from pipelines.data.ahead import check_ahead, check_writable

    configs = [case.config for cases in groups.values() for case in cases]
    made = any((runs / config.id).is_dir() for config in configs)
    names = " and ".join(job.experiment.name for job in jobs)
    lacking = f"{runs} has none of the {len(configs)} runs of {names}; {advice} them"
    try:
        for stores, cases in groups.items():
            check_ahead([case.config for case in cases], stores, device)
    except FeatcacheError as error:
        raise error if made else click.ClickException(f"{lacking}, once this is mended: {error}") from error
    if not made:
        raise click.ClickException(lacking)
    check_writable(runs)


def _print(outcomes: "Sequence[Outcome]", damaged: list[str], advice: str) -> None:
    """Print what is wrong with the runs, and end the command with exit code 1 if a result is missing."""
    from pipelines.training.outputs import remedy

    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    total, without_result = len(outcomes) + len(damaged), len(failed) + len(damaged)
    collapsed = {run.case.config.id: f"{run.collapse}; {remedy(run.case.config)}" for run in outcomes if run.collapse}
    if collapsed:
        lines = [f"{run_id}: {text}" for run_id, text in collapsed.items()]
        note(f"{len(lines)} of {total} runs collapsed:\n  " + first(lines, between="\n  "))
    without = [(outcome.case.config, outcome.without) for outcome in outcomes if outcome.without]
    if without:
        note(f"{len(without)} of {total} runs have all results except A-distances:\n  " + "\n  ".join(once(without)))
    if without_result:
        missing = sum(outcome.untrained for outcome in failed) + len(damaged)
        which = "the runs" if missing == without_result else f"the {missing} of them"
        text = f"; {advice} {which} that are missing or out of date" if missing else ""
        reasons = [*once((outcome.case.config, outcome.note) for outcome in failed), *damaged]
        raise click.ClickException(
            f"{without_result} of {total} runs have no result{text}:\n  " + first(reasons, between="\n  ")
        )
    if without:
        raise SystemExit(1)
