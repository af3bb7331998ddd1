"""Kinetics-400 with skeletons found by OpenPose, as published by the authors of ST-GCN.

`data_manifests/kinetics_skeleton.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache import schema
from featcache.builders._annotations import find, finish
from featcache.errors import ManifestError
from featcache.files import regular
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

PLACES = ("", "kinetics-skeleton/")  #: folders in which copies keep the lists
ORIGIN = "the archive kinetics-skeleton, linked from github.com/yysijie/st-gcn"
SPLITS = {"train": "train", "val": "test"}
SIZE = {("kinetics", "train"): 240_436, ("kinetics", "test"): 19_796}  #: numbers of clips with a skeleton


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/kinetics_skeleton.csv` of the clips with a skeleton in the two lists of labels.

    `progress(done, total)` is called at the end. ManifestError if a list is missing or damaged; a warning for each
    split that does not have the published number of clips.
    """
    folder, clips = Path(folder), list[Clip]()
    for official, split in SPLITS.items():
        path = find(folder, [f"{place}kinetics_{official}_label.json" for place in PLACES], ORIGIN)
        home = (path.parent / f"kinetics_{official}").relative_to(folder).as_posix()
        clips += [
            Clip(name, "kinetics", split, f"{home}/{name}.json", labels={"label": f"kinetics:{label}"})
            for name, label in _labels(path).items()
        ]
    return finish("kinetics_skeleton", clips, folder, SIZE, progress)


def _labels(path: Path) -> dict[str, str]:
    """Read clip -> class, for the clips with a skeleton."""
    data = regular(path, ManifestError).read_bytes()
    content = schema.loads(data, str(path), error=ManifestError, fix="copy or download it again")
    try:
        labels = {name: entry["label"] for name, entry in content.items() if entry["has_skeleton"]}
    except (AttributeError, KeyError, TypeError):
        labels = {"": None}
    if bad := [name for name, label in labels.items() if type(label) is not str or not label]:
        shape = '{"---QUuC4vJs": {"has_skeleton": true, "label": "testifying", ...}, ...}'
        raise ManifestError(f"{path}{f': {bad[0]!r}' if bad[0] else ''} does not have the form {shape}")
    return labels
