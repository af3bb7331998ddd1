"""Other views of skeletons, a batch at a time: sheared, cropped in time, parts of the body masked.

Each row draws for itself, from torch's global stream. A view has the shape of what it is a view of; a body of zeros
stays one. Sources: CrosSCLR [Li et al. 2021] and CoDT's code for shear and crop; CoDT's supplement, Sec. 5.1, for
their strengths and the mask.

Shapes: x is (B, 3, T, V, M): B rows, 3 coordinates, T frames, V joints, M bodies.
"""

import torch
from torch import Tensor

from heads.skeletons import skeleton


def shear(x: Tensor, beta: float) -> Tensor:
    """R x of every joint: R has ones on its diagonal, and is uniform in [-beta, beta] beside it; one for each row."""
    R_BCC = beta * (2 * torch.rand(len(x), 3, 3, device=x.device, dtype=x.dtype) - 1)
    R_BCC.diagonal(dim1=1, dim2=2).fill_(1)
    return (R_BCC @ x.flatten(2)).view_as(x)


def crop(x: Tensor, gamma: int) -> Tensor:
    """T successive frames from anywhere in x that is T // gamma frames longer at both ends, mirrored there.

    The frame at the end stands twice. Larger gamma moves less; it is 1 at least, 6 is mild, 3 strong.
    """
    T = x.shape[2]
    most = T // gamma
    first_B = torch.randint(-most, most + 1, (len(x),), device=x.device)
    at_BT = mirrored(first_B[:, None] + torch.arange(T, device=x.device), T)
    return x.gather(2, at_BT[:, None, :, None, None].expand_as(x))


def mirrored(at: Tensor, T: int) -> Tensor:
    """Frames before the first and after the last of T, for which those inside stand.

    >>> mirrored(torch.arange(-2, 6), 4)
    tensor([1, 0, 0, 1, 2, 3, 3, 2])
    """
    at = at.where(at >= 0, -1 - at)
    return at.where(at < T, 2 * T - 1 - at)


def mask_parts(x: Tensor, p: float) -> Tensor:
    """Each of a body's five parts at 0 in each frame with probability p, of each body by itself as in CoDT's code."""
    B, _, T, V, M = x.shape
    parts = skeleton(V).parts
    kept_BTPM = torch.rand(B, T, len(parts), M, device=x.device) >= p
    of_V = torch.empty(V, dtype=torch.int64)
    for number, joints in enumerate(parts):
        of_V[joints] = number
    return x * kept_BTPM[:, :, of_V.to(x.device)][:, None]
