"""What a method promises. The folder is the registry: `methods/rna.py` is the method `rna`.

A method is losses over a network. A file holds one frozen dataclass `Params`, one class, and `METHOD = ThatClass`;
helpers of several files start with `_`. The recipe owns rows, windows, sides, learning rates, clocks and evaluation.

Rules a signature cannot say
  - State that a sweep can rebuild (banks, pseudo-labels, prototypes) is `register_buffer(..., persistent=False)`.
  - Randomness comes from torch's global stream, seeded by the recipe; new tensors take `device=` from a given one.
  - `losses` has fixed shapes: masks multiply, they do not index; no `.item()`, no `if tensor`. An empty set gives 0.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import Parameter

from heads.batch import Batch, Shared, Side, Spec, Sweep
from heads.nets import Net


def compute_now(name: str, compute: Callable[[], Tensor]) -> Tensor:
    """Share nothing: what a method does where no recipe lends it a place."""
    return compute()


class Method(nn.Module):
    """Losses over a network. Only the constructor and `losses` need to be written."""

    needs: ClassVar[tuple[str, ...]] = ("source",)  #: of source, source_val, target, init_from; refused without
    may: ClassVar[tuple[str, ...]] = ()  #: sides it can also use; any other side of the run is refused
    tasks: ClassVar[tuple[str, ...]] = ("classification",)  #: of the nets that it works on (`Net.task`)
    shared: Shared = staticmethod(compute_now)  #: for what costs minutes and is the same in many runs; the recipe's
    surrogate: ClassVar[str] = ""  #: "what stands for what", where the paper's method cannot run on cached features

    def __init__(self, params: Any, spec: Spec, net: Net) -> None:
        """Runs before init_from: copies of net's weights are refreshed in begin_epoch(0). Freeze weights here."""
        super().__init__()
        self.params = params
        self.spec = spec
        self.net = net

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Already weighted terms; their sum is the objective. progress in [0, 1) of this run."""
        raise NotImplementedError

    def predict(self, side: Side) -> dict[str, Tensor]:
        """Label -> logits | "visual", "text" | "cluster_*", "feature_*"."""
        return self.net.predict(side)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> dict[str, list[Tensor]] | None:
        """Look at whole sides; runs in eval mode without gradient, first of all after init_from.

        May return pools, side -> row tensors: batches then take equal parts of each, in that order, until replaced.
        """
        return None

    def rounds(self, batch: Batch, progress: float) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Pairs of players (names, separated by spaces) and terms: one backward pass and one update each.

        What follows a yield runs after the update: banks, teachers.
        """
        yield "all", self(batch, progress)

    def players(self) -> dict[str, list[Parameter]]:
        """Who is updated in which round. Asked once, after the constructor."""
        return {"all": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The losses: the door that torch.func.functional_call needs."""
        return self.losses(batch, progress)
