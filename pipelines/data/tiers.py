"""Tiers: the three places for the features of a run while it trains. One is chosen, and the reason is recorded.

    resident    float32 on the device, only the rows of the run. A draw that treats every row alike is applied once:
                `segments:k` keeps its windows, `mean` keeps the mean. Runs and workers share the memory on a CPU, and
                runs of one process that on a GPU.
    mapped      the shards in the stored type; rows are gathered, then cast. Processes share the memory.
    streaming   the same for stores larger than memory: batches come from a few blocks at a time, which are read ahead
                and released after use.

`resident` and `mapped` give bit-identical batches; `streaming` draws the rows in another order.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import FeatureStore
from featcache.errors import ConfigError, StoreError
from featcache.store.mapped import Mapped, why_not
from featcache.wording import size
from pipelines.config import parse_draw
from pipelines.data.gathering import NO_VIEWS, Views, centres, mean
from pipelines.data.memory import free_memory
from pipelines.data.sharing import copies, held


class Stream:
    """A reader of features larger than memory: a thread reads and verifies rows of mapped stores ahead.

    Used rows are released.
    """

    def __init__(self, stores: list[Mapped], block_rows: int, views: dict[str, list[Mapped]] | None = None) -> None:
        self.stores = stores  #: of the modalities without views
        self.views = views or {}  #: modality -> its store, then the stores of its views
        self.block_rows = block_rows
        self.reader = ThreadPoolExecutor(1, "read-ahead")
        self.reading: list[Future[None]] = []

    def ahead(self, rows: Tensor, views: Views = NO_VIEWS) -> None:
        """Begin to read these rows of the stores. Errors of earlier reads are raised here."""
        self._raise()
        self.reading.append(self.reader.submit(self._read, rows, views))

    def ready(self, rows: Tensor, views: Views = NO_VIEWS) -> None:
        """Wait until these rows, and all that are read ahead, are verified; StoreError if a block is damaged."""
        for reading in list(self.reading):  # a copy, because two threads may be here
            reading.result()
        self._raise()
        for store, part in self._parts(rows, views):
            store.verify(part.numpy())

    def release(self, rows: Tensor, views: Views = NO_VIEWS) -> None:
        """Release rows that will not be needed soon. Errors of earlier reads are raised here."""
        self._raise()
        for store, part in self._parts(rows, views):
            store.release(part.numpy())

    def close(self) -> None:
        """End the thread."""
        self.reader.shutdown(cancel_futures=True)

    def _read(self, rows: Tensor, views: Views) -> None:
        for store, part in self._parts(rows, views):
            store.ahead(part.numpy())
            store.verify(part.numpy())

    def _parts(self, rows: Tensor, views: Views) -> Iterator[tuple[Mapped, Tensor]]:
        """Yield each store with the rows that are taken from it."""
        yield from ((store, rows) for store in self.stores)
        for m, stores in self.views.items():
            view = views.get(m, torch.zeros_like(rows))
            yield from ((store, rows[view == k]) for k, store in enumerate(stores))

    def _raise(self) -> None:
        """Raise the error of a finished read, if there is one."""
        for reading in [reading for reading in self.reading if reading.done()]:
            reading.result()
            with suppress(ValueError):  # another thread has removed it
                self.reading.remove(reading)


TIERS = ("resident", "mapped", "streaming")
RESIDENT = 0.4  #: largest share of a run's part of the free memory for features in float32
MAPPED = 0.6  #: largest share of the free memory for mapped shards
PIECE_BYTES = 32 << 20  #: stored bytes that are read at a time


@dataclass(frozen=True)
class Wanted:
    """A request for rows of the stores: their number, and the draws of their windows."""

    rows: int
    draws: dict[str, str]  #: name of a store in `Features` -> draw
    swept: dict[str, str] = field(default_factory=dict)  #: the same for a second table, needed if nothing is mapped


@dataclass(frozen=True)
class Features:
    """The features of several stores of one manifest, opened for training."""

    stores: dict[str, FeatureStore]  #: modality -> store, MODALITY/VIEW -> a view's store, as in `Feed.stores`
    maps: dict[str, Mapped]  #: the same stores, mapped; {} if one of them cannot be mapped
    device: str
    tier: str  #: resident | mapped | streaming
    why: str  #: the reason, as text

    @cached_property
    def stream(self) -> Stream | None:
        """The reader of the tier `streaming`; None in other tiers."""
        if self.tier != "streaming":
            return None
        groups: dict[str, list[Mapped]] = {}
        for name, mapped in self.maps.items():
            groups.setdefault(name.partition("/")[0], []).append(mapped)
        without_views = [group[0] for group in groups.values() if len(group) == 1]
        views = {m: group for m, group in groups.items() if len(group) > 1}
        return Stream(without_views, min(self.stores[name].layout.block_rows for name in self.maps), views)

    def close(self) -> None:
        """End the thread that reads ahead. In the tier `streaming`, nothing can be drawn or swept afterwards."""
        if self.stream:
            self.stream.close()

    def mapped(self, modality: str, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Return a whole mapped store (M, T, *row_shape) in its own type, and `present` of these rows (n, T).

        Only the blocks of these rows are verified here; in the tier `streaming`, `Stream.ready` verifies them.
        """
        index, mapped = np.asarray(rows), self.maps[modality]
        if self.tier == "mapped":
            mapped.populate(index)
        present = torch.from_numpy(self.stores[modality].present[rows])
        return mapped.tensor(index if self.tier == "mapped" else index[:0]), present.to(self.device)

    def resident(self, modality: str, rows: list[int], draw: str) -> tuple[Tensor, Tensor]:
        """Load the windows that a draw needs, on the device: (n, T', *row_shape) float32, and `present` (n, T').

        Do not change the features: other runs use the same memory (`pipelines/data/sharing.py`).
        """
        store, index = self.stores[modality], np.asarray(rows)
        stored = torch.from_numpy(store.present[index])  # (n, T)
        chosen = centres(draw, stored.sum(1))
        if draw == "mean":
            present = stored.any(1, keepdim=True)
        else:
            present = stored if chosen is None else stored.gather(1, chosen)
        shape = (len(rows), windows_held(draw, store.windows), *store.row_shape)
        key = sha256(f"{store.path.resolve()} {store.fingerprint} {draw} {shape} ".encode() + index.tobytes())
        fill = partial(self._fill, modality=modality, index=index, draw=draw)
        return held(key.hexdigest(), shape, self.device, fill), present.to(self.device)

    def _fill(self, x: Tensor, modality: str, index: NDArray[np.int64], draw: str) -> None:
        """Write the windows that a draw needs of these rows to x (n, T', *row_shape); StoreError if not finite."""
        store = self.stores[modality]
        stored = torch.from_numpy(store.present[index])  # (n, T)
        step = max(1, PIECE_BYTES // store.layout.row_bytes)
        mapped = self.maps.get(modality)
        if mapped:
            mapped.ahead(index[:step])
        for begin in range(0, len(index), step):
            part = slice(begin, begin + step)
            if mapped:
                mapped.ahead(index[part.stop : part.stop + step])
            windows, in_store = self._read(modality, index[part]), stored[part]
            chosen = centres(draw, in_store.sum(1))
            if draw == "mean":
                x[part] = mean(windows.float(), in_store)[0]
            elif chosen is None:
                x[part] = windows
            else:
                x[part] = windows[torch.arange(len(in_store))[:, None], chosen]
            if mapped:
                mapped.release(index[part])
        if not torch.stack(x.aminmax()).isfinite().all():  # NaN and inf appear in both, and no large mask is needed
            raise StoreError(f"{store.path} has features that are not finite; run `featcache check`")

    def _read(self, modality: str, rows: NDArray[np.int64]) -> Tensor:
        """Read these rows as they are stored, on the CPU."""
        if not self.maps:
            return torch.from_numpy(self.stores[modality].read(rows))
        values = self.maps[modality].tensor(rows)
        if (np.diff(rows) == 1).all():
            return values[int(rows[0]) : int(rows[-1]) + 1]  # neighbours need no copy
        return values.index_select(0, torch.from_numpy(rows))


def open_features(
    stores: dict[str, FeatureStore],
    wanted: Iterable[Wanted],
    device: str = "cpu",
    *,
    memory: int | None = None,
    workers: int = 1,
    tier: str | None = None,
) -> Features:
    """Open stores of one manifest for training, in the tier that fits. Their names are those of `Features.stores`.

    memory: bytes of RAM that may be used; default: all that are free. workers: number of simultaneous runs that share
    them. tier: the tier to use. StoreError if the tier needs mapped stores and one cannot be mapped, or one is damaged.
    """
    if tier not in (None, *TIERS):
        raise ConfigError(f"no tier {tier!r}; choose from {', '.join(TIERS)}")
    maps, obstacle = {}, next(filter(None, map(why_not, stores.values())), "")
    if not obstacle:
        try:
            maps = {m: Mapped(store) for m, store in stores.items()}
        except OSError as error:
            obstacle = f"the stores cannot be mapped here ({error})"
    as_floats = stored = 0
    for request in wanted:
        for m, draw in request.draws.items():
            stored += request.rows * stores[m].layout.row_bytes
            as_floats += _as_floats(request.rows, draw, stores[m])
        if obstacle:
            as_floats += sum(_as_floats(request.rows, draw, stores[m]) for m, draw in request.swept.items())
    decoded = sum(store.layout.rows * store.layout.row_bytes for store in stores.values() if store.archived)
    in_ram = free_memory() if memory is None else memory
    if tier is None:
        tier, why = _choose(as_floats, stored, decoded, device, in_ram, workers)
    else:
        why = "asked for"
    if obstacle and tier != "resident":
        raise StoreError(f"features have to be read in the tier {tier} ({why}), but {obstacle}")
    return Features(stores, maps, device, tier, f"{why}; {obstacle}" if obstacle else why)


def _choose(as_floats: int, stored: int, decoded: int, device: str, in_ram: int, workers: int) -> tuple[str, str]:
    """Return (tier, reason) for features of these bytes: in float32, as stored, and of archives decoded in RAM."""
    shared = f" shared by {workers} runs" if workers > 1 else ""
    ram, share = f"{size(in_ram)} free RAM", RESIDENT / workers
    needs: list[tuple[float, int, str]]
    if torch.device(device).type == "cpu":
        sets = copies(workers)  # runs with equal features have one copy, but each may decode an archive
        if sets < workers:
            shared += f" with {sets} set{'s' if sets > 1 else ''} of features"
        needs = [(as_floats * sets / workers + decoded, in_ram, ram)]
    else:
        on_device = free_memory(device)
        needs = [(as_floats, on_device, f"{size(on_device)} free memory on {device}"), (decoded, in_ram, ram)]
    needed = f"{size(as_floats)} in float32" + (
        f" and {size(decoded)} of archives that are decoded whole" if decoded else ""
    )
    lacking = [free for need, has, free in needs if need > share * has]
    if not lacking:
        return "resident", f"{needed}, of {' and '.join(free for need, _, free in needs if need)}{shared}"
    why = f"{needed} are more than {RESIDENT:.0%} of {lacking[0]}{shared}"
    if stored <= MAPPED * in_ram:
        return "mapped", f"{why}, {size(stored)} as stored are not more than {MAPPED:.0%} of {ram}"
    return "streaming", f"{size(stored)} as stored are more than {MAPPED:.0%} of {ram}"


def _as_floats(rows: int, draw: str, store: FeatureStore) -> int:
    """Return the bytes in float32 that a draw needs of so many rows."""
    return 4 * rows * windows_held(draw, store.windows) * prod(store.row_shape)


def windows_held(draw: str, T: int) -> int:
    """Return the number of windows, out of T, that a draw needs in memory of each row.

    >>> windows_held("segments:3", 25), windows_held("mean", 25), windows_held("random:3", 25)
    (3, 1, 25)
    """
    kind, k = parse_draw(draw)
    return {"segments": k, "mean": 1}.get(kind, T)
