"""`featcache check`: what is wrong with a manifest or a store, one sentence per problem."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from featcache.endings import NUMBERS, SKELETON
from featcache.errors import FeatcacheError, ManifestError
from featcache.manifest import BOUNDS, Clip, Manifest
from featcache.progress import Progress, silent

SLACK = {"frames": 0.0, "seconds": 0.1}  #: a stop may lie this far behind the end: annotated seconds are rounded


def parts(path: Path) -> list[Path]:
    """What there is to check at a path: itself, or all manifests and stores of the folder STORES or STORES/MANIFEST.

    Raises ManifestError for a folder that holds neither.
    """
    if not path.is_dir() or path.suffix == ".zarr" or (path / "zarr.json").exists():
        return [path]
    found = sorted(part for name in ("manifest.csv", "*.zarr") for part in [*path.glob(name), *path.glob(f"*/{name}")])
    if not found:
        raise ManifestError(
            f"{path} holds no stores; name a manifest (a CSV file), a store (a folder .zarr) or a folder of stores"
        )
    return found


def problems(path: Path, progress: Progress = silent, *, fast: bool = False) -> list[str]:
    """What is wrong with a manifest (a file) or a store (a folder); an empty list when nothing is.

    fast: of a store's features only the sizes of the files are looked at.
    """
    try:
        if path.is_dir():
            from featcache.store.check import problems as store_problems

            return store_problems(path, fast=fast, progress=progress)
        manifest = Manifest.read(path)
    except FeatcacheError as error:
        return [str(error)]
    return [*_spellings(manifest), *_unseen(manifest), *_sources(manifest, progress)]


def _sources(manifest: Manifest, progress: Progress) -> Iterator[str]:
    """Open every source once and hold its clips against it."""
    by_source: dict[tuple[Path, float | None], list[Clip]] = defaultdict(list)
    for clip in manifest:
        by_source[manifest.path(clip), clip.fps].append(clip)
    for done, ((path, fps), clips) in enumerate(by_source.items()):
        progress(done, len(by_source))
        for clip, problem in _source(path, fps, clips):
            yield f"clip {clip.clip_id!r}: {problem}"
    progress(len(by_source), len(by_source))


def _source(path: Path, fps: float | None, clips: list[Clip]) -> Iterator[tuple[Clip, str]]:
    if path.suffix.lower() in SKELETON | NUMBERS:  # what is in them depends on the extractor
        if not path.is_file():
            yield from (
                (clip, f"{path} does not exist; relative sources start at the manifest's folder") for clip in clips
            )
        return
    from featcache import media
    from featcache.media.source import open_source, reported

    try:
        info, source = media.probe(path, fps), open_source(path, fps)
    except Exception as error:  # whatever a decoder does: the other sources are to be checked, too
        yield from ((clip, str(reported(path, error))) for clip in clips)
        return
    for clip in clips:
        if fps is not None and info.kind != "folder":
            yield clip, f"fps {fps:g} is ignored: it is for folders of frames, not for {path}; leave the cell empty"
        try:
            source.interval(clip)  # refuses what `extract` will refuse
        except FeatcacheError as error:
            yield clip, str(error)
            continue
        end = info.frames if clip.unit == "frames" else info.duration
        if clip.stop is not None and clip.stop > end + SLACK[clip.unit]:
            column = BOUNDS[clip.unit][1]
            yield clip, f"{column} {clip.stop:g} is behind the end of {path}, so the clip ends there, at {end:g}"


def _spellings(manifest: Manifest) -> Iterator[str]:
    """Names that differ only by case or surrounding blanks: one thing, typed in two ways."""
    columns = {"domain": manifest.domains, **{f"label of task {t!r}": names for t, names in manifest.classes.items()}}
    for column, names in columns.items():
        alike = defaultdict(list)
        for name in names:
            alike[name.strip().casefold()].append(name)
        for same in alike.values():
            if len(same) > 1:
                yield f"{column}: {', '.join(map(repr, same))} differ only by case or blanks; spell them alike"


def _unseen(manifest: Manifest) -> Iterator[str]:
    """Classes that a domain is tested on without having trained on them; they make shifts incomparable."""
    for task, classes in manifest.classes.items():
        for domain in manifest.domains:
            seen = {
                split: {manifest.clips[row].labels.get(task) for row in manifest.rows(domain=domain, split=split)}
                for split in ("train", "test")
            }
            unseen = [name for name in classes if name in seen["test"] and name not in seen["train"]]
            if unseen and any(seen["train"]):
                yield f"domain {domain!r}: {task} {', '.join(unseen)} in its test split only"
