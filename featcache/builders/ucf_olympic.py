"""UCF101 and Olympic Sports, six classes that both have (UCF-Olympic).

`data_manifests/ucf_olympic.md` is the dataset card.
"""

import os

from featcache.builders import _ucf
from featcache.builders._annotations import Progress
from featcache.manifest import Manifest

SIZES = {"ucf": (601, 240), "olympic": (250, 54)}  #: clips to train and to test


def build(folder: str | os.PathLike[str], *, progress: Progress = None) -> Manifest:
    """Read the four lists in `folder` and write `folder/ucf_olympic.csv`.

    A source is `folder/ucf101/Diving/v_Diving_g01_c01.avi`. `progress(done, total)` is called at the end.
    ManifestError for a list that is missing or damaged; a warning for each split that has not the published number
    of clips.
    """
    return _ucf.build("ucf_olympic", folder, ("ucf_olympic",), SIZES, progress)
