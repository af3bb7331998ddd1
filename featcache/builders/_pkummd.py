"""PKU-MMD [Liu et al. 2017], phase 1: a clip is an annotated action in a long recording.

cross-subject.txt         four lines: a heading, the training recordings (0002-L, 0002-M, ...), a heading, the test ones
0002-L.txt of labels      a line per action: its number, first frame, last frame, confidence
0002-L.txt of skeletons   a line per frame: x y z of 25 joints of two bodies
"""

import os
import re
from pathlib import Path

from featcache.builders._annotations import choose, find, finish
from featcache.errors import ManifestError
from featcache.files import regular
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress

SPLITS = ("", "Split/")  #: folders in which copies keep these files
LABELS = ("Train_Label_PKU_final/", "Label/Train_Label_PKU_final/", "Label/")
SKELETONS = ("PKU_Skeleton_Renew/", "Data/PKU_Skeleton_Renew/", "Data/Skeleton/", "Data/skeleton/")
ORIGIN = "the PKU-MMD site, linked from github.com/ECHO960/PKU-MMD"
NAMES = """
bow | brushing hair | brushing teeth | check time (from watch) | cheer up | clapping |
cross hands in front (say stop) | drink water | drop | eat meal/snack | falling | giving something to other person |
hand waving | handshaking | hopping (one foot jumping) | hugging other person | jump up | kicking other person |
kicking something | make a phone call/answer phone | pat on back of other person | pickup | playing with phone/tablet |
point finger at the other person | pointing to something with finger | punching/slapping other person |
pushing other person | put on a hat/cap | put something inside pocket | reading | rub two hands together | salute |
sitting down | standing up | take off a hat/cap | take off glasses | take off jacket | take out something from pocket |
taking a selfie | tear up paper | throw | touch back (backache) | touch chest (stomachache/heart pain) |
touch head (headache) | touch neck (neckache) | typing on a keyboard | use a fan (with hand or paper)/feeling warm |
wear jacket | wear on glasses | wipe face | writing
"""
CLASSES = {str(k): name.strip() for k, name in enumerate(NAMES.split("|"), 1)}  #: number of an action -> its name


def build(
    name: str, folder: str | os.PathLike[str], split_file: str, size: tuple[int, int], progress: Progress
) -> Manifest:
    """Build the manifest of the recordings in `split_file`; size: published numbers of training and test clips.

    ManifestError for a file of splits or labels that is missing or damaged; a warning for each split that does not have
    the published number of clips.
    """
    folder, clips = Path(folder), list[Clip]()
    skeletons = next((place for place in SKELETONS if (folder / place).is_dir()), SKELETONS[0])
    for split, recordings in _recordings(find(folder, [place + split_file for place in SPLITS], ORIGIN)).items():
        for recording in recordings:
            path = find(folder, [f"{place}{recording}.txt" for place in LABELS], ORIGIN)
            for k, (action, first, last) in enumerate(_actions(path)):
                clips.append(
                    Clip(
                        clip_id=f"{recording}/{k:02}",
                        domain="pkummd",
                        split=split,
                        source=f"{skeletons}{recording}.txt",
                        start=first,
                        stop=last,
                        unit="frames",
                        labels={"label": f"pku:{choose(CLASSES, action, f'{path} line {k + 1}')}"},
                    )
                )
    published = {("pkummd", split): count for split, count in zip(("train", "test"), size, strict=True)}
    return finish(name, clips, folder, published, progress)


def _recordings(path: Path) -> dict[str, list[str]]:
    parts = regular(path, ManifestError).read_text(encoding="utf-8", errors="replace").split("videos:")
    train, test = (re.findall(r"\d+-[LMR]", part) for part in parts[1:]) if len(parts) == 3 else ([], [])
    if not train or not test:
        raise ManifestError(
            f"{path} does not list recordings such as 0002-L under 'Training videos:' and 'Validataion videos:'"
        )
    return {"train": train, "test": test}


def _actions(path: Path) -> list[tuple[str, int, int]]:
    """Read (number of the class, first frame, frame after the last) from each line."""
    actions = []
    text = regular(path, ManifestError).read_text(encoding="utf-8", errors="replace")
    for k, line in enumerate(text.splitlines(), 1):
        cells = line.replace(" ", "").split(",")
        if len(cells) != 4 or not all(cell.isascii() and cell.isdecimal() for cell in cells[:3]):
            raise ManifestError(f"{path} line {k}: {line[:40]!r} is not action,first,last,confidence")
        actions.append((cells[0], int(cells[1]), int(cells[2])))
    return actions
