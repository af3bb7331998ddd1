"""A folder of videos -> a manifest: what a file's path says about the clip is written as a layout.

    '{domain}/{label}/{clip_id}'            kitchen_a/cut/0001.mp4
    '{domain}/{split}/{label}/{clip_id}'    kitchen_a/train/cut/0001.mp4
    '{domain}/{clip_id}'                    no labels

A part in braces stands for one folder name (or a piece of it: '{domain}_{clip_id}'); the file's ending is left out.
"""

import math
import os
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.endings import ARRAY, IMAGE, SKELETON, SOUND, VIDEO
from featcache.errors import ManifestError
from featcache.manifest import SPLITS, Clip, Manifest

MEDIA = (VIDEO | SOUND | IMAGE | SKELETON | ARRAY) - {".json", ".txt"}  # nor .csv: these may be notes, too
FIELDS = ("clip_id", "domain", "split", "label")


@dataclass(frozen=True)
class Scan:
    """A manifest, and what else was seen on the way."""

    manifest: Manifest
    unmatched: list[str]  #: media files whose path does not fit the layout
    renamed: bool  #: the layout's ids were not unique, so the relative paths became the ids


def scan(
    folder: Path,
    layout: str,
    *,
    name: str | None = None,
    test_share: float = 0.3,
    seed: int = 0,
    fps: float | None = None,
) -> Scan:
    """Make a manifest of the media files under a folder.

    Without {split} in the layout, a seeded share of each (domain, label) becomes the test split. With `fps`, folders
    of images are clips with that frame rate; without it, each image is a clip of its own. Files of arrays are clips
    only where no other media are: beside videos they are somebody's features.
    Raises ManifestError when the folder holds no media, no path fits, or the layout is not understood.
    """
    if not folder.is_dir():
        raise ManifestError(f"no folder {folder}")
    if not 0 < test_share < 1:
        raise ManifestError(f"test share {test_share} is not between 0 and 1")
    if fps is not None and not 0 < fps < math.inf:
        raise ManifestError(f"fps {fps:g} is no frame rate; give pictures per second, such as 25")
    pattern = _pattern(layout)
    sources = _sources(folder, frame_folders=fps is not None)
    if not sources:
        raise ManifestError(f"no videos, sounds, images, skeletons or arrays under {folder}")
    home = folder.resolve().name
    clips, unmatched = [], []
    for source in sources:
        path = source.relative_to(folder)
        _check_text(f"{home}/{path}")
        is_folder = source.is_dir()
        match = pattern.fullmatch((path if is_folder else path.with_suffix("")).as_posix())
        if match is None:
            unmatched.append(path.as_posix())
        else:
            clips.append(_clip(path.as_posix(), {"domain": home} | match.groupdict(), fps if is_folder else None))
    if not clips:
        raise ManifestError(
            f"none of {len(sources)} files fits the layout {layout!r}, which leaves endings out; "
            f"the first is {unmatched[0]}"
        )
    renamed = max(Counter(clip.clip_id for clip in clips).values()) > 1
    if renamed:
        clips = [replace(clip, clip_id=clip.source) for clip in clips]
    if "split" not in pattern.groupindex:
        clips = _split(clips, test_share, seed)
    return Scan(Manifest(name or home, tuple(clips), folder), unmatched, renamed)


def _clip(path: str, parts: dict[str, str], fps: float | None) -> Clip:
    for part, text in parts.items():
        if not text.strip():
            raise ManifestError(f"{path!r}: its {part} is blank; rename the file or folder")
    split = parts.get("split", "train")
    if split not in SPLITS:
        raise ManifestError(f"{path}: split {split!r} is none of {', '.join(SPLITS)}")
    labels = {"label": parts["label"]} if "label" in parts else {}
    return Clip(parts["clip_id"], parts["domain"], split, path, labels=labels, fps=fps)


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python stands lone surrogates for bytes that it cannot read
        raise ManifestError(
            f"the name {os.fsencode(name)!r} is not UTF-8 text, as a manifest is; rename the file or folder"
        ) from None


def _pattern(layout: str) -> re.Pattern[str]:
    """'{domain}/{clip_id}' -> a regular expression with one group per part."""
    ending = Path(layout).suffix
    if ending.lower() in MEDIA:
        raise ManifestError(f"layout {layout!r}: endings are left out; write {layout.removesuffix(ending)!r}")
    pieces = re.split(r"\{([^{}]*)\}", layout)
    fields = pieces[1::2]
    for field in fields:
        if field not in FIELDS:
            raise ManifestError(
                f"layout {layout!r}: no part {{{field}}}; known: {', '.join(f'{{{f}}}' for f in FIELDS)}"
            )
        if fields.count(field) > 1:
            raise ManifestError(f"layout {layout!r}: {{{field}}} stands twice")
    if "clip_id" not in fields:
        raise ManifestError(f"layout {layout!r} needs {{clip_id}}")
    parts = [re.escape(piece) if i % 2 == 0 else f"(?P<{piece}>[^/]+)" for i, piece in enumerate(pieces)]
    return re.compile("".join(parts))


def _sources(folder: Path, *, frame_folders: bool) -> list[Path]:
    """Media files, sorted; with frame_folders, a folder that holds images stands for them. Hidden ones are left out."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root)
        folders[:] = [name for name in folders if name[0] != "." and not _leads_back(here / name)]
        media = [here / name for name in files if name[0] != "." and Path(name).suffix.lower() in MEDIA]
        if frame_folders and any(path.suffix.lower() in IMAGE for path in media):
            found.append(here)
            media = [path for path in media if path.suffix.lower() not in IMAGE]
        found += media
    return sorted([path for path in found if path.is_dir() or path.suffix.lower() not in ARRAY] or found)


def _leads_back(path: Path) -> bool:
    """Whether a link leads to a folder on the way to itself; following it would never end."""
    return path.is_symlink() and any(path.samefile(above) for above in path.parents)


def _split(clips: list[Clip], test_share: float, seed: int) -> list[Clip]:
    """Give a seeded share of each (domain, label) to the test split; a group of two or more has both splits."""
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.domain, clip.labels.get("label", "")].append(clip.clip_id)
    test = set()
    for (domain, label), ids in sorted(groups.items()):
        random.Random(f"{seed}/{domain}/{label}").shuffle(ids)
        share = round(len(ids) * test_share)
        test |= set(ids[: min(max(share, 1), len(ids) - 1)])
    return [replace(clip, split="test" if clip.clip_id in test else "train") for clip in clips]
