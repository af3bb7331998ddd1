"""The command that answers a sentence with clips."""

from pathlib import Path

import click

from featcache.manifest import SPLITS
from pipelines.cli._shared import PATH


@click.command()
@click.argument("where", type=PATH)
@click.argument("query")
@click.option("-k", default=5, show_default=True, help="How many clips.")
@click.option("--stores", type=PATH, default="stores", show_default=True, help="Folder of all stores, for a run.")
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs, for a run's id.")
@click.option(
    "--domain", "domains", multiple=True, help="Look among a run's clips of this one.  [default: its test domain]"
)
@click.option(
    "--split", type=click.Choice(SPLITS), help="Look among a run's clips of this split.  [default: its test split]"
)
@click.option(
    "--model", default="", help="Folder of the text model, where the captions' store has no more than its name."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
def search(
    where: Path,
    query: str,
    k: int,
    stores: Path,
    runs: Path,
    domains: tuple[str, ...],
    split: str | None,
    model: str,
    device: str,
) -> None:
    """Find the clips that fit the sentence QUERY.

    WHERE is a run of retrieval, by its folder or its id, whose clips are compared with the query; or a store of
    captions made by a text extractor, and then the captions are.

    Prints a line per clip, separated by tabs: rank, score, clip_id, source, start–stop in minutes and seconds, and the
    caption where there is one.

    \b
    Examples:
      featcache search runs/4f1c2a9b 'someone cuts a tomato' -k 5
      featcache search stores/epic8/sentence-bert.zarr 'someone cuts a tomato'
    """
    from pipelines.evaluation import search as of

    run = next((folder for folder in (where, runs / where) if (folder / "config.json").exists()), None)
    if run:
        hits = of.in_run(run, stores, query, k, domains=domains, split=split or "", model=model, device=device)
    elif (where / "zarr.json").exists():
        if domains or split:
            raise click.UsageError(f"--domain and --split are for runs, and {where} is a store: all of it is searched")
        hits = of.in_store(where, query, k, model=model, device=device)
    else:
        raise click.ClickException(f"{where} is neither a store nor a run, and {runs} has no run of that id")
    for rank, hit in enumerate(hits, 1):
        words = " ".join(hit.clip.caption.split())  # one line each
        cells = (rank, f"{hit.score:.3f}", hit.clip.of or hit.clip.clip_id, hit.source, of.times(hit.clip), words)
        click.echo("\t".join(map(str, cells)).rstrip("\t"))
