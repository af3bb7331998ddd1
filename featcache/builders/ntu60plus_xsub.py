"""NTU-60+, the sixty classes that NTU-120 adds to NTU-60, cross-subject.

`data_manifests/ntu60plus_xsub.md` is the dataset card.
"""

import os

from featcache.builders import _ntu
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZE = (22935, 34432)  #: clips to train and to test


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/ntu60plus_xsub.csv` of the .skeleton files in `folder` and below it.

    `progress(done, total)` is called at the end. ManifestError where there is none of them; a warning for each split
    that has not the published number of clips.
    """
    return _ntu.build(folder, "ntu60plus", "xsub", SIZE, progress)
