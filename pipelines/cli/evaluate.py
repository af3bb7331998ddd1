"""The command `featcache evaluate`."""

from typing import TYPE_CHECKING

import click

from featcache.errors import FeatcacheError
from featcache.wording import first
from pipelines.cli._shared import Job, experiment_options, note, once, progress_bar
from pipelines.cli._stress import stress, stress_options

if TYPE_CHECKING:
    from pipelines.config import RunConfig


@click.command()
@experiment_options
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@stress_options
@click.option(
    "--a-distance", is_flag=True, help="Also measure A-distances of source and target (retrieval; seconds per run)."
)
def evaluate(
    job: Job,
    device: str,
    drop: tuple[str, ...],
    windows: str | None,
    dtype: str | None,
    noise: str | None,
    a_distance: bool,
) -> None:
    """Evaluate the runs of EXPERIMENT on their test clips.

    The command compares outputs with test labels (`report` also does, for confusion matrices and clusters) and appends
    the metrics to RUNS/results.jsonl.

    --drop, --windows, --dtype and --noise test the trained heads on changed features instead, each setting by itself,
    and append the metrics to RUNS/stress.jsonl; `featcache table EXPERIMENT --stress` prints them.

    \b
    Examples:
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
      featcache evaluate kitchens --runs demo/runs --drop all --windows 1..T --dtype float16,int8 --noise 0.1
    """
    from pipelines.evaluation import results
    from pipelines.evaluation.evaluate import distances
    from pipelines.evaluation.evaluate import evaluate as run
    from pipelines.evaluation.stress import Asked, parse
    from pipelines.training.outputs import collapse, remedy

    asked = parse(drop, windows, dtype, noise)
    if a_distance and asked != Asked():
        raise click.UsageError("--a-distance compares features as they are; leave it out, or the options of stress")
    shown = [config for config in job.experiment.runs if config.row]
    _check_runs(job, shown, device)
    if asked != Asked():
        stress(job, shown, asked, device)
        return
    failed, without = [], []  # runs and errors: no result; a result, but no A-distances
    collapsed: dict[str, str] = {}  # id of a run -> description
    with progress_bar(f"evaluate {job.experiment.name}", "run") as progress:
        for number, config in enumerate(shown, 1):
            try:
                folder, name = job.runs / config.id, job.experiment.name
                measured = run(folder, job.stores, name, device, config.row)
                results.append(job.results, measured)
                if dead := collapse(measured[0].collapsed, measured[0].one_class):
                    collapsed[config.id] = f"{dead}; {remedy(config)}"
                if a_distance:
                    try:
                        results.append(job.results, distances(folder, job.stores, name, device, config.row))
                    except FeatcacheError as error:
                        without.append((config, str(error)))
            except FeatcacheError as error:
                failed.append((config, error))
            progress(number, len(shown))
    if len(failed) < len(shown):
        click.echo(job.results)
    if collapsed:
        lines = [f"{run_id}: {text}" for run_id, text in collapsed.items()]
        note(f"{len(lines)} of {len(shown)} runs collapsed:\n  " + first(lines, between="\n  "))
    if without:
        note(
            f"{len(without)} of {len(shown)} runs have all results except A-distances:\n  " + "\n  ".join(once(without))
        )
    if failed:
        raise job.failure(failed, len(shown))
    if without:
        raise SystemExit(1)


def _check_runs(job: Job, shown: "list[RunConfig]", device: str) -> None:
    """Raise an error if there is no run, or if something keeps all runs from being evaluated."""
    from pipelines.data.ahead import check_ahead, check_writable

    made = any((job.runs / config.id).is_dir() for config in shown)
    lacking = f"{job.runs} has none of the {len(shown)} runs of {job.experiment.name}; {job.training} them"
    try:
        check_ahead(shown, job.stores, device)
    except FeatcacheError as error:
        raise error if made else click.ClickException(f"{lacking}, once this is mended: {error}") from error
    if not made:
        raise click.ClickException(lacking)
    check_writable(job.runs)
