"""The demo benchmark `kitchens`: 205 short cooking clips from two kitchens, rendered as real H.264 + AAC files.

Nothing is downloaded. The clips show eight actions, with sound, in a bright `loft` and a dim `cottage`. The kitchens
differ in viewpoint, light, materials, cook, tempo, camera and room sound, so that a classifier trained in one loses
much of its accuracy in the other. `data_manifests/kitchens.md` is the dataset card; the package `featcache/kitchens`
renders the clips.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path

import cv2

from featcache.errors import FeatcacheError
from featcache.files import claimed, remove_abandoned, write_file
from featcache.kitchens.film import render
from featcache.kitchens.plan import Shot, shots
from featcache.machine import cores
from featcache.manifest import Clip, Manifest
from featcache.parallel import advised, in_parallel
from featcache.progress import Progress, silent

VERSION = 1  #: increased whenever the clips of a seed change


def build(
    folder: str | os.PathLike[str],
    *,
    progress: Progress = silent,
    seed: int = 0,
    every: int = 1,
    workers: int | None = None,
) -> Manifest:
    """Render the missing clips into `folder/DOMAIN/CLIP_ID.mp4` and write `folder/kitchens.csv`.

    `progress(done, total)` is called at the start and after every clip. every: render only each n-th clip (for tests).
    workers: number of processes, by default one per core. They import the calling script, which therefore needs the
    guard `if __name__ == "__main__":`. Raises BusyError while another process builds in that folder.
    """
    folder, plan = Path(folder), shots(seed)[::every]
    try:
        with claimed(folder / "kitchens.csv"):
            _forget_others(folder, plan, seed)
            for shot in plan:
                remove_abandoned(_path(folder, shot))
            todo = [shot for shot in plan if not _path(folder, shot).exists()]
            done = len(plan) - len(todo)
            for finished in chain([0], _render_all(todo, folder, workers or cores())):
                done += finished
                progress(done, len(plan))
            manifest = Manifest("kitchens", tuple(_clip(shot) for shot in plan), folder)
            manifest.write(folder / "kitchens.csv")
    except OSError as error:
        place = error.filename or folder
        raise FeatcacheError(f"cannot write the clips of kitchens to {place}: {error.strerror or error}") from error
    return manifest


def _path(folder: Path, shot: Shot) -> Path:
    return folder / shot.kitchen / f"{shot.clip_id}.mp4"


def _clip(shot: Shot) -> Clip:
    return Clip(
        clip_id=shot.clip_id,
        domain=shot.kitchen,
        split=shot.split,
        source=f"{shot.kitchen}/{shot.clip_id}.mp4",
        labels={"label": shot.action},
        caption=shot.caption,
    )


def _forget_others(folder: Path, plan: list[Shot], seed: int) -> None:
    """Remove clips that another version or seed has rendered under the same names; a stamp file records both."""
    stamp, text = folder / "kitchens.stamp", f"kitchens version {VERSION} seed {seed}\n"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
        for shot in plan:
            _path(folder, shot).unlink(missing_ok=True)
        write_file(stamp, text.encode(), shared=True)


def _render_all(todo: list[Shot], folder: Path, workers: int) -> Iterator[int]:
    """Render these shots; yield 1 whenever a file is complete."""
    threads = cv2.getNumThreads()
    try:
        with closing(in_parallel(partial(_render, folder=folder), deque(todo), min(workers, len(todo)))) as rendered:
            for _ in rendered:
                yield 1
    except BrokenProcessPool as error:
        raise FeatcacheError(advised(error, "build kitchens again to resume, perhaps with workers=1")) from None
    finally:
        cv2.setNumThreads(threads)


def _render(shot: Shot, folder: Path) -> None:
    """Render a clip in one thread, because clips are rendered in parallel."""
    cv2.setNumThreads(1)
    render(shot, _path(folder, shot))
