"""NTU-60, cross-subject: twenty people are there to train, twenty others to test.

`data_manifests/ntu60_xsub.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (40091, 16487)  #: clips to train and to test


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60_xsub.csv` of the .skeleton files in `folder` and below it.

    `progress(done, total)` is called at the end. ManifestError where there is none of them; a warning for each split
    that has not the published number of clips.
    """
    return _ntu.build(folder, "ntu60", "xsub", SIZE, progress)
