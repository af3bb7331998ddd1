"""Tasks: the kinds of question that a net answers. Configurations and outputs -> checks and metrics.

The folder is the registry: `tasks/retrieval.py` is the task `retrieval`. The file of a task holds everything in which
the task differs from others: the checks of a run, the classes or clusters that a method is given, the metrics with
their names and ranges, the headline, and the notes under tables. The parts of its report are in
`pipelines/report/<task>.py`. To add a metric, add a function of `pipelines/measures` to the task's `metrics`.

Shapes: n rows, K classes.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache import Manifest, registry
from featcache.errors import ConfigError
from featcache.wording import unknown
from heads.nets import Net
from pipelines.measures.accuracy import Labels
from pipelines.measures.outcomes import Values
from pipelines.measures.validators import VALIDATORS

Outputs = Mapping[str, NDArray[Any]]  #: name -> (n, ...): the kept outputs of test rows
Truth = Mapping[str, Labels]  #: label -> (n,) class numbers


@dataclass(frozen=True)
class Metric:
    """A metric: its name as text, its function, and the unit and range in which it is printed."""

    words: str  #: "top-1 accuracy"
    compute: Callable[..., float] | None = None  #: a function of `measures`; None if another function gives it
    unit: str = "per cent"  #: shares in [0, 1] are printed in per cent, values of other units unchanged
    most: float = 100  #: the largest value that can be published
    least: float = 0  #: the smallest value of a share, in per cent
    higher: bool = True  #: True if higher values are better
    least_classes: int = 0  #: classes that a label needs, so that the metric is not trivial
    is_gain: bool = False  #: True for a difference between two rows of a table, which may be negative

    @property
    def title(self) -> str:
        """The name as text, with the better direction if that is not obvious."""
        obvious = self.higher and self.unit != "a score"
        return self.words + ("" if obvious else f" ({'higher' if self.higher else 'lower'} is better)")

    @property
    def is_share(self) -> bool:
        """True if the metric is a share in [0, 1], which tables print in per cent."""
        return self.unit == "per cent"

    @property
    def widest(self) -> float:
        """The largest difference that two values of it can have in a table; infinity if it is not limited."""
        return self.most - self.least if self.is_share else math.inf

    @property
    def digits(self) -> int:
        """Decimals in a table: 1 for per cent and ranks, 3 for all others."""
        return 1 if self.unit in ("per cent", "a rank") else 3


class FeedLike(Protocol):
    """The parts of `pipelines.config.Feed` that tasks check."""

    @property
    def seen_by(self) -> str:
        """The roles that see the feed."""

    @property
    def test(self) -> str:
        """The draw of windows in tests."""

    @property
    def views(self) -> tuple[str, ...]:
        """The stores of the feed's views."""

    @property
    def captions(self) -> str:
        """The manifest of captions, or ""."""


class RunLike(Protocol):
    """The parts of `pipelines.config.RunConfig` that tasks check."""

    @property
    def manifest(self) -> str:
        """The folder of stores."""

    @property
    def net(self) -> Any:
        """The net's Params."""

    @property
    def feeds(self) -> Mapping[str, FeedLike]:
        """Modality -> feed."""

    @property
    def source(self) -> tuple[str, ...]:
        """The labelled domains."""

    @property
    def target(self) -> str | None:
        """The unlabelled domain."""

    @property
    def test(self) -> str:
        """The evaluated domain."""

    @property
    def captions(self) -> tuple[str, ...]:
        """The modalities that are captions."""


class Task:
    """A task. The defaults are those of most tasks; a file of this folder overrides what differs."""

    name: ClassVar[str]
    metrics: ClassVar[dict[str, Metric]]  #: name -> metric; in a result `/LABEL` or `/MODALITY` may follow the name
    headlines: ClassVar[tuple[str, ...]]  #: choices for the headline; the first one in the results is taken
    stand_in: ClassVar[str] = ""  #: suffix of the substitute metric, for table rows that lack the metric itself
    stand_in_words: ClassVar[str] = ""  #: the note under a table with substitutes; names of the rows follow it
    validators: ClassVar[tuple[str, ...]] = ()  #: the validators that can score its runs
    has_class_scores: ClassVar[bool] = False  #: True if outputs are scores of classes, which validators read
    keeps_best: ClassVar[bool] = False  #: True if a validator keeps only the best point, because points are large
    no_norms: ClassVar[str] = ""  #: the reason why feature norms are not compared; "" if they are
    no_drop: ClassVar[str] = ""  #: the reason why no modality can be absent in a test; "" if one can
    no_predictions: ClassVar[str] = ""  #: the reason why clips have no predicted class; "" if they have one
    reads_captions: ClassVar[bool] = False  #: True if clips are learned from, and tested, by their captions
    unit_length: ClassVar[bool] = False  #: True if features have length 1 by construction, so that they cannot collapse
    notes: ClassVar[tuple[str, ...]] = ()  #: sentences under every table

    def check(self, config: RunLike) -> None:
        """Raise ConfigError for settings that a run of this task cannot have, before a store is opened."""
        if captions := config.captions:
            raise ConfigError(
                f"feeds.{captions[0]}.captions={config.feeds[captions[0]].captions!r}, but a {self.name} net reads no "
                "captions; leave captions empty, or take a retrieval net"
            )

    def check_manifest(self, config: RunLike, manifest: Manifest) -> None:
        """Raise ConfigError for a manifest whose labels cannot be used for this task."""

    def untaught(self, manifest: Manifest, rows: Sequence[int], captioned: Collection[int]) -> str:
        """Return the reason why heads can learn nothing from these train rows of a source; "" if they can from some.

        captioned: the rows of all clips that have a caption.
        """
        kinds = manifest.classes.keys()
        if not kinds:
            return "the manifest has no labels"
        if labelled(manifest, rows, kinds):
            return ""
        clip = manifest.clips[rows[0]].clip_id
        return f"{len(rows)} of its {len(rows)} train clips have no {' or '.join(kinds)} (clip {clip!r})"

    def untested(self, manifest: Manifest, domain: str, captioned: Collection[int]) -> str:
        """Return the reason why a domain with train and test clips is no target of a run; "" if it can be one."""
        return ""

    def taught(self, manifest: Manifest, source: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return label -> names of the classes that a method learns from the source; {} if it learns no classes."""
        return {}

    def tested(self, manifest: Manifest, test: str) -> dict[str, tuple[str, ...]]:
        """Return label -> names of the classes of the test rows; {} if outputs are not compared with classes."""
        return {}

    def limits(self, manifest: Manifest, train: Sequence[int], test: Sequence[int]) -> tuple[str, ...]:
        """Return "KIND: explanation" for classes of train and test rows that limit the meaning of the metrics."""
        return ()

    def clusters(self, manifest: Manifest, test: str) -> int:
        """Return the number of target clusters, which a clustering method is given; 0 in other tasks."""
        return 0

    def measure(self, outputs: Outputs, truth: Truth, net: Net | None, clusters: int) -> Values:
        """Return metric -> value for the outputs of a point, with the outcomes of the test rows.

        truth: label -> (n,) class numbers, {} in retrieval. net: the trained net; retrieval uses its similarity.
        clusters: the K of clustering.
        """
        raise NotImplementedError

    def by_class(self, outputs: Outputs, truth: Truth) -> dict[str, NDArray[np.int64]]:
        """Return metric -> (K, 3): of each class its rows predicted right, its rows, and the rows given it; or {}."""
        return {}

    def headline(self, metrics: Collection[str]) -> str:
        """Return the headline of a table with these metrics."""
        return next((name for name in self.headlines if name in metrics), self.headlines[0])

    def choice(self, values: Mapping[str, float]) -> float:
        """Return the value that compares points: for the oracle, and on held-out source rows."""
        name = self.headline(values)
        return values.get(name, values.get(name + self.stand_in, 0.0))

    def predicted(self, outputs: Outputs, label: str, truth: Labels, K: int, branch: str) -> Labels:
        """Return the predicted class (n,) of each row, for a confusion matrix."""
        raise NotImplementedError

    def predictions(self, outputs: Outputs, label: str, truth: Labels, K: int) -> Iterator[dict[str, Any]]:
        """Yield tables of predictions: `predicted` -> class numbers (n,), other columns of a file -> values (n,)."""
        raise NotImplementedError

    def applied(
        self, outputs: Outputs, names: Mapping[str, Sequence[str]], k: int, clusters: int, kept: Callable[[], Outputs]
    ) -> Iterator[dict[str, Any]]:
        """Yield tables of the predictions of a run, which need no labels: column of a file -> values (n,).

        names: label -> names of the classes that the run has learned. k: number of classes or clusters of a clip.
        clusters: the K of clustering. kept: returns the run's outputs on its own test clips, for clusters by k-means.
        """
        raise NotImplementedError

    def branches(self, outputs: Outputs) -> tuple[str, ...]:
        """Return the names of the branches that `predicted` can read; ("",) if there is a single, unnamed one."""
        return ("",)

    def ranks(self, outputs: Outputs, net: Net | None) -> dict[str, NDArray[np.float64]]:
        """Return direction -> rank of the right answer to each query, from 0; {} if the task has no queries."""
        return {}

    def firsts(self, outputs: Outputs, net: Net | None) -> dict[str, NDArray[np.int64]]:
        """Return direction -> the answer that comes first for each query, as a row of the outputs; as for `ranks`."""
        return {}


def classes_of(manifest: Manifest, label: str, domains: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes that rows of these domains have, in any split, sorted."""
    present = {clip.labels.get(label) for clip in manifest if clip.domain in domains}
    return tuple(name for name in manifest.classes[label] if name in present)


def labelled(manifest: Manifest, rows: Sequence[int], kinds: Collection[str]) -> list[int]:
    """Return the rows that have a label of each of these kinds: all that can be learned from, or compared with."""
    return [row for row in rows if all(kind in manifest.clips[row].labels for kind in kinds)]


def class_numbers(
    manifest: Manifest, rows: list[int], label: str, classes: Sequence[str], kind: str = "clips"
) -> Labels:
    """Return the class numbers of rows, which are positions in `classes` -> (n,) int64.

    kind: the noun for these clips in the message. ConfigError for rows without that label.
    """
    if unlabelled := [manifest.clips[row] for row in rows if label not in manifest.clips[row].labels]:
        clip = unlabelled[0]
        raise ConfigError(
            f"clip {clip.clip_id!r} of domain {clip.domain!r} has no {label!r} ({len(unlabelled)} of {len(rows)} "
            f"{kind} have none); label them in the manifest and run `featcache extract` or `import` again, which keeps "
            "the features, or take another domain"
        )
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number[manifest.clips[row].labels[label]] for row in rows], np.int64)


@cache
def load(name: str) -> Task:
    """Return the task of that name; ConfigError with all names if there is none."""
    task: Task = registry.load(__name__, name, "task").TASK
    return task


@cache
def metrics() -> dict[str, Metric]:
    """Return all metrics by name: the metrics of each task, and the scores of the validators."""
    scores = {}
    for name, validator in VALIDATORS.items():
        scores[f"validator/{name}"] = Metric(validator.words, unit="a score", higher=validator.higher)
    every = [*(load(task).metrics for task in registry.names(__name__)), scores]
    merged = {name: metric for metrics_of_one in every for name, metric in metrics_of_one.items()}
    if len(merged) < sum(map(len, every)):
        raise ValueError("two tasks have a metric of the same name; rename one of them")
    return merged


def metric(name: str) -> Metric:
    """Return the metric of a result: `top1/verb` is `top1` of a label. ConfigError with all names if there is none."""
    base = base_metric(name)
    found, label = metrics()[base], name[len(base) + 1 :]
    return replace(found, words=f"{found.words} ({label})") if label else found


def base_metric(name: str) -> str:
    """Return the metric of a result without its label, `top1` of `top1/verb`; ConfigError if there is none."""
    choices, base = metrics(), name
    while base and base not in choices:
        base = base.rpartition("/")[0]
    if not base:
        raise unknown("metric", name, choices)
    return base
