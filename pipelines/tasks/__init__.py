"""Tasks: the kinds of question that a net answers. A configuration and outputs go in, checks and metrics come out.

The folder is the registry: `tasks/retrieval.py` is the task `retrieval`. A file holds all that differs between tasks:
what a run needs, what its method may know, what is measured, how each metric is called, and which one is the headline.
Its notes under tables are there too; the parts of its report are in `pipelines/report/<task>.py`. To add a metric, add
a function of `pipelines/measures` to the task's `metrics`.

Shapes: n rows, K classes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
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
from pipelines.measures.validators import VALIDATORS

Outputs = Mapping[str, NDArray[Any]]  #: name -> (n, ...): what a run kept of its test rows
Truth = Mapping[str, Labels]  #: label -> (n,) class numbers


@dataclass(frozen=True)
class Metric:
    """A metric: its name in words, how it is computed, and the range and unit in which it is printed."""

    words: str  #: "top-1 accuracy"
    compute: Callable[..., float] | None = None  #: a function of `measures`; None: several metrics come from one pass
    unit: str = "per cent"  #: a share in [0, 1] is printed in per cent, all other units as they are
    most: float = 100  #: the largest value that can be published

    @property
    def is_share(self) -> bool:
        """True if the metric is a share in [0, 1], which tables print in per cent."""
        return self.unit == "per cent"

    @property
    def digits(self) -> int:
        """Decimals in a table: 1 for per cent and ranks, 3 for all others."""
        return 1 if self.unit in ("per cent", "a rank") else 3


class Feed(Protocol):
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


class Run(Protocol):
    """The parts of `pipelines.config.RunConfig` that tasks check."""

    @property
    def manifest(self) -> str:
        """The folder of stores."""

    @property
    def net(self) -> Any:
        """The net's Params."""

    @property
    def feeds(self) -> Mapping[str, Feed]:
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
    metrics: ClassVar[dict[str, Metric]]  #: name -> metric; a result may have `/LABEL` or `/MODALITY` behind the name
    headlines: ClassVar[tuple[str, ...]]  #: metrics that may head a table; the first one that the results have does
    stand_in: ClassVar[str] = ""  #: suffix of the metrics that a row shows where it lacks the one without the suffix
    stand_in_words: ClassVar[str] = ""  #: the note under a table whose rows, named after it, show such metrics
    validators: ClassVar[tuple[str, ...]] = ()  #: validators that can score its runs
    has_class_scores: ClassVar[bool] = False  #: outputs are scores of classes, which validators read
    keeps_best: ClassVar[bool] = False  #: only the best point is kept where a validator chooses: points are large
    no_norms: ClassVar[str] = ""  #: why feature norms are not compared; "": they are
    unit_length: ClassVar[bool] = False  #: features have length 1 by construction, so they cannot collapse
    notes: ClassVar[tuple[str, ...]] = ()  #: sentences under every table

    def check(self, config: Run) -> None:
        """Raise ConfigError for what a run of this task cannot mean, before a store is opened."""
        if captions := config.captions:
            raise ConfigError(
                f"feeds.{captions[0]}.captions={config.feeds[captions[0]].captions!r}, but a {self.name} net reads no "
                "captions; leave captions empty, or take a retrieval net"
            )

    def check_manifest(self, config: Run, manifest: Manifest) -> None:
        """Raise ConfigError for a manifest whose labels do not serve this task."""

    def taught(self, manifest: Manifest, source: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Label -> names of the classes that a method learns from the source; {} where labels are no classes."""
        return {}

    def tested(self, manifest: Manifest, test: str) -> dict[str, tuple[str, ...]]:
        """Label -> names of the classes of the test rows; {} where outputs are not compared with classes."""
        return {}

    def clusters(self, manifest: Manifest, test: str) -> int:
        """The number of the target's clusters, which a clustering method is given; 0 in other tasks."""
        return 0

    def measure(self, outputs: Outputs, truth: Truth, net: Net | None, clusters: int) -> dict[str, float]:
        """Metric -> value of a point's outputs.

        truth: label -> (n,) class numbers, {} in retrieval. net: the trained net, which retrieval needs for its
        similarity. clusters: the K of clustering.
        """
        raise NotImplementedError

    def headline(self, metrics: Collection[str]) -> str:
        """The metric that heads a table of these metrics."""
        return next((name for name in self.headlines if name in metrics), self.headlines[0])

    def choice(self, values: Mapping[str, float]) -> float:
        """The value by which points are compared: by an oracle, and on held-out source rows."""
        name = self.headline(values)
        return values.get(name, values.get(name + self.stand_in, 0.0))

    def predicted(self, outputs: Outputs, label: str, truth: Labels, K: int, branch: str) -> Labels:
        """The predicted class (n,) of each row, for a confusion matrix."""
        raise NotImplementedError


def classes_of(manifest: Manifest, label: str, domains: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes that the rows of these domains have, of any split, sorted."""
    present = {clip.labels.get(label) for clip in manifest if clip.domain in domains}
    return tuple(name for name in manifest.classes[label] if name in present)


def class_numbers(manifest: Manifest, rows: list[int], label: str, classes: Sequence[str]) -> Labels:
    """Class numbers of rows, their places in `classes` -> (n,) int64; ConfigError for a row without that label."""
    number = {name: k for k, name in enumerate(classes)}
    for row in rows:
        if label not in manifest.clips[row].labels:
            clip = manifest.clips[row]
            raise ConfigError(f"clip {clip.clip_id!r} of domain {clip.domain!r} has no {label!r}, which is needed")
    return np.array([number[manifest.clips[row].labels[label]] for row in rows], np.int64)


@cache
def load(name: str) -> Task:
    """The task of that name; ConfigError with all names where there is none."""
    task: Task = registry.load(__name__, name, "task").TASK
    return task


@cache
def metrics() -> dict[str, Metric]:
    """All metrics by name: those of each task, and the scores of the validators."""
    scores = {
        f"validator/{name}": Metric(f"{rule.words} ({'higher' if rule.higher else 'lower'} is better)", unit="a score")
        for name, rule in VALIDATORS.items()
    }
    return {name: metric for task in registry.names(__name__) for name, metric in load(task).metrics.items()} | scores


def metric(name: str) -> Metric:
    """The metric of a result; `top1/verb` is a `top1`. ConfigError with all names where there is none."""
    known, base = metrics(), name
    while base and base not in known:
        base = base.rpartition("/")[0]
    if not base:
        raise unknown("metric", name, known)
    rest = name[len(base) + 1 :]
    return replace(known[base], words=f"{known[base].words} ({rest})") if rest else known[base]
