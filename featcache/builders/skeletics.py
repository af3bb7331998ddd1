"""Skeletics-152: actions of Kinetics-700 with skeletons found by VIBE; all 152 classes, or a list of your own.

`data_manifests/skeletics.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders._annotations import finish
from featcache.errors import ManifestError
from featcache.files import regular
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

PLACES = {"train": ("vibe_results_train", "training", "train"), "test": ("vibe_results_val", "validation", "val")}
CHOICE = "classes.txt"  #: optional file in the folder: one class per line
SIZE = {("skeletics", "train"): 24_265, ("skeletics", "test"): 2341}  #: numbers of clips in CoDT's 30 classes
NOBODY = 4  #: maximum size in bytes of a file without tracks, such as {}


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/skeletics.csv` of the .json files of all classes, or of the classes in `folder/classes.txt`.

    Files in which VIBE found nobody are left out. `progress(done, total)` is called at the end. ManifestError if a
    split's folder is missing, or the list names a class without a folder; a warning for each split that does not have
    CoDT's number of clips.
    """
    folder, clips = Path(folder), list[Clip]()
    homes = {split: _home(folder, split) for split in PLACES}
    classes = {path.name for home in homes.values() for path in home.iterdir() if path.is_dir()}
    chosen = _chosen(folder / CHOICE, classes) if (folder / CHOICE).is_file() else classes
    for split, home in homes.items():
        for name in sorted(chosen):
            clips += [
                Clip(
                    clip_id=f"{name}/{path.stem}",
                    domain="skeletics",
                    split=split,
                    source=path.relative_to(folder).as_posix(),
                    labels={"label": f"skeletics:{name}"},
                )
                for path in sorted((home / name).glob("*.json"))
                if path.stat().st_size > NOBODY
            ]
    return finish("skeletics", clips, folder, SIZE, progress)


def _home(folder: Path, split: str) -> Path:
    homes = [folder / place for place in PLACES[split] if (folder / place).is_dir()]
    if not homes:
        raise ManifestError(
            f"no folder {' or '.join(PLACES[split])} in {folder}; get them from github.com/skelemoa/quovadis"
        )
    return homes[0]


def _chosen(path: Path, classes: set[str]) -> set[str]:
    """Read the classes in a list; ManifestError for a class without a folder."""
    text = regular(path, ManifestError).read_text(encoding="utf-8-sig")
    names = {line.strip() for line in text.splitlines() if line.strip()}
    if unknown := sorted(names - classes):
        raise ManifestError(f"{path}: {unknown[0]!r} is not a class; there are: {', '.join(sorted(classes)) or 'none'}")
    return names
