"""The command `featcache report`."""

from pathlib import Path

import click

from featcache.errors import FeatcacheError
from pipelines.cli._shared import PATH, Job, columns_option, experiment_options, grid_option, note


@click.command()
@experiment_options
@grid_option
@columns_option
@click.option(
    "--compare",
    "compared",
    nargs=2,
    metavar="ROW ROW",
    help="Compare these rows, as `featcache compare` does.  [default: the first and the best row]",
)
@click.option("--out", type=PATH, help="File to write.  [default: RUNS/EXPERIMENT.html]")
def report(job: Job, columns: tuple[str, ...], compared: tuple[str, str] | None, out: Path | None) -> None:
    """Write a self-contained HTML page about EXPERIMENT.

    The page has the table, plots, pictures, the recipes of the features, and the commands that reproduce it. It draws
    the features of one run of each row if there are at most four rows without labels of the target, else of the first
    and of the best row; --only chooses others. Example queries and clusters are those of the best row. With --grid it
    draws a curve over each number of a sweep.

    \b
    Examples:
      featcache report kitchens --stores demo/stores --runs demo/runs
      featcache report xmc_epic8 --only source-only --only "XMC final" --shift "D1→D2"
      featcache report kitchens --runs demo/runs --grid method.lambda_g=0.1,0.3,1
    """
    from pipelines.data.ahead import check_ahead
    from pipelines.evaluation import results
    from pipelines.report import write as page

    try:
        check_ahead(job.experiment.runs, job.stores)
    except FeatcacheError as error:
        note(f"Warning: the page will lack what is read from stores: {error}")
    out = out or job.runs / f"{job.experiment.name}.html"
    page.write(job.experiment, results.read(job.results), job.runs, job.stores, out, shifts=columns, compared=compared)
    click.echo(out)
