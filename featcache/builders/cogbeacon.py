"""CogBeacon: cognitive fatigue during a card game, from EEG and facial key points; three versions are the domains.

`data_manifests/cogbeacon.md` is the dataset card. It describes the unpublished parts, and how to write the files of
rounds that the manifest names.
"""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from featcache.builders._annotations import finish, words
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

SESSION = re.compile(r"user_[0-9]+(?P<second>b?)_[vta]_(?P<mode>[mo])")  #: user, second day, stimuli, mode of the game
SIZES = {"V1": 2240, "V2": 2432, "V3": 2300}  #: numbers of rounds
REPORTS = "fatigue_self_report"
ORIGIN = "github.com/MikeMpapa/CogBeacon-MultiModal_Dataset_for_Cognitive_Fatigue"


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read `folder/fatigue_self_report/user_0_v_m.csv` and so on; write `folder/cogbeacon.csv`, a clip per round.

    A source is `folder/rounds/user_0_v_m/17.npz`, which the user makes. All rounds are in the split `train`, because no
    split is published: test on `train`, too. `progress(done, total)` is called at the end. ManifestError if there are
    no reports or one cannot be read; a warning for other files, and for domains without the published number.
    """
    folder, clips = Path(folder), list[Clip]()
    paths = sorted((folder / REPORTS).glob("*.csv"))
    if not paths:
        raise ManifestError(f"no {REPORTS}/user_*.csv in {folder}; unpack {REPORTS}.tar.xz of {ORIGIN}")
    for path in paths:
        if session := SESSION.fullmatch(path.stem):
            version = "V3" if session["mode"] == "o" else "V2" if session["second"] else "V1"
            clips += _rounds(path, version)
        else:
            warnings.warn(f"cogbeacon: {path} is not named like user_0_v_m.csv, and was left out", stacklevel=2)
    return finish("cogbeacon", clips, folder, {(v, "train"): size for v, size in SIZES.items()}, progress)


def _rounds(path: Path, version: str) -> Iterator[Clip]:
    """Yield a clip per line. Line k holds the number of fatigue reports up to round k; 1 or more is `fatigue`."""
    for k, (cell,) in enumerate(words(path, 1), 1):
        try:
            presses = int(float(cell))
        except (ValueError, OverflowError):
            raise ManifestError(f"{path} line {k}: {cell!r} is not a number of button presses") from None
        yield Clip(
            clip_id=f"{path.stem}/{k}",
            domain=version,
            split="train",
            source=f"rounds/{path.stem}/{k}.npz",
            labels={"label": "fatigue" if presses > 0 else "no fatigue"},
        )
