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
        return self.of_turn(self.turn, name, shape, dtype, device)

    def of_turn(self, turn: int, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the memory of this turn."""
        key = (name, turn % TURNS, shape, dtype)
        if key not in self._memory:
            self._memory[key] = torch.empty(shape, dtype=dtype, device=device)
        return self._memory[key]


class Part(Buffers):
    """The buffers of one side of a batch: rows [begin, begin + size) of memory for `total` rows, which sides share."""

    def __init__(self, whole: Buffers, begin: int, size: int, total: int) -> None:
        super().__init__()
        self.whole, self.begin, self.size, self.total = whole, begin, size, total

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return uninitialised memory; a row of the batch has one or more rows of it: windows, or rows of heads."""
        each, rest = divmod(shape[0], self.size)
        if rest:
            return super().get(name, shape, dtype, device)
        whole = self.whole.of_turn(self.turn, name, (self.total * each, *shape[1:]), dtype, device)
        return whole[self.begin * each : self.begin * each + shape[0]]


def adjacent(s: Tensor, t: Tensor) -> Tensor | None:
    """Return the rows of both tensors as one tensor if those of t follow those of s in the same memory; else None."""
    alike = s.shape[1:] == t.shape[1:] and s.dtype == t.dtype and s.is_contiguous() and t.is_contiguous()
    same = alike and s.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
    if not same or s.data_ptr() + s.nbytes != t.data_ptr():
        return None
    return s.as_strided((len(s) + len(t), *s.shape[1:]), s.stride())
