"""Helpers of the builders of retrieval benchmarks, which write clips to NAME.csv and captions to NAME_captions.csv.

In a manifest of captions every table row is one caption: a copy of its clip's row with the id `CLIP#k`, the text in
`caption`, and the clip's id in `of`.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache import schema
from featcache.builders._annotations import Counts, finish
from featcache.errors import ManifestError
from featcache.files import regular
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
    """Write `folder/NAME.csv` and `folder/NAME_captions.csv`; return the manifest of the clips.

    Blank captions, and captions of clips that are not in `clips`, are left out. Numbers that differ from the published
    ones are a warning, and so are clips without a caption, because no query can find them.
    """
    caption_rows: list[Clip] = []
    for clip in clips:
        texts = [" ".join(text.split()) for text in captions.get(clip.clip_id, ())]
        caption_rows += [
            replace(clip, clip_id=f"{clip.clip_id}#{k}", caption=text, of=clip.clip_id)
            for k, text in enumerate(filter(None, texts))
        ]
    if not caption_rows:
        raise ManifestError(f"{name}: the annotation files in {folder} have no captions of these clips")
    manifest = finish(name, clips, folder, clips_published, progress)
    described = {caption.of for caption in caption_rows}
    if undescribed := [clip.clip_id for clip in clips if clip.clip_id not in described]:
        warnings.warn(f"{name}: {len(undescribed)} clips have no caption, such as {undescribed[0]!r}", stacklevel=3)
    counts = Counter((caption.domain, caption.split) for caption in caption_rows)
    for (domain, split), expected in sorted(captions_published.items()):
        if counts[domain, split] != expected:
            difference = f"has {counts[domain, split]} captions; the published number is {expected}"
            warnings.warn(f"{name}: {domain} {split} {difference}", stacklevel=3)
    Manifest(f"{name}_captions", tuple(caption_rows), folder).write(folder / f"{name}_captions.csv")
    return manifest


def entries(path: Path, key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The list under `key` of a JSON file; ManifestError if the file, the list or a field of an entry is missing."""
    data = regular(path, ManifestError).read_bytes()
    content = schema.loads(data, str(path), error=ManifestError, fix="download it again")
    listed = content.get(key) if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise ManifestError(f"{path} has no list {key!r}; replace it with the official file")
    for k, entry in enumerate(listed):
        _check(entry, fields, f"{path} {key}[{k}]")
    return listed


def lines(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one JSON object per line; ManifestError names an invalid line."""
    with regular(path, ManifestError).open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path} line {number}"
                entry = schema.loads(line, place, error=ManifestError, fix="download the file again")
                _check(entry, fields, place)
                yield entry


def _check(entry: Any, fields: Sequence[str], place: str) -> None:
    present = entry if isinstance(entry, dict) else {}
    if missing := [field for field in fields if not isinstance(present.get(field), str | int)]:
        raise ManifestError(
            f"{place} has no {', '.join(map(repr, missing))}; it has: {', '.join(present) or 'nothing'}"
        )
