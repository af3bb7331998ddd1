"""Dense optical flow between two grey pictures, with OpenCV.

Each call makes its own solver, because a solver keeps buffers that threads must not share. Results do not depend on the
number of threads, because OpenCV searches in a fixed number of stripes (tests/featcache/test_media_flow.py checks it).
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  #: (height, width), each at least 12
#: (height, width, 2): pixels to the right and downwards from the first picture to the second
Flow = NDArray[np.float32]


def dis_flow(a: Grey, b: Grey) -> Flow:
    """Dense inverse search (Kroeger et al. 2016), OpenCV's preset "medium".

    >>> dis_flow(np.zeros((32, 48), np.uint8), np.zeros((32, 48), np.uint8)).shape
    (32, 48, 2)
    """
    return _calc(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM), a, b)


def tvl1_flow(a: Grey, b: Grey) -> Flow:
    """TV-L1 (Zach et al. 2007), OpenCV's parameters; two-stream networks were trained on it. About 100 times slower.

    >>> tvl1_flow(np.zeros((32, 48), np.uint8), np.zeros((32, 48), np.uint8)).shape
    (32, 48, 2)
    """
    return _calc(cv2.optflow.DualTVL1OpticalFlow.create(), a, b)


def _calc(solver: cv2.DenseOpticalFlow, a: Grey, b: Grey) -> Flow:
    flow = solver.calc(a, b, None)  # type: ignore[call-overload]  # zeros would be a first guess
    return np.asarray(flow, np.float32)


METHODS: dict[str, Callable[[Grey, Grey], Flow]] = {"dis": dis_flow, "tvl1": tvl1_flow}
