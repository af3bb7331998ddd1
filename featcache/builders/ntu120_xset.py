"""NTU-120, cross-setup: even setups are there to train, odd ones to test.

`data_manifests/ntu120_xset.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (54468, 59477)  #: clips to train and to test


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu120_xset.csv` of the .skeleton files in `folder` and below it.

    `progress(done, total)` is called at the end. ManifestError where there is none of them; a warning for each split
    that has not the published number of clips.
    """
    return _ntu.build(folder, "ntu120", "xset", SIZE, progress)
