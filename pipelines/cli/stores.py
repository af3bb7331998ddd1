"""Commands that look after manifests and stores: manifest join, check, repair, info."""

import json
from pathlib import Path

import click

from pipelines.cli._shared import PATH, note, progress_bar


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--fast", is_flag=True, help="Of the features, look only at the sizes of their files.")
def check(paths: tuple[Path, ...], fast: bool) -> None:
    """Tell what is wrong with manifests (CSV files) and stores (zarr folders); exit code 1 if anything is.

    A folder of stores stands for all manifests and stores in it.

    A manifest's sources are opened and its bounds compared with them. Every byte of a store is compared with its
    digests.

    \b
    Example:
      featcache check demo/videos/kitchens.csv demo/stores
    """
    from featcache.check import parts, problems

    wrong = 0
    for path in [part for given in paths for part in parts(given)]:
        with progress_bar(f"check {path.name}", "part") as progress:
            found = problems(path, progress, fast=fast)
        for problem in found:
            click.echo(f"{path}: {problem}")
        if not found:
            click.echo(f"{path}: in order")
        wrong += len(found)
    if wrong:
        raise SystemExit(1)


@click.command()
@click.argument("stores", nargs=-1, required=True, type=PATH)
def repair(stores: tuple[Path, ...]) -> None:
    """Mend STORES: damaged blocks become "not tried", what does not belong there is removed, the rest is not touched.

    `featcache extract` computes the clips again that were lost. Metadata is written anew where its checksum proves that
    it comes out the same; a damaged recipe is beyond repair.

    \b
    Example:
      featcache repair demo/stores/kitchens/hog.zarr
    """
    from featcache.store.check import repair as run

    for store in stores:
        with progress_bar(f"repair {store.name}", "block") as progress:
            done = run(store, progress)
        for line in done or ["in order, nothing to do"]:
            click.echo(f"{store}: {line}")


@click.command()
@click.argument("stores", nargs=-1, required=True, type=PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per store, failures included.")
@click.option("--failures", default=20, show_default=True, type=click.IntRange(0), help="How many to list.")
def info(stores: tuple[Path, ...], as_json: bool, failures: int) -> None:
    """Show what STORES are: recipe, windows, clips per state, failures with reasons, sizes, licence of the weights.

    \b
    Example:
      featcache info demo/stores/kitchens/hog.zarr
    """
    from featcache.store import info as of

    for store in stores:
        found = of.facts(store)
        click.echo(json.dumps(found, ensure_ascii=False) if as_json else of.text(found, failures))
        if found["states"]["not tried"]:
            note(f"{store} is unfinished: {found['states']['not tried']} clips were not tried")
