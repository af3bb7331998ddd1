"""Build manifests from TA3N's lists [Chen et al. 2019] of UCF101, HMDB51 and Olympic Sports, in any of three formats.

    list_ucf101_train_hmdb_ucf-feature.txt    .../v_Archery_g09_c02/ 83 10            video, number of frames, class
    list_ucf101_train_hmdb51-feature.txt      v_Archery_g09_c02 83 10                 the same with another file name
    ucf101_hmdb51_train_da.txt                1  10  Archery/v_Archery_g09_c02.avi    line, class, video

The papers test on TA3N's "val" lists, so these are the split `test`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from featcache.builders._annotations import choose, find, finish, numbered, words
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress

DATASETS = {"ucf": "ucf101", "hmdb": "hmdb51", "olympic": "olympic"}  #: domain -> its name in file names
OLYMPIC = {  # class -> folder of Olympic Sports
    "Basketball": "basketball_layup",
    "CleanAndJerk": "clean_and_jerk",
    "ThrowDiscus": "discus_throw",
    "Diving": "diving_springboard_3m",
    "PoleVault": "pole_vault",
    "TennisSwing": "tennis_serve",
}
HMDB = (  # classes of UCF-HMDB, which are folders of HMDB51
    *("climb", "fencing", "golf", "kick_ball", "pullup", "punch"),
    *("pushup", "ride_bike", "ride_horse", "shoot_ball", "shoot_bow", "walk"),
)
CLASSES = {  # TA3N's name of the pair -> classes by number
    "hmdb_ucf": numbered(HMDB),
    "hmdb_ucf_small": numbered(("golf", "pullup", "ride_bike", "ride_horse", "shoot_ball")),
    "ucf_olympic": numbered(tuple(OLYMPIC)),
}
FILES = (  # patterns of the file names of lists
    "list_{dataset}_{part}_{pair}-feature.txt",
    "list_{dataset}_{part}_{other}-feature.txt",
    "{dataset}_{other}_{part}_da.txt",
)
DROPPED = re.compile("[&()]")  #: characters of HMDB51's file names that TA3N's lists leave out
ORIGIN = "the data lists in the README of github.com/cmhungsteve/TA3N"


def build(
    name: str,
    folder: str | os.PathLike[str],
    lists: tuple[str, ...],
    sizes: Mapping[str, tuple[int, int]],
    progress: Progress,
) -> Manifest:
    """Build the manifest of two domains.

    lists: TA3N's names of the pair; the first is the benchmark. If its lists are missing, the lists of the other names
    are read, and only the benchmark's classes are kept. sizes: domain -> numbers of training and test clips.
    """
    folder, clips, published = Path(folder), list[Clip](), dict[tuple[str, str], int]()
    kept = CLASSES[lists[0]].values()
    for domain, other in zip(sizes, reversed(list(sizes)), strict=True):
        for split, part, size in zip(("train", "test"), ("train", "val"), sizes[domain], strict=True):
            published[domain, split] = size
            fill = {"dataset": DATASETS[domain], "other": DATASETS[other], "part": part}
            names = {file.format(pair=pair, **fill): pair for pair in lists for file in FILES}  # the last pair wins
            path = find(folder, list(names), ORIGIN)
            for k, line in enumerate(words(path, 3), 1):
                number, video = (line[1], line[2]) if path.name.endswith("_da.txt") else (line[2], line[0])
                label = choose(CLASSES[names[path.name]], number, f"{path} line {k}")
                if label in kept:
                    clips.append(_clip(PurePosixPath(video).name.removesuffix(".avi"), domain, split, label))
    return finish(name, clips, folder, published, progress)


def _clip(video: str, domain: str, split: str, label: str) -> Clip:
    """A clip of a whole video, in the folder of its class in its data set; its id is the name of TA3N's features."""
    home = {"ucf": video.split("_")[1:2], "hmdb": [label], "olympic": [OLYMPIC.get(label, label)]}[domain]
    source = "/".join([DATASETS[domain], *home, f"{video}.avi"])
    return Clip(clip_id=DROPPED.sub("", video), domain=domain, split=split, source=source, labels={"label": label})
