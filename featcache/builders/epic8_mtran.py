"""EPIC-8 with the domain names implied by MTRAN's numbers of clips: D1 = P01, D2 = P08, D3 = P22.

`data_manifests/epic8_mtran.md` is the dataset card. MTRAN's own test lists are not public.
"""

import os

from featcache.builders import _mmsada
from featcache.manifest import Manifest
from featcache.progress import Progress, silent


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read MM-SADA's lists in `folder` and write `folder/epic8_mtran.csv`; otherwise like `epic8.build`."""
    return _mmsada.build("epic8_mtran", folder, {"D1": "D2", "D2": "D1", "D3": "D3"}, progress)
