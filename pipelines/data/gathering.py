"""Windows of rows: the windows that a draw takes, and the functions that gather them into a batch.

Shapes: M rows of a tensor that holds them, B rows of a batch, T windows.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pipelines.config import parse_draw


def centres(draw: str, T: int | Tensor) -> Tensor | None:
    """Return the centres of k equal segments of T windows for `segments:k` -> (k,), or (B, k) for T (B,); else None.

    >>> centres("segments:5", 25)
    tensor([ 2,  7, 12, 17, 22])
    """
    kind, k = parse_draw(draw)
    if kind != "segments":
        return None
    T = T[:, None] if isinstance(T, Tensor) else T
    return ((torch.arange(k) + 0.5) * T / k).long()


def mean(x_BT: Tensor, present_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Average the present windows (others are zeros) -> (B, 1, *row_shape), and (B, 1) True if there are any."""
    count_B1 = present_BT.sum(1, keepdim=True)
    count = count_B1.clamp_min(1).reshape(-1, *[1] * (x_BT.dim() - 1))
    return x_BT.sum(1, keepdim=True) / count, count_B1 > 0


def new_memory(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return uninitialised memory as `Buffers.get` does, but always fresh."""
    return torch.empty(shape, dtype=dtype, device=device)


def gather(values: Tensor, rows: Tensor, windows: Tensor | None, name: str, new: Callable[..., Tensor]) -> Tensor:
    """Gather rows (B,) of values (M, T, *row_shape) -> (B, T or K, *row_shape).

    windows: None for all T, else positions (K,) or (B, K). new(name, shape, dtype, device) returns the memory to write
    to, as `Buffers.get` does.
    """
    (_, T, *row_shape), B = values.shape, len(rows)
    flat = values.flatten(1)
    if windows is not None:
        flat, rows = values.flatten(0, 1).flatten(1), (rows[:, None] * T + windows).flatten()
    out = new(name, (len(rows), flat.shape[1]), values.dtype, values.device)
    return torch.index_select(flat, 0, rows, out=out).view(B, -1, *row_shape)


def gather_views(out: Tensor, views: list[Tensor], view: Tensor, rows: Tensor, windows: Tensor | None) -> None:
    """Gather as `gather` does, row b from views[view[b]], into `out` with its type and device."""
    for k in view.unique().tolist():
        part = torch.nonzero(view == k).squeeze(1).to(rows.device)  # positions of the rows that take view k
        chosen = None if windows is None else windows.expand(len(rows), -1)[part]
        gathered = gather(views[k], rows[part], chosen, "", new_memory)  # its size varies, so `Buffers` are no use
        out.index_copy_(0, part.to(out.device), gathered.to(out))


def as_float(x: Tensor, name: str, device: torch.device, new: Callable[..., Tensor]) -> Tensor:
    """Return x as float32 on the device."""
    if x.dtype == torch.float32 and x.device == device:
        return x
    return new(f"{name} as float32", tuple(x.shape), torch.float32, device).copy_(x)


TURNS = 2  # number of sets of buffers: one in use, one that is being filled ahead

Chosen = Tensor | str  #: windows of a batch: positions (K,) or (B, K) in order of time, "all", or "mean"
Views = Mapping[str, Tensor]  #: modality -> the view of each row (B,): 0 is the feed's store, k its k-th view
NO_VIEWS: Views = {}


class Buffers:
    """Memory that batches reuse by turns: the pages of fresh memory cost up to five times the copying."""

    def __init__(self) -> None:
        self.turn = 0
        self._memory: dict[tuple[object, ...], Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return uninitialised memory; the same memory comes again after TURNS turns."""
        key = (name, self.turn % TURNS, shape, dtype)
        if key not in self._memory:
            self._memory[key] = torch.empty(shape, dtype=dtype, device=device)
        return self._memory[key]
