"""NTU RGB+D 120, cross-setup: skeletons of 120 actions; even setups for training, odd setups for testing.

`data_manifests/ntu120_xset.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (54468, 59477)  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu120_xset.csv` of the .skeleton files in `folder` and its subfolders.

    `progress(done, total)` is called at the end. ManifestError if there are none; a warning for each split that does
    not have the published number of clips.
    """
    return _ntu.build(folder, "ntu120", "xset", SIZE, progress)
