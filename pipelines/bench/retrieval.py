"""Benchmark of retrieval's ranks: what they cost beside the one matrix product that they need, and their memory."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.bench.store import Line
from pipelines.measures.ranks import TILE, ranks

CAPTIONS, CLIPS, DIM = 20_000, 10_000, 512
FLOP = 2 * CAPTIONS * CLIPS * DIM


def product(text: Tensor, visual: Tensor) -> Tensor:
    """Dot products (T, M) x (T, M) -> (T, T)."""
    return text @ visual.T


def pairs(captions: int = CAPTIONS, clips: int = CLIPS) -> tuple[Tensor, Tensor]:
    """Normal embeddings of captions and of clips, float32."""
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(captions, DIM, generator=drawn), torch.randn(clips, DIM, generator=drawn)


def pace(alternate: Callable[..., tuple[float, float]]) -> Iterator[Line]:
    """Ranks both ways against the product of all captions with all clips, which any way begins with; on one core."""
    torch.set_num_threads(1)
    text, visual = pairs()
    clip = np.arange(CAPTIONS) % CLIPS

    def plain(_: int) -> None:
        for rows in text.split(TILE):  # at once it is 0.8 GB, and slower
            product(rows, visual)

    ours, bare = alternate(lambda _: ranks(text.numpy(), visual.numpy(), clip, product), plain, rounds=2)
    what = f"rank {CAPTIONS:,} captions and {CLIPS:,} clips of {DIM} numbers, both ways"
    yield what, "the matrix product", ours, bare, lambda s: f"{FLOP / s / 1e9:.0f} GFLOP/s"


def memory() -> Iterator[Line]:
    """Peak memory of a process that ranks, less what it held before: the embeddings and the libraries."""
    code = "from pipelines.bench.retrieval import peak; print(*peak())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    before, after = map(int, said.stdout.split())
    what = f"memory that ranking {CAPTIONS:,} captions and {CLIPS:,} clips adds to the embeddings"
    yield what, "the whole matrix", after - before, 4.0 * CAPTIONS * CLIPS, lambda size: f"{size / 2**20:.0f} MiB"


def peak() -> tuple[int, int]:
    """Peak bytes of this process before and after it ranks."""
    text, visual = pairs()
    product(text[:TILE], visual[:TILE])  # what the library of matrix products holds for itself
    before = _high_water()
    ranks(text.numpy(), visual.numpy(), np.arange(CAPTIONS) % CLIPS, product)
    return before, _high_water()


def _high_water() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
