"""The problems of a manifest or a store, one sentence each: the work of `featcache check`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from featcache.arguments import PathLike
from featcache.arguments import paths as all_paths
from featcache.endings import NUMBERS, SKELETON
from featcache.errors import FeatcacheError, ManifestError
from featcache.files import near
from featcache.manifest import BOUNDS, Clip, Manifest
from featcache.progress import Progress, reporting, silent
from featcache.wording import alike, amount, exactly, first, kind_of, per_kind, quoted

SLACK = {"frames": 0.0, "seconds": 0.1}  #: largest stop behind the source's end: annotated seconds are rounded


def parts(given: PathLike) -> list[Path]:
    """List the manifests and stores at a path or URL: all of a folder STORES or STORES/MANIFEST, or the path itself.

    Raises ManifestError for a folder that holds neither manifests nor stores.
    """
    from featcache.store.places import local

    path = local(given)
    if not path.is_dir() or path.suffix == ".zarr" or (path / "zarr.json").exists():
        return [path]
    inside = sorted(part for name in ("manifest.csv", "*.zarr") for part in [*path.glob(name), *path.glob(f"*/{name}")])
    if not inside:
        raise ManifestError(
            f"{path} holds no stores; name a manifest (a CSV file), a store (a .zarr folder) or a folder of stores"
        )
    return inside


def problems(path: Path, progress: Progress = silent, *, fast: bool = False) -> list[str]:
    """List the problems of a manifest (a file) or a store (a folder); the list is empty when there are none.

    The first ten clips of each kind of problem are listed, and the number of the others.

    fast: check only the file sizes of a store's features, not their content.
    """
    try:
        if path.is_dir():
            from featcache.store.check import problems as store_problems

            return [*store_problems(path, fast=fast, progress=progress), *_replaced(path)]
        manifest = Manifest.read(path)
    except FeatcacheError as error:
        return [str(error)]
    return [*spellings(manifest), *_unseen(manifest), *_without(manifest), *per_kind(_sources(manifest, progress))]


def _replaced(path: Path) -> Iterator[str]:
    """Find features in a store of files that were replaced since, by the copy of the manifest next to the store."""
    from featcache.store.provenance import Files, Record, replaced

    try:
        Record(path).files()
    except FeatcacheError as error:
        yield str(error)
        return
    with suppress(FeatcacheError):  # what is wrong with the manifest or the store is found by their own checks
        manifest = Manifest.read(path.parent / "manifest.csv")
        rows = [row for row, surely in replaced(path, manifest, Files()).items() if surely]
        if clips := [manifest.clips[row].clip_id for row in rows]:
            yield (
                f"the features of {amount(len(clips), 'clip')} are those of files that were replaced since: "
                f"{quoted(clips)}; `featcache extract --renew` extracts them again"
            )


def _without(manifest: Manifest) -> Iterator[str]:
    """Find clips without a source, unless no clip has one: then the manifest is for features only."""
    without = [clip.clip_id for clip in manifest if not clip.source]
    if 0 < len(without) < len(manifest):
        yield (
            f"{len(without)} of {len(manifest)} clips have no source: {quoted(without)}; name their files, or leave "
            "the column `source` empty for all clips"
        )


def check(
    paths: PathLike | Iterable[PathLike], *, fast: bool = False, progress: Progress | bool = False
) -> dict[Path, list[str]]:
    """Check manifests and stores: {path of each: its problems, one sentence each}; no problem is an empty list.

    paths: one or several manifests (CSV files), stores (zarr folders), or folders with manifests and stores.
    fast: check only the file sizes of features, not their digests. progress: True for bars, or a callback (done, total)
    of each part. Raises ManifestError for a folder that holds neither manifests nor stores.
    """
    found = [part for given in all_paths(paths) for part in parts(given)]
    checked = {}
    for part in found:
        with reporting(progress, f"check {part.name}", "part") as report:
            checked[part] = problems(part, report, fast=fast)
    return checked


def _sources(manifest: Manifest, progress: Progress) -> Iterator[tuple[str, str]]:
    """Open every source once and compare its clips with it: the kind of each problem, and its sentence."""
    by_source: dict[tuple[Path, float | None], list[Clip]] = defaultdict(list)
    for clip in filter(lambda clip: clip.source, manifest):
        by_source[manifest.path(clip), clip.fps].append(clip)
    for done, ((path, fps), clips) in enumerate(by_source.items()):
        progress(done, len(by_source))
        for clip, problem in _source(path, fps, clips):
            yield kind_of(problem, str(path)), f"clip {clip.clip_id!r}: {problem}"
    progress(len(by_source), len(by_source))


def _source(path: Path, fps: float | None, clips: list[Clip]) -> Iterator[tuple[Clip, str]]:
    """Compare the clips of one source with it: each problem with its clip."""
    if path.suffix.lower() in SKELETON | NUMBERS:  # only the extractor can interpret their content
        if not path.is_file():
            hint = near(path) or "; relative sources start in the manifest's folder"
            yield from ((clip, f"{path} does not exist{hint}") for clip in clips)
        return
    from featcache import media
    from featcache.media.source import open_source, reported

    try:
        info, source = media.probe(path, fps), open_source(path, fps)
    except Exception as error:  # decoders raise anything, and the other sources must still be checked
        yield from ((clip, str(reported(path, error))) for clip in clips)
        return
    for clip in clips:
        if fps is not None and info.kind != "folder":
            yield clip, f"fps {fps:g} is ignored: only folders of frames use it, not {path}; leave the cell empty"
        try:
            source.interval(clip)  # raises where `extract` will fail
        except FeatcacheError as error:
            yield clip, str(error)
            continue
        end = info.frames if clip.unit == "frames" else info.duration
        if clip.stop is not None and clip.stop > end + SLACK[clip.unit]:
            column = BOUNDS[clip.unit][1]
            yield clip, f"{column} {clip.stop:g} is after the end of {path}, so the clip is cut at {end:g}"


def spellings(manifest: Manifest) -> Iterator[str]:
    """Find names that differ only by case, blanks, invisible characters or Unicode form: probably one thing each."""
    columns = {"domain": manifest.domains, **{f"label kind {kind!r}": c for kind, c in manifest.classes.items()}}
    for column, names in columns.items():
        spelled_alike = defaultdict(list)
        for name in names:
            spelled_alike[alike(name)].append(name)
        for form, same in spelled_alike.items():
            if not form:
                yield f"{column}: {', '.join(exactly(same))} prints nothing; leave the cell empty, or write a name"
            elif len(same) > 1:
                yield (
                    f"{column}: {', '.join(exactly(same))} differ only by case, blanks, invisible characters or "
                    "Unicode form; spell them alike"
                )


def _unseen(manifest: Manifest) -> Iterator[str]:
    """Find classes that a domain has only in its test split; they make shifts incomparable."""
    for kind, classes in manifest.classes.items():
        for domain in manifest.domains:
            train, test = (
                {manifest.clips[row].labels.get(kind) for row in manifest.rows(domain=domain, split=split)}
                for split in ("train", "test")
            )
            unseen = [name for name in classes if name in test and name not in train]
            if unseen and any(train):
                yield f"domain {domain!r}: {kind} {first(unseen)} occurs only in the test split"
