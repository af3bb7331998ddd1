"""`featcache check`: what is wrong with a manifest or a store, one sentence per problem."""

from collections.abc import Callable
from pathlib import Path

from featcache.errors import FeatcacheError, ManifestError
from featcache.manifest import Clip, Manifest


def problems(path: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """What is wrong with a manifest (a file) or a store (a folder); an empty list when nothing is.

    Raises ManifestError when the path is neither.
    """
    if path.is_dir() and (path / "zarr.json").exists():
        from featcache.store.check import problems as store_problems

        return store_problems(path)
    if path.is_dir():
        raise ManifestError(f"{path} is a folder without zarr.json: neither a manifest (a CSV file) nor a store")
    try:
        manifest = Manifest.read(path)
    except ManifestError as error:
        return [str(error)]
    return _labels(manifest) + _sources(manifest, progress)


def _sources(manifest: Manifest, progress: Callable[[int, int], None]) -> list[str]:
    """Open every source once and hold the clips' bounds against it."""
    from featcache.media import probe

    by_source: dict[Path, list[Clip]] = {}
    for clip in manifest:
        by_source.setdefault(manifest.path(clip), []).append(clip)
    found = []
    for done, (path, clips) in enumerate(by_source.items()):
        progress(done, len(by_source))
        try:
            info = probe(path, clips[0].fps)
        except FeatcacheError as error:
            found += [f"clip {clip.clip_id!r}: {error}" for clip in clips]
            continue
        for clip in clips:
            end = info.frames if clip.unit == "frames" else info.duration
            if clip.start is not None and end and clip.start >= end:
                found.append(f"clip {clip.clip_id!r}: starts at {clip.start:g} {clip.unit}, {path} has {end:g}")
    progress(len(by_source), len(by_source))
    return found


def _labels(manifest: Manifest) -> list[str]:
    """Classes that a domain trains without, or is tested on without having seen; they make shifts incomparable."""
    found = []
    for task, classes in manifest.classes.items():
        for domain in manifest.domains:
            seen = {
                split: {manifest.clips[row].labels.get(task) for row in manifest.rows(domain=domain, split=split)}
                for split in ("train", "test")
            }
            unseen = sorted(name for name in classes if name in seen["test"] and name not in seen["train"])
            if unseen and any(seen["train"]):
                found.append(f"domain {domain!r}: {task} {', '.join(unseen)} in its test split only")
    return found
