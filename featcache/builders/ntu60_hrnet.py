"""NTU-60 with the skeletons that HRNet found in its pictures, cross-view: cameras 2 and 3 train, camera 1 tests.

`data_manifests/ntu60_hrnet.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders import _ntu, _poses
from featcache.builders._annotations import find, finish
from featcache.errors import ManifestError
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

FILES = ("ntu60_hrnet.pkl", "ntu60_2d.pkl")  #: as PYSKL calls it, and mmaction2
ORIGIN = "where tools/data of github.com/kennymckormick/pyskl says"
SPLITS = {"xview_train": "train", "xview_val": "test"}
SIZE = {("ntu60", "train"): 37_646, ("ntu60", "test"): 18_932}  #: published clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60_hrnet.csv`, and the joints as an .npy beside the pickle in `folder`.

    `progress(done, total)` is called at the end. ManifestError where the pickle is missing or damaged, FormatError
    where it asks for more than values and arrays; a warning for each split that has not the published number of clips.
    """
    path = find(Path(folder), FILES, ORIGIN)
    clips = _poses.unpack(path, "ntu60", SPLITS, _class, joints=(17,), kept=17, plane=True)
    return finish("ntu60_hrnet", clips, Path(folder), SIZE, progress)


def _class(name: str, label: int) -> str:
    """By its number from 0; the clip's name has it, too, from 1."""
    match = _ntu.NAME.fullmatch(name)
    if not match or int(match["action"]) != label + 1 or label + 1 not in _ntu.ACTIONS["ntu60"]:
        raise ManifestError(f"ntu60_hrnet: {name!r} with label {label} is no clip of NTU-60's 60 actions")
    return f"ntu:{_ntu.CLASSES[label + 1]}"
