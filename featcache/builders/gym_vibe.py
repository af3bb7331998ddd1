"""FineGym: 99 elements of gymnastics, with skeletons found by VIBE.

`data_manifests/gym_vibe.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders import _poses, card
from featcache.builders._annotations import choose, find, finish, numbered
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

ORIGIN = f"the authors of PoseConv3D, github.com/kennymckormick/pyskl; {card('gym_vibe')} describes the file"
CLASSES = numbered([f"gym:{k:02}" for k in range(99)])
SIZE = {("gym", "train"): 20_484, ("gym", "test"): 8521}  #: published numbers of clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read `folder/gym_vibe.pkl`; write `folder/gym_vibe.csv` and the joints, `folder/gym_vibe.npy`.

    `progress(done, total)` is called at the end. ManifestError if the pickle is missing or damaged, FormatError if it
    holds more than values and arrays; a warning for each split that does not have the published number of clips.
    """
    path, splits = find(Path(folder), ["gym_vibe.pkl"], ORIGIN), {"train": "train", "val": "test"}

    def named(clip: str, label: int) -> str:
        return choose(CLASSES, str(label), f"{path}: label of {clip!r}")

    clips = _poses.unpack(path, "gym", splits, named, joints=(49, 25), kept=15, plane=False)
    return finish("gym_vibe", clips, Path(folder), SIZE, progress)
