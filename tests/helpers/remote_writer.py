"""Write a store of 22 rows in blocks of 4 below a URL, slowly, so that a test can kill it; resume what is there.

python -m tests.helpers.remote_writer URL SECONDS_PER_ROW
"""

import sys
import time
from pathlib import Path

import numpy as np

from featcache import Clip, Manifest
from featcache.store import StoreWriter, pushing
from tests.helpers.stores import small_blocks

MANIFEST = Manifest("toy", tuple(Clip(f"{i:03}", "d", "train", f"{i}.mp4") for i in range(22)))
RECIPE = {"extractor": "toy", "modality": "rgb", "weights_sha256": "none", "dtype": "float16"}
ROWS = np.random.default_rng(0).standard_normal((22, 2, 3)).astype(np.float32)


def write(folder: Path, *, clips=MANIFEST, recipe=RECIPE, pause=0.0, retry=False, stop_after=99, rows=ROWS) -> int:
    """Write the pending rows of folder/toy/hog.zarr: row 1 fails at first, row 5 is absent. Return their number."""
    with StoreWriter.open(
        folder / "toy" / "hog.zarr", clips, recipe, row_shape=(3,), windows=2, facts={"numpy": "2"}
    ) as writer:
        if retry:
            writer.retry_failed()
        clips.write(folder / "toy" / "manifest.csv")
        pending = writer.pending[:stop_after]
        for row in pending:
            time.sleep(pause)
            if row == 1 and not retry:
                writer.failed(row, "broken")
            elif row == 5:
                writer.absent(row, "no sound")
            else:
                writer.done(row, rows[row], np.array([row, row + 1.0]), np.array([row + 1.0, row + 2.0]))
    return len(pending)


if __name__ == "__main__":
    pushing.PAUSE = 0.02
    with small_blocks(), pushing.working(sys.argv[1], "toy", ["hog"], MANIFEST) as place:
        print(write(place, pause=float(sys.argv[2])))
