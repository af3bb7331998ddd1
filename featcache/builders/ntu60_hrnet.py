"""NTU RGB+D 60 with 2D skeletons found by HRNet, cross-view: cameras 2 and 3 for training, camera 1 for testing.

`data_manifests/ntu60_hrnet.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders import _ntu, _poses
from featcache.builders._annotations import find, finish
from featcache.errors import ManifestError
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

FILES = ("ntu60_hrnet.pkl", "ntu60_2d.pkl")  #: file names of PYSKL and of mmaction2
ORIGIN = "the link in tools/data of github.com/kennymckormick/pyskl"
SPLITS = {"xview_train": "train", "xview_val": "test"}
SIZE = {("ntu60", "train"): 37_646, ("ntu60", "test"): 18_932}  #: published numbers of clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the pickle in `folder`; write `folder/ntu60_hrnet.csv`, and the joints as an .npy next to the pickle.

    `progress(done, total)` is called at the end. ManifestError if the pickle is missing or damaged, FormatError if it
    holds more than values and arrays; a warning for each split that does not have the published number of clips.
    """
    path = find(Path(folder), FILES, ORIGIN)
    clips = _poses.unpack(path, "ntu60", SPLITS, _class, joints=(17,), kept=17, plane=True)
    return finish("ntu60_hrnet", clips, Path(folder), SIZE, progress)


def _class(name: str, label: int) -> str:
    """The class with a number from 0, checked against the number from 1 in the clip's name."""
    match = _ntu.NAME.fullmatch(name)
    if not match or int(match["action"]) != label + 1 or label + 1 not in _ntu.ACTIONS["ntu60"]:
        raise ManifestError(f"ntu60_hrnet: {name!r} with label {label} is not a clip of NTU-60's 60 actions")
    return f"ntu:{_ntu.CLASSES[label + 1]}"
