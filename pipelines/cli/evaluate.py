"""The command `evaluate`."""

import click

from featcache.errors import FeatcacheError
from featcache.wording import first
from pipelines.cli._shared import Job, experiment_options, note, progress_bar


@click.command()
@experiment_options
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--a-distance", is_flag=True, help="Of retrieval: A-distances of source and target, too; seconds per run."
)
def evaluate(job: Job, device: str, a_distance: bool) -> None:
    """Compare the runs of EXPERIMENT with the labels of their test clips; append the numbers to RUNS/results.jsonl.

    This is the only command that reads test labels.

    \b
    Example:
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
    """
    from pipelines.evaluation import results
    from pipelines.evaluation.evaluate import distances
    from pipelines.evaluation.evaluate import evaluate as run

    shown = [config for config in job.experiment.runs if config.row]
    wrong, without = [], []  # results, A-distances
    with progress_bar(f"evaluate {job.experiment.name}", "run") as progress:
        for number, config in enumerate(shown, 1):
            try:
                where, name = job.runs / config.id, job.experiment.name
                results.append(job.results, run(where, job.stores, name, device, config.row))
                if a_distance:
                    try:
                        results.append(job.results, distances(where, job.stores, name, device, config.row))
                    except FeatcacheError as error:
                        without.append(str(error))
            except FeatcacheError as error:
                wrong.append(str(error))
            progress(number, len(shown))
    click.echo(job.results)
    if without:
        note(f"{len(without)} of {len(shown)} runs have all results but A-distances:\n  " + "\n  ".join(without))
    if wrong:
        raise click.ClickException(
            f"{len(wrong)} of {len(shown)} runs have no result; `featcache train-head {job.experiment.typed}` trains "
            "what is missing or out of date:\n  " + first(wrong, between="\n  ")
        )
    if without:
        raise SystemExit(1)
