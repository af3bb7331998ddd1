"""NTU RGB+D 60, cross-subject: skeletons of 60 actions; 20 people for training, 20 others for testing.

`data_manifests/ntu60_xsub.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (40091, 16487)  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60_xsub.csv` of the .skeleton files in `folder` and its subfolders.

    `progress(done, total)` is called at the end. ManifestError if there are none; a warning for each split that does
    not have the published number of clips.
    """
    return _ntu.build(folder, "ntu60", "xsub", SIZE, progress)
