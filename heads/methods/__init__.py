"""The interface of methods. The folder is the registry: `methods/rna.py` is the method `rna`.

A method adds losses to a network. A file holds one frozen dataclass `Params`, one class, and `METHOD = ThatClass`;
names of shared helper files start with `_`. The run owns rows, windows, sides, learning rates, steps and evaluation.

Rules beyond the signatures
  - State that a sweep can rebuild (banks, pseudo-labels, prototypes) is `register_buffer(..., persistent=False)`.
  - Random numbers and dropout come from `heads.noise`, except in the constructor. New tensors take `device=` from a
    given tensor.
  - `net.encode_both(s, t)` encodes both sides, in one pass where the net can do so.
  - Fields `lambda_*` of `Params` are weights: `losses` multiplies with them and never compares them, because runs that
    differ in them share a pass (`heads/stacked.py`). Only the constructor may ask if a weight is 0.
  - `losses` has fixed shapes: masks multiply and do not index; no `.item()`, no `if tensor`. An empty set gives 0.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import Parameter

from heads.batch import Batch, Shared, Side, Spec, Sweep
from heads.nets import Net


def compute_now(name: str, compute: Callable[[], Tensor]) -> Tensor:
    """Compute the result and share nothing: the default for a method outside a run."""
    return compute()


class Method(nn.Module):
    """Losses over a network. Only the constructor and `losses` need to be written."""

    needs: ClassVar[tuple[str, ...]] = ("source",)  #: required: source, source_val, target, init_from
    may: ClassVar[tuple[str, ...]] = ()  #: sides that it can also use; a run with any other side is refused
    tasks: ClassVar[tuple[str, ...]] = ("classification",)  #: tasks of the nets that it works on (`Net.task`)
    shared: Shared = staticmethod(compute_now)  #: set by the run; shares slow results that many runs need
    surrogate: ClassVar[str] = ""  #: the replaced parts, if the paper's method cannot run on cached features
    version: ClassVar[int] = 1  #: raised when equal Params begin to mean something else: older runs are out of date

    def __init__(self, params: Any, spec: Spec, net: Net) -> None:
        """Freeze weights here. This runs before init_from, so refresh copies of the net's weights in begin_epoch(0)."""
        super().__init__()
        self.params = params
        self.spec = spec
        self.net = net

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return weighted terms, whose sum is the objective. progress: progress of the run in [0, 1)."""
        raise NotImplementedError

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the features that are classified: modality -> (B, D), "visual" and "text", or branch -> (B, D).

        A run measures these, and no others: feature norms, the validator `dev`, collapse, embeddings. Every entry
        changes the outputs; of a fusing net that is "fused" only. A method whose classifier reads other features than
        those that the net encodes returns its own.
        """
        return self.net.classified(self.net.encode(side))

    def projected(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return modality -> (B, P): the features after a projection head that only losses read; {} if there is none.

        Reports draw them next to the classified features.
        """
        return {}

    def outputs(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """Return label -> logits, or "visual" and "text", or "cluster_*" and "feature_*", depending on the task.

        f: the features of this side. They are all that is read of its x; masks, domain and index may be read, too.
        """
        return self.net.outputs(f)

    @property
    def parts(self) -> dict[str, slice]:
        """Label -> the slice of each feature that its classifier reads."""
        return self.net.parts

    def predict(self, side: Side) -> dict[str, Tensor]:
        """Return the outputs of the features of a side. Methods override `features` or `outputs`, and never this."""
        return self.outputs(self.features(side), side)

    def specialise(self, domain: int) -> None:
        """Prepare a trained method to predict rows of this domain only, without a look at `Side.domain`.

        An exported head is for one domain: a method whose Python code chooses by the domain of a row chooses here.
        """

    def begin_epoch(self, epoch: int, sweep: Sweep) -> dict[str, list[Tensor]] | None:
        """Read whole sides; runs in eval mode without gradient, for the first time after init_from.

        It may return pools, side -> row tensors: batches then take equal parts of each pool, in that order, until new
        pools replace them.
        """
        return None

    def objectives(self) -> list[tuple[str, str]]:
        """Return the rounds of a step: players (names, separated by spaces), and the name of the method with the terms.

        That method takes what `losses` takes.
        """
        return [("all", "losses")]

    def rounds(self, batch: Batch, progress: float) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield players and terms of each objective: one backward pass and one update each.

        Override this only for code between updates, after a yield (banks, teachers): the runs of such a method are
        trained one by one, others several in one pass (`heads/stacked.py`).
        """
        for players, objective in self.objectives():
            yield players, self(batch, progress, objective)

    def players(self) -> dict[str, list[Parameter]]:
        """Return player -> the parameters that its rounds update. The run calls this once, after the constructor."""
        return {"all": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def forward(self, batch: Batch, progress: float, objective: str = "losses") -> dict[str, Tensor]:
        """Return the terms of an objective; torch.func.functional_call needs `forward`."""
        terms: dict[str, Tensor] = getattr(self, objective)(batch, progress)
        return terms
