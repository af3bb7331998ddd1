"""Skeletons, identified by their number of joints: bones, centre, five parts, and the graph partitions of ST-GCN.

25 joints: NTU RGB+D; 20: the first Kinect; 15: the joints that the papers' data sets share; 17: COCO, in the plane.
Names and order of the joints are those of the layouts that extraction writes (`ntu-25`, `kinect-20`, `coco-17`;
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
    """Chains of joints connected by bones. Each chain leads away from the centre."""

    torso: tuple[Chain, ...]  #: two chains that begin at the centre; the face for COCO's joints
    limbs: tuple[Chain, ...]  #: arm, arm, leg, leg; each begins with the joint of another chain that it hangs from

    @property
    def centre(self) -> int:
        """The joint between the shoulders, or the nose for COCO."""
        return self.torso[0][0]

    @property
    def bones(self) -> list[tuple[int, int]]:
        """The pairs of joints that a bone connects."""
        return [bone for chain in self.torso + self.limbs for bone in pairwise(chain)]

    @property
    def parts(self) -> list[list[int]]:
        """The joints of the torso and of the four limbs; every joint is in one part."""
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
    """Return the skeleton of V joints; the error for another number lists the available ones."""
    if V not in SKELETONS:
        raise ValueError(f"no skeleton of {V} joints; there are skeletons of {', '.join(map(str, SKELETONS))} joints")
    return SKELETONS[V]


def partitions(V: int) -> Tensor:
    """Return A (3, V, V), the neighbours by ST-GCN's spatial partitioning [Yan et al. 2018, Sec. 3.3 and its code].

    A[0] holds each joint itself, A[1] its neighbours that are as far from the centre or farther, A[2] its neighbours
    that are nearer. A[:, :, i] holds the neighbours of joint i and sums to 1. As in the code, distances are measured up
    to 1: all joints beyond the centre's neighbours count as equally far from it.
    """
    linked_VV = torch.eye(V, dtype=torch.bool)
    for i, j in skeleton(V).bones:
        linked_VV[i, j] = linked_VV[j, i] = True
    distance_V = torch.full((V,), 2)
    distance_V[linked_VV[skeleton(V).centre]] = 1
    distance_V[skeleton(V).centre] = 0
    nearer_VV = distance_V[:, None] < distance_V
    self_VV = torch.eye(V, dtype=torch.bool)
    return torch.stack([self_VV, ~nearer_VV & ~self_VV, nearer_VV]) * (linked_VV / linked_VV.sum(0))
