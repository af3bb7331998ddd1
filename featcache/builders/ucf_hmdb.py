"""UCF-HMDB (full): the twelve classes that UCF101 and HMDB51 have in common.

`data_manifests/ucf_hmdb.md` is the dataset card.
"""

import os

from featcache.builders import _ucf
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZES = {"ucf": (1438, 571), "hmdb": (840, 360)}  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the four lists in `folder` and write `folder/ucf_hmdb.csv`.

    A source is `folder/ucf101/Archery/v_Archery_g01_c01.avi`. `progress(done, total)` is called at the end.
    ManifestError for a list that is missing or damaged; a warning for each split that does not have the published
    number of clips.
    """
    return _ucf.build("ucf_hmdb", folder, ("hmdb_ucf",), SIZES, progress)
