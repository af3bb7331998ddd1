"""What a network promises. The folder is the registry: `nets/adapter.py` is the network `adapter`.

A file holds one frozen dataclass `Params`, one class, and `NET = ThatClass`. Helpers of several files start with `_`.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

from heads.batch import Side, Sweep
from heads.losses.supervised import task_cross_entropy


class Net(nn.Module):
    """What a table holds fixed while methods vary. Constructor (params, spec); it draws its weights before the method.

    Nets of retrieval (`_retrieval.py`) say "visual" and "text" in `encode`, and have a `similarity`; the others have
    `classify`. Nets of clustering say what each of their branches makes of a side.
    """

    task: ClassVar[str] = "classification"  #: or retrieval, clustering: what it answers; a method names what it serves
    dim: int  #: D, size of each encoded feature
    parts: dict[str, slice]  #: task -> its slice of D (single task: slice(None))
    units: nn.Module | None  #: what standardises x before it is encoded, where there is any; AdaBN takes it out
    classifier: nn.Module  #: all that `classify` learns, and nothing that `encode` does; source-free methods freeze it

    def begin(self, sweep: Sweep) -> None:
        """Look at whole sides before the first step; runs in eval mode without gradient, after init_from."""

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Modality -> (B, D), over the modalities in side.x; a fusing net adds "fused"."""
        raise NotImplementedError

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Task -> logits (B, K).

        A late-fusion net takes any subset of modalities: classify({"rgb": f["rgb"]}) is that stream alone. A fusing net
        reads "fused".
        """
        raise NotImplementedError

    def reads(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Task -> all that its logits are made of (B, D): the fused features, or the modalities' side by side."""
        read_BD = [f["fused"]] if "fused" in f else list(f.values())
        return {task: torch.cat([f_BD[:, part] for f_BD in read_BD], 1) for task, part in self.parts.items()}

    def loss(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """The term of the labelled rows, which every method begins with: L_C, cross entropy of the side's labels."""
        return {"L_C": task_cross_entropy(self.classify(f), side.y)}

    def predict(self, side: Side) -> dict[str, Tensor]:
        """What is kept of a test row: task -> logits."""
        return self.classify(self.encode(side))


def names() -> list[str]:
    """The networks there are: the files of this folder that do not start with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The file of that name, with its `Params` and `NET`; unknown names list the known ones."""
    if name not in names():
        raise ValueError(f"no net {name!r}; heads/nets has: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
