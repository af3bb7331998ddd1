"""Skeletics-152: actions of Kinetics-700 with the skeletons that VIBE found; all 152 classes, or those of a list.

`data_manifests/skeletics.md` is the dataset card.
"""

import os
from pathlib import Path

from featcache.builders._annotations import finish
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

PLACES = {"train": ("vibe_results_train", "training", "train"), "test": ("vibe_results_val", "validation", "val")}
CHOICE = "classes.txt"  #: in the folder: a class a line
SIZE = {("skeletics", "train"): 24_265, ("skeletics", "test"): 2341}  #: clips of CoDT's 30 classes
NOBODY = 4  #: bytes that a file of no track has at most: {}


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Write `folder/skeletics.csv` of the .json files of all classes, or of those that `folder/classes.txt` lists.

    Files in which VIBE found nobody are left out. `progress(done, total)` is called at the end. ManifestError where a
    split's folder is missing, or the list names a class without one; a warning for each split that has not CoDT's
    number of clips.
    """
    folder, clips = Path(folder), list[Clip]()
    homes = {split: _home(folder, split) for split in PLACES}
    there = {path.name for home in homes.values() for path in home.iterdir() if path.is_dir()}
    chosen = _chosen(folder / CHOICE, there) if (folder / CHOICE).is_file() else there
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
    found = [folder / place for place in PLACES[split] if (folder / place).is_dir()]
    if not found:
        raise ManifestError(
            f"no folder {' or '.join(PLACES[split])} in {folder}; get them from github.com/skelemoa/quovadis"
        )
    return found[0]


def _chosen(path: Path, there: set[str]) -> set[str]:
    names = {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()}
    if unknown := sorted(names - there):
        raise ManifestError(f"{path}: {unknown[0]!r} is no class; there are {', '.join(sorted(there)) or 'none'}")
    return names
