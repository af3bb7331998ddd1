"""The command `featcache report`."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, Given, echo, experiment_options, grid_option, progress_bar


@click.command()
@experiment_options
@grid_option
@click.option(
    "--shift",
    multiple=True,
    metavar="SHIFT",
    help="Draw the figures of single clips (features, queries and embeddings, or clusters) on this column of the "
    "table, such as 'D1→D2' or 'D1->D2'; may be repeated. In a folder of stores, D1:D2 leaves only this shift in the "
    "table, too.  [default: for classification the first one that the drawn rows share, else all]",
)
@click.option(
    "--compare",
    nargs=2,
    metavar="ROW ROW",
    help="Compare these rows, as `featcache compare` does.  [default: the first and the best row]",
)
@click.option("--out", type=PATH, help="File to write.  [default: RUNS/EXPERIMENT.html]")
def report(given: Given, compare: tuple[str, str] | None, out: Path | None) -> None:
    """Write a self-contained HTML page about EXPERIMENT.

    The page has a table of every metric, plots, curves of training, the clips that are wrong, pictures, settings,
    recipes of the features, and the commands that reproduce it. It draws the features of one run of each row if there
    are at most four rows without labels of the target, else of the first and of the best row; --only chooses others.
    Example queries and clusters are those of the best row. With --grid it draws a curve over each number of a sweep.

    \b
    Examples:
      featcache report kitchens --stores demo/stores --runs demo/runs
      featcache report xmc_epic8 --only source-only --only "XMC final" --shift "D1→D2"
      featcache report kitchens --runs demo/runs --grid method.lambda_g=0.1,0.3,1
    """
    from pipelines.commands.report import write_report

    with progress_bar("report", "part") as progress:
        path = write_report(**given, compare=compare, out=out, progress=progress)
    echo(path)
