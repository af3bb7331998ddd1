"""Dense optical flow between two grey pictures, with OpenCV, or of many pairs at once with torch.

Each call makes its own solver, because a solver keeps buffers that threads must not share. Results do not depend on the
number of threads, because OpenCV searches in a fixed number of stripes (tests/featcache/test_media_flow.py checks it).
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from featcache.errors import DeviceError

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
STORED = "pictures"  #: the method of flow that is not computed, because the source holds pictures of it
PIXELS = 64 * 256 * 341  #: most pixels of the pairs that torch solves at once; they take about 260 bytes each on a CPU
ON_CPU = 8  #: pairs that are enough for torch on a CPU, where many at once are no faster


def enough(solver: str, device: str) -> int:
    """Return how many pairs a solver should be given at once."""
    return 1 if solver == "opencv" else ON_CPU if device == "cpu" else 64


def flows(pairs: Sequence[tuple[Grey, Grey]], method: str, solver: str = "opencv", device: str = "cpu") -> list[Flow]:
    """Return the flow of each pair. With the solver torch, which only has TV-L1, equal sizes are solved together."""
    if solver == "opencv":
        return [METHODS[method](a, b) for a, b in pairs]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for k, (a, _) in enumerate(pairs):
        by_size.setdefault(a.shape, []).append(k)
    fields: dict[int, Flow] = {}
    for size, numbers in by_size.items():
        most = max(1, PIXELS // int(np.prod(size)))
        for part in (numbers[k : k + most] for k in range(0, len(numbers), most)):
            fields.update(zip(part, _by_torch([pairs[k] for k in part], device), strict=True))
    return [fields[k] for k in range(len(pairs))]


def _by_torch(pairs: Sequence[tuple[Grey, Grey]], device: str) -> list[Flow]:
    """Return the flow of pairs of one size; half as many at once where a device's memory is too small."""
    import torch

    from featcache.media.tvl1 import tvl1

    try:
        first, second = (torch.from_numpy(np.stack(pictures)).to(device) for pictures in zip(*pairs, strict=True))
        return list(tvl1(first, second).movedim(1, -1).contiguous().cpu().numpy())
    except RuntimeError as error:
        reason = error
    if not isinstance(reason, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(reason):
        if device == "cpu":
            raise reason
        raise DeviceError(
            f"flow on {device} failed: {' '.join(str(reason).split())}; run the same command again"
        ) from reason
    if len(pairs) == 1:
        raise DeviceError(
            f"{device} has too little memory for the flow of one pair of pictures; end other programs on it"
            + ("" if device == "cpu" else ", or use --device cpu")
        ) from reason
    half = len(pairs) // 2
    return _by_torch(pairs[:half], device) + _by_torch(pairs[half:], device)
