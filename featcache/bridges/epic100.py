"""EPIC-KITCHENS-100 features for domain adaptation: a pickle of narration ids and one array (n, T, D) per modality.

    {"narration_ids": [id, ...], "features": {"RGB": (n, 25, 1024), "Flow": ..., "Audio": ...}}

Any modalities, T and D are read, also (n, D), which is one window. All modalities have the same clips in the same
order. The ids may be an array. Trainers of the challenge (TA3N) expect float32, (n, T, D), and the three names above.
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

KEEPS = frozenset({"several", "windows", "shape", "dtype", "ids"})


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Modality -> features; ids: of the rows, instead of the narration ids. The whole file is held in memory."""
    content = pickles.load(path)
    with reading(path, "a feature file of EPIC-100"):
        if not isinstance(content, dict) or not isinstance(content.get("features"), dict):
            raise FormatError(
                f'{path} holds {pickles.describe(content)}; a dict with "narration_ids" and "features", a dict of'
                " arrays, is expected"
            )
        if not content["features"]:
            raise FormatError(f"{path} has no modality in its features")
        own = None
        if ids is None:
            if "narration_ids" not in content:
                raise FormatError(f"{path} has no narration_ids; give the ids in a text file with --ids, one per line")
            own = ids_of(content["narration_ids"], f"{path}: narration_ids")
        tables = {}
        for key, array in content["features"].items():
            place = f"{path}: {key!r}"
            array = pickles.checked(array, place, "(n, T, D)", axes=2)
            if not isinstance(key, str):
                raise FormatError(f"{place} is a {type(key).__name__}; the name of a modality is expected")
            left_out = [str(name) for name in content if name not in ("narration_ids", "features")]
            tables[key] = External(choose_ids(own, ids, len(array), place), _rows(array), left_out=left_out)
        return tables


def _rows(array: NDArray[Any]) -> Any:
    return lambda k: as_windows(array[k])


def write(path: Path, tables: dict[str, External]) -> None:
    """Write all tables, which must have the same clips, each with equally many windows. They pass through memory."""
    first, ids = next((key, list(table.ids)) for key, table in tables.items())
    features = {}
    for key, table in tables.items():
        place = {clip_id: k for k, clip_id in enumerate(table.ids)}
        differ = sorted(set(ids) ^ set(place))
        if differ:
            raise FormatError(
                f"epic100 holds the same clips in all modalities, but {len(differ)} are in {first} or {key} alone, such"
                f" as {differ[0]!r}; write one file for each, or hdf5"
            )
        found = survey(key, table)
        found.check_even(key, "epic100")
        features[key] = np.empty(found.stacked(), found.dtype)
        for k, clip_id in enumerate(ids):
            features[key][k] = table.row(place[clip_id])
    with replacing(path) as scratch, scratch.open("wb") as file:
        pickles.dump({"narration_ids": ids, "features": features}, file)
