"""What the builders of retrieval benchmarks share: clips go to NAME.csv, their captions to NAME_captions.csv.

In a manifest of captions every row is one caption: its clip's row with the id `CLIP#k`, the text in `caption`, and the
clip in `of`.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.builders._annotations import Counts, finish
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress

Captions = Mapping[str, Sequence[str]]  #: clip_id -> its captions


def publish(
    name: str,
    clips: Sequence[Clip],
    captions: Captions,
    folder: Path,
    progress: Progress,
    *,
    clips_published: Counts,
    captions_published: Counts,
) -> Manifest:
    """Write `folder/NAME.csv` and `folder/NAME_captions.csv`; the manifest of the clips.

    Captions of clips that are none of `clips` are left out, and so are blank ones. A warning for numbers that are not
    the published ones and for clips that have no caption, which nobody can ask for.
    """
    told: list[Clip] = []
    for clip in clips:
        texts = [" ".join(text.split()) for text in captions.get(clip.clip_id, ())]
        told += [
            replace(clip, clip_id=f"{clip.clip_id}#{k}", caption=text, of=clip.clip_id)
            for k, text in enumerate(filter(None, texts))
        ]
    if not told:
        raise ManifestError(f"{name}: the annotation files in {folder} have no caption of any clip")
    manifest = finish(name, clips, folder, clips_published, progress)
    described = {caption.of for caption in told}
    if silent := [clip.clip_id for clip in clips if clip.clip_id not in described]:
        warnings.warn(f"{name}: {len(silent)} clips have no caption, the first is {silent[0]!r}", stacklevel=3)
    found = Counter((caption.domain, caption.split) for caption in told)
    for (domain, split), expected in sorted(captions_published.items()):
        if found[domain, split] != expected:
            said = f"{domain} {split} has {found[domain, split]} captions, published are {expected}"
            warnings.warn(f"{name}: {said}", stacklevel=3)
    Manifest(f"{name}_captions", tuple(told), folder).write(folder / f"{name}_captions.csv")
    return manifest


def entries(path: Path, key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The list under `key` of a JSON file; ManifestError where the file, the list or a field of an entry is missing."""
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not JSON in UTF-8 ({error}); get it anew") from None
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise ManifestError(f"{path} has no list {key!r}; it must be the official file")
    for k, entry in enumerate(found):
        _check(entry, fields, f"{path} {key}[{k}]")
    return found


def lines(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of one JSON object per line; ManifestError names the line of what is wrong."""
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    entry = json.loads(line)
                    _check(entry, fields, f"{path} line {number}")
                    yield entry
        except json.JSONDecodeError as error:
            raise ManifestError(f"{path} line {number} is not JSON ({error}); get the file anew") from None
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path} is not UTF-8 text ({error.reason}); get the file anew") from None


def _check(entry: Any, fields: Sequence[str], place: str) -> None:
    there = entry if isinstance(entry, dict) else {}
    if lacking := [field for field in fields if not isinstance(there.get(field), str | int)]:
        raise ManifestError(f"{place} has no {', '.join(map(repr, lacking))}; it has: {', '.join(there) or 'nothing'}")
