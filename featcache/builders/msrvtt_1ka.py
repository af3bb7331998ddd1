"""MSR-VTT in the split 1k-A of JSFusion (Yu et al. 2018): 9,000 training videos, 1,000 test videos with one sentence.

`data_manifests/msrvtt_1ka.md` is the dataset card.
"""

import os
from dataclasses import replace
from pathlib import Path

from featcache.builders import _msrvtt
from featcache.builders._annotations import find, table
from featcache.builders._captions import publish
from featcache.errors import ManifestError
from featcache.manifest import Manifest
from featcache.progress import Progress, silent

SIZES = {"train": (9000, 180_000), "test": (1000, 1000)}  #: numbers of videos and captions


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read MSR-VTT's annotations and the two lists in `folder`; write `msrvtt_1ka.csv` and `msrvtt_1ka_captions.csv`.

    `progress(done, total)` is called at the end. ManifestError for a file that is missing or damaged, or a list that
    names a video that MSR-VTT does not have; a warning for each split that does not have the published number of videos
    or captions.
    """
    folder = Path(folder)
    tests = find(folder, ["MSRVTT_JSFUSION_test.csv"], _msrvtt.ORIGIN)
    trains = find(folder, ["MSRVTT_train.9k.csv"], _msrvtt.ORIGIN)
    full, captions = _msrvtt.read(folder)
    video, clips = {clip.clip_id: clip for clip in full}, []
    for path, split in ((trains, "train"), (tests, "test")):
        for k, row in enumerate(table(path, ("video_id",) if split == "train" else ("video_id", "sentence")), 1):
            if row["video_id"] not in video:
                raise ManifestError(f"{path} row {k}: MSR-VTT's annotations in {folder} have no {row['video_id']!r}")
            clips.append(replace(video[row["video_id"]], split=split))
            if split == "test":
                captions[row["video_id"]] = [row["sentence"]]
    return publish(
        "msrvtt_1ka",
        clips,
        captions,
        folder,
        progress,
        clips_published={("msrvtt", split): videos for split, (videos, _) in SIZES.items()},
        captions_published={("msrvtt", split): count for split, (_, count) in SIZES.items()},
    )
