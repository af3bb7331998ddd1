"""A process that writes what it may of a store that others write as well: python -m tests.helpers.writers STORE."""

import sys
from pathlib import Path

import numpy as np

from featcache import Clip, Manifest
from featcache.store import StoreWriter, _format

N, BLOCK_ROWS = 400, 8
MANIFEST = Manifest("m", tuple(Clip(f"{i:03}", "d", "train", f"{i}.mp4") for i in range(N)))
RECIPE = {"extractor": "toy", "modality": "rgb", "weights_sha256": "none", "dtype": "float16"}


def rows(numbers: np.ndarray) -> np.ndarray:
    """Features of these rows, (n, 2, 1024)."""
    return (np.asarray(numbers)[:, None, None] + np.arange(2048).reshape(2, 1024) / 2048).astype(np.float16)


def fill(path: Path) -> None:
    """Write every row whose block nobody else has; more than once, since the others may die."""
    with StoreWriter.open(path, MANIFEST, RECIPE, row_shape=(1024,), windows=2, facts={}) as writer:
        print("begun", flush=True)
        for row in writer.pending:
            if writer.claim(row):
                writer.done(row, rows([row])[0], np.zeros(2), np.ones(2))


def content(path: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


if __name__ == "__main__":
    _format.Layout.block_rows, _format.Layout.chunk_rows = BLOCK_ROWS, 1
    fill(Path(sys.argv[1]))
