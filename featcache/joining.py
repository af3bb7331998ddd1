"""Join several manifests into one, for runs that learn from one data set and are tested on another.

Captions are joined, too: those of NAME.csv are in NAME_captions.csv, in the same folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest


def join(paths: Sequence[Path], out: Path, *, prefix: bool = False) -> dict[Path, Manifest]:
    """Return {path: manifest}: the joined manifest for `out` and, where there are captions, their joined manifest.

    Nothing is written. prefix: rename clips to DOMAIN/CLIP, for data sets that share clip ids. ManifestError for ids
    that clash, for label columns that do not fit together, and for captions of no clip.
    """
    joined = {out: _joined(paths, out, prefix)}
    if caption_files := [captions_of(path) for path in paths if captions_of(path).is_file()]:
        joined[captions_of(out)] = captions = _joined(caption_files, captions_of(out), prefix)
        clip_ids = {clip.clip_id for clip in joined[out]}
        for caption in captions:
            if caption.of not in clip_ids:
                raise ManifestError(f"caption {caption.clip_id!r} is of clip {caption.of!r}, which does not exist")
    return joined


def captions_of(path: Path) -> Path:
    """The file with the captions of a manifest's clips: NAME_captions.csv for NAME.csv."""
    return path.with_name(f"{path.stem}_captions.csv")


def _joined(paths: Sequence[Path], out: Path, prefix: bool) -> Manifest:
    clips, home, column_files = list[Clip](), dict[str, Path](), dict[bool, Path]()
    for path in paths:
        for clip in Manifest.read(path).relocated(out.parent):
            clip = _prefixed(clip) if prefix else clip
            if clip.clip_id in home:
                raise ManifestError(
                    f"clip {clip.clip_id!r} is in {home[clip.clip_id]} and in {path}; "
                    f"{_advice(prefix, home[clip.clip_id].resolve() == path.resolve())}"
                )
            home[clip.clip_id] = path
            column_files |= {kind == "label": path for kind in clip.labels}
            clips.append(clip)
    if len(column_files) > 1:
        plain, kinds = column_files[True], column_files[False]
        raise ManifestError(f"{plain} has the column `label` and {kinds} has `label:KIND`; rename one of these columns")
    return Manifest(out.stem, tuple(clips), out.parent)


def _prefixed(clip: Clip) -> Clip:
    described = f"{clip.domain}/{clip.of}" if clip.of else ""
    return replace(clip, clip_id=f"{clip.domain}/{clip.clip_id}", of=described)


def _advice(prefix: bool, twice: bool) -> str:
    if twice:
        return "name each manifest once"
    return "give their domains other names" if prefix else "--prefix calls it DOMAIN/CLIP"
