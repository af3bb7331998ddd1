"""NTU RGB+D [Shahroudy et al. 2016; Liu et al. 2019]: a clip is a file, and its name holds the annotation.

S001C002P003R002A013.skeleton is setup 1, camera 2, person 3, repetition 2, action 13. Actions 1 to 60 are NTU-60;
NTU-120 added 61 to 120. A protocol chooses the training clips by these numbers.
"""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from featcache.builders._annotations import finish
from featcache.errors import ManifestError
from featcache.files import regular
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress

NAME = re.compile(r"S(?P<setup>\d{3})C(?P<camera>\d{3})P(?P<person>\d{3})R(?P<time>\d{3})A(?P<action>\d{3})")
MISSING = ("NTU_RGBD_samples_with_missing_skeletons.txt", "NTU_RGBD120_samples_with_missing_skeletons.txt")
SUBJECTS = {  # persons of the training split; the first twenty are those of NTU-60
    *(1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89),
    *(91, 92, 93, 94, 95, 97, 98, 100, 103),
}
PROTOCOLS: dict[str, Callable[[dict[str, int]], bool]] = {
    "xsub": lambda numbers: numbers["person"] in SUBJECTS,
    "xview": lambda numbers: numbers["camera"] in (2, 3),
    "xset": lambda numbers: numbers["setup"] % 2 == 0,
}
ACTIONS = {"ntu60": range(1, 61), "ntu120": range(1, 121), "ntu60plus": range(61, 121)}  #: data set -> actions
NAMES = """
drink water | eat meal/snack | brushing teeth | brushing hair | drop | pickup | throw | sitting down |
standing up (from sitting position) | clapping | reading | writing | tear up paper | wear jacket | take off jacket |
wear a shoe | take off a shoe | wear on glasses | take off glasses | put on a hat/cap | take off a hat/cap | cheer up |
hand waving | kicking something | put something inside pocket / take out something from pocket |
hopping (one foot jumping) | jump up | make a phone call/answer phone | playing with phone/tablet |
typing on a keyboard | pointing to something with finger | taking a selfie | check time (from watch) |
rub two hands together | nod head/bow | shake head | wipe face | salute | put the palms together |
cross hands in front (say stop) | sneeze/cough | staggering | falling | touch head (headache) |
touch chest (stomachache/heart pain) | touch back (backache) | touch neck (neckache) | nausea or vomiting condition |
use a fan (with hand or paper)/feeling warm | punching/slapping other person | kicking other person |
pushing other person | pat on back of other person | point finger at the other person | hugging other person |
giving something to other person | touch other person's pocket | handshaking | walking towards each other |
walking apart from each other | put on headphone | take off headphone | shoot at the basket | bounce ball |
tennis bat swing | juggling table tennis balls | hush (quite) | flick hair | thumb up | thumb down | make ok sign |
make victory sign | staple book | counting money | cutting nails | cutting paper (using scissors) | snapping fingers |
open bottle | sniff (smell) | squat down | toss a coin | fold paper | ball up paper | play magic cube |
apply cream on face | apply cream on hand back | put on bag | take off bag | put something into a bag |
take something out of a bag | open a box | move heavy objects | shake fist | throw up cap/hat | hands up (both hands) |
cross arms | arm circles | arm swings | running on the spot | butt kicks (kick backward) | cross toe touch |
side kick | yawn | stretch oneself | blow nose | hit other person with something | wield knife towards other person |
knock over other person (hit with body) | grab other person's stuff | shoot at other person with a gun | step on foot |
high-five | cheers and drink | carry something with other person | take a photo of other person | follow other person |
whisper in other person's ear | exchange things with other person | support somebody with one's hand |
finger-guessing game (playing rock-paper-scissors)
"""
CLASSES = dict(enumerate((name.strip() for name in NAMES.split("|")), 1))  #: number of an action -> its name


def build(
    folder: str | os.PathLike[str], data_set: str, protocol: str, size: tuple[int, int], progress: Progress
) -> Manifest:
    """Build the manifest DATA_SET_PROTOCOL from the files in `folder` and its subfolders.

    size: published numbers of training and test clips. Files on a list of missing skeletons (MISSING) in `folder` are
    left out. ManifestError if there is no file of the data set; a warning for files with other names, and for numbers
    of clips that differ from the published ones.
    """
    folder, clips, misnamed = Path(folder), list[Clip](), list[str]()
    missing = {
        name
        for path in MISSING
        if (folder / path).is_file()
        for name in regular(folder / path, ManifestError).read_text(encoding="utf-8").split()
    }
    for path in sorted(folder.rglob("*.skeleton")):
        if not (match := NAME.fullmatch(path.stem)):
            misnamed.append(path.name)
            continue
        numbers = {part: int(digits) for part, digits in match.groupdict().items()}
        if numbers["action"] not in ACTIONS[data_set] or path.stem in missing:
            continue
        clips.append(
            Clip(
                clip_id=path.stem,
                domain=data_set,
                split="train" if PROTOCOLS[protocol](numbers) else "test",
                source=path.relative_to(folder).as_posix(),
                labels={"label": f"ntu:{CLASSES[numbers['action']]}"},
            )
        )
    name = f"{data_set}_{protocol}"
    if not clips:
        raise ManifestError(
            f"no file such as S001C001P001R001A{ACTIONS[data_set][0]:03}.skeleton is in {folder} or its subfolders; "
            f"data_manifests/{name}.md names their source"
        )
    if misnamed:
        warnings.warn(
            f"{name}: {misnamed[0]} is not named like S001C001P001R001A001.skeleton, and was left out", stacklevel=3
        )
    published = {(data_set, split): count for split, count in zip(("train", "test"), size, strict=True)}
    return finish(name, clips, folder, published, progress)
