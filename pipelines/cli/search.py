"""The command `featcache search`."""

from pathlib import Path

import click

from featcache.manifest import SPLITS
from pipelines.cli._shared import PATH, PLACE, Words, echo


@click.command()
@click.argument("where", type=PLACE)
@click.argument("query")
@click.option("-k", default=5, show_default=True, help="Number of clips.")
@click.option(
    "--stores", type=PLACE, default="stores", show_default=True, help="Folder of all stores, or its URL, for a run."
)
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs, for a run id.")
@click.option("--domain", multiple=True, help="Search the clips of this domain.  [default: the run's test domain]")
@click.option(
    "--split", type=click.Choice(SPLITS), help="Search the clips of this split.  [default: the run's test split]"
)
@click.option("--model", default="", help="Folder of the text model, if the store of captions has only its name.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
def search(
    where: Path,
    query: str,
    k: int,
    stores: Path,
    runs: Path,
    domain: Words,
    split: str | None,
    model: str,
    device: str,
) -> None:
    """Find the clips that match the sentence QUERY best.

    WHERE is either a retrieval run (its folder or id), whose clips are compared with the query, or a store of captions
    made by a text extractor, whose captions are compared with it.

    The output has one line per clip, with tabs between: rank, score, clip_id, source, start–stop in minutes and
    seconds, and the caption if there is one.

    \b
    Examples:
      featcache search runs/4f1c2a9b 'someone cuts a tomato' -k 5
      featcache search stores/epic8/sentence-bert.zarr 'someone cuts a tomato'
    """
    from pipelines.commands.search import search as find
    from pipelines.evaluation.search import times

    hits = find(where, query, k, stores=stores, runs=runs, domain=domain, split=split, model=model, device=device)
    for rank, hit in enumerate(hits, 1):
        caption = " ".join(hit.clip.caption.split())  # without line breaks
        cells = (rank, f"{hit.score:.3f}", hit.clip.of or hit.clip.clip_id, hit.source, times(hit.clip), caption)
        echo("\t".join(map(str, cells)).rstrip("\t"))
