"""NTU-60+, cross-subject: skeletons of the 60 actions that NTU RGB+D 120 adds to NTU RGB+D 60.

`data_manifests/ntu60plus_xsub.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (22935, 34432)  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60plus_xsub.csv` of the .skeleton files in `folder` and its subfolders.

    `progress(done, total)` is called at the end. ManifestError if there are none; a warning for each split that does
    not have the published number of clips.
    """
    return _ntu.build(folder, "ntu60plus", "xsub", SIZE, progress)
