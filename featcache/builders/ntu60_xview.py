"""NTU RGB+D 60, cross-view: skeletons of 60 actions; cameras 2 and 3 for training, camera 1 for testing.

`data_manifests/ntu60_xview.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (37646, 18932)  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60_xview.csv` of the .skeleton files in `folder` and its subfolders.

    `progress(done, total)` is called at the end. ManifestError if there are none; a warning for each split that does
    not have the published number of clips.
    """
    return _ntu.build(folder, "ntu60", "xview", SIZE, progress)
