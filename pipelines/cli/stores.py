"""The commands `featcache check`, `repair` and `info`, for manifests and stores."""

import json
from pathlib import Path

import click

from featcache.remote.urls import shown, with_urls
from featcache.wording import visible
from pipelines.cli._shared import PATH, PLACE, echo, note, progress_bar


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PLACE)
@click.option("--fast", is_flag=True, help="Check only the file sizes of features, not their digests.")
def check(paths: tuple[Path, ...], fast: bool) -> None:
    """Check manifests and stores, and print their problems.

    PATHS are manifests (CSV files), stores (zarr folders), or folders with manifests and stores; the last two may be
    URLs. The exit code is 1 if there are problems.

    The sources of a manifest are opened, and the bounds of its clips are compared with them. Every byte of a store is
    compared with its digests.

    \b
    Example:
      featcache check demo/videos/kitchens.csv demo/stores
    """
    from featcache.checking import check as run
    from featcache.checking import parts

    wrong = 0
    for path in [part for given in paths for part in parts(given)]:
        with progress_bar(f"check {path.name}", "part") as progress:
            (messages,) = run(path, fast=fast, progress=progress).values()
        for message in messages:
            echo(visible(with_urls(f"{path}: {message}")))
        if not messages:
            echo(visible(with_urls(f"{path}: in order")))
        wrong += len(messages)
    if wrong:
        raise SystemExit(1)


@click.command()
@click.argument("stores", nargs=-1, required=True, type=PATH)
def repair(stores: tuple[Path, ...]) -> None:
    """Repair damaged STORES (zarr folders).

    The clips of damaged blocks become "not tried", so that `featcache extract` computes them again. Files that are not
    part of a store are removed. Damaged metadata is written again if its checksum proves that the result is the same; a
    damaged recipe cannot be repaired. Everything else stays as it is.

    \b
    Example:
      featcache repair demo/stores/kitchens/hog.zarr
    """
    from featcache.store.check import repair as run

    for store in stores:
        with progress_bar(f"repair {store.name}", "block") as progress:
            repairs = run(store, progress)
        for line in repairs or ["in order, nothing to do"]:
            echo(visible(f"{store}: {line}"))


@click.command()
@click.argument("stores", nargs=-1, required=True, type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per store, with all failures.")
@click.option("--failures", default=20, show_default=True, type=click.IntRange(0), help="Number of failures to list.")
def info(stores: tuple[Path, ...], as_json: bool, failures: int) -> None:
    """Show the recipe, clips, failures and size of STORES.

    STORES are folders or URLs. Failures are listed with their reasons. The licence of the weights and the windows per
    clip are shown, too.

    \b
    Example:
      featcache info demo/stores/kitchens/hog.zarr
    """
    from featcache.store.info import info as run
    from featcache.store.info import text

    for store in stores:
        store_facts = run(store)
        echo(json.dumps(store_facts, ensure_ascii=False) if as_json else text(store_facts, failures))
        if untried := store_facts["states"]["not tried"]:
            note(f"{shown(store)} is unfinished: {untried} clips were not tried")
