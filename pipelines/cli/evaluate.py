"""The command `featcache evaluate`."""

import click

from featcache.errors import FeatcacheError
from featcache.wording import exactly, first
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

    shown = [config for config in job.experiment.runs if config.row]
    if blanked := results.blank_damaged(job.results):
        place = exactly([str(job.results)])[0]
        note(f"removed {blanked} damaged line{'s' * (blanked > 1)} from {place}; tables note which runs lack results")
    failed, without = [], []  # errors: no result; a result, but no A-distances
    with progress_bar(f"evaluate {job.experiment.name}", "run") as progress:
        for number, config in enumerate(shown, 1):
            try:
                folder, name = job.runs / config.id, job.experiment.name
                results.append(job.results, run(folder, job.stores, name, device, config.row))
                if a_distance:
                    try:
                        results.append(job.results, distances(folder, job.stores, name, device, config.row))
                    except FeatcacheError as error:
                        without.append(str(error))
            except FeatcacheError as error:
                failed.append(str(error))
            progress(number, len(shown))
    click.echo(job.results)
    if without:
        note(f"{len(without)} of {len(shown)} runs have all results except A-distances:\n  " + "\n  ".join(without))
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(shown)} runs have no result; `featcache train-head {job.experiment.arguments}` "
            "trains the runs that are missing or out of date:\n  " + first(failed, between="\n  ")
        )
    if without:
        raise SystemExit(1)
