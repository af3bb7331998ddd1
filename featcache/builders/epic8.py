"""EPIC-KITCHENS-55, eight verbs in three kitchens, from the lists of MM-SADA: D1 = P08, D2 = P01, D3 = P22.

`data_manifests/epic8.md` is the dataset card.
"""

import os

from featcache.builders import _mmsada
from featcache.manifest import Manifest
from featcache.progress import Progress, silent


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read MM-SADA's lists in `folder` and write `folder/epic8.csv`; sources are `folder/P01/videos/P01_01.MP4`.

    `progress(done, total)` is called at the end. ManifestError or FormatError for a list that is missing or damaged; a
    warning for each split that does not have the published number of clips.
    """
    return _mmsada.build("epic8", folder, {"D1": "D1", "D2": "D2", "D3": "D3"}, progress)
