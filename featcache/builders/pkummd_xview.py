"""PKU-MMD, cross-view: skeletons of 51 actions; two cameras for training, the third for testing.

`data_manifests/pkummd_xview.md` is the dataset card.
"""

import os

from featcache.builders import _pkummd
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (14357, 7188)  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read `cross-view.txt` and the files of labels in `folder`; write `folder/pkummd_xview.csv`.

    `progress(done, total)` is called at the end. ManifestError for a file that is missing or damaged; a warning for
    each split that does not have the published number of clips.
    """
    return _pkummd.build("pkummd_xview", folder, "cross-view.txt", SIZE, progress)
