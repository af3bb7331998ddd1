"""What a network promises. The folder is the registry: `nets/adapter.py` is the network `adapter`.

A file holds one frozen dataclass `Params`, one class, and `NET = ThatClass`. Helpers of several files start with `_`.

Shapes: B rows, or pairs of a clip and a caption; D entries of a feature, M of an embedding; C captions, V clips.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

from heads.batch import Side, Sweep
from heads.losses.ranking import ranking
from heads.losses.supervised import label_cross_entropy


class Net(nn.Module):
    """What a table holds fixed while methods vary. Constructor (params, spec); it draws its weights before the method.

    Nets of retrieval (`Retrieval`) say "visual" and "text" in `encode`, and have a `similarity`; the others have
    `classify`. Nets of clustering say what each of their branches makes of a side.
    """

    task: ClassVar[str] = "classification"  #: or retrieval, clustering: what it answers; a method names what it serves
    dim: int  #: D, size of each encoded feature
    parts: dict[str, slice]  #: label -> its slice of D (slice(None) for a single label kind)
    units: nn.Module | None  #: what standardises x before it is encoded, where there is any; AdaBN takes it out
    classifier: nn.Module  #: all that `classify` learns, and nothing that `encode` does; source-free methods freeze it

    def begin(self, sweep: Sweep) -> None:
        """Look at whole sides before the first step; runs in eval mode without gradient, after init_from."""

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Modality -> (B, D), over the modalities in side.x; a fusing net adds "fused"."""
        raise NotImplementedError

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Label -> logits (B, K).

        A late-fusion net takes any subset of modalities: classify({"rgb": f["rgb"]}) is that stream alone. A fusing net
        reads "fused".
        """
        raise NotImplementedError

    def reads(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Label -> all that its logits are made of (B, D): the fused features, or the modalities' side by side."""
        read_BD = [f["fused"]] if "fused" in f else list(f.values())
        return {label: torch.cat([f_BD[:, part] for f_BD in read_BD], 1) for label, part in self.parts.items()}

    def loss(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """The term of the labelled rows, which every method begins with: L_C, cross entropy of the side's labels."""
        return {"L_C": label_cross_entropy(self.classify(f), side.y)}

    def predict(self, side: Side) -> dict[str, Tensor]:
        """What is kept of a test row: label -> logits."""
        return self.classify(self.encode(side))


class Retrieval(Net):
    """What networks of retrieval share: clips and captions in one space, a similarity, and the ranking loss.

        L_R = 1/(2B(B-1)) Σ_i Σ_{j≠i} [m + ξ_ij - ξ_ii]_+ + [m + ξ_ji - ξ_ii]_+      ξ_ij: of caption i and clip j

    [Liu et al. 2019, CE, code; ACP: Liu et al. 2021, Sec. 3.1, where the sum is divided by B alone]. Every clip of a
    batch comes with one of its captions; the others' captions are its negatives.
    """

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


def names() -> list[str]:
    """The networks there are: the files of this folder that do not start with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The file of that name, with its `Params` and `NET`; unknown names list the known ones."""
    if name not in names():
        raise ValueError(f"no net {name!r}; heads/nets has: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
