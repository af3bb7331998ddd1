"""The command `featcache evaluate`."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.errors import FeatcacheError
from featcache.wording import first
from pipelines.cli._shared import CORES, PATH, Job, Words, experiments_options, note, once, progress_bar
from pipelines.cli._stress import stress_options

if TYPE_CHECKING:
    from pipelines.evaluation.engine import Case, Outcome
    from pipelines.evaluation.stress import Asked

    Groups = dict[Path, list[Case]]  # folder of stores -> the runs on these stores


@click.command()
@experiments_options
@click.option("--all", "every_run", is_flag=True, help="Evaluate every run of RUNS, without EXPERIMENT.")
@click.option("--again", is_flag=True, help="Measure also the runs whose results are up to date.")
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Parallel runs.  [default: one per core]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@stress_options
@click.option(
    "--a-distance", is_flag=True, help="Also measure A-distances of source and target (retrieval; seconds per run)."
)
@click.option(
    "--predictions",
    type=PATH,
    metavar="OUT.parquet",
    help="Also write the predicted class and all class probabilities of every run and test clip (or to OUT.csv).",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file of predictions.")
def evaluate(
    jobs: list[Job],
    folders: tuple[Path | None, Path],
    every_run: bool,
    again: bool,
    workers: int,
    device: str,
    a_distance: bool,
    drop: Words,
    windows: str | None,
    dtype: str | None,
    noise: str | None,
    predictions: Path | None,
    overwrite: bool,
) -> None:
    """Evaluate the runs of each EXPERIMENT, or with --all every run of RUNS, on their test clips.

    The command compares outputs with test labels (`report` also does, for confusion matrices and clusters) and appends
    the metrics to RUNS/results.jsonl. A run is measured again only if it, its data or its results have changed, or if
    this version measures more. Results that were appended before Ctrl-C are kept.

    --drop, --windows, --dtype and --noise test the trained heads on changed features instead, each setting by itself,
    and append the metrics to RUNS/stress.jsonl; `featcache table EXPERIMENT --stress` prints them.

    \b
    Examples:
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
      featcache evaluate --all --runs demo/runs --stores demo/stores --workers 2
      featcache evaluate kitchens --runs demo/runs --drop all --windows 1..T --dtype float16,int8 --noise 0.1
    """
    from pipelines.evaluation.engine import RESULTS, STRESS, evaluate_all
    from pipelines.evaluation.stress import Asked, parse

    if every_run and jobs:
        raise click.UsageError("--all evaluates every run of RUNS; leave EXPERIMENT out, or --all")
    if not every_run and not jobs:
        raise click.UsageError("name an EXPERIMENT, or evaluate every run of RUNS with --all")
    asked = parse(drop, windows, dtype, noise)
    if overwrite and not predictions:
        raise click.UsageError("--overwrite belongs to --predictions OUT.parquet; name a file")
    if asked != Asked() and (a_distance or predictions):
        raise click.UsageError("--a-distance and --predictions are about features as they are; leave --drop, ... out")
    runs, began = folders[1], time.monotonic()
    groups, damaged = (_planned(jobs), list[str]()) if jobs else _found(folders[0] or Path("stores"), runs)
    advice = " and ".join(f"`featcache train-head {job.experiment.arguments}`" for job in jobs)
    advice = f"{advice or '`featcache train-head EXPERIMENT`'} train{'s' * (len(jobs) < 2)}"
    _check_runs(jobs, groups, runs, device, advice)
    write = _writing(predictions, groups, runs, overwrite) if predictions else None
    stresses = _stresses(groups, asked, device) if asked != Asked() else None
    title = f"evaluate {', '.join(job.experiment.name for job in jobs) or runs}"
    call = partial(evaluate_all, runs=runs, workers=workers, device=device, again=again, a_distance=a_distance)
    outcomes = _with_progress(partial(call, stresses=stresses), groups, title)
    counts = Counter([*(outcome.status for outcome in outcomes), *["failed"] * len(damaged)])
    note(f"{', '.join(f'{n} {status}' for status, n in counts.items())} in {time.monotonic() - began:.1f} s")
    if counts["failed"] < sum(counts.values()):
        click.echo(runs / (RESULTS if stresses is None else STRESS))
    _print(outcomes, damaged, advice)
    if write:
        write()
        click.echo(predictions)


def _with_progress(evaluate: "Callable[..., list[Outcome]]", groups: "Groups", title: str) -> "list[Outcome]":
    """Evaluate the runs on each folder of stores, with one progress bar for all."""
    total, ended = sum(map(len, groups.values())), list["Outcome"]()
    with progress_bar(title, "run") as progress:
        progress(0, total)

        def report(outcome: "Outcome", done: int, of: int) -> None:
            ended.append(outcome)
            progress(len(ended), total)

        return [outcome for stores, cases in groups.items() for outcome in evaluate(cases, stores, report=report)]


def _planned(jobs: Sequence[Job]) -> "Groups":
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


def _writing(path: Path, groups: "Groups", runs: Path, overwrite: bool) -> Callable[[], None]:
    """Return the function that writes the predictions of all runs; an error if they cannot be written to this file."""
    from pipelines.evaluation.predictions import check, write

    planned = [(case.config, runs / case.config.id, stores) for stores, cases in groups.items() for case in cases]
    check(path, [config for config, _, _ in planned], overwrite)

    def writing() -> None:
        with progress_bar("predictions", "run") as progress:
            write(path, planned, progress)

    return writing


def _stresses(groups: "Groups", asked: "Asked", device: str) -> dict[str, tuple[str, ...]]:
    """Return id of a run -> its stresses, and leave runs without any out of the groups; a note gives the reasons."""
    from pipelines.evaluation.stress import plan

    planned = plan({stores: [case.config for case in cases] for stores, cases in groups.items()}, asked, device)
    if planned.left_out:
        reasons = first(once(planned.left_out), between="\n  ")
        note(f"{len(planned.left_out)} tests on changed features are left out:\n  {reasons}")
    for stores, cases in groups.items():
        groups[stores] = [case for case in cases if case.config.id in planned.stresses]
    return planned.stresses


def _check_runs(jobs: Sequence[Job], groups: "Groups", runs: Path, device: str, advice: str) -> None:
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
    if unlabelled := [(run.case.config, run.unlabelled) for run in outcomes if run.unlabelled]:
        note(f"{len(unlabelled)} of {total} runs have nothing to compare with:\n  " + "\n  ".join(once(unlabelled)))
    without = [(outcome.case.config, outcome.without) for outcome in outcomes if outcome.without]
    if without:
        note(f"{len(without)} of {total} runs have all results except some:\n  " + "\n  ".join(once(without)))
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
