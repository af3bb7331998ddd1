"""All randomness of nets and losses after their constructors: dropout, and draws of numbers.

A single run draws from torch's global stream, which it seeds. Where several heads are trained in one pass, each head
draws from a generator of its own: `many` sets these generators, and every draw becomes one tensor with a row per head.
So a head draws the same numbers alone and in a group. Contract: `losses` draws nothing in another way. `heads.testing`
checks this with the default `Params` on the CPU, and reads the methods in a file for calls that draw.

>>> generator = torch.Generator().manual_seed(0)
>>> with one(generator):
...     kept = dropout(torch.ones(2, 3), 0.5)
>>> sorted(set(kept.flatten().tolist()))
[0.0, 2.0]
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

Draw = Callable[[Generator | None], Tensor]  #: draws a tensor from a generator; None: from torch's global stream

_draw: list[Callable[[Draw], Tensor]] = [lambda draw: draw(None)]  #: the last entry makes the draws


@contextmanager
def one(generator: Generator) -> Iterator[None]:
    """Draw from this generator."""
    with _drawing(lambda draw: draw(generator)):
        yield


@contextmanager
def many(generators: Sequence[Generator], head: Tensor) -> Iterator[None]:
    """Draw for several heads, inside `torch.vmap(..., randomness="same")` over `head`.

    head: a 0-d tensor, the position of a head in `generators`.
    """
    with _drawing(lambda draw: torch.stack([draw(generator) for generator in generators])[head]):
        yield


@contextmanager
def _drawing(how: Callable[[Draw], Tensor]) -> Iterator[None]:
    _draw.append(how)
    try:
        yield
    finally:
        _draw.pop()


# ------------------------------------------------------------------------------------------------------------- draws


def uniform(*shape: int, like: Tensor) -> Tensor:
    """Draw numbers in [0, 1), of the type and on the device of `like`."""
    return _draw[-1](lambda g: torch.rand(shape, generator=g, dtype=like.dtype, device=like.device))


def normal(*shape: int, like: Tensor) -> Tensor:
    """Draw standard normal numbers, of the type and on the device of `like`."""
    return _draw[-1](lambda g: torch.randn(shape, generator=g, dtype=like.dtype, device=like.device))


def integers(low: int, high: int, *shape: int, device: torch.device) -> Tensor:
    """Draw int64 numbers in [low, high)."""
    return _draw[-1](lambda g: torch.randint(low, high, shape, generator=g, device=device))


def beta(a: float, b: float, *shape: int, like: Tensor) -> Tensor:
    """Draw from Beta(a, b), of the type and on the device of `like`."""
    ab = torch.tensor([a, b], dtype=like.dtype, device=like.device).expand(*shape, 2).contiguous()
    return _draw[-1](lambda g: torch._sample_dirichlet(ab, g))[..., 0]


def dropout(x: Tensor, p: float) -> Tensor:
    """Set a share p of the entries to 0, and divide the others by 1 - p.

    Masks are compared with random bits, 8 of an entry if that resolves p, else 16: this is many times cheaper than
    `bernoulli_`, which is a tenth of a small step. p is a multiple of 2^-16 then; the divisor is that of this p.
    """
    if p == 0:
        return x
    bits, narrow = (8, torch.uint8) if (p * 256).is_integer() else (16, torch.int16)
    dropped = min(round(p * 2**bits), 2**bits - 1)  # of 2^bits values

    def draw(generator: Generator | None) -> Tensor:
        words = torch.empty(-(-x.numel() * bits // 64), dtype=torch.int64, device=x.device)
        return words.random_(-(2**63), None, generator=generator).view(narrow)[: x.numel()].view(x.shape)

    least = dropped if narrow is torch.uint8 else dropped - 2**15
    kept = (_draw[-1](draw) >= least).to(x.dtype)
    return x * (kept * (1 / (1 - dropped / 2**bits)))


class Dropout(nn.Module):
    """`dropout` in training, nothing else."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x, in training with a share p of its entries set to 0."""
        return dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        """Return p, for `print(net)`."""
        return f"p={self.p}"
