"""The command `featcache evaluate`."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.wording import first
from pipelines.cli._shared import CORES, PATH, Given, Words, echo, experiments_options, note, progress_bar
from pipelines.cli._stress import stress_options

if TYPE_CHECKING:
    from pipelines.commands.evaluate import Evaluation


@click.command()
@experiments_options
@click.option("--all", is_flag=True, help="Evaluate every run of RUNS, without EXPERIMENT.")
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
    given: Given,
    all: bool,
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
    from pipelines.commands.evaluate import evaluate as run
    from pipelines.commands.jobs import once

    began = time.monotonic()
    names = ", ".join(Path(name).stem for name in given["experiments"]) or given["runs"]
    with progress_bar(f"evaluate {names}", "run") as progress:
        found = run(
            **given,
            all=all,
            again=again,
            workers=workers,
            device=device,
            drop=drop,
            windows=windows,
            dtype=dtype,
            noise=noise,
            a_distance=a_distance,
            predictions=predictions,
            overwrite=overwrite,
            progress=progress,
        )
    if found.left_out:
        reasons = first(once(found.left_out), between="\n  ")
        note(f"{len(found.left_out)} tests on changed features are left out:\n  {reasons}")
    counts = Counter([*(outcome.status for outcome in found.outcomes), *["failed"] * len(found.damaged)])
    note(f"{', '.join(f'{n} {status}' for status, n in counts.items())} in {time.monotonic() - began:.1f} s")
    if counts["failed"] < sum(counts.values()) and found.path.exists():
        echo(found.path)
    _print(found)
    if found.predictions:
        echo(found.predictions)


def _print(found: "Evaluation") -> None:
    """Print what is wrong with the runs, and end the command with exit code 1 if a result is missing."""
    from pipelines.commands.jobs import once
    from pipelines.training.outputs import remedy

    outcomes, damaged, advice = found.outcomes, found.damaged, found.advice
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
