"""LSMDC: 102,079 moments of movies with one sentence each, in the split used for retrieval.

`data_manifests/lsmdc.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders._annotations import find
from featcache.builders._captions import publish
from featcache.errors import ManifestError
from featcache.files import regular
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

LISTS = {  # split -> list, number of sentences
    "train": ("LSMDC16_annos_training.csv", 101_079),
    "val": ("LSMDC16_annos_val.csv", 7408),
    "test": ("LSMDC16_challenge_1000_publictect.csv", 1000),
}
EXAMPLE = "1012_Unbreakable_00.05.16.065-00.05.21.941"  #: an id: movie and times
CELLS = 6  #: per line: clip, start and end as aligned, start and end as cut, sentence
ORIGIN = "sites.google.com/site/describingmovies/download (the movies' owners ask for a password)"


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the three lists in `folder`; write `folder/lsmdc.csv` and `folder/lsmdc_captions.csv`.

    The validation list may be missing. `progress(done, total)` is called at the end. ManifestError for a list that
    is missing or damaged; a warning for each split that does not have the published number of sentences.
    """
    folder, clips, captions = Path(folder), dict[str, Clip](), dict[str, list[str]]()
    published = {}
    for split, (name, size) in LISTS.items():
        if split == "val" and not (folder / name).is_file():
            continue
        published["lsmdc", split] = size
        path = find(folder, [name], ORIGIN)
        for place, clip_id, sentence in _sentences(path):
            movie = clip_id.rpartition("_")[0]
            if not movie:
                raise ManifestError(f"{place}: {clip_id!r} is not a clip such as {EXAMPLE}")
            clip = Clip(clip_id, "lsmdc", split, f"{movie}/{clip_id}.avi")
            if clips.setdefault(clip_id, clip) != clip:
                raise ManifestError(f"{place}: clip {clip_id!r} is also in the split {clips[clip_id].split}; keep one")
            captions.setdefault(clip_id, []).append(sentence)
    return publish(
        "lsmdc",
        list(clips.values()),
        captions,
        folder,
        progress,
        clips_published={},
        captions_published=published,
    )


def _sentences(path: Path) -> list[tuple[str, str, str]]:
    """Read (place, clip, sentence) from each line. The file is not CSV: quotation marks belong to the sentences."""
    try:
        text = regular(path, ManifestError).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    sentences = []
    for k, line in enumerate(text.split("\n"), 1):
        cells = line.strip().split("\t")
        if len(cells) != CELLS and line.strip():
            raise ManifestError(f"{path} line {k} has {len(cells)} cells between tabs; {CELLS} are expected")
        if line.strip():
            sentences.append((f"{path} line {k}", cells[0], cells[-1]))
    return sentences
