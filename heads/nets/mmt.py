"""Multi-modal transformer [MMT: Gabeur et al. 2020, ECCV]: the windows of all experts attend to each other.

    tokens of expert e:  A_e a_et + E_e + P_t, t = 1 .. T;   A_e max_t a_et + E_e + P_agg        a_et: row of window t
    v_e = the last layer's output at the second kind of token, at length 1                       4 layers, 4 heads
    ξ(l, v) = Σ_e w_e(l) ⟨l_e, v_e⟩ / Σ_e w_e(l)         over the experts that the clip has; L_R of it is the loss

E_e are embeddings of the experts, P_t of time. Text: heads/nets/_experts.py.

Implementation details
  1. Layers are BERT's: normalised after each residual, GELU, dropout; tokens are normalised before the first layer.
     The dropout is a part of these layers, so losses on embeddings feel it, as does L_R.
  2. P_t: window t of T has position ⌊t P/T⌋ of P, where P is the largest number of windows that training draws of an
     expert. A position is a share of the clip; the paper counts seconds. With one window per clip a sequence is a token
     and its copy.
  3. No token attends to missing windows and experts; v_e is 0 where a clip lacks e.
  4. The paper's margin is 0.05, and it takes at most 30 windows of an expert.
Deviation: BERT is frozen here (its output is cached); the paper trains it with the other weights.
Shapes: B rows, T windows, E experts, D entries.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, normalize

from heads import noise
from heads.batch import Side, Spec
from heads.nets import Retrieval
from heads.nets._experts import ExpertText, mixture_similarity
from heads.params import within

HEADS = 4


@dataclass(frozen=True)
class Params:
    """Size of the multi-modal transformer."""

    dim: int = within(512, 4)  #: D, entries per token; a multiple of 4, the number of heads [code]
    layers: int = within(4, 1)  #: number of transformer layers [code]
    ff_dim: int = within(3072, 1)  #: entries between the two linear layers of each transformer layer [code]
    dropout: float = within(0.1, 0, 1, below=True)  #: share of entries dropped in training [code]
    text: str = "mean"  #: pooling of a caption's tokens: mean | netvlad [ours]
    clusters: int = within(28, 1)  #: clusters of netvlad [code: CE]
    ghosts: int = within(1, 0)  #: ghost clusters of netvlad, which are discarded [code: CE]
    margin: float = within(0.2, 0)  #: m of L_R [code: MoEE]


class Mmt(Retrieval):
    """The network above, over the visual modalities of the spec."""

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        if params.dim % HEADS:
            raise ValueError(f"net.dim {params.dim} cannot be cut into {HEADS} heads; choose a multiple of {HEADS}")
        self.captions, self.margin = spec.captions, params.margin
        shapes = {m: shape for m, shape in spec.shapes.items() if m not in spec.captions}
        E, D = len(shapes), params.dim
        self.dim = E * D
        self.A = nn.ModuleDict({m: nn.Linear(prod(shape), D) for m, shape in shapes.items()})
        self.E = nn.Parameter(torch.randn(E, D).mul_(D**-0.5))
        self.P = nn.Parameter(torch.randn(1 + max(spec.windows[m] for m in shapes), D).mul_(D**-0.5))  # P_agg first
        self.before = nn.Sequential(nn.LayerNorm(D), noise.Dropout(params.dropout))
        self.layers = nn.ModuleList(Layer(D, params.ff_dim, params.dropout) for _ in range(params.layers))
        self.text = ExpertText(spec, E, D, params.text, params.clusters, params.ghosts)

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return "visual" and "text" (B, M), or the one that the side has."""
        f = {}
        if any(m in side.x for m in self.A):
            f["visual"] = self.visual(side)
        if any(m in side.x for m in self.captions):
            f["text"] = self.text(side)
        return f

    def visual(self, side: Side) -> Tensor:
        """Return v_e of all experts, concatenated (B, M); 0 in the blocks of missing experts."""
        tokens, present = {}, {}
        for e, m in enumerate(self.A):
            if m in side.x:
                x_BTI, has_B1 = side.x[m].flatten(2), side.has(m)[:, None]
                most_BI = x_BTI.masked_fill(~side.present[m][:, :, None], -torch.inf).amax(1)
                a_BSI = torch.cat([torch.where(has_B1, most_BI, 0.0)[:, None], x_BTI], 1)
                tokens[m] = self.A[m](a_BSI) + self.E[e] + self.P[self.positions(x_BTI.shape[1])]
                present[m] = torch.cat([has_B1, side.present[m]], 1)
        h_BSD, in_BS = self.before(torch.cat(list(tokens.values()), 1)), torch.cat(list(present.values()), 1)
        hidden_BS = ~in_BS & in_BS.any(1, keepdim=True)  # a clip without any window attends to all: NaN otherwise
        for layer in self.layers:
            h_BSD = layer(h_BSD, hidden_BS)
        parts = h_BSD.split([token_BSD.shape[1] for token_BSD in tokens.values()], 1)
        v = {m: normalize(part[:, 0], dim=1) * side.has(m)[:, None] for m, part in zip(tokens, parts, strict=True)}
        return torch.cat([v[m] if m in v else torch.zeros_like(h_BSD[:, 0]) for m in self.A], 1)

    def positions(self, windows: int) -> Tensor:
        """Return the rows of P for the aggregated token and for T windows (1 + T,)."""
        at_T = torch.arange(windows, device=self.P.device) * (len(self.P) - 1) // windows
        return torch.cat([at_T.new_zeros(1), 1 + at_T])

    def similarity(self, text_CM: Tensor, visual_VM: Tensor) -> Tensor:
        """Return ξ (C, V), weighted by the caption, over the experts that the clip has."""
        return mixture_similarity(text_CM, visual_VM, len(self.A))


class Layer(nn.TransformerEncoderLayer):
    """Torch's layer, with its weights and their names, and with dropout by `heads.noise`."""

    def __init__(self, D: int, ff_dim: int, dropout: float) -> None:
        super().__init__(D, HEADS, ff_dim, dropout=0.0, batch_first=True)
        self.dropout, self.dropout1, self.dropout2 = (noise.Dropout(dropout) for _ in range(3))  # type: ignore[assignment]
        self.dropout_A = noise.Dropout(dropout)

    def forward(self, h_BSD: Tensor, hidden_BS: Tensor) -> Tensor:  # type: ignore[override]
        """Return h' (B, S, D); no token attends to hidden ones."""
        h_BSD = self.norm1(h_BSD + self.dropout1(self.attend(h_BSD, hidden_BS)))
        wide_BSF = self.dropout(gelu(self.linear1(h_BSD)))
        out_BSD: Tensor = self.norm2(h_BSD + self.dropout2(self.linear2(wide_BSF)))
        return out_BSD

    def attend(self, h_BSD: Tensor, hidden_BS: Tensor) -> Tensor:
        """Return the output of the attention of all heads (B, S, D)."""
        qkv = linear(h_BSD, self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        q, k, v = qkv.unflatten(2, (3 * HEADS, -1)).transpose(1, 2).chunk(3, 1)  # each (B, heads, S, D / heads)
        scores = (q @ k.mT / q.shape[3] ** 0.5).masked_fill(hidden_BS[:, None, None], -torch.inf)
        out_BSD: Tensor = self.self_attn.out_proj((self.dropout_A(scores.softmax(3)) @ v).transpose(1, 2).flatten(2))
        return out_BSD


NET = Mmt
