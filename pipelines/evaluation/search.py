"""Search for clips by a sentence: among the captions of a store, or with a trained retrieval run."""

import heapq
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featcache.errors import ConfigError, StoreError, WeightsError
from featcache.extractors import Extractor
from featcache.manifest import Clip, Manifest
from featcache.store import DONE, FeatureStore
from featcache.windows import Tokens
from heads.nets import Retrieval
from pipelines.data.rows import Rows
from pipelines.extraction.extractors import remade
from pipelines.training.outputs import outputs
from pipelines.training.runs import Run

BLOCK = 8192  #: number of rows of a store that are compared at once


@dataclass(frozen=True)
class Hit:
    """A clip and its score: a cosine, or a run's similarity.

    In a store of captions, `clip` is the caption's row of the manifest.
    """

    score: float
    clip: Clip
    source: str  #: path to its file


def in_store(path: Path, query: str, k: int, *, model: str = "", device: str = "cpu") -> list[Hit]:
    """The k rows of a store of captions whose embeddings have the largest cosine with the query's, best first.

    In a store of tokens, the means of the tokens are compared.
    model: folder of the text model, for a store whose recipe holds only the name of that folder.
    """
    check(query, k)
    store = FeatureStore.open(path)
    if not _holds_text(store):
        raise ConfigError(f"{_no_text(store)}; name a store of sentence-bert or hf:MODEL, or a retrieval run")
    extractor = text_extractor(store, model, device)
    manifest = Manifest.read(path.parent / "manifest.csv")
    store.check_rows(manifest)
    query_D = _unit(_mean(*embed(extractor, store, query)))[0]
    best: list[tuple[float, int]] = []  # row numbers are negative, so that the first of equal scores wins
    rows = np.flatnonzero(store.state == DONE)
    for part in np.split(rows, range(BLOCK, len(rows), BLOCK)):
        scores = _unit(_mean(store.read(part), store.present[part])) @ query_D
        best = heapq.nlargest(k, [*best, *zip(scores.tolist(), (-part).tolist(), strict=True)])
    return [_hit(score, manifest, -row) for score, row in best]


def in_run(
    folder: Path,
    stores: Path,
    query: str,
    k: int,
    *,
    domains: tuple[str, ...] = (),
    split: str = "",
    model: str = "",
    device: str = "cpu",
) -> list[Hit]:
    """The k clips whose embeddings are most similar to the query's in a finished retrieval run, best first.

    domains, split: of the clips (default: those that the run was tested on). Captions of the clips are not read.
    model: as in `in_store`. ConfigError if the run has another task, or if the data that it read have changed.
    """
    check(query, k)
    run = Run.open(folder)
    if not run.config.captions:
        raise ConfigError(f"run {run.config.id} is a {run.config.task.name} run; name a retrieval run")
    opened = run.opened(stores, device)
    method = run.method(device)
    net = method.net
    assert isinstance(net, Retrieval)
    feeds = {m: run.config.feeds[m] for m in run.config.captions}
    for m in feeds:
        if not _holds_text(store := opened.stores[m]):
            raise ConfigError(f"{_no_text(store)}; name a run that was trained on sentence-bert or hf:MODEL")
    searched = replace(run.config, test_split=split or run.config.test_split)
    clips = replace(opened, config=searched, captions=None)
    rows = clips.test(*domains)
    embedded = {m: embed(text_extractor(opened.stores[m], model, device), opened.stores[m], query) for m in feeds}
    x, present = ({m: torch.from_numpy(arrays[k]).to(device) for m, arrays in embedded.items()} for k in (0, 1))
    asked = Rows([0], x, present, {}, torch.tensor([-1], device=device), feeds).prepared(opened.prepare)
    visual_VM = torch.from_numpy(outputs(method, rows, clips)["visual"]).to(device)
    text_1M = torch.from_numpy(outputs(method, asked, clips)["text"]).to(device)
    with torch.no_grad():
        scores, order = net.similarity(text_1M, visual_VM)[0].sort(descending=True, stable=True)
    best = zip(scores[:k].tolist(), order[:k].tolist(), strict=True)
    return [_hit(score, opened.manifest, rows.rows[place]) for score, place in best]


def check(query: str, k: int) -> None:
    """Check a query: it must contain words, and k must be at least 1."""
    if not query.strip():
        raise ConfigError("the query is empty; write a sentence, such as 'someone cuts a tomato'")
    if k < 1:
        raise ConfigError(f"-k is {k}; it must be at least 1")


def text_extractor(store: FeatureStore, model: str = "", device: str = "cpu") -> Extractor:
    """The extractor that made the captions of a store, ready to embed another sentence.

    ConfigError if its model is missing; StoreError if the model is not the one that made the store.
    """
    recipe = store.recipe
    try:
        extractor = remade(recipe, model, device)
    except (ConfigError, WeightsError) as error:
        raise ConfigError(
            f"the query cannot be embedded by the extractor of {store.path}: {error}; if the model is in a folder, "
            "name it with --model FOLDER"
        ) from error
    recipe_here = extractor.recipe
    for name in ("version", "weights_sha256"):
        if recipe_here[name] != recipe.get(name):
            raise StoreError(
                f"{store.path} was made with {name} {recipe.get(name)!r} of {store.name}, but the model here has "
                f"{recipe_here[name]!r}; name the right model with --model FOLDER, or extract the captions again"
            )
    return extractor


def embed(extractor: Extractor, store: FeatureStore, query: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the query's rows (1, T, *row_shape), one row or one per token, and the mask of present rows (1, T).

    They are rounded as in the store, so the words of a caption in the store get exactly its rows.
    """
    window = extractor.prepare(query)
    rows = extractor(window[None]).astype(store.layout.dtype).astype(np.float32)
    if not isinstance(extractor.window, Tokens):
        return rows[:, None], np.ones((1, 1), bool)
    rows[:, extractor.tokens(window) :] = 0
    return rows, np.arange(rows.shape[1])[None] < extractor.tokens(window)


def _holds_text(store: FeatureStore) -> bool:
    """True if the rows are captions, or their tokens, by an extractor that can embed another sentence."""
    return store.recipe.get("window", {}).get("kind") in ("caption", "tokens")


def _no_text(store: FeatureStore) -> str:
    return (
        f"{store.path} holds {store.modality} by {store.name!r}, not captions by a text extractor, so it cannot be "
        "compared with a sentence"
    )


def _hit(score: float, manifest: Manifest, row: int) -> Hit:
    clip = manifest.clips[row]
    return Hit(score, clip, os.path.normpath(manifest.path(clip)) if clip.source else "")


def times(clip: Clip) -> str:
    """Start and stop of the clip in its source, "0:05.0–1:15.3"; in frames if their rate is unknown.

    >>> times(Clip("a", "d", "test", "a.mp4", start=5, stop=75.25))
    '0:05.0–1:15.2'
    """
    if clip.start is None and clip.stop is None:
        return "whole file"
    bounds, fps = (clip.start or 0.0, clip.stop), clip.fps if clip.unit == "frames" else 1.0
    if fps is None:
        start, stop = ("end" if bound is None else f"{bound:g}" for bound in bounds)
        return f"frames {start}–{stop}"
    start, stop = ("end" if bound is None else _minutes(bound / fps) for bound in bounds)
    return f"{start}–{stop}"


def _minutes(seconds: float) -> str:
    """Minutes and seconds; tenths are cut off, not rounded."""
    tenths = int(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _mean(rows: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean over the present windows (n, T, *row_shape) -> (n, D), float32."""
    weights = present / np.maximum(present.sum(1, keepdims=True), 1)
    return np.einsum("nt,ntd->nd", weights, rows.reshape(*present.shape, -1)).astype(np.float32)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
