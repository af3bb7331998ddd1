"""MSR-VTT: 10,000 web videos with twenty captions each, in the authors' split.

`data_manifests/msrvtt.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders import _msrvtt
from featcache.builders._captions import publish
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZES = {"train": 6513, "val": 497, "test": 2990}  #: numbers of videos
CAPTIONS = 20  #: per video


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the annotation files in `folder` and write `folder/msrvtt.csv` and `folder/msrvtt_captions.csv`.

    `progress(done, total)` is called at the end. ManifestError for a file that is missing or damaged; a warning for
    each split that does not have the published number of videos or captions.
    """
    clips, captions = _msrvtt.read(Path(folder))
    return publish(
        "msrvtt",
        clips,
        captions,
        Path(folder),
        progress,
        clips_published={("msrvtt", split): size for split, size in SIZES.items()},
        captions_published={("msrvtt", split): CAPTIONS * size for split, size in SIZES.items()},
    )
