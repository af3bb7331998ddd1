"""Extraction, stage one: a manifest and its media in, one feature store per extractor out.

An engine (`engine.py`) computes the rows, and this module keeps them. Its own threads decode ahead by a bounded number
of windows, while other threads run the extractors on batches of windows. A source is decoded once for all extractors
that still need its clip. A clip that cannot be read is recorded with its reason, and the other clips are finished. Two
processes with the same command share the work, block by block.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache import __version__
from featcache.errors import ConfigError, FeatcacheError, MediaAbsentError, MediaError, StoreError
from featcache.extractors import Extractor
from featcache.leaks import WARNING, leaks
from featcache.manifest import Manifest
from featcache.media.source import open_source
from featcache.progress import Progress, silent
from featcache.store import FeatureStore, StoreWriter
from featcache.store.provenance import Files, RecordingWriter, replaced
from featcache.store.sources import check_sources
from featcache.store.writer import Many, check_folder, drop_aside, refusal, set_aside, set_aside_undone, stored_dtype
from featcache.windows import COUNTED, WHOLE, Caption, Flow, Joints, Numbers, Pictures, Plan, Sound, Tokens
from featcache.wording import amount, quoted, shortened
from pipelines.extraction.assembly import Part
from pipelines.extraction.engine import Engine, Engines, Job, Local
from pipelines.extraction.extractors import no_source

if TYPE_CHECKING:
    import pandas as pd

DECODERS = {  #: libraries whose version may change the decoded windows, by kind of window
    Pictures: ("av", "opencv-contrib-python-headless"),
    Flow: ("av", "opencv-contrib-python-headless"),
    Sound: ("av", "scipy"),
    Caption: (),
    Tokens: (),
    Joints: (),
    Numbers: (),
}
CARRIERS = ("numpy", "zarr", "torch")  #: libraries that only compute rows or store them
WHOLE_CLIP = "whole clip"  #: the plan of recipes whose windows are whole clips, with every window plan
BEYOND = "beyond float16"  #: end of the reason of a row that float32 could hold
FLOAT32 = "; extract it into another --stores folder with --dtype float32"  #: advice for such a row
AUTO = "auto"  #: the dtype of an existing store; else float16, or float32 when a row is beyond float16


@dataclass(repr=False)
class Extraction:
    """The stores, time and notes of an extraction."""

    stores: dict[str, FeatureStore] = field(default_factory=dict)  #: extractor -> its finished store
    clips: int = 0  #: clips decoded, or merged, in this call; one that was decoded again for float32 counts twice
    seconds: float = 0.0
    busy: float = 0.0  #: seconds in which extractors computed; the rest is decoding and writing
    notes: list[str] = field(default_factory=list)  #: remarks to print for the user
    urls: dict[str, str] = field(default_factory=dict)  #: extractor -> URL of its store, if it was pushed

    def frame(self) -> "pd.DataFrame":
        """Return a line per store: its extractor, path, shape of a row, and the number of clips in each state."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"extractor": name, "path": str(store.path), "row_shape": store.row_shape, **store.counts()}
                for name, store in self.stores.items()
            ]
        )

    def __repr__(self) -> str:
        counts = {name: store.counts() for name, store in self.stores.items()}
        words = [f"{name} {', '.join(f'{n} {state}' for state, n in of.items() if n)}" for name, of in counts.items()]
        return shortened(f"Extraction: {'; '.join(words)}")

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))

    def reasons(self, extractor: str, state: str) -> dict[str, list[str]]:
        """Reason -> ids of the clips that are "failed" or "absent" for it, including those of earlier calls."""
        found: dict[str, list[str]] = {}
        for clip_id, its_state, reason in self.stores[extractor].outcomes():
            if its_state == state:
                found.setdefault(reason + (FLOAT32 if reason.endswith(BEYOND) else ""), []).append(clip_id)
        return found

    def unusable(self) -> list[str]:
        """Extractors with failed clips, with clips left to other processes, or without a single finished clip."""
        counts = {name: store.counts() for name, store in self.stores.items()}
        return [name for name, count in counts.items() if count["failed"] or count["not tried"] or not count["done"]]

    def summary(self) -> str:
        """One line about the speed, and about what limited it."""
        if not self.stores:
            return "nothing to do"
        if not self.clips:
            totals = sum((Counter(store.counts()) for store in self.stores.values()), Counter[str]())
            if not totals["failed"] and not totals["absent"]:
                return "nothing to do: all clips are extracted"
            counts = ", ".join(f"{count} {state}" for state, count in totals.items())
            retry = "; --retry-failed tries failed clips again" if totals["failed"] else ""
            return f"nothing to do: all clips were tried before ({counts}){retry}"
        return (
            f"{self.clips} clips in {self.seconds:.1f} s ({self.clips / self.seconds:.1f} clips/s); "
            f"{self.busy / self.seconds:.0%} of the time in the extractors, the rest decoding and writing"
        )


def extract(
    manifest: Manifest,
    extractors: Sequence[Extractor],
    stores: Path,
    *,
    plan: Plan,
    dtype: str | Mapping[str, str] = AUTO,
    retry_failed: bool = False,
    renew: bool = False,
    workers: int = 2,
    engines: Engines | None = None,
    facts: Mapping[str, Mapping[str, str]] = {},
    progress: Progress = silent,
    folder: Path | None = None,
) -> Extraction:
    """Fill `stores/<manifest>/<extractor>.zarr` for every extractor, and write the manifest next to them.

    Clips that were added at the end of the manifest are appended to the stores.

    dtype: float16, float32 or auto (float16; a store with a row that does not fit is made again in float32); or the
    name of each extractor -> its dtype.
    renew: extract clips again whose files were replaced since, or may have been.
    workers: decoding threads. engines: makes what computes the rows (default: the engine of this process). facts:
    extractor -> its facts where it computes (default: in this process).
    progress: called as progress(done, total) before the first clip and after each clip.
    folder: the folder to fill in place of stores/<manifest>, for a part of the clips (`shards.part_of`).
    Raises StoreError before any work when a store in that folder was made from other clips, other files of the same
    names or by another recipe, or when other processes are writing everything that is left.
    """
    outcome, began = Extraction(), time.monotonic()
    if folder is None:
        folder = stores / manifest.name
        check_readable(manifest, extractors)
    check_folder(folder, manifest)
    check_sources(folder, manifest)
    files = Files()
    outdated = {e.name: replaced(folder / f"{e.store}.zarr", manifest, files, settle=True) for e in extractors}
    outcome.notes += _choices(manifest, extractors)
    run = partial(_run, manifest, folder=folder, plan=plan, files=files, outcome=outcome, progress=progress)
    run = partial(run, engines=engines or partial(Local, workers=workers), facts=facts)
    beyond = run(extractors, dtype=dtype, retry_failed=retry_failed, renewed=outdated if renew else {})
    for name, reason in beyond.items():
        outcome.notes.append(f"{name}: {reason}; the store is made again in float32")
    wider = [extractor for extractor in extractors if extractor.name in beyond]
    for extractor in wider:
        set_aside(folder / f"{extractor.store}.zarr", "float16")
    if wider:
        run(wider, dtype="float32", retry_failed=False, renewed={})
    outcome.notes += notes_of_replaced({} if renew else outdated, manifest, "--renew extracts them again")
    outcome.seconds = time.monotonic() - began
    outcome.stores = {extractor.name: FeatureStore.open(folder / f"{extractor.store}.zarr") for extractor in extractors}
    for name, store in outcome.stores.items():
        if not store.counts()["not tried"]:
            drop_aside(store.path)
        outcome.notes += [f"{name}: {WARNING}: {leak}" for leak in leaks(store, manifest)]
    return outcome


def check_readable(manifest: Manifest, extractors: Sequence[Extractor]) -> None:
    """Raise ConfigError if no clip has a source, unless only captions are read."""
    readers = [extractor.name for extractor in extractors if not isinstance(extractor.window, Caption)]
    if readers and not any(clip.source for clip in manifest):
        raise no_source(manifest, readers)


def notes_of_replaced(found: Mapping[str, Collection[int]], manifest: Manifest, fix: str) -> Iterator[str]:
    """Yield a note for each extractor with features of files that were replaced since."""
    for name, rows in found.items():
        if rows:
            clips = quoted([manifest.clips[row].clip_id for row in rows])
            yield (
                f"{name}: the features of {amount(len(rows), 'clip')} are those of a file that was replaced since, or "
                f"may be: {clips}; {fix}"
            )


def _choices(manifest: Manifest, extractors: Sequence[Extractor]) -> list[str]:
    """Notes on what extractors take of the manifest's first source that can be read."""
    notes = []
    for extractor in extractors:
        for clip in filter(lambda clip: clip.source, manifest):
            with suppress(MediaError):
                if note := extractor.note(manifest.path(clip)):
                    notes.append(f"{extractor.name}: {note}")
                break
    return notes


def _run(
    manifest: Manifest,
    extractors: Sequence[Extractor],
    folder: Path,
    plan: Plan,
    dtype: str | Mapping[str, str],
    retry_failed: bool,
    renewed: Mapping[str, Collection[int]],
    files: Files,
    engines: Engines,
    facts: Mapping[str, Mapping[str, str]],
    outcome: Extraction,
    progress: Progress,
) -> dict[str, str]:
    """Open the stores and fill them. Return extractor -> first reason, for rows that do not fit float16."""
    whole = all(isinstance(extractor.window, WHOLE) for extractor in extractors)
    most = 1 if whole else _most_windows(plan, manifest)
    dtypes = {e.name: dtype if isinstance(dtype, str) else dtype[e.name] for e in extractors}
    recipes = {e: recipe_of(e, plan, _chosen(folder, e, dtypes[e.name])) for e in extractors}
    for extractor, recipe in recipes.items() if retry_failed else ():
        if set_aside_undone(folder / f"{extractor.store}.zarr", recipe):
            outcome.notes.append(f"{extractor.name}: no clip of the store was done, so it is made again")
    with ExitStack() as stack:
        writers = {
            extractor.name: stack.enter_context(
                _writer(folder, manifest, extractor, recipe, facts.get(extractor.name, extractor.facts), most)
            )
            for extractor, recipe in recipes.items()
        }
        for name, writer in writers.items():
            if retry_failed:
                writer.retry_failed()
            writer.renew(renewed.get(name, ()))
        manifest.write(folder / "manifest.csv")
        recording = {
            e.name: writers[e.name]
            if isinstance(e.window, Caption)
            else RecordingWriter(writers[e.name], manifest, files)
            for e in extractors
        }
        return _fill(recording, manifest, engines(manifest, extractors, plan), dtypes, outcome, progress)


def _fill(
    writers: "Mapping[str, Writer]",
    manifest: Manifest,
    engine: Engine,
    dtypes: Mapping[str, str],
    outcome: Extraction,
    progress: Progress,
) -> dict[str, str]:
    """Keep every pending row whose block no other process is writing; return as `_run` does."""
    beyond: dict[str, str] = {}
    pending = {name: set(writer.pending) for name, writer in writers.items()}
    rows = sorted(set().union(*pending.values()))
    flying: dict[int, set[str]] = {}  # clips that the engine has: row -> extractors without a part
    remarks: dict[tuple[str, str], set[int]] = {}  # (extractor, remark) -> rows
    done, total = 0, len(rows)

    def jobs() -> Iterator[Job]:
        nonlocal total
        for row in rows:
            pending_for = [name for name in writers if row in pending[name] and name not in beyond]
            ours = [name for name in pending_for if writers[name].claim(row)]
            if ours:
                flying[row] = {*ours}
                yield Job(row, tuple(ours))
            else:
                total -= 1

    progress(done, total)
    with closing(engine.parts(jobs())) as parts:
        for part in _kept(parts, writers, beyond, dtypes, manifest):
            name, row = part.extractor, part.row
            for remark in part.remarks:
                remarks.setdefault((name, remark), set()).add(row)
            flying[row].remove(name)
            if not flying[row]:
                del flying[row]
                done += 1
                outcome.clips += 1
                progress(done, total)
    outcome.busy += engine.busy
    outcome.notes += engine.notes
    engine.notes.clear()
    for (name, remark), clip_rows in remarks.items():
        first = manifest.clips[min(clip_rows)].clip_id
        outcome.notes.append(f"{name}: {remark}; {len(clip_rows)} clips, the first is {first!r}")
    _note_left({name: writer for name, writer in writers.items() if name not in beyond}, outcome, idle=not done)
    return beyond


def _note_left(writers: "Mapping[str, Writer]", outcome: Extraction, *, idle: bool) -> None:
    """Note the clips that another process is writing; StoreError if nothing else was left to do here."""
    pending = {name: len(writer.pending) for name, writer in writers.items()}
    left_out = ", ".join(f"{count} clips of {name}" for name, count in pending.items() if count)
    if left_out:
        outcome.notes.append(
            f"{left_out} belong to another process, which writes them now or was interrupted: run this again"
        )
    if left_out and idle:
        raise StoreError(f"nothing to do here: {left_out} are being written by another process; wait for it")


def _most_windows(plan: Plan, manifest: Manifest) -> int:
    """T, the largest number of windows of a clip. Sources are opened only if the plan depends on their length."""
    if plan.kind in COUNTED:
        return plan.count(0.0, 1.0)
    counts, beyond = [], None
    for clip in filter(lambda clip: clip.source, manifest):
        with suppress(Exception):  # extraction records the reason in the clip's row
            bounds = open_source(manifest.path(clip), clip.fps).interval(clip)
            try:
                counts.append(plan.count(*bounds))
            except ConfigError as error:
                beyond = beyond or error
    if beyond and not counts:  # the plan is wrong rather than a clip
        raise beyond
    return max(counts, default=1)


def recipe_of(extractor: Extractor, plan: Plan, dtype: str) -> dict[str, Any]:
    """Return all that determines the rows of an extractor's store."""
    return {
        **extractor.recipe,
        "plan": WHOLE_CLIP if isinstance(extractor.window, WHOLE) else str(plan),
        "dtype": dtype,
        "decoders": {name: version(name) for name in DECODERS[type(extractor.window)]},
    }


def versions() -> dict[str, str]:
    """Return the versions of featcache and of the libraries that every extraction uses."""
    return {"featcache": __version__, **{name: version(name) for name in CARRIERS}}


def _chosen(folder: Path, extractor: Extractor, dtype: str) -> str:
    """Return the dtype of an extractor's store; `auto` is that of an existing store."""
    return (stored_dtype(folder / f"{extractor.store}.zarr") or "float16") if dtype == AUTO else dtype


def _writer(
    folder: Path,
    manifest: Manifest,
    extractor: Extractor,
    recipe: dict[str, Any],
    facts: Mapping[str, str],
    most: int,
) -> StoreWriter:
    whole = isinstance(extractor.window, WHOLE)
    facts = {**versions(), **facts}
    return StoreWriter.open(
        folder / f"{extractor.store}.zarr",
        manifest,
        recipe,
        row_shape=extractor.row_shape,
        windows=extractor.window.count if isinstance(extractor.window, Tokens) else 1 if whole else most,
        facts=facts,
    )


def _kept(
    arriving: Iterator[Part | list[Part]],
    writers: "Mapping[str, Writer]",
    beyond: dict[str, str],
    dtypes: Mapping[str, str],
    manifest: Manifest,
) -> Iterator[Part]:
    """Keep the parts as they arrive, and yield each; extractors with rows beyond float16 are added to `beyond`."""
    for arrived in arriving:
        together = arrived if isinstance(arrived, list) else [arrived]
        for name in dict.fromkeys(part.extractor for part in together):
            parts = [part for part in together if part.extractor == name and name not in beyond]
            if not _keep_run(writers[name], parts):
                for part in parts:
                    if name not in beyond and (reason := _keep(writers[name], part, dtypes[name], manifest)):
                        beyond[name] = reason
        yield from together


def _keep_run(writer: "Writer", parts: Sequence[Part]) -> bool:
    """Write the rows of several clips at once; False if they have to be written one by one."""
    features = [part.features for part in parts if part.features is not None]
    alike = len({x.shape for x in features}) == 1 and len(features) == len(parts) > 1
    if not alike or writer.refusal(features[0]):
        return False
    rows = np.stack(features)
    if refusal(rows, writer.dtype):
        return False
    start, stop = np.stack([part.times for part in parts if part.times is not None], axis=1)
    writer.done_many([part.row for part in parts], rows, start, stop, [part.note for part in parts])
    return True


def _keep(writer: "Writer", part: Part, dtype: str, manifest: Manifest) -> str:
    """Write the rows of a clip, or the reason for having none, to the store.

    Return the reason if rows do not fit float16 and the dtype is `auto`, so that the store can be made in float32.
    """
    if part.reason:
        write = writer.absent if isinstance(part.reason, MediaAbsentError) else writer.failed
        write(part.row, manifest.portable(str(part.reason), manifest.clips[part.row]))
    else:
        assert part.features is not None
        assert part.times is not None
        if not (why_not := writer.refusal(part.features)):
            start, stop = part.times
            writer.done_many([part.row], part.features[None], start[None], stop[None], [part.note])
        elif dtype == AUTO and writer.dtype == "float16" and why_not.endswith(BEYOND):
            return f"clip {manifest.clips[part.row].clip_id!r} {why_not}"
        else:
            writer.failed(part.row, f"{part.extractor} gave a row that {why_not}")
    return ""


# ----------------------------------------------------------------------------------------------------------- in memory


@dataclass
class Held:
    """The rows of one extractor in memory, as a store of this dtype would hold them; nothing is written to a disk."""

    dtype: str
    pending: list[int]  #: rows of the manifest that are still to be computed
    rows: dict[int, NDArray[np.floating] | FeatcacheError] = field(default_factory=dict)  #: (t, *row_shape), or error

    def claim(self, row: int) -> bool:
        """Return True: nobody else writes these rows."""
        return True

    def refusal(self, features: NDArray[np.floating]) -> str:
        """Return the reason why these values cannot be stored, or ""."""
        return refusal(features, self.dtype)

    def done_many(
        self,
        rows: Sequence[int],
        features: Many,
        start: Many,
        stop: Many,
        notes: Sequence[str] = (),
    ) -> None:
        """Hold rows; their times and notes are left out."""
        for row, values in zip(rows, features, strict=True):
            self._hold(row, values.astype(self.dtype))

    def failed(self, row: int, reason: str) -> None:
        """Hold the reason why the row's clip could not be read."""
        self._hold(row, MediaError(reason))

    def absent(self, row: int, reason: str) -> None:
        """Hold the reason why the row's clip does not have the modality."""
        self._hold(row, MediaAbsentError(reason))

    def _hold(self, row: int, value: NDArray[np.floating] | FeatcacheError) -> None:
        self.pending.remove(row)
        self.rows[row] = value


Writer = StoreWriter | RecordingWriter | Held


def extract_rows(
    manifest: Manifest,
    wanted: Mapping[Extractor, Sequence[int]],
    *,
    plan: Plan,
    dtypes: Mapping[str, str],
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[dict[str, dict[int, NDArray[np.floating] | FeatcacheError]], list[str]]:
    """Return extractor -> row of the manifest -> its features as a store has them, or the reason for having none.

    Also return remarks for the user. wanted: extractor -> rows to compute. dtypes: extractor -> float16 or float32.
    """
    outcome = Extraction()
    held = {e.name: Held(dtypes[e.name], [*rows]) for e, rows in wanted.items()}
    _fill(held, manifest, Local(manifest, [*wanted], plan, workers), dtypes, outcome, progress)
    return {name: writer.rows for name, writer in held.items()}, outcome.notes
