"""Features of the mldl23-ego code (EPIC-KITCHENS-55 shifts D1 to D3): a pickle with one dict per clip.

    {"features": [{"uid": 7, "video_name": "P08_01", "features_RGB": (clips, D), "features_Flow": ...}, ...]}

The axis `clips` holds the windows of a clip. A clip may lack a modality. A uid is a whole number or text. `write` makes
every uid a number if all ids are numbers, and repeats the id as video_name, because a store has no video name. The
code expects file names such as NAME_D1_train.pkl.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External
from featcache.bridges._arrays import as_windows, choose_ids, ids_of, survey
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import pickles, reading

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype", "ids"})
PREFIX = "features_"


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read modality -> features; `ids` replaces the uids. The whole file is held in memory."""
    content = pickles.load(path)
    with reading(path, "a feature file of mldl23-ego"):
        samples = content.get("features") if isinstance(content, dict) else None
        if not isinstance(samples, list) or not samples:
            raise FormatError(
                f'{path} holds {pickles.describe(content)}; a dict with a list of dicts in "features" is expected'
            )
        rows: dict[str, dict[int, NDArray[Any]]] = {}
        for k, sample in enumerate(samples):
            if not isinstance(sample, dict) or (ids is None and "uid" not in sample):
                raise FormatError(f'{path}: clip {k} is {pickles.describe(sample)}; a dict with "uid" is expected')
            for name, array in sample.items():
                if isinstance(name, str) and name.startswith(PREFIX) and array is not None:
                    row = pickles.checked(array, f"{path}: {name} of clip {k}", "(clips, D)")
                    rows.setdefault(name.removeprefix(PREFIX), {})[k] = as_windows(row)
        if not rows:
            raise FormatError(f"{path}: no clip has an array such as features_RGB or features_Flow")
        own = None if ids is not None else ids_of([sample["uid"] for sample in samples], f"{path}: uid")
        names = choose_ids(own, ids, len(samples), str(path))
        features = {"uid", "video_name", *(PREFIX + key for key in rows)}
        left_out = list(dict.fromkeys(str(name) for sample in samples for name in sample if name not in features))
        return {key: _table(names, rows_by_clip, left_out) for key, rows_by_clip in rows.items()}


def _table(names: list[str], rows_by_clip: dict[int, NDArray[Any]], left_out: list[str]) -> External:
    rows = list(rows_by_clip.values())
    return External([names[k] for k in rows_by_clip], rows.__getitem__, left_out=left_out)


def write(path: Path, tables: dict[str, External]) -> None:
    """Write all tables, with every clip of any table. All features are held in memory."""
    samples: dict[str, dict[str, Any]] = {}
    for key, table in tables.items():
        dtype = survey(key, table).dtype
        for k, clip_id in enumerate(table.ids):
            sample = samples.setdefault(clip_id, {"uid": clip_id, "video_name": clip_id})
            sample[PREFIX + key] = np.array(table.row(k), dtype)
    if all(_is_number(clip_id) for clip_id in samples):
        for clip_id, sample in samples.items():
            sample["uid"] = int(clip_id)
    with replacing(path) as scratch, scratch.open("wb") as file:
        pickles.dump({"features": list(samples.values())}, file)


def _is_number(clip_id: str) -> bool:
    """True if an id survives being written as a number: "7" does, "07" does not."""
    return clip_id.isascii() and clip_id.isdecimal() and str(int(clip_id[:18])) == clip_id
