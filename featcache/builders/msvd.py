"""MSVD, the Microsoft Research Video Description Corpus: 1,970 YouTube clips with about forty captions each.

`data_manifests/msvd.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders._annotations import find, table, words
from featcache.builders._captions import publish
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

SIZES = {"train": 1200, "val": 100, "test": 670}  #: numbers of clips
CORPUS = ("MSR Video Description Corpus.csv", "MSR_Video_Description_Corpus.csv", "video_corpus.csv")
MAPPING = "youtube_mapping.txt"  #: clips as vid1, vid2, ...; the first 1,200 are the training clips, and so on
ORIGIN = "microsoft.com/en-us/download/details.aspx?id=52422"
SPLIT_ORIGIN = "github.com/albanie/collaborative-experts, folder misc/datasets/msvd"


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the corpus and the split in `folder` and write `folder/msvd.csv` and `folder/msvd_captions.csv`.

    The split is read from train_list.txt, val_list.txt and test_list.txt or, without them, from youtube_mapping.txt.
    Only English captions are kept. `progress(done, total)` is called at the end. ManifestError for a file that is
    missing or damaged; a warning for each split that does not have the published number of clips.
    """
    folder, captions = Path(folder), dict[str, list[str]]()
    corpus = find(folder, CORPUS, ORIGIN)
    clips = [Clip(name, "msvd", split, f"YouTubeClips/{name}.avi") for name, split in _splits(folder)]
    for row in table(corpus, ("VideoID", "Start", "End", "Language")):
        if "Description" not in row:
            raise ManifestError(f"{corpus} has no column Description; it has: {', '.join(row)}")
        if row["Language"] == "English":
            captions.setdefault(f"{row['VideoID']}_{row['Start']}_{row['End']}", []).append(row["Description"])
    return publish(
        "msvd",
        clips,
        captions,
        folder,
        progress,
        clips_published={("msvd", split): size for split, size in SIZES.items()},
        captions_published={},  # papers report between 80,000 and 81,000
    )


def _splits(folder: Path) -> list[tuple[str, str]]:
    """Read (name, split) of each clip; the name is VIDEO_START_END."""
    lists = [(folder / f"{split}_list.txt", split) for split in SIZES]
    if any(path.is_file() for path, _ in lists) or not (folder / MAPPING).is_file():
        paths = [(find(folder, [path.name, MAPPING], SPLIT_ORIGIN), split) for path, split in lists]
        return [(name, split) for path, split in paths for (name,) in words(path, 1)]
    order = {f"vid{k}": split for k, split in enumerate((s for s, size in SIZES.items() for _ in range(size)), 1)}
    named = words(folder / MAPPING, 2)
    for k, (_, number) in enumerate(named, 1):
        if number not in order:
            raise ManifestError(f"{folder / MAPPING} line {k}: {number!r} is not one of vid1 to vid{len(order)}")
    return [(name, order[number]) for name, number in named]
