"""Apply trained heads to clips: their classes, embeddings or clusters, without a label of any clip.

    predictions = predict("runs/4f1c2a9b", "new_videos")
    predictions.frame()                                    a pandas table
    predictions.write(Path("predictions.parquet"))

The weights are those that a run keeps: of its last kept point, or of its best one where only that is kept. Clips are
read, computed and passed on a few hundred at a time. The clips that a run was tested on come first and in the order of
its test, so that their outputs are those that the run has kept, to the bit: BLAS sums in another order where few rows
are computed at once.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache import FeatureStore
from featcache.arguments import Pairs, PathLike, numeric, pairs, paths, several, worker_count
from featcache.errors import ArgumentsError, ConfigError, FeatcacheError, MediaAbsentError
from featcache.extractors import split_view
from featcache.manifest import Clip
from featcache.progress import Progress, reporting
from featcache.remote.urls import on_disk
from featcache.store.places import local
from featcache.store.provenance import Files
from featcache.wording import amount, first, quoted, unknown, visible
from pipelines.data.checks import check_device
from pipelines.evaluation.ensembles import mean_scores
from pipelines.evaluation.predictions import Columns, check_file, write_tables
from pipelines.predicting import features
from pipelines.predicting.clips import Source, sources
from pipelines.predicting.features import Found, Loaded, Wanted, part
from pipelines.predicting.heads import Feeds, Head, check_ensemble, compute, open_head, unusable
from pipelines.training.outputs import Outputs
from pipelines.training.runs import Run, find_run

if TYPE_CHECKING:
    import pandas as pd

TOP_K = 5
AHEAD = 8  #: times the number of clips that are computed at once: those whose features may be in memory
Note = Callable[[str], None]  #: receives a line for the user


def predict(
    run: "PathLike | Run | Sequence[PathLike | Run]",
    clips: PathLike | Iterable[PathLike],
    *,
    out: PathLike | None = None,
    overwrite: bool = False,
    top_k: int = TOP_K,
    runs: PathLike = "runs",
    stores: PathLike | None = None,
    domain: str | Iterable[str] = (),
    split: str | None = None,
    as_domain: str = "",
    weights: Pairs = (),
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | bool = False,
    note: Note | None = None,
) -> "Predictions":
    """Return the predictions of clips by a finished run, or by an ensemble of several; also write them to `out`.

    run: the folder of a run, its id in the folder `runs`, an opened run, or several of these.
    clips: manifests, folders of media, media files, or stores and folders of the stores of a manifest, perhaps as URLs.
    out: a .csv, .jsonl or .parquet file; overwrite: replace an existing one. Without `out`, nothing is computed before
        the predictions are read.
    top_k: classes, or clusters, of a clip. runs: folder of all runs.
    domain, split: predict only these clips of manifests and stores.
    as_domain: take all clips for clips of this domain of the run. Media without a manifest are otherwise taken for
        clips of its test domain.
    stores: folder of all stores that keeps extracted features; failed clips in it are tried again. None: none is kept.
    weights: "EXTRACTOR=FILE" for weights that are not in the folder of weights. device: cpu, cuda, ...
    workers: decoding threads (default: one per core). progress: True for a bar, or a callback (clips done, all).
    note: receives a line for each clip without a prediction, and remarks, such as `print`.

    Raises FeatcacheError for wrong input, such as features of another recipe than the run's, and if no clip has a
    prediction.
    """
    _check_top_k(top_k)
    if overwrite and out is None:
        raise ArgumentsError("--overwrite belongs to --out FILE; name a file")
    check_device(device)
    kept, note = on_disk(stores, "--stores") if stores is not None else None, note or _unheard
    found = [each if isinstance(each, Run) else find_run(Path(each), Path(runs)) for each in _each(run)]
    if not found:
        raise ConfigError("no run is named; name the folder of a finished run")
    if out is not None:
        check_file("--out", Path(out), overwrite)
    test, domains = as_domain or found[0].config.test, several(domain)
    given = sources(tuple(map(local, paths(clips))), test, domains=domains, split=split or "", stores=kept)
    heads = [open_head(each, _places(each, given, kept), device) for each in found]
    check_ensemble(heads)
    check_domains(heads, given, as_domain)
    wanted = {k: one for head in reversed(heads) for k, one in head.wanted.items()}
    loaded = Loaded(wanted, _files(weights, wanted), device, worker_count(workers), note)
    made = Predictions(heads, given, loaded, top_k, kept, as_domain, device, progress, note)
    for text in filter(None, map(_other_point, found)):
        note(text)
    if out is not None:
        made.write(Path(out), overwrite)
    return made


def _each(run: "PathLike | Run | Sequence[PathLike | Run]") -> "list[PathLike | Run]":
    """Return one run, or several, as a list."""
    return [run] if isinstance(run, str | os.PathLike | Run) else [*run]


def _check_top_k(top_k: int) -> None:
    numeric("top_k", top_k)
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}; it must be at least 1")


def check_domains(heads: Sequence[Head], given: Sequence[Source], as_domain: str) -> None:
    """Raise ConfigError for a domain whose features need units that a run has not measured."""
    for head in heads:
        known = dict.fromkeys((*head.domains, head.config.test))
        if as_domain and as_domain not in known:
            raise unknown("domain", as_domain, known, f"run {head.config.id}")
        for source in given if head.config.preparation.units == "domain" and not as_domain else ():
            clips = [source.manifest.clips[row] for row in source.rows if not source.media]
            if unmeasured := sorted({clip.domain for clip in clips if not head.is_caption(clip)} - known.keys()):
                raise ConfigError(
                    f"run {head.config.id} has preparation.units='domain', but the units of {first(unmeasured)} were "
                    f"not measured; name the domain whose units the clips get, with --as-domain: {', '.join(known)}"
                )


def _places(run: Run, given: Sequence[Source], stores: Path | None) -> list[Path]:
    """Return the folders of all stores in which those of an old run may be."""
    named = [stores] if stores else []
    of_clips = [path.absolute().parent.parent for source in given for path in source.stores]
    return list(dict.fromkeys([*named, *of_clips, run.folder.absolute().parent.parent / "stores", Path("stores")]))


def _files(weights: Pairs, wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Return extractor -> file; ConfigError for an extractor whose features no run reads."""
    names = {split_view(one.recipe["extractor"])[0]: None for one in wanted.values()}
    files = pairs("--weights", weights, "EXTRACTOR=FILE")
    for name in files:
        if name not in names:
            raise unknown("extractor", name, names, "the run")
    return files


def _other_point(run: Run) -> str:
    """Return a note if the result of the run is not that of the weights that it keeps, or ""."""
    if not run.selects_elsewhere:
        return ""
    return (
        f"run {run.config.id} selects its result by {run.config.select!r} from {len(run.points)} points, but it keeps "
        f"the weights of the last one only (step {run.points[-1]['step']:g}), which make these predictions"
    )


# ---------------------------------------------------------------------------------------------------------- the result


def _unheard(line: str) -> None:
    """Note nothing."""


@dataclass(frozen=True)
class Part:
    """Clips that were computed together, and the outputs of the head, or the mean scores of an ensemble."""

    clips: tuple[Clip, ...]
    outputs: Outputs


@dataclass(repr=False)
class Predictions:
    """The predictions of clips by heads. Each iteration reads the clips and computes them again."""

    heads: list[Head]  #: one run, or those of an ensemble
    sources: list[Source]
    loaded: Loaded
    top_k: int = TOP_K
    stores: Path | None = None  #: folder that keeps the features that are extracted
    as_domain: str = ""
    device: str = "cpu"
    progress: Progress | bool = False
    note: Note = _unheard
    failures: dict[str, str] = field(default_factory=dict)  #: clip id -> the reason for having no prediction
    incomplete: dict[str, str] = field(default_factory=dict)  #: clip id -> modalities that could not be read, and why

    def __repr__(self) -> str:
        return f"<predictions of {self.total} clips by {' and '.join(self.attrs['runs'])}>"

    @property
    def total(self) -> int:
        """The number of clips to predict."""
        return sum(len(source.rows) + len(source.refused) for source in self.sources)

    @property
    def attrs(self) -> dict[str, Any]:
        """The ids of the runs, and label -> names of its classes in the order of scores."""
        classes = {label: [*names] for label, names in self.heads[0].classes.items()}
        return {"runs": [head.config.id for head in self.heads], "classes": classes}

    def frame(self) -> "pd.DataFrame":
        """A table with a line per clip and per label, branch or kind of embedding."""
        import pandas as pd

        frame = pd.concat([pd.DataFrame(table) for table in self.tables()], ignore_index=True)
        frame.attrs |= self.attrs
        return frame.astype({"start": float, "stop": float})

    def write(self, path: Path, overwrite: bool = False) -> Path:
        """Write the table to a .csv, .jsonl or .parquet file, whole or not at all, and return its path."""
        check_file("--out", path, overwrite)
        write_tables(path, self.tables(), self.attrs)
        return path

    def tables(self) -> Iterator[Columns]:
        """Yield column -> values, as `write` writes them. ConfigError if no clip has a prediction."""
        head, some = self.heads[0], False
        task, clusters = head.config.task, head.run.facts.spec.clusters
        for computed in self:
            for table in task.applied(computed.outputs, head.classes, self.top_k, clusters, head.kept):
                some = True
                yield _about(computed.clips, task.name) | table
        if not some:
            clip, reason = next(iter(self.failures.items()))
            raise ConfigError(f"none of {self.total} clips has a prediction; the first, {clip}: {reason}")

    def __iter__(self) -> Iterator[Part]:
        """Yield clips with their outputs, a few hundred at a time."""
        self.failures.clear()
        self.incomplete.clear()
        for clip, reason in (item for source in self.sources for item in source.refused.items()):
            self._fail(clip, reason)
        opened = [(source, *self._opened(source)) for source in self.sources]
        sizes = [len(source.manifest) * len([*self.loaded.plans(keys)]) for source, _, keys in opened]
        done, total = 0, sum(sizes) + sum(len(source.rows) for source in self.sources)
        with reporting(self.progress, "predict", "clip") as report:
            report(done, total)
            for (source, stores, keys), size in zip(opened, sizes, strict=True):
                if self.stores and keys:
                    stores |= features.keep(source, keys, self.loaded, self.stores, part(report, done, size, total))
                done += size
                yield from self._computed(source, stores, part(report, done, len(source.rows), total))
                done += len(source.rows)

    def _opened(self, source: Source) -> tuple[dict[str, FeatureStore], list[str]]:
        """Return key -> store, and the keys of the features to keep; load the extractors of all that no store has."""
        stores = features.matched(source, self.loaded.wanted)
        lacking = [k for k, one in self.loaded.wanted.items() if features.lacks(stores.get(k), one, source)]
        for k in lacking:
            self.loaded.extractor(k)
        features.check_files(lacking, source, self.loaded)
        if not self.stores:
            return stores, []
        folder = self.stores / source.manifest.name
        own = {k: store for k, store in stores.items() if store.path.parent.resolve() == folder.resolve()}
        features.check_names(lacking, own, self.loaded, folder)
        return stores, [*lacking, *self._again(source, {k: store for k, store in own.items() if k not in lacking})]

    def _again(self, source: Source, stores: Mapping[str, FeatureStore]) -> Iterator[str]:
        """Yield the keys of features that are kept, and of which clips have failed or have other files now."""
        files = Files()
        for k, store in stores.items():
            if clips := features.outdated(store, self.loaded.wanted[k], source, files):
                self.loaded.extractor(k)
                why = "their files were replaced, or may have been, since their features were made"
                self.note(f"{store.path}: {amount(len(clips), 'clip')} extracted again ({quoted(clips)}): {why}")
                yield k
            elif features.failed(store, self.loaded.wanted[k], source):
                with suppress(FeatcacheError):  # without its weights, for example; the clips then keep their reasons
                    self.loaded.extractor(k)
                    yield k

    def _computed(self, source: Source, stores: Mapping[str, FeatureStore], progress: Progress) -> Iterator[Part]:
        """Yield the clips of a source: first those that the first run was tested on."""
        clips, head, waiting = source.manifest.clips, self.heads[0], list[tuple[Clip, Found]]()
        tested = _tested_rows(head.run, source)
        source = replace(source, rows=list(dict.fromkeys([*tested, *source.rows])))
        step, windows = head.step(head.feeds[head.is_caption(clips[source.rows[0]])]), list[list[int]]()
        for number, (row, found) in enumerate(features.read(source, stores, self.loaded, AHEAD * step, progress)):
            before, windows = windows, [each.beyond(found) for each in self.heads]
            if waiting and (len(waiting) == step or number == len(tested) or windows != before):
                yield from self._parts(waiting, source)
                waiting = []
            if self._usable(clips[row], found):
                waiting.append((clips[row], found))
        yield from self._parts(waiting, source)

    def _parts(self, rows: Sequence[tuple[Clip, Found]], source: Source) -> Iterator[Part]:
        """Yield the outputs on these clips, and in retrieval on their captions."""
        for captions in (False, True):
            feeds = [head.feeds[captions] for head in self.heads]
            some = [
                (clip, found) for clip, found in rows if any(map(self._has, self.heads, feeds, [found] * len(feeds)))
            ]
            if some:
                each = [
                    compute(head, own, some, self.as_domain or (head.config.test if source.media else ""), self.device)
                    for head, own in zip(self.heads, feeds, strict=True)
                ]
                outputs = each[0] if len(each) == 1 else mean_scores(each, self.heads[0].classes)
                yield Part(tuple(clip for clip, _ in some), outputs)

    def _has(self, head: Head, feeds: Feeds, found: Found) -> bool:
        return any(isinstance(found.get(head.keys[m]), np.ndarray) for m in feeds)

    def _fail(self, clip: str, reason: str) -> None:
        """Report and keep the reason for which a clip has no prediction."""
        self.failures[clip] = reason
        self.note(visible(f"{clip}: {reason}"))

    def _usable(self, clip: Clip, found: Found) -> bool:
        """Return whether all runs can use the clip; report and keep the reason if not."""
        reasons, unread = list[tuple[str, str]](), list[tuple[str, str]]()
        for head in self.heads:
            parts = [feeds for feeds in head.feeds if any(head.keys[m] in found for m in feeds)]
            values = {m: found.get(head.keys[m]) for feeds in parts for m in feeds}
            reasons += [reason for feeds in parts for reason in unusable(head, feeds, found).items()]
            unread += [(m, str(x)) for m, x in values.items() if isinstance(x, FeatcacheError) and not _absent(x)]
            if not parts:
                reasons.append(("clip", "it has neither features nor a caption that this run reads"))
        if reasons:
            self._fail(clip.clip_id, _together(reasons))
        elif unread:
            self.incomplete[clip.clip_id] = _together(unread)
            self.note(visible(f"{clip.clip_id}: predicted without {_together(unread)}"))
        return not reasons


def _together(reasons: Sequence[tuple[str, str]]) -> str:
    """Return reasons as text, equal ones of several modalities once.

    >>> _together([("rgb", "it is gone"), ("audio", "it is gone"), ("rgb", "it is gone"), ("flow", "it is late")])
    'rgb, audio: it is gone; flow: it is late'
    """
    by_reason: dict[str, dict[str, None]] = {}
    for m, reason in reasons:
        by_reason.setdefault(reason, {})[m] = None
    return "; ".join(f"{', '.join(modalities)}: {reason}" for reason, modalities in by_reason.items())


def _absent(reason: FeatcacheError) -> bool:
    """Return whether a clip lacks a modality by nature."""
    return isinstance(reason, MediaAbsentError)


def _about(clips: Sequence[Clip], task: str) -> Columns:
    """Return the columns that all tasks have."""
    return {
        "clip_id": [clip.clip_id for clip in clips],
        "start": [clip.start for clip in clips],
        "stop": [clip.stop for clip in clips],
        "unit": [clip.unit for clip in clips],
        "task": [task] * len(clips),
    }


def _tested_rows(run: Run, source: Source) -> list[int]:
    """Return the rows of the source that the run was tested on, in the order of its test."""
    chosen = set(source.rows)
    for kind, name in (("manifest", "rows"), ("captions", "captions")):
        if source.manifest.sha256 == run.facts.read.get(kind) and name in run.outputs:
            return [row for row in run.outputs[name].tolist() if row in chosen]
    return []
