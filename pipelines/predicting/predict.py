"""Apply trained heads to clips: their classes, embeddings or clusters, without a label of any clip.

    predictions = predict("runs/4f1c2a9b", "new_videos")
    predictions.frame()                                    a pandas table
    predictions.write(Path("predictions.parquet"))

The weights are those that a run keeps: of its last kept point, or of its best one where only that is kept. Features are
taken from stores, or extracted by the recipe that the run records. Clips are read, computed and passed on a few hundred
at a time. The clips that a run was tested on come first and in the order of its test, so that their outputs are those
that the run kept, to the bit: BLAS sums in another order where fewer than about ten rows are computed at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import FeatureStore
from featcache.errors import ConfigError, FeatcacheError, MediaAbsentError
from featcache.machine import cores
from featcache.manifest import Clip
from featcache.progress import Progress, silent
from featcache.wording import first, unknown
from heads.methods import Method
from heads.units import Prepare
from pipelines.config import Feed, RunConfig, parse_draw
from pipelines.data.checks import check_device
from pipelines.data.opening import preparation
from pipelines.data.rows import Rows, sweep_rows
from pipelines.evaluation.ensembles import mean_scores
from pipelines.evaluation.predictions import Columns, check_file, write_tables
from pipelines.predicting import features
from pipelines.predicting.clips import Source, sources
from pipelines.predicting.features import Features, Found, Making, Wanted
from pipelines.training.outputs import ONCE, Outputs, predicted
from pipelines.training.runs import Recorded, Run, is_run

if TYPE_CHECKING:
    import pandas as pd

TOP_K = 5
Report = Callable[[str], None]  #: receives a line for the user
Place = str | Path


def unheard(line: str) -> None:
    """Report nothing."""


def predict(
    run: "Place | Run | Sequence[Place | Run]",
    clips: Place | Sequence[Place],
    *,
    out: Place | None = None,
    overwrite: bool = False,
    top_k: int = TOP_K,
    runs: Place = "runs",
    stores: Place | None = None,
    domain: Sequence[str] = (),
    split: str = "",
    as_domain: str = "",
    weights: Sequence[str] = (),
    device: str = "cpu",
    workers: int = cores(),
    progress: Progress = silent,
    report: Report = unheard,
) -> "Predictions":
    """Return the predictions of clips by a finished run, or by an ensemble of several; also write them to `out`.

    run: the folder of a run, its id in the folder `runs`, or an opened run. clips: manifests, folders of media, media
    files, or stores. out: a .csv, .jsonl or .parquet file; overwrite: replace an existing one. Without it, nothing is
    computed before the predictions are read. top_k: classes or clusters of a clip. stores: folder of all stores that
    keeps the features that had to be extracted. domain, split: predict only these clips of manifests and stores.
    as_domain: take all clips for clips of this domain of the run; media without a manifest are taken for clips of its
    test domain. weights: "EXTRACTOR=FILE" for weights that are not in the folder of weights. workers: decoding threads.
    report: receives a line for each clip without a prediction, and remarks.
    FeatcacheError for wrong input, such as features of another recipe than the run's.
    """
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}; at least 1 class of a clip is needed")
    check_device(device)
    chosen = [run] if isinstance(run, str | Path | Run) else [*run]
    if not chosen:
        raise ConfigError("no run is named; name the folder of a finished run")
    found = [each if isinstance(each, Run) else find_run(Path(each), Path(runs)) for each in chosen]
    paths = [Path(clips)] if isinstance(clips, str | Path) else [Path(each) for each in clips]
    if out is not None:
        check_file("--out", Path(out), overwrite)
    given = sources(paths, as_domain or found[0].config.test, domains=domain, split=split)
    heads = [open_head(each, _places(each, given, stores), device) for each in found]
    check_ensemble(heads)
    check_domains(heads, given, as_domain)
    wanted = {k: one for head in reversed(heads) for k, one in head.wanted.items()}
    making = Making(wanted, _files(weights, wanted), device, workers, report)
    for head in heads:
        if note := _other_point(head.run):
            report(note)
    kept = Path(stores) if stores is not None else None
    made = Predictions(heads, given, making, top_k, kept, as_domain, device, progress, report)
    if out is not None:
        made.write(Path(out), overwrite)
    return made


def find_run(word: Path, runs: Path) -> Run:
    """Open the run of a folder, or of an id in the folder of all runs; ConfigError if there is none."""
    folder = next((folder for folder in (word, runs / word) if is_run(folder)), None)
    if folder:
        return Run.open(folder)
    if word.is_dir() and (inside := sorted(path.name for path in word.iterdir() if is_run(path))):
        raise ConfigError(f"{word} is a folder of runs; name one of them: {first(inside)}")
    raise ConfigError(
        f"{word} is no finished run, and {runs} has none of that id; name the folder that `featcache train-head` has "
        "made"
    )


def check_ensemble(heads: "Sequence[Head]") -> None:
    """Raise ConfigError unless the class probabilities of these heads can be averaged."""
    one, *others = heads
    for other in others:
        tasks = [head.config.task for head in (one, other)]
        if not all(task.has_class_scores for task in tasks):
            names = " and ".join(dict.fromkeys(task.name for task in tasks))
            raise ConfigError(
                f"several runs are averaged by their class probabilities, which {names} has not; name one run"
            )
        if one.classes != other.classes:
            raise ConfigError(
                f"runs {one.config.id} and {other.config.id} have learned different classes ({_spelled(one.classes)}; "
                f"{_spelled(other.classes)}), so their probabilities cannot be averaged; name runs of the same classes"
            )


def _spelled(classes: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{len(names)} of {label}: {first(names, 3)}" for label, names in classes.items())


def check_domains(heads: "Sequence[Head]", given: Sequence[Source], as_domain: str) -> None:
    """Raise ConfigError for a domain whose features need units that a run has not measured."""
    for head in heads:
        known = dict.fromkeys((*head.domains, head.config.test))
        if as_domain and as_domain not in known:
            raise unknown("domain", as_domain, known, f"run {head.config.id}")
        for source in given if head.config.preparation.units == "domain" and not as_domain else ():
            clips = [source.manifest.clips[row] for row in source.rows if not source.media]
            if unmeasured := sorted({clip.domain for clip in clips if not clip.of} - known.keys()):
                raise ConfigError(
                    f"run {head.config.id} has preparation.units='domain', but the units of {first(unmeasured)} were "
                    f"not measured; name the domain whose units the clips get, with --as-domain: {', '.join(known)}"
                )


def _places(run: Run, given: Sequence[Source], stores: Place | None) -> list[Path]:
    """Return the folders of all stores in which those of an old run may be."""
    named = [Path(stores)] if stores is not None else []
    of_clips = [store.path.absolute().parent.parent for source in given for store in source.stores]
    return list(dict.fromkeys([*named, *of_clips, run.folder.absolute().parent.parent / "stores", Path("stores")]))


def _files(weights: Sequence[str], wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Return extractor -> file, of options EXTRACTOR=FILE."""
    names = list(dict.fromkeys(one.recipe["extractor"] for one in wanted.values()))
    files = {}
    for choice in weights:
        name, equals, file = choice.partition("=")
        if not equals or not file:
            raise ConfigError(f"--weights {choice}: write EXTRACTOR=FILE, with one of {', '.join(names)}")
        if name not in names:
            raise unknown("extractor", name, names, "the run")
        files[name] = file
    return files


def _other_point(run: Run) -> str:
    """Return a note if the result of the run is not that of the weights that it keeps; or ""."""
    if run.config.select == "last" or len(run.points) == 1:
        return ""
    return (
        f"run {run.config.id} selects its result by {run.config.select!r} from {len(run.points)} points, but it keeps "
        f"the weights of the last one only (step {run.points[-1]['step']:g}), which make these predictions"
    )


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

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that it was trained on: the sources, then the target."""
        return self.config.source + ((self.config.target,) if self.config.target else ())

    @property
    def feeds(self) -> dict[str, Feed]:
        """Modality -> feed, of everything that it reads of clips in a test."""
        return {
            m: feed for m, feed in self.config.feeds.items() if "test" in feed.seen_by.split() and not feed.captions
        }

    @property
    def caption_feeds(self) -> dict[str, Feed]:
        """Modality -> feed, of everything that it reads of captions; {} except in retrieval."""
        return {m: feed for m, feed in self.config.feeds.items() if feed.captions}

    @property
    def wanted(self) -> dict[str, Wanted]:
        """Key of a recipe -> the features that it reads of clips and captions."""
        return {
            self.key(m): Wanted(self.config.id, feed.store, self.recorded[m].recipe, bool(feed.captions))
            for m, feed in (self.feeds | self.caption_feeds).items()
        }

    def key(self, modality: str) -> str:
        """Return the key of the recipe of a modality."""
        return features.key(self.recorded[modality].recipe)


def open_head(run: Run, places: Sequence[Path], device: str) -> Head:
    """Return the head of a run with its weights. places: folders of stores, in which those of old runs are searched."""
    recorded, classes = features.recorded(run, places)
    prepare = preparation(run.config, run.facts.spec.shapes, device)
    run.load_units(prepare)
    return Head(run, run.method(device), prepare, recorded, classes)


# ---------------------------------------------------------------------------------------------------------- the result


@dataclass(frozen=True)
class Part:
    """Clips that were computed together, and the outputs of the head, or the mean scores of an ensemble."""

    clips: tuple[Clip, ...]
    outputs: Outputs


@dataclass
class Predictions:
    """What heads say of clips. Each iteration reads the clips and computes them; `failures` are those of the last one.

    heads: one run, or the runs of an ensemble.
    """

    heads: list[Head]
    sources: list[Source]
    making: Making
    top_k: int = TOP_K
    stores: Path | None = None  #: folder that keeps the features
    as_domain: str = ""
    device: str = "cpu"
    progress: Progress = silent
    report: Report = unheard
    failures: dict[str, str] = field(default_factory=dict)  #: clip id -> the reason for having no prediction
    partial: dict[str, str] = field(default_factory=dict)  #: clip id -> the modalities that it lacks, and why

    @property
    def total(self) -> int:
        """The number of clips to predict."""
        return sum(len(source.rows) for source in self.sources)

    def __iter__(self) -> Iterator[Part]:
        """Yield clips with their outputs, a few hundred at a time."""
        self.failures.clear()
        self.partial.clear()
        done = 0
        self.progress(0, self.total)
        for source, stores in self._opened():
            progress = partial(_offset, self.progress, done, self.total)
            yield from self._of_source(source, stores, progress)
            done += len(source.rows)

    def tables(self) -> Iterator[Columns]:
        """Yield column -> values, as `write` writes them. ConfigError if no clip has a prediction."""
        head, none = self.heads[0], True
        spec, task = head.run.facts.spec, head.config.task
        for part in self:
            for table in task.applied(part.outputs, head.classes, self.top_k, spec.clusters, self._kept):
                none = False
                yield _about(part.clips, task.name) | table
        if none:
            raise ConfigError(f"none of {self.total} clips has a prediction; {_first_reasons(self.failures)}")

    def frame(self) -> "pd.DataFrame":
        """A table with a line per clip, and per label, branch or kind of embedding."""
        import pandas as pd

        frame = pd.concat([pd.DataFrame(table) for table in self.tables()], ignore_index=True)
        frame.attrs |= self.attrs
        return frame

    def write(self, path: Path, overwrite: bool = False) -> Path:
        """Write the table to a .csv, .jsonl or .parquet file, whole or not at all, and return its path."""
        check_file("--out", path, overwrite)
        write_tables(path, self.tables(), self.attrs)
        return path

    @property
    def attrs(self) -> dict[str, Any]:
        """Facts about all predictions: the runs, and label -> names of its classes."""
        return {"runs": [head.config.id for head in self.heads], "classes": {k: [*v] for k, v in self.classes.items()}}

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Label -> names of the classes, in the order of the scores."""
        return self.heads[0].classes

    def _kept(self) -> Outputs:
        """Return the run's own outputs, at the point whose weights it keeps."""
        return {name: array if name in ONCE else array[-1] for name, array in self.heads[0].run.outputs.items()}

    def _opened(self) -> list[tuple[Source, dict[str, FeatureStore]]]:
        """Match sources with their stores, and load the extractors of all features that have none."""
        wanted, opened = self.making.wanted, []
        for source in self.sources:
            stores = features.matched(source, wanted)
            for k, one in wanted.items():
                if _lacks(stores.get(k), one, source):
                    self.making.extractor(k)
            opened.append((source, stores))
        return opened

    def _of_source(self, source: Source, stores: dict[str, FeatureStore], progress: Progress) -> Iterator[Part]:
        """Yield the clips of a source: first those that the first run was tested on."""
        clips = source.manifest.clips
        if self.stores:
            lacking = [k for k, one in self.making.wanted.items() if _lacks(stores.get(k), one, source)]
            stores = stores | features.keep(source, lacking, self.making, self.stores, progress)
        tested = _tested_rows(self.heads[0].run, source)
        source = _first(source, tested)
        step, waiting = self._step(source), list[tuple[Clip, Found]]()
        for number, (row, found) in enumerate(features.read(source, stores, self.making, progress)):
            if waiting and (
                len(waiting) == step or number == len(tested) or self._windows(waiting[-1][1]) != self._windows(found)
            ):
                yield from self._compute(waiting, source.media)
                waiting = []
            if self._usable(clips[row], found):
                waiting.append((clips[row], found))
        if waiting:
            yield from self._compute(waiting, source.media)

    def _step(self, source: Source) -> int:
        """Return the number of clips that are computed at once, which is that of a run's sweep over its test rows."""
        head = self.heads[0]
        feeds = head.caption_feeds if source.manifest.clips[source.rows[0]].of else head.feeds
        shapes = head.run.facts.spec.shapes
        return sweep_rows(
            sum((parse_draw(feed.test)[1] or head.recorded[m].windows) * prod(shapes[m]) for m, feed in feeds.items())
        )

    def _windows(self, found: Found) -> list[int]:
        """Return the windows beyond those of the run's own features, which clips that are computed together share."""
        return [
            max(len(x) - head.recorded[m].windows, 0) if isinstance(x := found.get(head.key(m)), np.ndarray) else 0
            for head in self.heads
            for m in head.config.feeds
        ]

    def _usable(self, clip: Clip, found: Found) -> bool:
        """Return whether all runs can use the clip; report and keep the reason if not."""
        reasons, lacks = list[str](), list[str]()
        for head in self.heads:
            feeds = [each for each in (head.feeds, head.caption_feeds) if any(head.key(m) in found for m in each)]
            for part in feeds:
                reasons += unusable(head, part, found)
                lacks += [
                    f"{m}: {x}"
                    for m in part
                    if isinstance(x := found.get(head.key(m)), FeatcacheError) and not isinstance(x, MediaAbsentError)
                ]
            if not feeds:
                reasons.append("it has neither a caption nor features")
        if reasons:
            self.failures[clip.clip_id] = "; ".join(dict.fromkeys(reasons))
            self.report(f"{clip.clip_id}: {self.failures[clip.clip_id]}")
        elif lacks:
            self.partial[clip.clip_id] = "; ".join(dict.fromkeys(lacks))
            self.report(f"{clip.clip_id}: predicted without {self.partial[clip.clip_id]}")
        return not reasons

    def _compute(self, rows: Sequence[tuple[Clip, Found]], media: bool) -> Iterator[Part]:
        """Yield the outputs on these clips, and in retrieval on their captions."""
        for captions in (False, True):
            parts = [head.caption_feeds if captions else head.feeds for head in self.heads]
            some = [
                (clip, found)
                for clip, found in rows
                if any(
                    isinstance(found.get(head.key(m)), np.ndarray)
                    for head, feeds in zip(self.heads, parts, strict=True)
                    for m in feeds
                )
            ]
            if some:
                outputs = [
                    compute(head, feeds, some, self._domain(head, media), self.device)
                    for head, feeds in zip(self.heads, parts, strict=True)
                ]
                whole = outputs[0] if len(outputs) == 1 else mean_scores(outputs, self.classes)
                yield Part(tuple(clip for clip, _ in some), whole)

    def _domain(self, head: Head, media: bool) -> str:
        """Return the domain of all clips, or "" if each has its own."""
        return self.as_domain or (head.config.test if media else "")


def _offset(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _about(clips: Sequence[Clip], task: str) -> Columns:
    """Return the columns that all tasks have."""
    return {
        "clip_id": [clip.clip_id for clip in clips],
        "start": [clip.start for clip in clips],
        "stop": [clip.stop for clip in clips],
        "unit": [clip.unit for clip in clips],
        "task": [task] * len(clips),
    }


def _first_reasons(failures: Mapping[str, str]) -> str:
    return first((f"{clip}: {reason}" for clip, reason in failures.items()), 3, "; ")


def _lacks(store: FeatureStore | None, one: Wanted, source: Source) -> bool:
    """Return whether a clip to predict has features that the store lacks, because it was not tried."""
    rows = [row for row in source.rows if one.of(source.manifest.clips[row])]
    return bool(rows) if store is None else any(row >= len(store) or not store.state[row] for row in rows)


def _tested_rows(run: Run, source: Source) -> list[int]:
    """Return the rows of the source that the run was tested on, in the order of its test."""
    chosen = set(source.rows)
    for kind, name in (("manifest", "rows"), ("captions", "captions")):
        if source.manifest.sha256 == run.facts.read.get(kind):
            return [row for row in run.outputs[name].tolist() if row in chosen]
    return []


def _first(source: Source, rows: Sequence[int]) -> Source:
    """Return the source with these rows before all others."""
    ahead = set(rows)
    others = [row for row in source.rows if row not in ahead]
    return replace(source, rows=[*rows, *others])


# ---------------------------------------------------------------------------------------------------------- one head


def unusable(head: Head, feeds: Mapping[str, Feed], found: Found) -> list[str]:
    """Return the reasons why a run cannot use a clip with these features; [] if it can."""
    masks, reasons = head.config.absent == "mask", dict[str, str]()
    for m, feed in feeds.items():
        x, T = found.get(head.key(m)), head.recorded[m].windows
        if not isinstance(x, np.ndarray):
            reasons[m] = f"{m}: {x or 'it has none'}"
        elif not masks and not feed.captions and parse_draw(feed.test)[0] in ("all", "each") and len(x) != T:
            reasons[m] = f"{m}: it has {len(x)} windows, and run {head.config.id} reads {T} of every clip"
    return [] if masks and len(reasons) < len(feeds) else list(reasons.values())


def compute(
    head: Head, feeds: dict[str, Feed], rows: Sequence[tuple[Clip, Found]], domain: str, device: str
) -> Outputs:
    """Return the outputs of a head on these clips, computed at once. domain: of all clips; "": each has its own."""
    x, present = dict[str, Tensor](), dict[str, Tensor]()
    for m in feeds:
        shape = head.run.facts.spec.shapes[m]
        held = [value if isinstance(value := found.get(head.key(m)), np.ndarray) else None for _, found in rows]
        x[m], present[m] = (torch.from_numpy(part).to(device) for part in _padded(held, head.recorded[m], shape))
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
