"""A reader of the annotation files of MSR-VTT, of which two versions are in use.

    MSRVTT_data.json                  all 10,000 videos and 200,000 captions
    train_val_videodatainfo.json      the same in two files, as published for the challenge of 2016
    test_videodatainfo.json

Both are {"videos": [{"video_id", "split", ...}], "sentences": [{"video_id", "caption", ...}]}.
"""

from pathlib import Path

from featcache.builders._annotations import find
from featcache.builders._captions import entries
from featcache.errors import ManifestError
from featcache.manifest import Clip

WHOLE, PARTS = "MSRVTT_data.json", ("train_val_videodatainfo.json", "test_videodatainfo.json")
SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}  #: split in the files -> in the manifest
ORIGIN = "github.com/ArrowLuo/CLIP4Clip, release v0.0, msrvtt_data.zip"


def read(folder: Path) -> tuple[list[Clip], dict[str, list[str]]]:
    """Read the videos of the full split, in order, and the captions of each."""
    paths = [folder / WHOLE]
    if not paths[0].is_file():
        paths = [find(folder, [part, WHOLE], ORIGIN) for part in PARTS]
    clips, captions = list[Clip](), dict[str, list[str]]()
    for path in paths:
        for k, video in enumerate(entries(path, "videos", ("video_id", "split"))):
            if video["split"] not in SPLITS:
                raise ManifestError(f"{path} videos[{k}]: split {video['split']!r} is none of {', '.join(SPLITS)}")
            split = SPLITS[video["split"]]
            home = "TestVideo" if split == "test" else "TrainValVideo"
            clips.append(Clip(video["video_id"], "msrvtt", split, f"{home}/{video['video_id']}.mp4"))
        for sentence in entries(path, "sentences", ("video_id", "caption")):
            captions.setdefault(sentence["video_id"], []).append(str(sentence["caption"]))
    return clips, captions
