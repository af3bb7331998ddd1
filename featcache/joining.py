"""Several manifests made one, for runs that learn from one data set and are tested on another.

Captions follow: where NAME_captions.csv stands beside NAME.csv, it is joined as well.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest


def join(paths: Sequence[Path], out: Path, *, prefix: bool = False) -> dict[Path, Manifest]:
    """The manifest that goes to `out` and, where there are captions, the one that goes beside it; nothing is written.

    prefix: clips are called DOMAIN/CLIP, for data sets that call different clips alike. ManifestError for ids that
    clash, for labels that do not fit together, and for captions of no clip.
    """
    joined = {out: _joined(paths, out, prefix)}
    if told := [captions_of(path) for path in paths if captions_of(path).is_file()]:
        joined[captions_of(out)] = captions = _joined(told, captions_of(out), prefix)
        clips = {clip.clip_id for clip in joined[out]}
        for caption in captions:
            if caption.of not in clips:
                raise ManifestError(f"caption {caption.clip_id!r} is of {caption.of!r}, which is none of the clips")
    return joined


def captions_of(path: Path) -> Path:
    """Where the captions of a manifest's clips stand: NAME_captions.csv beside NAME.csv."""
    return path.with_name(f"{path.stem}_captions.csv")


def _joined(paths: Sequence[Path], out: Path, prefix: bool) -> Manifest:
    clips, home, tasks = list[Clip](), dict[str, Path](), dict[bool, Path]()
    for path in paths:
        for clip in Manifest.read(path).relocated(out.parent):
            clip = _prefixed(clip) if prefix else clip
            if clip.clip_id in home:
                raise ManifestError(
                    f"clip {clip.clip_id!r} is in {home[clip.clip_id]} and in {path}; "
                    f"{_advice(prefix, home[clip.clip_id].resolve() == path.resolve())}"
                )
            home[clip.clip_id] = path
            tasks |= {task == "label": path for task in clip.labels}
            clips.append(clip)
    if len(tasks) > 1:
        raise ManifestError(f"{tasks[True]} has the column `label` and {tasks[False]} has `label:TASK`; rename one")
    return Manifest(out.stem, tuple(clips), out.parent)


def _prefixed(clip: Clip) -> Clip:
    of = f"{clip.domain}/{clip.of}" if clip.of else ""
    return replace(clip, clip_id=f"{clip.domain}/{clip.clip_id}", of=of)


def _advice(prefix: bool, twice: bool) -> str:
    if twice:
        return "name each manifest once"
    return "give their domains other names" if prefix else "--prefix calls it DOMAIN/CLIP"
