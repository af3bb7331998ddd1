"""TV-L1 optical flow of many pairs of pictures at once, in torch: for GPUs, on which OpenCV's wheels compute no flow.

The flow u of pictures I0 and I1 minimises  sum |grad u1| + |grad u2| + lambda |I1(x + u) - I0(x)|  (Zach, Pock, Bischof
2007). As in Sanchez, Meinhardt-Llopis and Facciolo (IPOL 2013), I1 is warped by the present u and made linear there,
and u and an auxiliary field v are found in turns, coarse scales first. The parameters, the median filter and the rule
to stop are those that OpenCV documents for DualTVL1OpticalFlow. The fields are within 0.03 pixels of its own on average
(tests/featcache/test_media_tvl1.py).

A pair stops by its own error and leaves the batch, so its field does not depend on the other pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

TAU, LAMBDA, THETA = 0.25, 0.15, 0.3  #: time step, weight of the data, coupling of u and v
SCALES, SHRINK, SMALLEST = 5, 0.8, 16  #: most scales, ratio of two of them, and least pixels of a side
WARPS, OUTER, INNER = 5, 10, 30  #: warps of a scale, median filters of a warp, iterations between two of them
EPSILON = 0.01  #: root mean square change of u, in pixels, at which a warp ends
LOOK = {"cpu": 1}  #: iterations between two looks at the errors, by kind of device; a look makes a GPU wait
LOOK_AFTER = 10  #: those of all other devices
CHANNELS = 16  #: fields that are median-filtered at once, which takes 35 times their memory

#: Exchanges (lower, higher) that sort five values.
SORT = ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3))
#: Exchanges (lower, higher) after which wire MIDDLE holds the median of 25 values whose columns of five are sorted:
#: wire 5 r + c holds the r-th lowest of column c. Found by leaving exchanges out of a sorting network.
# fmt: off
MEDIAN = (
    (0, 3), (1, 4), (0, 2), (1, 2), (3, 4), (2, 3), (5, 8), (5, 7), (6, 8), (5, 6), (7, 9), (6, 7), (8, 9), (7, 8),
    (11, 14), (10, 12), (11, 13), (10, 11), (12, 14), (11, 12), (13, 14), (15, 18), (16, 19), (15, 17), (15, 16),
    (17, 19), (16, 17), (17, 18), (20, 23), (21, 24), (20, 22), (21, 23), (20, 21), (22, 24), (21, 22), (13, 20),
    (11, 15), (17, 12), (21, 16), (8, 4), (7, 13), (3, 20), (21, 8), (16, 4), (3, 13), (15, 17), (3, 15), (13, 17),
    (20, 12), (13, 11), (20, 15), (8, 9), (20, 11), (15, 17), (16, 8), (11, 21), (15, 16), (17, 8), (20, 15),
    (17, 21), (15, 17),
)
# fmt: on
MIDDLE = 17


@torch.inference_mode()
def tvl1(first: Tensor, second: Tensor, look: int = 0) -> Tensor:
    """Return the flow (n, 2, H, W), right and down in pixels, between grey pictures (n, H, W) with values up to 255.

    look: iterations between two looks at the errors (0: by the device). The result does not depend on it.
    """
    look = look or LOOK.get(first.device.type, LOOK_AFTER)
    pyramid = [(first.float(), second.float())]
    while len(pyramid) < SCALES:
        size = [round(length * SHRINK) for length in pyramid[-1][0].shape[1:]]
        smaller = tuple(resized(picture, size, 1 / SHRINK) for picture in pyramid[-1])
        pyramid.append((smaller[0], smaller[1]))
        if min(size) < SMALLEST:
            pyramid.pop()
            break
    u = torch.zeros(2, *pyramid[-1][0].shape, device=first.device)
    for a, b in reversed(pyramid):
        if u.shape[1:] != a.shape:
            ratios = [old / new for old, new in zip(u.shape[2:], a.shape[1:], strict=True)]
            u = resized(u.flatten(0, 1), a.shape[1:], *ratios).view(2, *a.shape) / SHRINK
        u = _at_one_scale(a, b, u, look)
    return u.movedim(0, 1)


def resized(x: Tensor, size: list[int] | torch.Size, *scale: float) -> Tensor:
    """Sample (n, H, W) bilinearly at the centres of `size` pixels, each `scale` pixels (of a row, of a column) wide."""
    for axis, (length, step) in enumerate(zip(size, (scale * 2)[:2], strict=True), 1):
        place = (torch.arange(length, dtype=torch.float64, device=x.device) + 0.5) * step - 0.5
        place = place.clamp(0, x.shape[axis] - 1)
        lower = place.long()
        share = (place - lower).float().view((-1, 1) if axis == 1 else (-1,))
        upper = (lower + 1).clamp(max=x.shape[axis] - 1)
        x = torch.lerp(x.index_select(axis, lower), x.index_select(axis, upper), share)
    return x


def median(x: Tensor) -> Tensor:
    """Return the median of 5 x 5 values (n, H, W), where those at the border are repeated outside."""
    return torch.cat([_median(part) for part in x.split(CHANNELS)])


def _median(x: Tensor) -> Tensor:
    height, width = x.shape[1:]
    padded = F.pad(x[None], (2, 2, 2, 2), mode="replicate")[0]
    column = [padded[:, row : row + height] for row in range(5)]  # of five values; sorted once for five windows
    for low, high in SORT:
        column[low], column[high] = column[low].minimum(column[high]), column[low].maximum(column[high])
    values = [rank[..., left : left + width] for rank in column for left in range(5)]
    for low, high, keep_low, keep_high in _needed(MEDIAN, MIDDLE):
        a, b = values[low], values[high]
        if keep_low:
            values[low] = a.minimum(b)
        if keep_high:
            values[high] = a.maximum(b)
    return values[MIDDLE]


def _needed(exchanges: Sequence[tuple[int, int]], wire: int) -> list[tuple[int, int, bool, bool]]:
    """Return the exchanges, and which of their two results reach a wire in the end."""
    wires, result = {wire}, []
    for low, high in reversed(exchanges):
        result.append((low, high, low in wires, high in wires))
        wires |= {low, high}
    return result[::-1]


class _Warp(NamedTuple):
    """The pairs of a warp that have not converged, with the constants of the warp; planes are (n, H, W)."""

    u: Tensor  #: (2, n, H, W)
    q: Tensor  #: (2, 2, n, H, W): theta times the dual of u's derivatives; first to the right, then down
    slope: Tensor  #: (2, n, H, W): the warped derivatives of the second picture
    rest: Tensor  #: (n, H, W): rho = I1(x + u) - I0, made linear at the warp's first u, at u = 0
    inverse: Tensor  #: (n, H, W): -1 / |slope|^2

    def part(self, pairs: Tensor) -> Self:
        """Return the chosen pairs."""
        return type(self)(*(x.index_select(x.dim() - 3, pairs) for x in self))


def _at_one_scale(first: Tensor, second: Tensor, u: Tensor, look: int) -> Tensor:
    """Improve u (2, n, H, W) by WARPS warps."""
    moving = torch.stack([second, *_centred(second)], 1)
    q = u.new_zeros(2, *u.shape)
    for _ in range(WARPS):
        warped = _sampled(moving, u)
        slope = warped[:, 1:].movedim(1, 0).contiguous()
        inverse = -1 / slope.square().sum(0).clamp_(min=torch.finfo(torch.float32).eps)
        rest = warped[:, 0] - slope[0] * u[0] - slope[1] * u[1] - first
        _minimise(_Warp(u, q, slope, rest, inverse), look)
    return u


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of (n, H, W) to the right and down: half the difference of both neighbours."""
    padded = F.pad(x[None], (1, 1, 1, 1), mode="replicate")[0]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    return right / 2, (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2


def _sampled(x: Tensor, u: Tensor) -> Tensor:
    """Sample (n, channels, H, W) bicubically at each pixel plus u (2, n, H, W); 0 outside.

    Places are rounded to float32 as in OpenCV, and are then exact: an error of 1e-5 pixels here can change the number
    of iterations, and so the field by 0.01 pixels.
    """
    height, width = x.shape[2:]
    right = torch.arange(width, device=x.device, dtype=x.dtype)
    down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
    places = torch.stack([(u[0] + right).double() / (width - 1), (u[1] + down).double() / (height - 1)], -1)
    return F.grid_sample(x.double(), places * 2 - 1, mode="bicubic", padding_mode="zeros", align_corners=True).float()


def _minimise(whole: _Warp, look: int) -> None:
    """Iterate in place until every pair has converged; converged pairs are frozen, and leave at the next look."""
    n, height, width = whole.rest.shape
    limit = EPSILON**2 * height * width
    now, at = whole, torch.arange(n, device=whole.u.device)
    alive, space = torch.ones(n, device=at.device), None
    for count in range(1, OUTER * INNER + 1):
        if count % INNER == 1:
            now.u.copy_(median(now.u.flatten(0, 1)).view_as(now.u))
        space = space or _Space.of(now)
        alive *= _iterate(now, alive, space) > limit
        if count % look and count % INNER:
            continue
        left = alive.nonzero().flatten()  # the GPU's work is waited for here
        if len(left) == len(at):
            continue
        if now is not whole:
            whole.u[:, at], whole.q[:, :, at] = now.u, now.q
        if not len(left):
            return
        now, at, alive, space = now.part(left), at[left], alive[left], None
    if now is not whole:
        whole.u[:, at], whole.q[:, :, at] = now.u, now.q


class _Space(NamedTuple):
    """Memory for the numbers of an iteration."""

    step: Tensor  #: (n, H, W)
    change: Tensor  #: (2, n, H, W)
    norm: Tensor  #: (2, n, H, W)
    slopes: Tensor  #: (2, 2, n, H, W)

    @classmethod
    def of(cls, warp: _Warp) -> Self:
        """Return memory for these pairs."""
        return cls(*(torch.zeros_like(x) for x in (warp.rest, warp.u, warp.u, warp.q)))


def _iterate(warp: _Warp, alive: Tensor, space: _Space) -> Tensor:
    """Change u and q of the pairs that are alive, by one iteration in place; return each pair's error (n,).

    Planes follow each other in memory. In their last column or row q is 0, so a plane shifted by a pixel or a row has
    zeros in the first column or row without any padding.
    """
    step, change, norm, slopes = space
    width, freeze = warp.u.shape[-1], alive.view(-1, 1, 1)
    torch.addcmul(warp.rest, warp.slope[0], warp.u[0], out=step)
    step.addcmul_(warp.slope[1], warp.u[1]).mul_(warp.inverse).clamp_(-LAMBDA * THETA, LAMBDA * THETA)
    torch.mul(warp.slope, step, out=change)  # v - u
    for q, shift in zip(warp.q, (1, width), strict=True):  # and theta times the divergence
        change.add_(q).view(-1)[shift:].sub_(q.view(-1)[:-shift])
    error = torch.mul(change, change, out=norm).flatten(2).sum((0, 2), dtype=torch.float64)
    warp.u.addcmul_(change, freeze)
    flat = warp.u.view(-1)
    for slope, shift in zip(slopes, (1, width), strict=True):
        torch.sub(flat[shift:], flat[:-shift], out=slope.view(-1)[:-shift])
    slopes[0, ..., -1] = 0
    slopes[1, ..., -1, :] = 0
    torch.mul(slopes[0], slopes[0], out=norm).addcmul_(slopes[1], slopes[1]).sqrt_()
    norm.mul_(freeze * (TAU / THETA)).add_(1)
    warp.q.addcmul_(slopes, freeze * TAU).div_(norm)
    return error
