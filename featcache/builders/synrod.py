"""SynROD and ROD: 51 kinds of objects in colour and depth; one domain is rendered, the other photographed.

`data_manifests/synrod.md` is the dataset card.
"""

import os
import warnings
from pathlib import Path, PurePosixPath

from featcache.builders._annotations import choose, find, finish, words
from featcache.errors import ManifestError
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

LISTS = {  # list -> domain, split
    "synROD/synARID_50k-split_sync_train1.txt": ("synrod", "train"),
    "synROD/synARID_50k-split_sync_test1.txt": ("synrod", "test"),
    "ROD/wrgbd_40k-split_sync.txt": ("rod", "train"),
}
CLASSES = 51  #: published number of classes
ORIGIN = "the download page of ROD-synROD, linked from github.com/MRLoghmani/relative-rotation"


def build(folder: str | os.PathLike[str], *, progress: Progress = silent) -> Manifest:
    """Read the three lists in `folder`, the unpacked ROD-synROD, and write `folder/synrod.csv`.

    Sources are the colour pictures. ROD is not split: all its clips are in `train`, so test on `train`, too.
    `progress(done, total)` is called at the end. ManifestError for a list that is missing or damaged; a warning if
    there are not 51 classes.
    """
    folder, clips = Path(folder), list[Clip]()
    lists = {name: words(find(folder, [name], ORIGIN), 2) for name in LISTS}
    classes = _classes(lists["ROD/wrgbd_40k-split_sync.txt"])
    if len(classes) != CLASSES:
        warnings.warn(f"synrod: rod has {len(classes)} classes; the published number is {CLASSES}", stacklevel=2)
    for name, (domain, split) in LISTS.items():
        for k, (path, number) in enumerate(lists[name], 1):
            label = choose(classes, number, f"{folder / name} line {k}")
            clip_id = f"{domain}/{_inside(path).removesuffix('_***.png')}"
            source = f"{PurePosixPath(name).parent}/{_colour(path, domain)}"
            clips.append(Clip(clip_id=clip_id, domain=domain, split=split, source=source, labels={"label": label}))
    return finish("synrod", clips, folder, {}, progress)


def _inside(path: str) -> str:
    """The path without the folder of the modality."""
    return path.removeprefix("???-washington/")


def _colour(path: str, domain: str) -> str:
    """The path of the colour picture; lists have *** for the modality, and ROD a folder rgb-washington."""
    return (
        path.replace("***", "rgb") if domain == "synrod" else f"rgb-washington/{_inside(path).replace('***', 'crop')}"
    )


def _classes(lines: list[list[str]]) -> dict[str, str]:
    """ROD's class names by number, from lines like `rubber_eraser/rubber_eraser_4/rubber_eraser_4_1_136_***.png 36`."""
    classes: dict[str, str] = {}
    for path, number in lines:
        kind = PurePosixPath(_inside(path)).parts[0]
        if classes.setdefault(number, kind) != kind:
            raise ManifestError(
                f"synrod: class {number} of ROD is {classes[number]!r} and {kind!r}; download the list again"
            )
    return classes
