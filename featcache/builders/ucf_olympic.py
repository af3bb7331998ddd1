"""UCF-Olympic: six classes that UCF101 and Olympic Sports have in common.

`data_manifests/ucf_olympic.md` is the dataset card.
"""

import os

from featcache.builders import _ucf
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZES = {"ucf": (601, 240), "olympic": (250, 54)}  #: numbers of training and test clips


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the four lists in `folder` and write `folder/ucf_olympic.csv`.

    A source is `folder/ucf101/Diving/v_Diving_g01_c01.avi`. `progress(done, total)` is called at the end. ManifestError
    for a list that is missing or damaged; a warning for each split that does not have the published number of clips.
    """
    return _ucf.build("ucf_olympic", folder, ("ucf_olympic",), SIZES, progress)
