"""The recipe of stage one: manifest and media in, one feature store per extractor out.

Decoding runs ahead in threads while the extractors run in the main thread. A source is decoded once for all extractors
that still need its clip. A clip that cannot be read is recorded with its reason, and the rest is finished.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featcache import __version__
from featcache.errors import ConfigError, FeatcacheError, MediaAbsentError
from featcache.extractors import Caption, Extractor, Pictures, Sound, load, params_type
from featcache.manifest import Manifest
from featcache.media import Take, read_clip
from featcache.store import FeatureStore, StoreWriter
from featcache.windows import Plan
from pipelines import typed

DECODERS = {  #: libraries whose version may change what is decoded, by kind of window
    Pictures: ("av", "opencv-contrib-python-headless"),
    Sound: ("av", "scipy"),
    Caption: (),
}
CARRIERS = ("numpy", "zarr", "torch")  #: libraries that only compute or carry

Takes = dict[str, Take | FeatcacheError]


@dataclass
class Extraction:
    """What an extraction did, and where its time went."""

    stores: dict[str, FeatureStore] = field(default_factory=dict)  #: extractor -> its finished store
    clips: int = 0  #: clips decoded in this call
    seconds: float = 0.0
    waited: float = 0.0  #: seconds in which the extractors had nothing to do but wait for decoded clips

    def reasons(self, extractor: str, state: str) -> list[tuple[str, str]]:
        """(clip id, reason) of an extractor's clips that are "failed" or "absent", those of earlier calls included."""
        frame = self.stores[extractor].frame()
        frame = frame[frame["state"] == state]
        return list(zip(frame["clip_id"], frame["reason"], strict=True))

    def unusable(self) -> list[str]:
        """Extractors with failed clips, or without a single clip that is done."""
        counts = {name: store.counts() for name, store in self.stores.items()}
        return [name for name, count in counts.items() if count["failed"] or not count["done"]]

    def summary(self) -> str:
        """One line about speed, and what bounded it."""
        if not self.clips:
            return "nothing to do: every clip is there"
        share = self.waited / self.seconds
        bound = "decoding" if share > 0.5 else "the extractors"
        return (
            f"{self.clips} clips in {self.seconds:.1f} s ({self.clips / self.seconds:.1f} clips/s); "
            f"{share:.0%} of it waiting for decoded clips, so {bound} set the pace"
        )


def load_extractors(names: Sequence[str], settings: Sequence[str] = ()) -> list[Extractor]:
    """The extractors of these names, with parameters given as "EXTRACTOR.NAME=VALUE".

    Raises ConfigError for unknown names and parameters, and for values of a wrong type.
    """
    params: dict[str, dict[str, Any]] = {}
    for name in names:
        if name in params:
            raise ConfigError(f"extractor {name!r} is named twice")
        params[name] = typed.to_json(params_type(name)(), params_type(name))
    for setting in settings:
        key, equals, value = setting.partition("=")
        name, _, parameter = key.partition(".")
        if name not in params or not parameter or not equals:
            raise ConfigError(f"--set {setting}: write EXTRACTOR.NAME=VALUE, with one of {', '.join(names)}")
        params[name] = typed.assign(params[name], params_type(name), parameter, value, name)
    return [load(name, typed.from_json(values, params_type(name), name)) for name, values in params.items()]


def extract(
    manifest: Manifest,
    extractors: Sequence[Extractor],
    stores: Path,
    *,
    plan: Plan,
    dtype: str = "float16",
    retry_failed: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Fill `stores/<manifest>/<extractor>.zarr` for every extractor, and put a copy of the manifest beside them.

    workers: decoding threads. progress(done, total) is called after each clip, and once before the first.
    Raises StoreError before any work when a store in that folder was made from other clips or by another recipe.
    """
    folder = stores / manifest.name
    for path in sorted(folder.glob("*.zarr")):
        if (path / "rows.csv").exists():  # what is broken altogether is not in the way; `featcache check` names it
            FeatureStore.open(path).check_rows(manifest)
    outcome, began = Extraction(), time.monotonic()
    with ExitStack() as stack:
        writers = {
            extractor.name: stack.enter_context(_writer(folder, manifest, extractor, plan, dtype))
            for extractor in extractors
        }
        manifest.write(folder / "manifest.csv")
        wanted: dict[int, list[Extractor]] = {}
        for extractor in extractors:
            writer = writers[extractor.name]
            if retry_failed:
                writer.retry_failed()
            for row in writer.pending:
                wanted.setdefault(row, []).append(extractor)
        rows = sorted(wanted)
        progress(0, len(rows))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for row, takes in _decoded(pool, 2 * workers, manifest, rows, wanted, plan, outcome):
            for extractor in wanted[row]:
                _keep(writers[extractor.name], row, extractor, takes[extractor.name])
            outcome.clips += 1
            progress(outcome.clips, len(rows))
    outcome.seconds = time.monotonic() - began
    outcome.stores = {name: FeatureStore.open(writer.path) for name, writer in writers.items()}
    return outcome


def _writer(folder: Path, manifest: Manifest, extractor: Extractor, plan: Plan, dtype: str) -> StoreWriter:
    whole = isinstance(extractor.window, Caption)
    recipe = {
        **extractor.recipe,
        "plan": "whole clip" if whole else str(plan),
        "dtype": dtype,
        "decoders": {name: version(name) for name in DECODERS[type(extractor.window)]},
    }
    facts = {"featcache": __version__, **{name: version(name) for name in CARRIERS}}
    return StoreWriter.open(
        folder / f"{extractor.name}.zarr",
        manifest,
        recipe,
        row_shape=extractor.row_shape,
        windows=1 if whole else plan.count,
        facts=facts,
    )


def _decoded(
    pool: ThreadPoolExecutor,
    ahead: int,
    manifest: Manifest,
    rows: list[int],
    wanted: dict[int, list[Extractor]],
    plan: Plan,
    outcome: Extraction,
) -> Iterator[tuple[int, Takes]]:
    """Rows in order with their decoded windows; at most `ahead` clips are decoded before they are asked for."""
    todo, flying = iter(rows), deque[tuple[int, Future[Takes]]]()

    def launch() -> None:
        for row in todo:
            clip = manifest.clips[row]
            flying.append((row, pool.submit(read_clip, manifest.path(clip), clip, plan, wanted[row])))
            return

    for _ in range(ahead):
        launch()
    while flying:
        row, future = flying.popleft()
        before = time.monotonic()
        takes = future.result()
        outcome.waited += time.monotonic() - before
        launch()
        yield row, takes


def _keep(writer: StoreWriter, row: int, extractor: Extractor, take: Take | FeatcacheError) -> None:
    """Compute the clip's rows and hand them, or the reason why there are none, to the store."""
    if isinstance(take, MediaAbsentError):
        writer.absent(row, str(take))
    elif isinstance(take, FeatcacheError):
        writer.failed(row, str(take))
    else:
        try:
            features = extractor(take.windows)
        except Exception as error:  # whatever it is, the other clips are finished and this one says why
            writer.failed(row, f"{extractor.name} stopped with {type(error).__name__}: {error}")
            return
        if refusal := writer.refusal(features):
            writer.failed(row, f"{extractor.name} gave a row that {refusal}")
        else:
            writer.done(row, features, take.start, take.stop)
