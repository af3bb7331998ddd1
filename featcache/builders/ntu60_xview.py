"""NTU-60, cross-view: cameras 2 and 3 are there to train, camera 1 to test.

`data_manifests/ntu60_xview.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (37646, 18932)  #: clips to train and to test


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60_xview.csv` of the .skeleton files in `folder` and below it.

    `progress(done, total)` is called at the end. ManifestError where there is none of them; a warning for each split
    that has not the published number of clips.
    """
    return _ntu.build(folder, "ntu60", "xview", SIZE, progress)
