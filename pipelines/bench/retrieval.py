"""A benchmark of retrieval's ranks: their time next to the one matrix product that they need, and their memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.bench._lines import Line, alternate, peak_bytes, run_apart
from pipelines.measures.ranks import TILE, ranks

CAPTIONS, CLIPS, DIM = 20_000, 10_000, 512
FLOP = 2 * CAPTIONS * CLIPS * DIM


def product(text: Tensor, visual: Tensor) -> Tensor:
    """Dot products (T, M) x (T, M) -> (T, T)."""
    return text @ visual.T


def pairs(captions: int = CAPTIONS, clips: int = CLIPS) -> tuple[Tensor, Tensor]:
    """Normal embeddings of captions and of clips, float32."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(captions, DIM, generator=generator), torch.randn(clips, DIM, generator=generator)


def pace() -> Iterator[Line]:
    """Ranks both ways against the product of all captions with all clips, which any way begins with; on one core."""
    torch.set_num_threads(1)
    text, visual = pairs()
    clip = np.arange(CAPTIONS) % CLIPS

    def plain(_: int) -> None:
        for rows in text.split(TILE):  # the whole product at once takes 0.8 GB, and is slower
            product(rows, visual)

    ours, bare = alternate(lambda _: ranks(text.numpy(), visual.numpy(), clip, product), plain, rounds=2)
    measured = f"rank {CAPTIONS:,} captions and {CLIPS:,} clips of {DIM} numbers, both ways"
    yield measured, "the matrix product", ours, bare, lambda s: f"{FLOP / s / 1e9:.0f} GFLOP/s"


def memory() -> Iterator[Line]:
    """Peak memory of a process that ranks, less the memory of its embeddings and libraries."""
    before, after = map(int, run_apart("from pipelines.bench.retrieval import peak; print(*peak())").split())
    measured = f"memory that ranking {CAPTIONS:,} captions and {CLIPS:,} clips adds to the embeddings"
    yield measured, "the whole matrix", after - before, 4.0 * CAPTIONS * CLIPS, lambda size: f"{size / 2**20:.0f} MiB"


def peak() -> tuple[int, int]:
    """Peak bytes of this process before and after it ranks."""
    text, visual = pairs()
    product(text[:TILE], visual[:TILE])  # the library of matrix products allocates its own buffers
    before = peak_bytes()
    ranks(text.numpy(), visual.numpy(), np.arange(CAPTIONS) % CLIPS, product)
    return before, peak_bytes()


def ranking(_: Path) -> Iterator[Line]:
    """Ranks of captions and clips: their pace and their memory."""
    yield from pace()
    yield from memory()


BENCHMARKS = {"retrieval": ranking}
