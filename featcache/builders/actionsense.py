"""ActionSense: twenty kitchen activities, recorded from the muscles of both arms; each of ten people is a domain.

`data_manifests/actionsense.md` is the dataset card.
"""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from featcache.builders import card
from featcache.builders._annotations import finish, npz_arrays
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

FILE = "emg_all_subjects.npz"
ARRAYS = ("left", "right", "offset", "label", "class_name", "subject", "action_id")


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read `folder/emg_all_subjects.npz` and write `folder/actionsense.csv`; a clip is an interval of the file's rows.

    `progress(done, total)` is called at the end. ManifestError for a file that is missing or lacks an array.
    """
    folder = Path(folder)
    arrays = _read(folder / FILE)
    split = _splits(*(arrays[name].tolist() for name in ("subject", "label", "action_id")))
    offset, names = arrays["offset"].tolist(), arrays["class_name"].tolist()
    clips = [
        Clip(
            clip_id=f"{subject}_{action}_{k}",
            domain=subject,
            split=split[subject, action],
            source=FILE,
            start=offset[k],
            stop=offset[k + 1],
            unit="frames",
            labels={"label": names[label]},
        )
        for k, (subject, label, action) in enumerate(
            zip(*(arrays[name].tolist() for name in ("subject", "label", "action_id")), strict=True)
        )
    ]
    return finish("actionsense", clips, folder, {}, progress)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise ManifestError(f"no {path.name} in {path.parent}; {card('actionsense')} describes the file")
    content = npz_arrays(path, ARRAYS)
    clips, ends = len(content["subject"]), content["offset"]
    if {len(content["label"]), len(content["action_id"]), len(ends) - 1} != {clips}:
        raise ManifestError(f"{path}: subject, label and action_id must have equal lengths, and offset one value more")
    if not len(content["left"]) == len(content["right"]) == ends[-1]:
        raise ManifestError(f"{path}: left and right must have {ends[-1]} rows, the last offset")
    if not 0 <= content["label"].min() <= content["label"].max() < len(content["class_name"]):
        raise ManifestError(
            f"{path}: label must be from 0 to {len(content['class_name']) - 1}, as class_name has"
            f" {len(content['class_name'])} values"
        )
    return content


def _splits(subjects: list[str], labels: list[int], actions: list[int]) -> dict[tuple[str, int], str]:
    """Map (subject, action) to a split; every second action of each subject and class is a test action."""
    actions_of: dict[tuple[str, int], list[int]] = defaultdict(list)
    for subject, label, action in zip(subjects, labels, actions, strict=True):
        if action not in actions_of[subject, label]:
            actions_of[subject, label].append(action)
    return {
        (subject, action): ("train", "test")[k % 2]
        for (subject, _), of_class in actions_of.items()
        for k, action in enumerate(of_class)
    }
