"""Search for clips by a sentence: the function of `featcache search`."""

from collections.abc import Iterable
from pathlib import Path

from featcache.arguments import PathLike, numeric, several
from featcache.errors import ArgumentsError, ConfigError
from featcache.store.places import local
from pipelines.data.stores import parts_of
from pipelines.evaluation import search as searching
from pipelines.evaluation.search import Hit
from pipelines.training.runs import Run


def search(
    where: PathLike,
    query: str,
    k: int = 5,
    *,
    stores: PathLike = "stores",
    runs: PathLike = "runs",
    domain: str | Iterable[str] = (),
    split: str | None = None,
    model: str = "",
    device: str = "cpu",
) -> list[Hit]:
    """Find the k clips that match a sentence, the query, best.

    where: a retrieval run (its folder, or its id in `runs`), whose clips are compared with the sentence, or a store of
        captions made by a text extractor, whose captions are.
    query: the sentence. k: number of clips. stores, runs: folders of all stores, and of all runs.
    domain, split: of the clips (default: those of the run's test).
    model: folder of the text model, if the store of captions has only its name. device: cpu, cuda, ...

    Returns hits with score, clip and source, the best first. Raises ConfigError if `where` is neither, or cannot be
    compared with a sentence.
    """
    numeric("k", k)
    place, domains = local(where), several(domain)
    run = next((folder for folder in (place, Path(runs) / place) if (folder / "config.json").exists()), None)
    if run:
        folder = local(stores, parts_of([Run.open(run).config]))
        return searching.in_run(run, folder, query, k, domains=domains, split=split or "", model=model, device=device)
    if not (place / "zarr.json").exists():
        raise ConfigError(f"{place} is neither a store nor a run, and {runs} has no run with that id")
    if domains or split:
        raise ArgumentsError(f"{place} is a store, and --domain and --split are for runs; leave them out")
    return searching.in_store(place, query, k, model=model, device=device)
