"""Clips that fit a sentence: by their captions in a store, or by themselves in a run of retrieval."""

import heapq
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featcache.errors import ConfigError, StoreError, WeightsError
from featcache.extractors import UNTRAINED, Extractor, Runtime, params_type
from featcache.extractors import load as load_extractor
from featcache.manifest import Clip, Manifest
from featcache.store import FeatureStore
from featcache.windows import Tokens
from heads.nets import Retrieval
from pipelines.data.opening import open_run
from pipelines.data.rows import Rows
from pipelines.data.stores import DONE
from pipelines.training.outputs import outputs
from pipelines.training.runs import Run, changes, what_is_read

BLOCK = 8192  #: rows of a store that are compared at a time


@dataclass(frozen=True)
class Hit:
    """A clip that fits, and how well: a cosine, or a run's similarity. Of a caption's row `clip` is the caption's."""

    score: float
    clip: Clip
    source: str  #: path to its file


def in_store(path: Path, query: str, k: int, *, model: str = "", device: str = "cpu") -> list[Hit]:
    """The k rows of a store of captions whose embeddings have the largest cosine with the query's, best first.

    Of tokens it is the cosine of their means.
    model: where the text model lies, for a store whose recipe knows the name of a folder only.
    """
    check(query, k)
    store = FeatureStore.open(path)
    if not _of_text(store):
        raise ConfigError(f"{_other(store)}; name a store of sentence-bert or hf:MODEL, or a run of retrieval")
    extractor = text_extractor(store, model, device)
    manifest = Manifest.read(path.parent / "manifest.csv")
    store.check_rows(manifest)
    query_D = _unit(_mean(*embed(extractor, store, query)))[0]
    best: list[tuple[float, int]] = []  # of equal scores the first row comes first
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
    """The k clips whose embeddings are most similar to the query's by a finished run of retrieval, best first.

    domains, split: of the clips; those that the run was tested on if not given. Captions of the clips are not read.
    model: as in `in_store`. ConfigError where the run is of another task, or what it read has changed since.
    """
    check(query, k)
    run = Run.open(folder)
    method = run.method(device)
    net = method.net
    if not isinstance(net, Retrieval):
        raise ConfigError(
            f"run {run.config.id} is a {run.config.task.name} run; only a retrieval run answers a sentence"
        )
    opened = open_run(run.config, stores, device)
    if changed := changes(run, what_is_read(opened, folder.parent)):
        raise ConfigError(f"{changed} has changed since run {run.config.id} was made; train it again")
    feeds = {m: run.config.feeds[m] for m in run.config.captions}
    for m in feeds:
        if not _of_text(store := opened.stores[m]):
            raise ConfigError(f"{_other(store)}; a run that is trained on sentence-bert or hf:MODEL answers sentences")
    wanted = replace(run.config, test_split=split or run.config.test_split)
    clips = replace(opened, config=wanted, captions=None)
    rows = clips.test(*domains)
    said = {m: embed(text_extractor(opened.stores[m], model, device), opened.stores[m], query) for m in feeds}
    x, present = ({m: torch.from_numpy(of[k]).to(device) for m, of in said.items()} for k in (0, 1))
    (asked,) = Rows([0], x, present, {}, torch.tensor([-1], device=device), feeds).sweep()
    visual_VM = torch.from_numpy(outputs(method, rows, clips)["visual"]).to(device)
    with torch.no_grad():
        text_1M = net.encode(asked)["text"]
        scores, order = net.similarity(text_1M, visual_VM)[0].sort(descending=True, stable=True)
    best = zip(scores[:k].tolist(), order[:k].tolist(), strict=True)
    return [_hit(score, opened.manifest, rows.rows[place]) for score, place in best]


def check(query: str, k: int) -> None:
    """ConfigError for a query that says nothing, or for no answers."""
    if not query.strip():
        raise ConfigError("the query is empty; write a sentence, such as 'someone cuts a tomato'")
    if k < 1:
        raise ConfigError(f"-k is {k}; allowed: 1 and more")


def text_extractor(store: FeatureStore, model: str = "", device: str = "cpu") -> Extractor:
    """The extractor that made the captions of a store, ready to embed another sentence.

    ConfigError where it is not here; StoreError where the model found is another than the store's.
    """
    recipe = store.recipe
    kind, (weights, _, seed) = recipe["extractor"].partition(":")[0], store.weights_sha256.partition(":")
    runtime = Runtime(
        UNTRAINED if weights == UNTRAINED else "", int(seed or 0), device, recipe.get("precision", "fp32")
    )
    try:
        params = params_type(kind)(**recipe["params"] | ({"model": model} if model else {}))
        extractor = load_extractor(recipe["extractor"], params).ready(runtime)
    except (ConfigError, WeightsError, TypeError) as error:
        raise ConfigError(
            f"the query cannot be embedded as {store.path} was: {error}; where the model lies in a folder, name it by "
            "--model FOLDER"
        ) from error
    found = extractor.recipe
    for name in ("version", "weights_sha256"):
        if found[name] != recipe[name]:
            raise StoreError(
                f"{store.path} was made with {name} {recipe[name]!r} of {store.name}, and what is here has "
                f"{found[name]!r}; name the model by --model FOLDER, or extract the captions again"
            )
    return extractor


def embed(extractor: Extractor, store: FeatureStore, query: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The query's rows (1, T, *row_shape), one or its tokens', and which of them are there (1, T).

    They are rounded as the store's are: a caption's own words have its very rows.
    """
    window = extractor.prepare(query)
    rows = extractor(window[None]).astype(store.layout.dtype).astype(np.float32)
    if not isinstance(extractor.window, Tokens):
        return rows[:, None], np.ones((1, 1), bool)
    rows[:, extractor.tokens(window) :] = 0
    return rows, np.arange(rows.shape[1])[None] < extractor.tokens(window)


def _of_text(store: FeatureStore) -> bool:
    """Whether its rows are captions, or tokens of these, by an extractor that can embed another sentence."""
    return store.recipe.get("window", {}).get("kind") in ("caption", "tokens")


def _other(store: FeatureStore) -> str:
    return (
        f"{store.path} holds {store.modality} by {store.name!r}, no captions by a text extractor, so no sentence can "
        "be compared with it"
    )


def _hit(score: float, manifest: Manifest, row: int) -> Hit:
    clip = manifest.clips[row]
    return Hit(score, clip, os.path.normpath(manifest.path(clip)))


def times(clip: Clip) -> str:
    """Where the clip lies in its source, "0:05.0–1:15.3", in frames where their rate is not known.

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
    """Minutes and seconds, tenths cut off."""
    tenths = int(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _mean(rows: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean over the present windows (n, T, *row_shape) -> (n, D), float32."""
    weights = present / np.maximum(present.sum(1, keepdims=True), 1)
    return np.einsum("nt,ntd->nd", weights, rows.reshape(*present.shape, -1)).astype(np.float32)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
