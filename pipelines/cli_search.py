"""The command that answers a sentence with clips."""

from pathlib import Path

import click

from pipelines._commands import PATH


@click.command()
@click.argument("where", type=PATH)
@click.argument("query")
@click.option("-k", default=5, show_default=True, help="How many clips.")
@click.option(
    "--model", default="", help="Folder of the text model, where the store's recipe names one by its name only."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
def search(where: Path, query: str, k: int, model: str, device: str) -> None:
    """Find the clips that fit the sentence QUERY.

    WHERE is a store of captions made by a text extractor, whose captions are compared with the query.

    Prints a line per clip, separated by tabs: rank, score, clip_id, source, start–stop in minutes and seconds, caption.

    \b
    Example:
      featcache search stores/epic8/sentence-bert.zarr 'someone cuts a tomato' -k 5
    """
    from pipelines import search as of

    hits = of.in_store(where, query, k, model=model, device=device)
    for rank, hit in enumerate(hits, 1):
        clip = hit.clip
        words = " ".join(clip.caption.split())  # one line each
        cells = (rank, f"{hit.score:.3f}", clip.of or clip.clip_id, hit.source, of.times(clip), words)
        click.echo("\t".join(map(str, cells)))
