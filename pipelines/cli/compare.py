"""The command `featcache compare`."""

from pathlib import Path

import click

from featcache.errors import ConfigError
from featcache.wording import first, nearest
from pipelines.cli._shared import (
    PATH,
    Words,
    _choice,
    _job,
    _shifts_and_columns,
    _swept,
    choice_options,
    grid_option,
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[EXPERIMENT] A B")
@click.option(
    "--stores", type=PATH, help="Folder of all stores.  [default: stores; if EXPERIMENT is a folder, its parent]"
)
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs.")
@choice_options
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting of both rows.")
@click.option("--seeds", metavar="SEEDS", help="Use these seeds, such as 0,1,2 or 0..4, instead of the experiment's.")
@grid_option
@click.option(
    "--shift",
    "columns",
    multiple=True,
    metavar="SHIFT",
    help="Compare rows on this column of the table only, such as 'D1→D2' or 'D1->D2', or D1:D2 in a folder of stores; "
    "may be repeated.",
)
@click.option("--clips", type=PATH, metavar="FILE", help="Write all clips that only one side has right to a CSV file.")
def compare(
    names: Words,
    stores: Path | None,
    runs: Path,
    settings: Words,
    seeds: str | None,
    grid: Words,
    columns: Words,
    clips: Path | None,
    methods: Words,
    feeds: Words,
    net: str,
    task: str,
) -> None:
    """Compare two rows A and B of EXPERIMENT, or two runs A and B: ids of runs in --runs, or their folders.

    The output lists the settings and the results that differ, McNemar's test, and the classes and clips that only one
    of them has right; in retrieval, the queries whose rank moved most.

    \b
    Examples:
      featcache compare kitchens source-only "RNA (UDA)" --stores demo/stores --runs demo/runs
      featcache compare kitchens source-only "RNA (UDA)" --shift "loft->cottage" --clips clips.csv
      featcache compare kitchens "RNA (UDA), lambda_g = 0.1" "RNA (UDA), lambda_g = 1" --grid method.lambda_g=0.1,1
      featcache compare demo/runs/ID demo/runs/OTHER_ID --stores demo/stores
    """
    from featcache.files import write_file
    from pipelines.evaluation import results
    from pipelines.tables import comparing, sides

    if len(names) == 3:
        pairs, columns = _shifts_and_columns(names[0], columns)
        chosen = {"methods": methods, "feeds": feeds, "shifts": pairs, "net": net, "task": task}
        of = _job(names[0], stores, runs, settings, seeds, (), _choice(chosen))
        of = _swept(of, grid) if grid else of
        stores = of.stores
        two = sides.of_rows(of.experiment, *names[1:], results.read(of.results), runs, columns)
    else:
        if len(names) != 2 or not all(names):
            raise click.UsageError("name two runs, or EXPERIMENT and two of its rows; quote names that have blanks")
        if settings or seeds or grid or columns or methods or feeds or net or task:
            options = "--method, --feeds, --net, --task, --set, --seeds, --grid and --shift"
            raise click.UsageError(f"{options} belong to rows: featcache compare EXPERIMENT A B")
        two = sides.of_runs(*(_folder(name, runs) for name in names))
    compared = comparing.compare(two, stores or Path("stores"))
    if clips:
        write_file(clips, comparing.clips_csv(compared).encode(), shared=True)
    click.echo(comparing.markdown(compared), nl=False)


def _folder(name: str, runs: Path) -> Path:
    """Return the folder of a run by its id or path; ConfigError with near names if there is none."""
    from pipelines import experiments

    for folder in (runs / name, Path(name)):
        if (folder / "config.json").exists():
            return folder
    if name in experiments.names() or name.endswith(".py") or (Path(name) / "manifest.csv").exists():
        raise ConfigError(f"{name} is an experiment: name two of its rows, featcache compare {name} 'ROW' 'ROW'")
    for folder in (runs / name, Path(name)):
        if folder.is_dir():
            raise ConfigError(f"{folder} has no config.json: it is no folder of a run, or the run is damaged")
    ids = sorted(path.parent.name for path in runs.glob("*/config.json"))
    near = nearest(Path(name).name, ids)
    hint = f"did you mean {near}?" if near else f"there are: {first(ids, 3) or 'none'}"
    raise ConfigError(f"no run {name!r} in {runs} (--runs), and no folder of a run of this name; {hint}")
