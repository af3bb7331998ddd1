"""The command `featcache report`."""

from pathlib import Path

import click

from featcache.errors import FeatcacheError
from pipelines.cli._shared import PATH, Job, experiment_options, note


@click.command()
@experiment_options
@click.option("--out", type=PATH, help="File to write.  [default: RUNS/EXPERIMENT.html]")
def report(job: Job, out: Path | None) -> None:
    """Write a self-contained HTML page about EXPERIMENT.

    The page has the table, plots, pictures, the recipes of the features, and the commands that reproduce it. For
    classification it draws the features of one run of the first row and one of the best row.

    \b
    Example:
      featcache report kitchens --stores demo/stores --runs demo/runs
    """
    from pipelines.data.ahead import check_ahead
    from pipelines.evaluation import results
    from pipelines.report import write as page

    try:
        check_ahead(job.experiment.runs, job.stores)
    except FeatcacheError as error:
        note(f"Warning: the page will lack what is read from stores: {error}")
    out = out or job.runs / f"{job.experiment.name}.html"
    page.write(job.experiment, results.read(job.results), job.runs, job.stores, out)
    click.echo(out)
