"""Motion: histograms of optical flow (Laptev et al. 2008) on a grid and over the halves of a window.

Pictures become grey, with a shorter side of `side` pixels, so that flow does not depend on the size of a video. Speed
is counted in shorter sides per second, flow in pixels * rate / side, so it does not depend on the frame rate either.
Each half of the window and each cell of the grid gives

    orientation   `bins` directions over 360 degrees (the first points right, the next ones turn downwards); a pixel
                  adds log(1 + speed / still) to the two nearest, shared linearly; mean over the pixels of the cell
    speed         share of the cell's pixels with speed below `still`, up to 4, up to 16 times `still`, and above
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.extractors import Extractor, Runtime, _flow, bounded, later
from featcache.media.flow import STORED, flows
from featcache.windows import Flow, Pictures

LONGEST = 30_000  #: most pixels of the longer side, to which longer ones are squeezed: OpenCV counts in 16 bits
SPEEDS = 4  #: classes of speed


@dataclass(frozen=True)
class Params:
    """The pictures of a window, and the histograms of a row."""

    flow: str = "dis"  #: dis | tvl1 | pictures: of the source
    solver: str = later("opencv")  #: of tvl1: opencv | torch: on --device, many fields at once
    bound: float = bounded(20.0, 1, 1000, added=True)  #: of pictures: pixels at the ends of their scale
    count: int = bounded(7, 3, 301)  #: pictures of a window, one more than flows; odd, for two equal halves
    rate: float = bounded(10.0, 0.01, 1000)  #: pictures per second of a window
    side: int = bounded(96, 12, 1024)  #: shorter side in pixels of the pictures between which flow is computed
    grid: int = bounded(4, 1, 64)  #: cells of the grid along each side
    bins: int = bounded(8, 1, 360)  #: directions
    still: float = bounded(0.04, 1e-6, 100)  #: shorter sides per second below which a pixel counts as still


class Hof(Extractor):
    """An extractor of flow histograms of a short window."""

    name: str = "hof"
    modality: str = "flow"
    device: str = "cpu"  #: device of the solver torch

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        _flow.check(self.name, params.flow, params.solver, "flow")
        if params.bound != Params.bound and params.flow != STORED:
            raise ConfigError(
                f"hof.bound is {params.bound:g}, which is the scale of pictures of flow, but hof.flow is "
                f"{params.flow!r}; leave hof.bound out, or set hof.flow=pictures"
            )
        if params.count % 2 == 0:
            raise ConfigError(f"hof.count is {params.count}; it must be odd, for two equal halves of flows")
        if params.grid > params.side:
            raise ConfigError(
                f"hof.grid is {params.grid}; allowed: 1 to {params.side}, hof.side, so that no cell is empty"
            )
        self.window = Pictures(params.count, params.rate)
        if params.flow == STORED:
            how = _flow.window(params.flow, params.solver, params.bound)
            self.window = Flow(params.count - 1, params.rate, side=params.side, **how)
        self.row_shape = (2 * params.grid**2 * (params.bins + SPEEDS),)

    def ready(self, runtime: Runtime) -> Self:
        """Take the device on which torch computes the flow."""
        if self.params.solver == "torch":
            from featcache.extractors._frozen import check

            check(runtime)
            self.device = runtime.device
        return super().ready(runtime)

    def prepare(self, window: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Pictures, or fields of flow -> histograms of each flow, (count - 1, cells, bins + SPEEDS)."""
        p = self.params
        if p.flow != STORED:
            greys = [self._grey(picture) for picture in window]
            window = flows([*pairwise(greys)], p.flow, p.solver, self.device)
        return np.stack([histograms(field * np.float32(p.rate / p.side), p) for field in window])

    def _grey(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        side = self.params.side
        scale = side / min(grey.shape)
        width, height = (min(max(side, round(scale * length)), LONGEST) for length in grey.shape[::-1])
        return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """(n, count - 1, cells, bins + SPEEDS) -> (n, dims): each half of the flows averaged."""
        n, steps = windows.shape[:2]
        halves = windows.reshape(n, 2, steps // 2, *windows.shape[2:]).mean(axis=2)
        return np.ascontiguousarray(halves.reshape(n, -1), np.float32)


def histograms(flow: NDArray[np.float32], params: Params) -> NDArray[np.float32]:
    """Flow (height, width, 2) in shorter sides per second -> (grid * grid, bins + SPEEDS), cells row by row."""
    H, W, _ = flow.shape
    G, B = params.grid, params.bins
    cell_HW = (np.arange(H) * G // H)[:, None] * G + np.arange(W) * G // W
    pixels = np.bincount(cell_HW.ravel(), minlength=G * G)[:, None]

    speed, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])  # angle in [0, 2 pi]
    weight = np.log1p(speed / params.still)
    position = angle * (B / (2 * np.pi))
    lower = np.floor(position).astype(np.int64)
    share = position - lower
    orientation = np.zeros(G * G * B)
    for turn, part in ((lower, (1 - share) * weight), (lower + 1, share * weight)):
        orientation += np.bincount((cell_HW * B + turn % B).ravel(), part.ravel(), minlength=G * G * B)

    kind = np.digitize(speed, params.still * np.array([1, 4, 16]))
    kinds = np.bincount((cell_HW * SPEEDS + kind).ravel(), minlength=G * G * SPEEDS)
    rows = [orientation.reshape(G * G, B) / pixels, kinds.reshape(G * G, SPEEDS) / pixels]
    return np.concatenate(rows, axis=1).astype(np.float32)


EXTRACTOR = Hof
