"""A folder of videos -> a manifest: a layout describes which parts of a file's path are id, domain, split and label.

    '{domain}/{label}/{clip_id}'            kitchen_a/cut/0001.mp4
    '{domain}/{split}/{label}/{clip_id}'    kitchen_a/train/cut/0001.mp4
    '{domain}/{clip_id}'                    no labels

A part in braces matches one folder name, or a piece of it: '{domain}_{clip_id}'. A layout has no file endings. Several
layouts are tried in their order, so one scan can make a labelled domain and one without labels.
"""

import math
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.endings import ARRAY, DIRECTIONS, IMAGE, SKELETON, SOUND, VIDEO
from featcache.errors import ArgumentsError, ManifestError
from featcache.manifest import SPLITS, Clip, Manifest
from featcache.wording import first

MEDIA = (VIDEO | SOUND | IMAGE | SKELETON | ARRAY) - {".json", ".txt"}  # and no .csv: all three may be notes
FIELDS = ("clip_id", "domain", "split", "label")
LABELLED, FLAT = "{label}/{clip_id}", "{clip_id}"  #: layouts of a folder whose domain is given
ANYWHERE = re.compile(r"(?:.*/)?(?P<clip_id>[^/]+)")  #: an unlabelled clip, in a folder of any depth


@dataclass(frozen=True)
class Scan:
    """The result of a scan: the manifest, and notes on the files."""

    manifest: Manifest
    unmatched: list[str]  #: media files whose path does not fit the layout
    left_out: dict[str, int]  #: ending -> number of files that have the ending of no media, or are arrays next to media
    renamed: bool  #: True when relative paths became the ids, because the layout's ids were not unique
    joined: tuple[str, ...] = ()  #: clips whose flow is in two folders, such as u/ and v/


def scan(
    folder: Path,
    layout: str | Sequence[str] = (),
    *,
    name: str | None = None,
    domain: str | None = None,
    labelled: bool = True,
    test_share: float = 0.3,
    seed: int = 0,
    fps: float | None = None,
) -> Scan:
    """Make a manifest of the media files under a folder.

    layout: one or several; the first that fits a path describes it. domain: the domain of all clips whose layout has
    no {domain}, by default the folder's name. With a domain no layout is needed: the folder of a file is then its
    label, and clips that are all directly in the folder have none. labelled: False if no clip has a label; neither
    layout nor domain is needed then, and without a layout clips may be at any depth.

    Without {split}, a seeded share of each (domain, label) becomes the test split. With `fps`, folders of images are
    clips with that frame rate; without it, each image is a clip. Files of arrays are clips only when there are no
    other media, because arrays next to videos are usually features.
    Raises ManifestError when the folder holds no media, no path fits a layout, or an option is malformed.
    """
    layouts = [layout] if isinstance(layout, str) else list(layout)
    _check(folder, layouts, domain, labelled, fps)
    sources, others, joined = _sources(folder, frame_folders=fps is not None)
    own = folder / f"{name or folder.resolve().name}.csv"  # the manifest of an earlier scan
    endings = Counter(path.suffix.lower() or "without an ending" for path in others if path != own)
    left_out = dict(sorted(endings.items()))
    if not sources:
        raise _no_media(folder, left_out)
    if labelled and not layouts:
        layouts = [LABELLED if any(source.parent != folder for source in sources) else FLAT]
    home, patterns = folder.resolve().name, [_pattern(text) for text in layouts] or [ANYWHERE]
    clips, unmatched = dict[bool, list[Clip]](), list[str]()  # True: clips whose layout has a split
    for source in sources:
        path, is_folder = source.relative_to(folder), source.is_dir()
        _check_text(f"{home}/{path}")
        text = (path if is_folder else path.with_suffix("")).as_posix()
        match = next(filter(None, (pattern.fullmatch(text) for pattern in patterns)), None)
        if match is None:
            unmatched.append(path.as_posix())
        else:
            parts = {"domain": domain or home} | match.groupdict()
            clips.setdefault("split" in parts, []).append(_clip(path.as_posix(), parts, fps if is_folder else None))
    if not clips:
        raise ManifestError(
            f"none of {len(sources)} files fits the layout {' or '.join(map(repr, layouts))}; the first file is "
            f"{unmatched[0]}; write the layout without the file ending"
        )
    found = _scanned(Manifest(name or home, (), folder), clips, unmatched, left_out, test_share, seed)
    taken, folders = {clip.source for clip in found.manifest}, [path.relative_to(folder).as_posix() for path in joined]
    return replace(found, joined=tuple(path for path in folders if path in taken))


def unlabelled(folder: Path, domain: str) -> tuple[Manifest, dict[str, str]]:
    """Make a manifest of all media files under a folder, whatever its layout: one domain, without labels, split test.

    The id of a clip is its path without the ending, or its whole path if that is not unique. Also return file -> reason
    for files whose names a manifest cannot hold. ManifestError when the folder holds no media with other names.
    """
    sources, others, _ = _sources(folder, frame_folders=False)
    if not sources:
        raise _no_media(folder, dict(Counter(path.suffix.lower() or "without an ending" for path in others)))
    paths = [source.relative_to(folder) for source in sources]
    return _whole(folder.resolve().name, paths, lambda path: path.with_suffix("").as_posix(), domain, folder)


def whole_files(name: str, paths: Sequence[Path], domain: str) -> tuple[Manifest, dict[str, str]]:
    """Make a manifest of media files, as `unlabelled` does; ids are names without folder and ending if unique."""
    return _whole(name, paths, lambda path: path.stem, domain, Path("."))


def _whole(
    name: str, paths: Sequence[Path], id_of: Callable[[Path], str], domain: str, root: Path
) -> tuple[Manifest, dict[str, str]]:
    texts, refused = list[str](), dict[str, str]()
    for path in paths:
        try:
            _check_text(path.as_posix())
            if not id_of(path).strip():
                raise ManifestError("its name is blank, so it cannot be the id of a clip; rename the file")
            texts.append(path.as_posix())
        except ManifestError as error:
            refused[os.fsencode(path).decode(errors="backslashreplace")] = str(error)
    if not texts:
        raise ManifestError(next(iter(refused.values())))
    ids = [id_of(Path(text)) for text in texts]
    ids = ids if len(set(ids)) == len(ids) else texts
    clips = [Clip(one, domain, "test", text) for one, text in zip(ids, texts, strict=True)]
    return Manifest(name, tuple(clips), root), refused


def _no_media(folder: Path, left_out: dict[str, int]) -> ManifestError:
    return ManifestError(
        f"no videos, sounds, images, skeletons or arrays under {folder}"
        + (f"; there are files of other endings: {counted(left_out)}" if left_out else "")
    )


def counted(endings: dict[str, int]) -> str:
    """Return numbers of files by ending as text.

    >>> counted({".docx": 1, ".xyz": 20})
    '1 .docx, 20 .xyz'
    """
    return first(f"{count:,} {ending}" for ending, count in endings.items())


def _clip(path: str, parts: dict[str, str], fps: float | None) -> Clip:
    for part, text in parts.items():
        if not text.strip():
            raise ManifestError(f"{path!r}: its {part} is blank; rename the file or folder")
    split = parts.get("split", "train")
    if split not in SPLITS:
        raise ManifestError(f"{path}: split {split!r} is not one of {', '.join(SPLITS)}")
    labels = {"label": parts["label"]} if "label" in parts else {}
    return Clip(parts["clip_id"], parts["domain"], split, path, labels=labels, fps=fps)


def _check(folder: Path, layouts: list[str], domain: str | None, labelled: bool, fps: float | None) -> None:
    """Raise ManifestError for a folder that does not exist, and ArgumentsError for options that cannot be meant."""
    if not folder.is_dir():
        raise ManifestError(f"no folder {folder}")
    if not layouts and domain is None and labelled:
        raise ArgumentsError(
            "neither a layout nor a domain; name the parts of the paths, such as --layout "
            "'{domain}/{label}/{clip_id}', or the domain of all clips, --domain A"
        )
    if domain is not None and not domain.strip():
        raise ArgumentsError("the domain is blank; give it a name")
    for part, given, fix in (
        ("domain", domain is not None, "leave the domain out"),
        ("label", not labelled, "leave {label} out"),
    ):
        if given and any(f"{{{part}}}" in layout for layout in layouts):
            said = f"the domain {domain!r}" if part == "domain" else "clips without labels"
            raise ArgumentsError(f"the layout has {{{part}}}, which contradicts {said}; {fix}")
    if fps is not None and not 0 < fps < math.inf:
        raise ManifestError(f"fps {fps:g} is not a frame rate; give pictures per second, such as 25")


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python has lone surrogates for bytes that it cannot decode
        raise ManifestError(
            f"the name {os.fsencode(name)!r} is not UTF-8, so a manifest cannot hold it; rename the file or folder"
        ) from None


def _pattern(layout: str) -> re.Pattern[str]:
    """'{domain}/{clip_id}' -> a regular expression with one group per part."""
    ending = Path(layout).suffix
    if ending.lower() in MEDIA:
        raise ManifestError(
            f"layout {layout!r} has the file ending {ending}; write {layout.removesuffix(ending)!r} instead"
        )
    pieces = re.split(r"\{([^{}]*)\}", layout)
    fields = pieces[1::2]
    for field in fields:
        if field not in FIELDS:
            raise ManifestError(
                f"layout {layout!r}: no part {{{field}}}; there are: {', '.join(f'{{{f}}}' for f in FIELDS)}"
            )
        if fields.count(field) > 1:
            raise ManifestError(f"layout {layout!r}: {{{field}}} occurs twice; remove one")
    if "clip_id" not in fields:
        raise ManifestError(f"layout {layout!r} has no {{clip_id}}; add it")
    parts = [re.escape(piece) if i % 2 == 0 else f"(?P<{piece}>[^/]+)" for i, piece in enumerate(pieces)]
    return re.compile("".join(parts))


def _sources(folder: Path, *, frame_folders: bool) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the media files, sorted, all others, and the folders of two folders of flow, all without hidden files.

    With frame_folders, folders of images are returned instead of the images.
    """
    sources: list[Path] = []
    others: list[Path] = []
    joined: set[Path] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        parent = Path(root)
        folders[:] = [
            name for name in folders if name[0] != "." and name[-5:] != ".zarr" and not _leads_back(parent / name)
        ]
        shown = [parent / name for name in files if name[0] != "."]
        media = [path for path in shown if path.suffix.lower() in MEDIA]
        others += [path for path in shown if path.suffix.lower() not in MEDIA]
        if frame_folders and any(path.suffix.lower() in IMAGE for path in media):
            if _is_one_direction(parent):
                joined.add(parent.parent)
            else:
                sources.append(parent)
            media = [path for path in media if path.suffix.lower() not in IMAGE]
        sources += media
    sources += joined
    arrays = [path for path in sources if path.suffix.lower() in ARRAY and not path.is_dir()]
    if len(arrays) < len(sources):
        sources = sorted(set(sources) - set(arrays))
        others += arrays
    return sorted(set(sources)), others, sorted(joined)


def _is_one_direction(folder: Path) -> bool:
    """Return whether a folder holds one of the two directions of flow, such as u/ next to v/."""
    if not any(folder.name in pair and all((folder.parent / name).is_dir() for name in pair) for pair in DIRECTIONS):
        return False
    from featcache.media import stored_flow  # not at the top, because it loads OpenCV

    return stored_flow.in_folders(folder.parent)


def _leads_back(path: Path) -> bool:
    """Return whether a link leads to a folder above itself; following it would never end."""
    return path.is_symlink() and any(path.samefile(above) for above in path.parents)


def _scanned(
    empty: Manifest,
    clips: dict[bool, list[Clip]],
    unmatched: list[str],
    left_out: dict[str, int],
    test_share: float,
    seed: int,
) -> Scan:
    """Return a scan of clips in the order of their paths, with unique ids, and a split for those without one."""
    ids = Counter(clip.clip_id for part in clips.values() for clip in part)
    renamed = max(ids.values()) > 1
    if renamed:
        clips = {split: [replace(clip, clip_id=clip.source) for clip in part] for split, part in clips.items()}
    whole = [*clips.get(True, ()), *seeded_split(clips.get(False, []), test_share, seed)]
    by_path = sorted(whole, key=lambda clip: Path(clip.source))
    return Scan(replace(empty, clips=tuple(by_path)), unmatched, left_out, renamed)


def seeded_split(clips: list[Clip], test_share: float, seed: int) -> list[Clip]:
    """Move a seeded share of each (domain, label) to the test split; a group of two or more has both splits.

    The label of a clip with several label kinds is that of its first kind.
    """
    if not 0 < test_share < 1:
        raise ManifestError(f"test share {test_share} is not between 0 and 1")
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.domain, next(iter(clip.labels.values()), "")].append(clip.clip_id)
    test = set()
    for (domain, label), ids in sorted(groups.items()):
        random.Random(f"{seed}/{domain}/{label}").shuffle(ids)
        share = round(len(ids) * test_share)
        test |= set(ids[: min(max(share, 1), len(ids) - 1)])
    return [replace(clip, split="test" if clip.clip_id in test else "train") for clip in clips]
