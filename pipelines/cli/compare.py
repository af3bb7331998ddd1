"""The command `featcache compare`."""

from functools import partial
from pathlib import Path

import click

from pipelines.cli._shared import PATH, PLACE, Words, choice_options, echo, grid_option, runs_python


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[EXPERIMENT] A B")
@click.option(
    "--stores",
    type=PLACE,
    help="Folder of all stores, or its URL.  [default: stores; if EXPERIMENT is a folder, its parent]",
)
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs.")
@choice_options
@click.option("--set", multiple=True, metavar="NAME=VALUE", help="Change a setting of both rows.")
@click.option("--seeds", metavar="SEEDS", help="Use these seeds, such as 0,1,2 or 0..4, instead of the experiment's.")
@grid_option
@click.option(
    "--shift",
    multiple=True,
    metavar="SHIFT",
    help="Compare rows on this column of the table only, such as 'D1→D2' or 'D1->D2', or in a folder of stores D1:D2; "
    "may be repeated.",
)
@click.option("--clips", type=PATH, metavar="FILE", help="Write all clips that only one side gets right to a CSV file.")
@runs_python
def compare(
    names: Words,
    stores: Path | None,
    runs: Path,
    method: Words,
    feeds: Words,
    net: str,
    task: str,
    set: Words,
    seeds: str | None,
    grid: Words,
    shift: Words,
    clips: Path | None,
) -> None:
    """Compare two rows A and B of EXPERIMENT, or two runs A and B: ids of runs in --runs, or their folders.

    The output lists the settings and the results that differ, McNemar's test, and the classes and clips that only one
    of them gets right; in retrieval, the queries whose rank moved most.

    \b
    Examples:
      featcache compare kitchens source-only "RNA (UDA)" --stores demo/stores --runs demo/runs
      featcache compare kitchens source-only "RNA (UDA)" --shift "loft->cottage" --clips clips.csv
      featcache compare kitchens "RNA (UDA), lambda_g = 0.1" "RNA (UDA), lambda_g = 1" --grid method.lambda_g=0.1,1
      featcache compare demo/runs/ID demo/runs/OTHER_ID --stores demo/stores
    """
    from pipelines.commands.table import compare as run

    chosen = partial(run, method=method, feeds=feeds, shift=shift, net=net, task=task)
    compared = chosen(*names, stores=stores, runs=runs, set=set, seeds=seeds, grid=grid, clips=clips)
    echo(compared, nl=False)
