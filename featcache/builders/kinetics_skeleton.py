"""Kinetics-400 with the skeletons that OpenPose found, as ST-GCN's authors published them.

`data_manifests/kinetics_skeleton.md` is the dataset card.
"""

import json
import os
from pathlib import Path

from featcache.builders._annotations import find, finish
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

PLACES = ("", "kinetics-skeleton/")  #: folders, as people have them
ORIGIN = "the archive kinetics-skeleton that github.com/yysijie/st-gcn leads to"
SPLITS = {"train": "train", "val": "test"}
SIZE = {("kinetics", "train"): 240_436, ("kinetics", "test"): 19_796}  #: clips with a skeleton


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/kinetics_skeleton.csv` of the clips that the two lists of labels say have a skeleton.

    `progress(done, total)` is called at the end. ManifestError where a list is missing or damaged; a warning for each
    split that has not the published number of clips.
    """
    folder, clips = Path(folder), list[Clip]()
    for theirs, ours in SPLITS.items():
        path = find(folder, [f"{place}kinetics_{theirs}_label.json" for place in PLACES], ORIGIN)
        home = (path.parent / f"kinetics_{theirs}").relative_to(folder).as_posix()
        clips += [
            Clip(name, "kinetics", ours, f"{home}/{name}.json", labels={"label": f"kinetics:{label}"})
            for name, label in _labels(path).items()
        ]
    return finish("kinetics_skeleton", clips, folder, SIZE, progress)


def _labels(path: Path) -> dict[str, str]:
    """Clip -> class, of the clips in which somebody was found."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        found = {name: of["label"] for name, of in content.items() if of["has_skeleton"]}
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is no JSON ({error}); copy or download it again") from None
    except (AttributeError, KeyError, TypeError):
        found = {"": None}
    if bad := [name for name, label in found.items() if type(label) is not str or not label]:
        shape = '{"---QUuC4vJs": {"has_skeleton": true, "label": "testifying", ...}, ...}'
        raise ManifestError(f"{path}{f': {bad[0]!r}' if bad[0] else ''} is not as in {shape}")
    return found
