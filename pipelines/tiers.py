"""Where the features of a run lie while it trains: three tiers, of which one is chosen, with the reason.

    resident    float32 on the device, of the rows that the run names. What a draw does to every row alike is done
                once: `segments:k` keeps these windows, `mean` their mean.
    mapped      the shards as they are, in the stored type; gathered, then cast. Processes share the memory.
    streaming   the same for stores larger than memory: batches come from a few blocks at a time, which are read ahead
                and let go of afterwards.

`resident` and `mapped` give equal batches, to the bit; `streaming` draws the rows in another order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import FeatureStore
from featcache.errors import ConfigError, StoreError
from featcache.store.mapped import Mapped
from pipelines.batches import Stream, centres, mean
from pipelines.config import plan

TIERS = ("resident", "mapped", "streaming")
RESIDENT = 0.4  #: of a run's part of the free memory: most that features in float32 take
MAPPED = 0.6  #: of the free memory: most that mapped shards take
PIECE_BYTES = 32 << 20  #: as stored, read at a time
CGROUPS = (  # folder of the hierarchy, then its files: limit, usage; and what counts the page cache in memory.stat
    ("", "memory.max", "memory.current", "file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)


@dataclass(frozen=True)
class Wanted:
    """Rows of the stores that will be held, and how their windows are drawn."""

    rows: int
    draws: dict[str, str]  #: modality -> draw


@dataclass(frozen=True)
class Features:
    """The features of several stores of one manifest, opened for training."""

    stores: dict[str, FeatureStore]  #: modality -> store
    maps: dict[str, Mapped]  #: modality -> its mapped store; {} where one cannot be mapped
    device: str
    tier: str  #: resident | mapped | streaming
    why: str  #: the reason, in words

    @cached_property
    def stream(self) -> Stream | None:
        """What reads ahead and lets go, in the tier `streaming`."""
        if self.tier != "streaming":
            return None
        return Stream(list(self.maps.values()), min(self.stores[m].layout.block_rows for m in self.maps))

    def mapped(self, modality: str, rows: list[int]) -> tuple[Tensor, Tensor]:
        """A whole mapped store (M, T, *row_shape) in its own type, and which windows of these rows are there (n, T)."""
        if self.tier == "mapped":
            self.maps[modality].populate(np.asarray(rows))
        there = torch.from_numpy(self.stores[modality].present[rows])
        return self.maps[modality].tensor(), there.to(self.device)

    def resident(self, modality: str, rows: list[int], draw: str) -> tuple[Tensor, Tensor]:
        """What a draw needs of these rows, on the device: (n, T', *row_shape) float32, and what is there (n, T')."""
        store, index = self.stores[modality], np.asarray(rows)
        there = torch.from_numpy(store.present[index])
        shape = (len(rows), held(draw, store.windows), *store.row_shape)
        if torch.device(self.device).type == "cpu":
            x = torch.from_numpy(np.empty(shape, np.float32))  # numpy asks for huge pages, torch does not
        else:
            x = torch.empty(shape, device=self.device)
        present = torch.empty(x.shape[:2], dtype=torch.bool, device=self.device)
        if self.maps:
            self.maps[modality].ahead(index)
        step = max(1, PIECE_BYTES // store.layout.row_bytes)
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            windows, here = self._read(modality, index[part]), there[part]
            lengths = here.sum(1)
            chosen = centres(draw, lengths.where(lengths > 0, store.windows))
            if draw == "mean":
                x[part], present[part] = mean(windows.float(), here)
            elif chosen is None:
                x[part], present[part] = windows, here
            else:
                row = torch.arange(len(here))[:, None]
                x[part], present[part] = windows[row, chosen], here[row, chosen]
            if self.maps:
                self.maps[modality].release(index[part])
        if not torch.stack(x.aminmax()).isfinite().all():  # NaN and inf show in both, without a mask as large
            raise StoreError(f"{store.path} has features that are not finite; ask `featcache check`")
        return x, present

    def _read(self, modality: str, rows: NDArray[np.int64]) -> Tensor:
        """These rows as they are stored, on the CPU."""
        if not self.maps:
            return torch.from_numpy(self.stores[modality].read(rows))
        values = self.maps[modality].tensor()
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
    """Open stores of one manifest (modality -> store) for training, in the tier that fits.

    memory: bytes of RAM that may be used; default: what is free. workers: runs at the same time that share it.
    tier: take this one. StoreError when the tier needs stores that can be mapped, and one cannot.
    """
    if tier not in (None, *TIERS):
        raise ConfigError(f"no tier {tier!r}; choose from {', '.join(TIERS)}")
    maps, obstacle = {}, ""
    try:
        maps = {m: Mapped(store) for m, store in stores.items()}
    except StoreError as error:
        obstacle = str(error)
    as_floats = stored = 0
    for want in wanted:
        for m, draw in want.draws.items():
            as_floats += 4 * want.rows * held(draw, stores[m].windows) * prod(stores[m].row_shape)
            stored += want.rows * stores[m].layout.row_bytes
    in_ram = free_memory() if memory is None else memory
    on_device = in_ram if torch.device(device).type == "cpu" else free_memory(device)
    if tier is None:
        tier, why = _choose(as_floats, stored, on_device, in_ram, workers)
    else:
        why = "asked for"
    if tier != "resident" and obstacle:
        raise StoreError(f"{obstacle}; but the tier is {tier} ({why})")
    return Features(stores, maps if not obstacle else {}, device, tier, why)


def _choose(as_floats: int, stored: int, on_device: int, in_ram: int, workers: int) -> tuple[str, str]:
    """(tier, why) for features of these bytes in float32 and as stored."""
    free = f"{_gb(on_device)} free memory" + (f" of {workers} runs" if workers > 1 else "")
    if as_floats <= RESIDENT * on_device / workers:
        return "resident", f"{_gb(as_floats)} in float32, of {free}"
    why = f"{_gb(as_floats)} in float32 are more than {RESIDENT:.0%} of {free}"
    if stored <= MAPPED * in_ram:
        return "mapped", f"{why}, {_gb(stored)} as stored are not"
    return "streaming", f"{_gb(stored)} as stored are more than {MAPPED:.0%} of {_gb(in_ram)} free memory"


def held(draw: str, T: int) -> int:
    """Windows of a row that a draw needs in memory, of T.

    >>> held("segments:3", 25), held("mean", 25), held("random:3", 25)
    (3, 1, 25)
    """
    kind, k = plan(draw)
    return {"segments": k, "mean": 1}.get(kind, T)


def free_memory(device: str = "cpu") -> int:
    """Bytes that may still be used on a device: on the CPU what the kernel calls available, or the cgroup leaves."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        for hierarchy, limit, usage, cached in CGROUPS:
            if hierarchy == controllers:
                root = Path("/sys/fs/cgroup", hierarchy)
                folder = root / group.lstrip("/")
                free += [
                    left
                    for f in (folder, *folder.parents)
                    if f.is_relative_to(root)
                    if (left := _left(f, limit, usage, cached)) is not None
                ]
    return max(0, min(free))


def _left(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    """Bytes that a cgroup may still take, page cache counted as free; None where it has no limit."""
    try:
        most = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return most - used + int(counts.get(cached, 0))


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
