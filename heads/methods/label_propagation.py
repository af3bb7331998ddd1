"""Label propagation [Zhou et al. 2004, NeurIPS], over a graph of both domains' rows as in Iscen et al. 2019, CVPR.

    A_ij = max(0, cos(x_i, x_j))^γ   for j among the k nearest of i,   S = D^-1/2 (A + Aᵀ) D^-1/2
    Z = (I - α S)^-1 Y               Y_ik = 1 where source row i is of class k, else 0;  rows of the target are 0
    L = L_C     of the net, whose classifier predictions do not use

Labels of the source spread along the edges into the target, and within the target from neighbour to neighbour. A test
row gets the scores of its nearest node: log(Z_ik / Σ_k Z_ik).

x concatenates the row's modalities, each the mean over its windows. They are not standardised ("none"), standardised by
the source ("source"), or every domain separately ("domain"). A modality that a row lacks is 0.

Implementation details
  1. Nodes are the training rows of source and target. If the test rows are the target's training rows (`train_split ==
     test_split`), each is a node and its own nearest node: its scores are its own Z. Other test rows take the scores of
     their nearest node, the simplest form of induction. To spread labels among test rows, make them the target.
  2. α = 0.8 and k = 50: the papers' α = 0.99 is for few labels; here half of the nodes have a label.
  3. Y is not divided by the class sizes (the code of Iscen et al. divides it), so frequent classes are predicted more
     often.
  4. A node that no label reaches has equal scores for all classes.
  5. Give the run `steps=0`, because training the net changes no prediction, unless `features="encoded"`. Then the graph
     is built from the net's features at the beginning of the last epoch: use `init_from` with a trained net.
  6. All nodes are saved with the weights, because predictions compare with them: 4 D bytes each.
Shapes: N nodes, B rows, D entries of all modalities together, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heads.batch import Spec
from heads.graph import TINY, neighbour_graph, spread
from heads.methods._fitted import Fitted, Rows
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of label propagation."""

    k: int = within(50, 1)  #: k, neighbours of a node [code: Iscen et al.]
    alpha: float = within(0.8, 0, 1, below=True)  #: α, weight of the neighbours' labels against a node's own [ours]
    gamma: float = within(3.0, 0)  #: γ, exponent of the cosines [code: Iscen et al.]
    standardise: str = "source"  #: none | source | domain [ours]
    features: str = "pooled"  #: pooled (the cached rows) | encoded (the net's features) [ours]


class LabelPropagation(Fitted):
    """Scores of the nearest node of the graph."""

    needs = ("source", "target")
    may = ()
    nodes: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        N = spec.rows["source"] + spec.rows["target"]
        self.register_buffer("nodes", torch.zeros(N, self.D))
        for label, K in spec.classes.items():
            self.register_buffer(f"Z:{label}", torch.full((N, K), 1 / K))

    def fit(self, source: Rows, target: Rows | None) -> None:
        """Build the graph, and Z of each label with rows of sum 1."""
        assert target is not None  # `needs`
        self.nodes.copy_(normalize(torch.cat([source.x, target.x]), dim=1))
        S = neighbour_graph(self.nodes, self.params.k, self.params.gamma)
        for label, y_B in source.y.items():
            Z_NK = self.get_buffer(f"Z:{label}")
            Y_NK = torch.zeros_like(Z_NK)
            Y_NK[torch.arange(len(y_B)), y_B] = 1
            spread_NK = spread(S, Y_NK, self.params.alpha).clamp_min(0) + TINY
            Z_NK.copy_(spread_NK / spread_NK.sum(1, keepdim=True))

    def scores(self, rows: Rows) -> dict[str, Tensor]:
        """Return the logarithm of the nearest node's Z."""
        nearest_B = (normalize(rows.x, dim=1) @ self.nodes.T).argmax(1)
        return {label: self.get_buffer(f"Z:{label}")[nearest_B].log() for label in self.spec.classes}


METHOD = LabelPropagation
