"""UTKinect, MSR-Action3D and Florence3D: three data sets of actions in front of a depth camera, each a domain.

`data_manifests/kinect_actions.md` is the dataset card.
"""

import os
from pathlib import Path

import numpy as np

from featcache.builders import card
from featcache.builders._annotations import finish, npz_arrays
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

FILES = {"utk": "utkinect.npz", "msr": "msraction3d.npz", "florence": "florence3d.npz"}  #: domain -> its file
ARRAYS = ("frames", "offset", "label", "subject", "trial", "class_names")
SIZES = {"utk": (100, 99), "msr": (284, 273), "florence": (109, 106)}  #: numbers of clips of odd and of even subjects


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the available ones of the three files in `folder` and write `folder/kinect_actions.csv`.

    A clip is an interval of its file's frames. Its class is the domain and the file's name of the class ("utk:walk").
    Odd subjects are for training. `progress(done, total)` is called at the end. ManifestError if none of the files is
    there or one is damaged; a warning for each split that does not have the number of clips in the dataset card.
    """
    folder = Path(folder)
    paths = {domain: folder / name for domain, name in FILES.items() if (folder / name).is_file()}
    if not paths:
        raise ManifestError(
            f"none of {', '.join(FILES.values())} is in {folder}; {card('kinect_actions')} describes them"
        )
    clips = [clip for domain, path in paths.items() for clip in _clips(domain, path)]
    published = {
        (domain, split): n for domain in FILES for split, n in zip(("train", "test"), SIZES[domain], strict=True)
    }
    return finish("kinect_actions", clips, folder, published, progress)


def _clips(domain: str, path: Path) -> list[Clip]:
    arrays = _read(path)
    offset, label, subject, trial, names = (arrays[name].tolist() for name in ARRAYS[1:])
    return [
        Clip(
            clip_id=f"{domain}/s{s:02}_a{k:02}_t{t}",
            domain=domain,
            split="train" if s % 2 else "test",
            source=path.name,
            start=start,
            stop=stop,
            unit="frames",
            labels={"label": f"{domain}:{names[k]}"},
        )
        for s, k, t, start, stop in zip(subject, label, trial, offset[:-1], offset[1:], strict=True)
    ]


def _read(path: Path) -> dict[str, np.ndarray]:
    content = npz_arrays(path, ARRAYS)
    clips, ends = len(content["label"]), content["offset"]
    if not clips or {len(content["subject"]), len(content["trial"]), len(ends) - 1} != {clips}:
        raise ManifestError(f"{path}: label, subject and trial must have equal lengths, and offset one value more")
    if len(content["frames"]) != ends[-1]:
        raise ManifestError(f"{path} has {len(content['frames'])} frames, but the last offset is {ends[-1]}")
    if not 0 <= content["label"].min() <= content["label"].max() < len(content["class_names"]):
        raise ManifestError(
            f"{path}: label must be from 0 to {len(content['class_names']) - 1}, an index of class_names"
        )
    return content
