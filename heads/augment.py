"""Augmented views of a batch of skeletons: sheared, cropped in time, parts of the body masked.

Each row has its own random draw. A view has the shape of its input, and a body of zeros
stays a body of zeros. Sources: CrosSCLR [Li et al. 2021] and CoDT's code for shear and crop; CoDT's supplement, Sec.
5.1, for their strengths and the mask.

Shapes: x is (B, 3, T, V, M): B rows, 3 coordinates, T frames, V joints, M bodies.
"""

import torch
from torch import Tensor

from heads import noise
from heads.skeletons import skeleton


def shear(x: Tensor, beta: float) -> Tensor:
    """Return R x of every joint, with one R per row: ones on its diagonal, uniform in [-beta, beta] elsewhere."""
    R_BCC = beta * (2 * noise.uniform(len(x), 3, 3, like=x) - 1)
    R_BCC.diagonal(dim1=1, dim2=2).fill_(1)
    return (R_BCC @ x.flatten(2)).view_as(x)


def crop(x: Tensor, gamma: int) -> Tensor:
    """Return T successive frames at a random offset in x, which is extended by T // gamma mirrored frames at both ends.

    The frame at an end is repeated. A larger gamma shifts less: 6 is mild, 3 strong, and 1 the least allowed value.
    """
    T = x.shape[2]
    longest = T // gamma
    first_B = noise.integers(-longest, longest + 1, len(x), device=x.device)
    at_BT = mirrored(first_B[:, None] + torch.arange(T, device=x.device), T)
    return x.gather(2, at_BT[:, None, :, None, None].expand_as(x))


def mirrored(at: Tensor, T: int) -> Tensor:
    """Map frame numbers before the first and after the last of T frames to their mirror images inside.

    >>> mirrored(torch.arange(-2, 6), 4)
    tensor([1, 0, 0, 1, 2, 3, 3, 2])
    """
    at = at.where(at >= 0, -1 - at)
    return at.where(at < T, 2 * T - 1 - at)


def mask_parts(x: Tensor, p: float) -> Tensor:
    """Set each of the five parts of each body to 0 in each frame with probability p, as CoDT's code does."""
    B, _, T, V, M = x.shape
    parts = skeleton(V).parts
    kept_BTPM = noise.uniform(B, T, len(parts), M, like=x) >= p
    part_V = torch.empty(V, dtype=torch.int64)
    for number, joints in enumerate(parts):
        part_V[joints] = number
    return x * kept_BTPM[:, :, part_V.to(x.device)][:, None]
