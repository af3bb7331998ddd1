"""EPIC-KITCHENS-100 features for domain adaptation: a pickle of narration ids and one array (n, T, D) per modality.

    {"narration_ids": [id, ...], "features": {"RGB": (n, 25, 1024), "Flow": ..., "Audio": ...}}

`read` takes any modality names, T and D, and (n, D) as one window per clip. All modalities have the same clips in the
same order. The ids may be an array. The challenge's training code (TA3N) expects float32, (n, T, D), and the three
names above.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import GIVE_IDS, External
from featcache.bridges._arrays import as_windows, choose_ids, ids_of, survey
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import pickles, reading

KEEPS = frozenset({"several", "windows", "shape", "dtype", "ids"})


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read modality -> features; `ids` replaces the narration ids. The whole file is held in memory."""
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
                raise FormatError(f"{path} has no narration_ids; {GIVE_IDS}")
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
    """Write all tables, which need the same clips and one T per table. All features are held in memory."""
    first, ids = next((key, list(table.ids)) for key, table in tables.items())
    features = {}
    for key, table in tables.items():
        row_of = {clip_id: k for k, clip_id in enumerate(table.ids)}
        differ = sorted(set(ids) ^ set(row_of))
        if differ:
            raise FormatError(
                f"epic100 needs the same clips in all modalities, but {len(differ)} are only in {first} or only in"
                f" {key}, such as {differ[0]!r}; write one file per modality, or hdf5"
            )
        summary = survey(key, table)
        summary.check_even(key, "epic100")
        features[key] = np.empty(summary.stacked(), summary.dtype)
        for k, clip_id in enumerate(ids):
            features[key][k] = table.row(row_of[clip_id])
    with replacing(path) as scratch, scratch.open("wb") as file:
        pickles.dump({"narration_ids": ids, "features": features}, file)
