"""Skeletons, told by their number of joints: bones, centre, five parts, and the graph's partitions of ST-GCN.

25 joints are NTU RGB+D's, 20 those of the first Kinect, 15 those that the papers' data sets share, 17 COCO's, in the
plane; their names and order are those of the layouts that extraction writes (`ntu-25`, `kinect-20`, `coco-17`;
`shared-15` and `kinect-15`, which have the same bones).

Shapes: V joints.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Chain = tuple[int, ...]


@dataclass(frozen=True)
class Skeleton:
    """Chains of joints that bones connect. Each leads away from the centre."""

    torso: tuple[Chain, ...]  #: both begin at the centre; of COCO's joints they are the face
    limbs: tuple[Chain, ...]  #: arm, arm, leg, leg, after the joint of another chain where they begin

    @property
    def centre(self) -> int:
        """The joint between the shoulders; of COCO's the nose."""
        return self.torso[0][0]

    @property
    def bones(self) -> list[tuple[int, int]]:
        """Pairs of joints."""
        return [bone for chain in self.torso + self.limbs for bone in pairwise(chain)]

    @property
    def parts(self) -> list[list[int]]:
        """The torso and the four limbs: every joint once."""
        return [sorted({joint for chain in self.torso for joint in chain}), *(list(chain[1:]) for chain in self.limbs)]


SKELETONS = {
    25: Skeleton(
        torso=((20, 1, 0), (20, 2, 3)),
        limbs=((20, 4, 5, 6, 7, 22, 21), (20, 8, 9, 10, 11, 24, 23), (0, 12, 13, 14, 15), (0, 16, 17, 18, 19)),
    ),
    20: Skeleton(
        torso=((2, 1, 0), (2, 3)),
        limbs=((2, 4, 5, 6, 7), (2, 8, 9, 10, 11), (0, 12, 13, 14, 15), (0, 16, 17, 18, 19)),
    ),
    15: Skeleton(
        torso=((1, 8), (1, 0)),
        limbs=((1, 2, 3, 4), (1, 5, 6, 7), (8, 9, 10, 11), (8, 12, 13, 14)),
    ),
    17: Skeleton(
        torso=((0, 1, 3), (0, 2, 4)),
        limbs=((0, 5, 7, 9), (0, 6, 8, 10), (5, 11, 13, 15), (6, 12, 14, 16)),
    ),
}


def skeleton(V: int) -> Skeleton:
    """The skeleton of V joints; other numbers list the known ones."""
    if V not in SKELETONS:
        raise ValueError(f"no skeleton of {V} joints; there are those of {', '.join(map(str, SKELETONS))}")
    return SKELETONS[V]


def partitions(V: int) -> Tensor:
    """A (3, V, V), the neighbours of ST-GCN's spatial partitioning [Yan et al. 2018, Sec. 3.3 and its code].

    A[0] has each joint itself, A[1] its neighbours that are farther from the centre than it or as far, A[2] those that
    are nearer. A[:, :, i] are the neighbours of joint i, and sum to 1. In the code distances end at 1: all joints
    beyond the centre's neighbours are equally far from it.
    """
    there_VV = torch.eye(V, dtype=torch.bool)
    for i, j in skeleton(V).bones:
        there_VV[i, j] = there_VV[j, i] = True
    from_V = torch.full((V,), 2)
    from_V[there_VV[skeleton(V).centre]] = 1
    from_V[skeleton(V).centre] = 0
    nearer_VV = from_V[:, None] < from_V
    self_VV = torch.eye(V, dtype=torch.bool)
    return torch.stack([self_VV, ~nearer_VV & ~self_VV, nearer_VV]) * (there_VV / there_VV.sum(0))
