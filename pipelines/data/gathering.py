"""Windows of rows: which ones a draw takes, and how they are gathered into a batch.

Shapes: M rows of a tensor that holds them, B rows of a batch, T windows.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pipelines.config import parse_draw


def centres(draw: str, T: int | Tensor) -> Tensor | None:
    """Centres of k equal segments of T windows for `segments:k` -> (k,), or (B, k) for T (B,); None for other draws.

    >>> centres("segments:5", 25)
    tensor([ 2,  7, 12, 17, 22])
    """
    kind, k = parse_draw(draw)
    if kind != "segments":
        return None
    T = T[:, None] if isinstance(T, Tensor) else T
    return ((torch.arange(k) + 0.5) * T / k).long()


def mean(x_BT: Tensor, present_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the present windows (the others are zeros) -> (B, 1, *row_shape), and whether there was any (B, 1)."""
    count_B1 = present_BT.sum(1, keepdim=True)
    count = count_B1.clamp_min(1).reshape(-1, *[1] * (x_BT.dim() - 1))
    return x_BT.sum(1, keepdim=True) / count, count_B1 > 0


def new_memory(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised memory, as `Buffers.get` but fresh."""
    return torch.empty(shape, dtype=dtype, device=device)


def gather(values: Tensor, rows: Tensor, windows: Tensor | None, name: str, new: Callable[..., Tensor]) -> Tensor:
    """Rows (B,) of values (M, T, *row_shape), all windows or these: (K,) or (B, K) -> (B, T or K, *row_shape).

    new(name, shape, dtype, device): the memory to write to, as of `Buffers.get`.
    """
    (_, T, *row_shape), B = values.shape, len(rows)
    flat = values.flatten(1)
    if windows is not None:
        flat, rows = values.flatten(0, 1).flatten(1), (rows[:, None] * T + windows).flatten()
    out = new(name, (len(rows), flat.shape[1]), values.dtype, values.device)
    return torch.index_select(flat, 0, rows, out=out).view(B, -1, *row_shape)


def gather_views(out: Tensor, views: list[Tensor], view: Tensor, rows: Tensor, windows: Tensor | None) -> None:
    """As `gather`, row b from views[view[b]], to `out` in its type and on its device."""
    for k in view.unique().tolist():
        mine = torch.nonzero(view == k).squeeze(1).to(rows.device)
        chosen = None if windows is None else windows.expand(len(rows), -1)[mine]
        found = gather(views[k], rows[mine], chosen, "", new_memory)  # another size each time: nothing for `Buffers`
        out.index_copy_(0, mine.to(out.device), found.to(out))


def as_float(x: Tensor, name: str, device: torch.device, new: Callable[..., Tensor]) -> Tensor:
    """float32 on the device."""
    if x.dtype == torch.float32 and x.device == device:
        return x
    return new(f"{name} as float32", tuple(x.shape), torch.float32, device).copy_(x)


TURNS = 2  # sets of buffers: one in use, one that is being filled ahead

Chosen = Tensor | str  #: windows of a batch: positions (K,) or (B, K) in order of time, or "all", or their "mean"
Views = Mapping[str, Tensor]  #: modality -> the view that each row is taken from (B,): 0 the feed's store, k its k-th
NO_VIEWS: Views = {}


class Buffers:
    """Memory that batches are written to by turns: fresh memory costs up to five times the copying, for its pages."""

    def __init__(self) -> None:
        self.turn = 0
        self._memory: dict[tuple[object, ...], Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised memory; the same again after TURNS turns."""
        key = (name, self.turn % TURNS, shape, dtype)
        if key not in self._memory:
            self._memory[key] = torch.empty(shape, dtype=dtype, device=device)
        return self._memory[key]
