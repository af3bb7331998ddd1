"""The EPIC-KITCHENS-55 lists of MM-SADA [Munro & Damen 2020], under the domain names of one paper or another."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from featcache.builders._annotations import choose, find, finish, numbered, seconds, table
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress

VERBS = numbered(("take", "put", "open", "close", "wash", "cut", "mix", "pour"))  #: by verb_class
PARTICIPANT = {"D1": "P08", "D2": "P01", "D3": "P22"}  #: list of MM-SADA -> its participant
SIZES = {"P08": (1543, 435), "P01": (2495, 750), "P22": (3897, 974)}  #: numbers of training and test clips
COLUMNS = ("uid", "participant_id", "video_id", "narration", "start_timestamp", "stop_timestamp", "verb_class")
ORIGIN = "github.com/jonmun/MM-SADA-code, folder Annotations"


def build(
    name: str,
    folder: str | os.PathLike[str],
    lists: Mapping[str, str],
    progress: Progress,
    caption: Callable[[str], str] = str,
) -> Manifest:
    """Build the manifest. lists: domain -> MM-SADA's name of its list; caption: narration -> caption."""
    folder, clips, published = Path(folder), list[Clip](), dict[tuple[str, str], int]()
    for domain, part in lists.items():
        for split, size in zip(("train", "test"), SIZES[PARTICIPANT[part]], strict=True):
            published[domain, split] = size
            path = find(folder, [f"{part}_{split}.pkl", f"{part}_{split}.csv"], ORIGIN)
            for k, row in enumerate(table(path, COLUMNS), 1):
                row["narration"] = caption(row["narration"])
                clips.append(_clip(row, domain, split, PARTICIPANT[part], f"{path} row {k}"))
    return finish(name, clips, folder, published, progress)


def _clip(row: dict[str, str], domain: str, split: str, participant: str, place: str) -> Clip:
    """A clip with bounds in seconds; the frame numbers of the lists count pictures resampled to 60 per second."""
    if row["participant_id"] != participant:
        raise ManifestError(
            f"{place}: a clip of {row['participant_id']} is in the list of {participant}; download the list again"
        )
    return Clip(
        clip_id=row["uid"],
        domain=domain,
        split=split,
        source=f"{participant}/videos/{row['video_id']}.MP4",
        start=seconds(row["start_timestamp"], place),
        stop=seconds(row["stop_timestamp"], place),
        labels={"label": choose(VERBS, row["verb_class"], place)},
        caption=row["narration"],
    )
