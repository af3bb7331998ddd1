"""Retrieval: the clip that a caption describes, and the captions that describe a clip.

Outputs are embeddings, "visual" (clips, M) and "text" (captions, M); "clip" (captions,) is the clip of each caption.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import Manifest
from featcache.errors import ConfigError
from heads.nets import Net, Retrieval
from pipelines.measures.outcomes import Outcomes, Values
from pipelines.measures.ranks import firsts, geometric_mean, ranks, recall
from pipelines.settings import name_of
from pipelines.tasks import Metric, Outputs, RunLike, Task, Truth

N = TypeVar("N", bound=np.generic)

RANK = 10**9  #: no published rank is larger
OF_RANKS = {
    "R@1": Metric("recall at 1", lambda rank: recall(rank, 1)),
    "R@5": Metric("recall at 5", lambda rank: recall(rank, 5)),
    "R@10": Metric("recall at 10", lambda rank: recall(rank, 10)),
    "MedR": Metric("median rank", lambda rank: float(np.median(rank)) + 1, "a rank", RANK, higher=False),
    "MeanR": Metric("mean rank", lambda rank: float(rank.mean()) + 1, "a rank", RANK, higher=False),
    "GM": Metric("geometric mean of the recalls at 1, 5 and 10", geometric_mean),
}
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
DISTANCES = {
    f"a_distance/{rows}": Metric(f"A-distance of source and target, {words}", unit="an A-distance", most=2)
    for rows, words in {"joint": "clips and captions", "video": "clips"}.items()
}


class RetrievalTask(Task):
    """Retrieval between clips and captions."""

    name = "retrieval"
    metrics = {
        f"{way}/{name}": replace(metric, words=f"{metric.words}, {words}")
        for way, words in DIRECTIONS.items()
        for name, metric in OF_RANKS.items()
    } | DISTANCES
    headlines = ("t2v/R@1",)
    validators = ("source_val",)
    keeps_best = True  # a point can take 500 MB
    no_norms = "embeddings of a retrieval net all have length 1, so their norms do not differ"
    no_predictions = (
        "a retrieval run ranks all clips for a sentence; `featcache search` prints the first ones, and outputs.npz of "
        "the run has the embeddings"
    )
    unit_length = True
    reads_captions = True

    def check(self, config: RunLike) -> None:
        """Check that the run has feeds of captions and feeds of clips, and that its target sees no captions."""
        captions = config.captions
        if not captions:
            raise ConfigError(
                f"net {name_of(config.net)!r} does retrieval and needs a feed of captions; none is configured. Add "
                "Feed(STORE, seen_by='source test', captions=MANIFEST), with captions='own' if each clip has its own "
                "caption"
            )
        if len(captions) == len(config.feeds):
            raise ConfigError(f"feeds: {', '.join(captions)} are all captions; add a feed of a modality of the clips")
        for m, feed in config.feeds.items():
            if feed.test == "each":
                raise ConfigError(f"feeds.{m}.test=each averages class predictions; in retrieval take all or mean")
        first = config.feeds[captions[0]]
        for m in captions:
            feed = config.feeds[m]
            if set(feed.seen_by.split()) != {"source", "test"}:
                raise ConfigError(
                    f"feeds.{m}.seen_by={feed.seen_by!r}, but a target has no captions, so only source and test see "
                    "them; set seen_by='source test'"
                )
            if feed.captions != first.captions:
                raise ConfigError(
                    f"feeds.{m}.captions={feed.captions!r}, but feeds.{captions[0]}.captions={first.captions!r}; all "
                    "caption feeds of a run need the same captions"
                )
            if feed.captions == config.manifest:
                raise ConfigError(f"feeds.{m}.captions={feed.captions!r} is the run's own manifest; write 'own'")
            if feed.views:
                raise ConfigError(f"feeds.{m}.views={feed.views!r}: a feed of captions has no views; leave them out")

    def untaught(self, manifest: Manifest, rows: Sequence[int], captioned: Collection[int]) -> str:
        """Return a reason unless one of these rows has a caption."""
        return "" if set(captioned) & set(rows) else f"none of its {len(rows)} train clips has a caption"

    def untested(self, manifest: Manifest, domain: str, captioned: Collection[int]) -> str:
        """Return a reason unless a clip of the domain has a caption."""
        return "" if set(captioned) & set(manifest.rows(domain=domain)) else "none of its clips has a caption to test"

    def measure(self, outputs: Outputs, truth: Truth, net: Net | None, clusters: int) -> Values:
        """Return the metrics of both directions, from ranks by the net's similarity."""
        t2v, v2t = self.ranks(outputs, net).values()
        values, clip, n = Values(of_ranks(t2v, v2t)), outputs["clip"], len(outputs["visual"])
        right, answers = (np.bincount(clip, of, n).astype(np.int64) for of in (t2v == 0, np.ones(len(clip))))
        values.outcomes["t2v/R@1"] = Outcomes(right, answers)
        values.outcomes["v2t/R@1"] = Outcomes((v2t == 0).astype(np.int64), (~np.isnan(v2t)).astype(np.int64))
        return values

    def applied(
        self, outputs: Outputs, names: Mapping[str, Sequence[str]], k: int, clusters: int, kept: Callable[[], Outputs]
    ) -> Iterator[dict[str, Any]]:
        """Yield the embeddings of clips ("visual") or of captions ("text"), each a list of numbers."""
        for name in ("visual", "text"):
            if name in outputs:
                yield {"output": [name] * len(outputs[name]), "embedding": list(outputs[name])}

    def ranks(self, outputs: Outputs, net: Net | None) -> dict[str, NDArray[np.float64]]:
        """Return "t2v" -> rank of each caption's clip, and "v2t" -> rank of each clip's best caption, nan without."""
        return _both_ways(ranks, outputs, net)

    def firsts(self, outputs: Outputs, net: Net | None) -> dict[str, NDArray[np.int64]]:
        """Return "t2v" -> the clip that comes first for each caption, and "v2t" -> the first caption of each clip."""
        return _both_ways(firsts, outputs, net)

    def choice(self, values: Mapping[str, float]) -> float:
        """Return the mean over both directions of the geometric mean of R@1, R@5 and R@10."""
        return (values["t2v/GM"] + values["v2t/GM"]) / 2


def _both_ways(
    measure: Callable[..., tuple[NDArray[N], NDArray[N]]], outputs: Outputs, net: Net | None
) -> dict[str, NDArray[N]]:
    """Return "t2v" and "v2t" -> what `ranks` or `firsts` returns, by the net's similarity."""
    assert isinstance(net, Retrieval)
    device = next(net.parameters()).device

    def similarity(l_TM: Tensor, v_TM: Tensor) -> Tensor:
        return net.similarity(l_TM.to(device), v_TM.to(device))

    with torch.no_grad():
        t2v, v2t = measure(outputs["text"], outputs["visual"], outputs["clip"], similarity)
    return {"t2v": t2v, "v2t": v2t}


def of_ranks(t2v: NDArray[np.float64], v2t: NDArray[np.float64]) -> dict[str, float]:
    """Return the metrics of ranks that count from 0. A query without an answer has rank nan and does not count.

    >>> of_ranks(np.array([0.0, 0.5, 7.0]), np.array([0.0, np.nan, np.nan]))["t2v/R@5"]
    0.6666666666666666
    """
    values = dict[str, float]()
    for way, rank in {"t2v": t2v, "v2t": v2t}.items():
        answered = rank[~np.isnan(rank)]
        if not len(answered):
            raise ValueError(f"{way}: no query has an answer, so no metric can be computed")
        values |= {f"{way}/{name}": metric.compute(answered) for name, metric in OF_RANKS.items() if metric.compute}
    return values


TASK = RetrievalTask()
