"""PKU-MMD, cross-subject: skeletons of 51 actions; 57 people for training, nine others for testing.

`data_manifests/pkummd_xsub.md` is the dataset card.
"""

import os

from featcache.builders import _pkummd
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (18841, 2704)  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read `cross-subject.txt` and the files of labels in `folder`; write `folder/pkummd_xsub.csv`.

    `progress(done, total)` is called at the end. ManifestError for a file that is missing or damaged; a warning for
    each split that does not have the published number of clips.
    """
    return _pkummd.build("pkummd_xsub", folder, "cross-subject.txt", SIZE, progress)
