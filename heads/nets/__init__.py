"""The interface of networks. The folder is the registry: `nets/adapter.py` is the network `adapter`.

A file holds one frozen dataclass `Params`, one class, and `NET = ThatClass`. Names of shared helper files start with
`_`.

Shapes: B rows, or pairs of a clip and a caption; D entries of a feature, M of an embedding; C captions, V clips.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from heads.batch import Side, Sweep, joined
from heads.losses.ranking import ranking
from heads.losses.supervised import label_cross_entropy


class Net(nn.Module):
    """A network, which a table holds fixed while methods vary.

    The constructor takes (params, spec) and draws the weights; the run calls it before the method's constructor.
    Retrieval nets (`Retrieval`) return "visual" and "text" from `encode` and have a `similarity`; other nets have
    `classify`. Clustering nets return a feature of each of their branches from `encode`.
    """

    task: ClassVar[str] = "classification"  #: or retrieval, clustering; `Method.tasks` lists the tasks a method serves
    fuses: ClassVar[bool] = False  #: True if `encode` adds "fused", the only features that `classify` reads
    dim: int  #: D, size of each encoded feature
    parts: dict[str, slice]  #: label -> its slice of D (slice(None) for a single label kind)
    units: nn.Module | None  #: standardises x before it is encoded, if set; AdaBN removes it
    classifier: nn.Module  #: all parameters of `classify`, and none of `encode`; source-free methods freeze it
    row_by_row: bool = False  #: True if features and logits of a row never depend on other rows, not even in training

    def begin(self, sweep: Sweep) -> None:
        """Read whole sides before the first step; runs in eval mode without gradient, after init_from."""

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return modality -> (B, D), over the modalities in side.x; a fusing net adds "fused"."""
        raise NotImplementedError

    def encode_both(self, s: Side, t: Side) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return `encode` of both sides, computed at once if the net is `row_by_row` and the sides have equal shapes.

        One product of twice the rows is faster than two products. A net with batch normalisation is not `row_by_row`:
        each side has its own statistics.
        """
        both = joined(s, t) if self.row_by_row else None
        if both is None:
            return self.encode(s), self.encode(t)
        return split(self.encode(both), len(s.index))

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return label -> logits (B, K).

        A late-fusion net takes any subset of modalities: classify({"rgb": f["rgb"]}) uses that stream only. A fusing
        net reads "fused".
        """
        raise NotImplementedError

    def classify_both(
        self, f_s: dict[str, Tensor], f_t: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return `classify` of the features of two sides, computed at once where `encode_both` would do so."""
        if not self.row_by_row or f_s.keys() != f_t.keys():
            return self.classify(f_s), self.classify(f_t)
        rows = len(next(iter(f_s.values())))
        return split(self.classify({m: torch.cat([f_s[m], f_t[m]]) for m in f_s}), rows)

    def classified(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the features that logits depend on: only "fused" if it is there, else all of f."""
        return {"fused": f["fused"]} if "fused" in f else f

    def reads(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return label -> the features that its logits depend on (B, D): fused, or all modalities concatenated."""
        inputs = list(self.classified(f).values())
        return {label: torch.cat([f_BD[:, part] for f_BD in inputs], 1) for label, part in self.parts.items()}

    def loss(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """Return the term of the labelled rows, the first of every method: L_C, cross entropy of the side's labels."""
        return {"L_C": label_cross_entropy(self.classify(f), side.y)}

    def outputs(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs that are kept of test rows, from their features: label -> logits."""
        return self.classify(f)


def split(values: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the first rows of each tensor, and the others."""
    pairs = {name: value.split([rows, len(value) - rows]) for name, value in values.items()}
    return {name: first for name, (first, _) in pairs.items()}, {name: others for name, (_, others) in pairs.items()}


class Retrieval(Net):
    """Base of the retrieval nets: clips and captions in one space, a similarity, and the ranking loss.

        L_R = 1/(2B(B-1)) Σ_i Σ_{j≠i} [m + ξ_ij - ξ_ii]_+ + [m + ξ_ji - ξ_ii]_+      ξ_ij: of caption i and clip j

    [Liu et al. 2019, CE, code; ACP: Liu et al. 2021, Sec. 3.1, which divides the sum by B only: reduction="sum"]. Every
    clip of a batch comes with one of its captions; the captions of the other clips are its negatives.
    """

    task: ClassVar[str] = "retrieval"
    captions: tuple[str, ...]  #: caption modalities, those of the spec
    margin: float  #: m of L_R

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return "visual" (B, M) if side.x has modalities of clips, and "text" (B, M) if it has caption modalities."""
        raise NotImplementedError

    def similarity(self, text_CM: Tensor, visual_VM: Tensor) -> Tensor:
        """Return ξ (C, V) of captions and clips; larger is a better match."""
        raise NotImplementedError

    def loss(self, f: dict[str, Tensor], side: Side, reduction: str = "mean") -> dict[str, Tensor]:
        """Return L_R of the rows that have a clip and a caption; two rows of one clip are not negatives."""
        if "text" not in f:
            raise ValueError("a ranking loss needs captions, but this side has none: a target's are always hidden")
        has_text_B, has_visual_B = (
            torch.stack([side.has(m) for m in side.x if (m in self.captions) == is_text]).any(0)
            for is_text in (True, False)
        )
        pair_B = has_text_B & has_visual_B
        negative_BB = (side.index[:, None] != side.index) & pair_B[:, None] & pair_B
        return {"L_R": ranking(self.similarity(f["text"], f["visual"]), negative_BB, self.margin, reduction)}

    def outputs(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the embeddings themselves."""
        return f
