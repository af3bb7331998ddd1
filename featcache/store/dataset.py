"""Stores as a torch Dataset, for your own training loop.

>>> data = FeatureDataset(join({"rgb": store}), manifest=manifest)                 # doctest: +SKIP
>>> for features, present, ids, labels in DataLoader(data, batch_size=128, shuffle=True): ...  # doctest: +SKIP

A batch is gathered from the mapped shards in one piece, so `DataLoader` is fast without worker processes. Worker
processes work, too.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from featcache.errors import StoreError
from featcache.manifest import Manifest
from featcache.store.joining import Joined
from featcache.store.mapped import Mapped, why_not
from featcache.store.reader import row_numbers

Item = tuple[Any, ...]


class FeatureDataset(torch.utils.data.Dataset[Item]):
    """The clips of a join, one item each. `torch.utils.data.default_collate` makes batches of items.

    An item is (store -> features (T, *row_shape) float32, store -> present (T,) bool, clip id). Features of windows
    that are not present are zeros. With a manifest a fourth part follows: label kind -> class number, an index into
    `manifest.classes[kind]`, or -1 for a clip that has no such label or is not in the manifest.
    """

    def __init__(self, joined: Joined, rows: Sequence[int] | None = None, manifest: Manifest | None = None) -> None:
        """Make a data set of `rows`: positions in the join, in this order, or a mask; default: all.

        Raises IndexError for a position outside the join, and StoreError when the manifest has none of the clips.
        """
        chosen = row_numbers(rows, len(joined))
        self.stores = joined.stores
        self.ids = [joined.ids[row] for row in chosen]
        self.labels = None if manifest is None else _labels(self.ids, manifest)
        self._rows = {name: torch.from_numpy(rows[chosen]) for name, rows in joined.rows.items()}
        self._present = {name: torch.from_numpy(present[chosen]) for name, present in joined.present.items()}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, k: int) -> Item:
        """Item k."""
        return self.__getitems__([k])[0]

    def __getitems__(self, ks: Sequence[int]) -> list[Item]:
        """The items of one batch, gathered together; `DataLoader` calls this method."""
        index = torch.as_tensor(ks, dtype=torch.int64)
        if len(index) and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"items {index.min()} to {index.max()} reach outside the {len(self)} items")
        features = {name: self._gather(name, index) for name in self.stores}
        present = {name: windows[index] for name, windows in self._present.items()}
        items: list[Item] = [
            ({m: x[i] for m, x in features.items()}, {m: p[i] for m, p in present.items()}, self.ids[k])
            for i, k in enumerate(index.tolist())
        ]
        if self.labels is not None:
            labels = {kind: y[index].tolist() for kind, y in self.labels.items()}
            items = [(*item, {kind: y[i] for kind, y in labels.items()}) for i, item in enumerate(items)]
        return items

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the mappings, which each process makes for itself."""
        return {name: value for name, value in vars(self).items() if name != "_maps"}

    @cached_property
    def _maps(self) -> dict[str, Mapped]:
        """The stores that can be mapped; other stores, such as archives, are read."""
        return {name: Mapped(store) for name, store in self.stores.items() if not why_not(store)}

    def _gather(self, name: str, index: Tensor) -> Tensor:
        """Features of these items (n, T, *row_shape) float32."""
        rows = self._rows[name][index]
        in_store = rows >= 0
        x = self._read(name, rows[in_store])
        if in_store.all():
            return x
        return torch.zeros((len(rows), *x.shape[1:])).index_put_((in_store,), x)

    def _read(self, name: str, rows: Tensor) -> Tensor:
        """Rows of a store (n, T, *row_shape) float32."""
        if name in self._maps:
            return self._maps[name].tensor(rows.numpy()).index_select(0, rows).float()
        return self.stores[name].to_torch(rows.numpy())


def _labels(ids: list[str], manifest: Manifest) -> dict[str, Tensor]:
    """Label kind -> class numbers (n,) int64 of these clips, -1 for clips without a label."""
    clips = {clip.clip_id: clip for clip in manifest}
    if ids and clips.keys().isdisjoint(ids):
        raise StoreError(f"manifest {manifest.name!r} has none of the {len(ids)} clips, such as {ids[0]!r}")
    labels = {}
    for kind, names in manifest.classes.items():
        number = {name: k for k, name in enumerate(names)}
        clip_labels = (clips[i].labels.get(kind) if i in clips else None for i in ids)
        labels[kind] = torch.tensor([-1 if name is None else number[name] for name in clip_labels], dtype=torch.int64)
    return labels
