"""EPIC-KITCHENS-100, unsupervised domain adaptation: verbs and nouns; the target is the same kitchens two years later.

`data_manifests/epic100_uda.md` is the dataset card. The challenge's six lists are the six (domain, split) pairs, so
`train_split` and `test_split` of an experiment choose the protocol.
"""

import os
from pathlib import Path

from featcache.builders._annotations import choose, find, finish, seconds, table
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

LISTS = {  # list -> domain, split, number of clips
    "source_train": ("source", "train", 16115),
    "source_val": ("source", "val", 5002),
    "source_test_timestamps": ("source", "test", 4298),
    "target_train_timestamps": ("target", "train", 26115),
    "target_val": ("target", "val", 7906),
    "target_test_timestamps": ("target", "test", 5909),
}
COLUMNS = ("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp")
LABELS = ("narration", "verb_class", "noun_class")  #: columns that the lists of timestamps lack
ORIGIN = "github.com/epic-kitchens/epic-kitchens-100-annotations"


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the challenge's lists in `folder` and write `folder/epic100_uda.csv`.

    Sources are `folder/P01/videos/P01_101.MP4`. The lists of the hidden test may be left out. `progress(done, total)`
    is called at the end. ManifestError or FormatError for a file that is missing or damaged; a warning for each split
    that does not have the published number of clips.
    """
    folder, clips, published = Path(folder), list[Clip](), dict[tuple[str, str], int]()
    classes = {
        "verb": _classes(folder, ["EPIC_100_verb_classes.csv"]),
        "noun": _classes(folder, ["EPIC_100_noun_classes_v2.csv", "EPIC_100_noun_classes.csv"]),
    }
    for part, (domain, split, size) in LISTS.items():
        names = [f"EPIC_100_uda_{part}.{ending}" for ending in ("csv", "pkl")]
        if split == "test" and not any((folder / name).exists() for name in names):
            continue
        published[domain, split] = size
        path = find(folder, names, f"{ORIGIN}, folder UDA_annotations")
        labelled = not part.endswith("_timestamps")
        for k, row in enumerate(table(path, COLUMNS + LABELS if labelled else COLUMNS), 1):
            place = f"{path} row {k}"
            labels = {kind: choose(classes[kind], row[f"{kind}_class"], place) for kind in classes} if labelled else {}
            clip = Clip(
                clip_id=row["narration_id"],
                domain=domain,
                split=split,
                source=f"{row['participant_id']}/videos/{row['video_id']}.MP4",
                start=seconds(row["start_timestamp"], place),
                stop=seconds(row["stop_timestamp"], place),
                labels=labels,
                caption=row["narration"] if labelled else "",
            )
            clips.append(clip)
    return finish("epic100_uda", clips, folder, published, progress)


def _classes(folder: Path, names: list[str]) -> dict[str, str]:
    """Read the name of each class by its number."""
    return {row["id"]: row["key"] for row in table(find(folder, names, ORIGIN), ("id", "key"))}
