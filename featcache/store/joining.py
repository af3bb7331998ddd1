"""Several stores side by side: row k of a join is the same clip in each.

>>> both = join({"rgb": FeatureStore.open("hog.zarr"), "audio": FeatureStore.open("logmel.zarr")})  # doctest: +SKIP
>>> features, present = both.to_torch()                                                            # doctest: +SKIP

Stores of one manifest have equal rows and need no matching. Other stores are matched by clip id. Between stores, clips
of one id may differ in source and fps, because each modality of a clip may have its own file (a video, and an .npz of
muscle signals), and in caption. They may not differ in bounds that both stores give. An empty bound matches any bound,
because its file may have been cut to the clip; but when both stores name the same source, an empty start is 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.store import _format as fmt
from featcache.store.reader import SHOWN, FeatureStore
from featcache.wording import first, quoted

if TYPE_CHECKING:
    import torch

HOW = ("inner", "outer")


@dataclass(frozen=True)
class Joined:
    """The n clips of several joined stores; see `join`."""

    stores: dict[str, FeatureStore]
    ids: list[str]  #: clip ids, (n,)
    rows: dict[str, NDArray[np.int64]]  #: store -> row of each clip (n,); -1 where the store lacks the clip
    fell_out: dict[str, list[str]]  #: store -> ids of its clips that are not in the join

    @property
    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Store -> mask of the present windows (n, T); a clip that the store lacks or that is not done has none."""
        return {name: self.stores[name].present[rows] & (rows >= 0)[:, None] for name, rows in self.rows.items()}

    def to_torch(self, device: str = "cpu") -> "tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]":
        """Store -> features (n, T, *row_shape) float32, with zeros where not present; and `present` as tensors."""
        import torch

        features = {}
        for name, store in self.stores.items():
            rows = self.rows[name]
            x = torch.zeros((len(self), store.windows, *store.row_shape), device=device)
            x[torch.from_numpy(rows >= 0).to(device)] = store.to_torch(rows[rows >= 0], device)
            features[name] = x
        return features, {name: torch.from_numpy(windows).to(device) for name, windows in self.present.items()}

    def summary(self) -> str:
        """The number of clips as text, and per store the clips that it lacks and the clips that fell out."""
        lines = [f"{len(self)} clips in {', '.join(self.stores)}"]
        for name in self.stores:
            lacking = [self.ids[k] for k in np.flatnonzero(self.rows[name] < 0)]
            if lacking:
                lines.append(f"{name} lacks {len(lacking)} clips: {quoted(lacking)}")
            if self.fell_out[name]:
                lines.append(f"{len(self.fell_out[name])} clips of {name} fell out: {quoted(self.fell_out[name])}")
        return "\n".join(lines)

    def __len__(self) -> int:
        return len(self.ids)


def join(stores: dict[str, FeatureStore], how: str = "inner") -> Joined:
    """Match the rows of stores (name -> store; the name is usually the modality) by clip id.

    how: "inner" keeps the clips that all stores have, in the order of the first store; "outer" keeps all clips: those
    of the first store, then those that only later stores have. Both keep clips that failed; `present` excludes their
    windows.
    Raises StoreError when clips of one id have different bounds, or when no clip is common to all stores.
    """
    if how not in HOW:
        raise StoreError(f"no join {how!r}; choose from {', '.join(HOW)}")
    if not stores:
        raise StoreError("a join needs at least one store")
    leading = next(iter(stores.values()))
    if len({fmt.read_bytes(store.path / "rows.csv") for store in stores.values()}) == 1:
        return Joined(stores, leading.clip_ids, {m: np.arange(len(leading)) for m in stores}, {m: [] for m in stores})
    row_of = {name: {clip_id: row for row, clip_id in enumerate(store.clip_ids)} for name, store in stores.items()}
    if how == "inner":
        ids = [clip_id for clip_id in leading.clip_ids if all(clip_id in rows for rows in row_of.values())]
    else:
        ids = list(dict.fromkeys(clip_id for rows in row_of.values() for clip_id in rows))
    if not ids:
        examples = "; ".join(f"{name} has {quoted(store.clip_ids)}" for name, store in stores.items())
        raise StoreError(f"no clip is in all of these stores: {examples}")
    if conflicts := list(_conflicts(stores, row_of, ids)):
        raise StoreError(
            "clips of one id are different intervals:\n  "
            + first(conflicts, SHOWN, between="\n  ")
            + "\ngive different clips different ids, or the same clip the same bounds, in one unit"
        )
    kept = set(ids)
    positions = {name: np.array([rows.get(i, -1) for i in ids], np.int64) for name, rows in row_of.items()}
    return Joined(stores, ids, positions, {name: [i for i in rows if i not in kept] for name, rows in row_of.items()})


def _conflicts(stores: dict[str, FeatureStore], row_of: dict[str, dict[str, int]], ids: list[str]) -> Iterator[str]:
    """Describe each difference in bounds between two stores' clips of one id."""
    for clip_id in ids:
        clips = [(name, stores[name].rows[rows[clip_id]]) for name, rows in row_of.items() if clip_id in rows]
        for k, (name, clip) in enumerate(clips):
            for earlier_name, earlier in clips[:k]:
                if key := _differing_bound(clip, earlier):
                    yield (
                        f"{clip_id!r}: {key} {earlier[key] or '0'} {earlier['unit']} of {earlier['source']} in "
                        f"{earlier_name}, {clip[key] or '0'} {clip['unit']} of {clip['source']} in {name}"
                    )


def _differing_bound(clip: dict[str, str], other: dict[str, str]) -> str:
    """The bound, "start" or "stop", that both clips give and that differs; "" when there is none."""
    origin = "0" if clip["source"] == other["source"] else ""
    for key, default in (("start", origin), ("stop", "")):
        a, b = clip[key] or default, other[key] or default
        if a and b and (a != b or (clip["unit"] != other["unit"] and a != "0")):
            return key
    return ""
