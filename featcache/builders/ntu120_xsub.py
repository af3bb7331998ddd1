"""NTU-120, cross-subject: 53 people are there to train, 53 others to test.

`data_manifests/ntu120_xsub.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (63026, 50919)  #: clips to train and to test


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu120_xsub.csv` of the .skeleton files in `folder` and below it.

    `progress(done, total)` is called at the end. ManifestError where there is none of them; a warning for each split
    that has not the published number of clips.
    """
    return _ntu.build(folder, "ntu120", "xsub", SIZE, progress)
