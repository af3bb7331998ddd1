"""Features of the mldl23-ego code (EPIC-KITCHENS-55 shifts D1 to D3): a pickle with one dict per clip.

    {"features": [{"uid": 7, "video_name": "P08_01", "features_RGB": (clips, D), "features_Flow": ...}, ...]}

"clips" are windows here. A clip may lack a modality. uid is a whole number or text. Written are uid as a number if
all are, and the id once more as video_name, which a store does not know. The code looks for files that are called
NAME_D1_train.pkl, and so on.
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
    """Modality -> features; ids: of the dicts, instead of their uid. The whole file is held in memory."""
    content = pickles.load(path)
    with reading(path, "a feature file of mldl23-ego"):
        samples = content.get("features") if isinstance(content, dict) else None
        if not isinstance(samples, list) or not samples:
            raise FormatError(
                f'{path} holds {pickles.describe(content)}; a dict with "features", a list of dicts, is expected'
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
            raise FormatError(f"{path}: no clip has features_RGB, features_Flow or the like")
        own = None if ids is not None else ids_of([sample["uid"] for sample in samples], f"{path}: uid")
        names = choose_ids(own, ids, len(samples), str(path))
        features = {"uid", "video_name", *(PREFIX + key for key in rows)}
        left_out = dict.fromkeys(str(name) for sample in samples for name in sample if name not in features)
        return {key: _table(names, found, list(left_out)) for key, found in rows.items()}


def _table(names: list[str], found: dict[int, NDArray[Any]], left_out: list[str]) -> External:
    rows = list(found.values())
    return External([names[k] for k in found], rows.__getitem__, left_out=left_out)


def write(path: Path, tables: dict[str, External]) -> None:
    """Write all tables; a clip is in the file if it is in one of them. They pass through memory."""
    samples: dict[str, dict[str, Any]] = {}
    for key, table in tables.items():
        found = survey(key, table)
        for k, clip_id in enumerate(table.ids):
            sample = samples.setdefault(clip_id, {"uid": clip_id, "video_name": clip_id})
            sample[PREFIX + key] = np.array(table.row(k), found.dtype)
    if all(_is_number(clip_id) for clip_id in samples):
        for clip_id, sample in samples.items():
            sample["uid"] = int(clip_id)
    with replacing(path) as scratch, scratch.open("wb") as file:
        pickles.dump({"features": list(samples.values())}, file)


def _is_number(clip_id: str) -> bool:
    """Whether an id comes back as it was when it is written as a number: "7" does, "07" does not."""
    return clip_id.isascii() and clip_id.isdecimal() and str(int(clip_id[:18])) == clip_id
