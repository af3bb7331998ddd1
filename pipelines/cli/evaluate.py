"""The command `featcache evaluate`."""

import click

from featcache.errors import FeatcacheError
from featcache.wording import first
from pipelines.cli._shared import Job, experiment_options, note, progress_bar


@click.command()
@experiment_options
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--a-distance", is_flag=True, help="Also measure A-distances of source and target (retrieval; seconds per run)."
)
def evaluate(job: Job, device: str, a_distance: bool) -> None:
    """Evaluate the runs of EXPERIMENT on their test clips.

    The command compares outputs with test labels (`report` also does, for confusion matrices and clusters) and appends
    the metrics to RUNS/results.jsonl.

    \b
    Example:
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
    """
    from pipelines.evaluation import results
    from pipelines.evaluation.evaluate import distances
    from pipelines.evaluation.evaluate import evaluate as run
    from pipelines.training.outputs import collapse, remedy

    shown = [config for config in job.experiment.runs if config.row]
    failed, without = [], []  # errors: no result; a result, but no A-distances
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
                        without.append(str(error))
            except FeatcacheError as error:
                failed.append(str(error))
            progress(number, len(shown))
    click.echo(job.results)
    if collapsed:
        lines = [f"{run_id}: {text}" for run_id, text in collapsed.items()]
        note(f"{len(lines)} of {len(shown)} runs collapsed:\n  " + first(lines, between="\n  "))
    if without:
        note(f"{len(without)} of {len(shown)} runs have all results except A-distances:\n  " + "\n  ".join(without))
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(shown)} runs have no result; `featcache train-head {job.experiment.arguments}` "
            "trains the runs that are missing or out of date:\n  " + first(failed, between="\n  ")
        )
    if without:
        raise SystemExit(1)
