"""A trained head and the features of clips -> its outputs on these clips, computed as in the test of its run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.errors import ConfigError
from featcache.manifest import Clip
from featcache.wording import first
from heads.methods import Method
from heads.units import Prepare
from pipelines.config import Feed, RunConfig, parse_draw
from pipelines.data.opening import preparation
from pipelines.data.rows import Rows, sweep_rows
from pipelines.predicting import features
from pipelines.predicting.features import ALL, CAPTIONS, CLIPS, Features, Found, Wanted
from pipelines.training.outputs import ONCE, Outputs, predicted
from pipelines.training.runs import Recorded, Run

Feeds = dict[str, Feed]  #: modality -> feed


@dataclass(frozen=True)
class Head:
    """A trained head, ready to be applied to the features of clips."""

    run: Run
    method: Method
    prepare: Prepare | None
    recorded: dict[str, Recorded]  #: modality -> recipe and windows of its features
    classes: dict[str, tuple[str, ...]]  #: label -> names of the classes that it has learned

    @property
    def config(self) -> RunConfig:
        """The configuration of its run."""
        return self.run.config

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains that it was trained on: the sources, then the target."""
        return self.config.source + ((self.config.target,) if self.config.target else ())

    @cached_property
    def feeds(self) -> tuple[Feeds, Feeds]:
        """The feeds of clips, and of captions, that it reads in a test; a head that does no retrieval has no others."""
        tested = self.config.tested
        clips, captions = ({m: f for m, f in tested.items() if bool(f.captions) == of} for of in (False, True))
        return clips, captions

    @cached_property
    def keys(self) -> dict[str, str]:
        """Modality -> key of the recipe of its features."""
        return {m: features.key(recorded.recipe) for m, recorded in self.recorded.items()}

    @property
    def wanted(self) -> dict[str, Wanted]:
        """Key of a recipe -> the features that it reads of clips and captions."""
        rows = (CLIPS, CAPTIONS) if self.feeds[1] else (ALL, ALL)
        return {
            self.keys[m]: Wanted(self.config.id, feed.store, self.recorded[m].recipe, which)
            for feeds, which in zip(self.feeds, rows, strict=True)
            for m, feed in feeds.items()
        }

    def is_caption(self, clip: Clip) -> bool:
        """Return whether the head reads this row of a manifest as a caption."""
        return bool(clip.of and self.feeds[1])

    def kept(self) -> Outputs:
        """Return the outputs that the run has kept of its own test clips, at the point of its weights."""
        return {name: array if name in ONCE else array[-1] for name, array in self.run.outputs.items()}

    def step(self, feeds: Feeds) -> int:
        """Return the number of rows that the run's sweep over its test rows computes at once."""
        shapes = self.run.facts.spec.shapes
        windows = {m: parse_draw(feed.test)[1] or self.recorded[m].windows for m, feed in feeds.items()}
        return sweep_rows(sum(T * prod(shapes[m]) for m, T in windows.items()))

    def beyond(self, found: Found) -> list[int]:
        """Return the windows of each modality beyond those of the run; rows that are computed at once share them."""
        held = {m: found.get(self.keys[m]) for m in self.recorded}
        return [max(len(x) - self.recorded[m].windows, 0) if isinstance(x, np.ndarray) else 0 for m, x in held.items()]


def open_head(run: Run, places: Sequence[Path], device: str) -> Head:
    """Return the head of a run with its weights. places: folders of stores, in which those of old runs are searched."""
    recorded, classes = features.recorded(run, places)
    prepare = preparation(run.config, run.facts.spec.shapes, device)
    run.load_units(prepare)
    return Head(run, run.method(device), prepare, recorded, classes)


def check_ensemble(heads: Sequence[Head]) -> None:
    """Raise ConfigError unless the class probabilities of these heads can be averaged."""
    folders = [head.run.folder.resolve() for head in heads]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise ConfigError(f"run {twice[0]} is named twice; name it once")
    one, *others = heads
    for other in others:
        if without := [head.config.task.name for head in (one, other) if not head.config.task.has_class_scores]:
            raise ConfigError(
                f"several runs are averaged by their class probabilities, and {without[0]} runs have none; name one run"
            )
        if one.classes != other.classes:
            raise ConfigError(
                f"runs {one.config.id} and {other.config.id} have learned different classes ({_spelled(one.classes)}; "
                f"{_spelled(other.classes)}), so their probabilities cannot be averaged; name runs of the same classes"
            )


def _spelled(classes: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{len(names)} of {label}: {first(names, 3)}" for label, names in classes.items())


def unusable(head: Head, feeds: Feeds, found: Found) -> dict[str, str]:
    """Return modality -> the reason why a run cannot use a clip with these features; {} if it can use it."""
    masks, reasons = head.config.absent == "mask", dict[str, str]()
    for m, feed in feeds.items():
        x, T = found.get(head.keys[m]), head.recorded[m].windows
        if not isinstance(x, np.ndarray):
            reasons[m] = str(x or "it has none")
        elif not masks and not feed.captions and parse_draw(feed.test)[0] in ("all", "each") and len(x) != T:
            reasons[m] = f"it has {len(x)} windows, and run {head.config.id} reads {T} of every clip"
    return {} if masks and len(reasons) < len(feeds) else reasons


def compute(head: Head, feeds: Feeds, rows: Sequence[tuple[Clip, Found]], domain: str, device: str) -> Outputs:
    """Return the outputs of a head on these clips, computed at once. domain: of all clips; "": each has its own."""
    x, present = dict[str, Tensor](), dict[str, Tensor]()
    for m in feeds:
        held = [value if isinstance(value := found.get(head.keys[m]), np.ndarray) else None for _, found in rows]
        padded = _padded(held, head.recorded[m], head.run.facts.spec.shapes[m])
        x[m], present[m] = (torch.from_numpy(part).to(device) for part in padded)
    number = {name: k for k, name in enumerate(head.domains)}
    domains = torch.tensor([number.get(domain or clip.domain, -1) for clip, _ in rows], device=device)
    side = Rows([*range(len(rows))], x, present, {}, domains, feeds, sweep_rows=len(rows)).prepared(head.prepare)
    with one_thread():
        return predicted(head.method, side, head.run.facts.spec.classes)


def _padded(
    rows: Sequence[Features | None], recorded: Recorded, shape: tuple[int, ...]
) -> tuple[Features, NDArray[np.bool_]]:
    """Return features (n, T, *shape) in their stored type, with zeros for absent windows, and the mask (n, T)."""
    T = max([recorded.windows, *(len(row) for row in rows if row is not None)])
    x = np.zeros((len(rows), T, *shape), recorded.recipe["dtype"])
    present = np.zeros((len(rows), T), bool)
    for k, row in enumerate(rows):
        if row is not None:
            if row.shape[1:] != shape:
                raise ConfigError(f"features of shape {row.shape[1:]} were found where the run has read {shape}")
            x[k, : len(row)], present[k, : len(row)] = row, True
    return x, present


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, as `train-head` does: sums of several threads differ in their last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
