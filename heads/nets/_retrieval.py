"""What the networks of retrieval share: two towers, a similarity, and the ranking loss of captions and clips.

    L_R = 1/(2B(B-1)) Σ_i Σ_{j≠i} [m + ξ_ij - ξ_ii]_+ + [m + ξ_ji - ξ_ii]_+          ξ_ij: of caption i and clip j

[Liu et al. 2019, CE, code; ACP: Liu et al. 2021, Sec. 3.1, where the sum is divided by B alone]. Every clip of a batch
comes with one of its captions; the others' captions are its negatives.

Shapes: B pairs of a batch, C captions, V clips, M entries of an embedding.
"""

from typing import ClassVar

import torch
from torch import Tensor

from heads.batch import Side
from heads.losses.ranking import ranking
from heads.nets import Net


class Retrieval(Net):
    """Clips and captions in one space; `similarity` says how well they fit."""

    task: ClassVar[str] = "retrieval"
    captions: tuple[str, ...]  #: modalities of the text side: the spec's
    margin: float  #: m of L_R

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Of the clips' modalities in side.x "visual" (B, M), of the captions' "text" (B, M), where there are any."""
        raise NotImplementedError

    def similarity(self, text_CM: Tensor, visual_VM: Tensor) -> Tensor:
        """ξ (C, V) of captions and clips, larger where they fit."""
        raise NotImplementedError

    def loss(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """L_R of the rows that have a clip and a caption; two rows of one clip are no negatives of each other."""
        if "text" not in f:
            raise ValueError("a ranking loss needs captions, but this side has none; a target's are always hidden")
        has_text_B, has_visual_B = (
            torch.stack([side.has(m) for m in side.x if (m in self.captions) == is_text]).any(0)
            for is_text in (True, False)
        )
        pair_B = has_text_B & has_visual_B
        negative_BB = (side.index[:, None] != side.index) & pair_B[:, None] & pair_B
        return {"L_R": ranking(self.similarity(f["text"], f["visual"]), negative_BB, self.margin)}

    def predict(self, side: Side) -> dict[str, Tensor]:
        """What is kept of test rows: their embeddings."""
        return self.encode(side)
