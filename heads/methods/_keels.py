"""Keels: centroids of frozen descriptors of one side, and soft assignments to them [ACP, Sec. 3.2].

They depend on the cached rows alone, so runs on the same rows share them (`Method.shared`).

Shapes: B rows of a side, N of the whole, D entries of a descriptor, K keels.
"""

import warnings
from hashlib import sha256
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from heads.batch import Shared, Side, Spec, Sweep, gather
from heads.cluster import kmeans
from heads.losses.prototypes import log_assignment

VERSION = 1  # of what is computed from equal rows; raise it when that changes
SEED = 0  # of k-means, whatever the run's: keels are part of the data. Where each seed holds out other captions, these
#           are other rows, and so the text keels differ by seed all the same
ENOUGH = 10  # rows per keel below which a warning is due


class Keels(nn.Module):
    """K centroids that stay as they are once found. They are saved with the weights, as is the sha256 of their rows."""

    centroids: Tensor
    rows_sha256: Tensor

    def __init__(self, name: str, k: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.name, self.temperature = name, temperature
        self.register_buffer("centroids", torch.zeros(k, dim))
        self.register_buffer("rows_sha256", torch.zeros(32, dtype=torch.uint8))

    def find(self, rows_ND: Tensor, shared: Shared) -> None:
        """Centroids of the rows that are not 0, as those that lack the modality are."""
        whole, rows_ND, k = len(rows_ND), rows_ND[rows_ND.any(1)], len(self.centroids)
        if len(rows_ND) < k:
            raise ValueError(
                f"method.{self.name}={k} keels, and {len(rows_ND)} of {whole} rows have something to make them of: "
                f"choose 1 to {len(rows_ND)}"
            )
        digest = sha256(rows_ND.cpu().contiguous().numpy().data).digest()
        recipe = f"keels {VERSION}, rows {tuple(rows_ND.shape)} {digest.hex()}, k {k}, seed {SEED}"
        found_KD = shared(sha256(recipe.encode()).hexdigest(), lambda: kmeans(rows_ND, k, SEED))
        self.centroids.copy_(found_KD)
        self.rows_sha256.copy_(torch.tensor(list(digest)))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Log of the soft assignment, softmax_k(cos(x, c_k) / τ) -> (B, K)."""
        return log_assignment(x_BD, self.centroids, self.temperature)


def text_keels(spec: Spec, caption: str, N: int, temperature: float) -> Keels:
    """Keels of the source's captions, not yet found: `method.N` of them."""
    check_rows("N", N, spec.rows["captions"], "captions of the source")
    return Keels("N", N, prod(spec.shapes[caption]), temperature)


def visual_keels(spec: Spec, K: int, temperature: float) -> Keels:
    """Keels of the target's clips, not yet found: `method.K` of them."""
    check_rows("K", K, spec.rows["target"], "clips of the target")
    return Keels("K", K, sum(prod(shape) for m, shape in spec.shapes.items() if m not in spec.captions), temperature)


def find_visual(keels: Keels, spec: Spec, sweep: Sweep, shared: Shared) -> None:
    """Find the keels of the target's clips."""
    keels.find(gather(sweep("target"), lambda side: {"v": visual_vector(spec, side)})["v"], shared)


def visual_vector(spec: Spec, side: Side) -> Tensor:
    """All visual modalities side by side (B, D), each at length 1, so that none drowns the others; 0 where missing."""
    experts = [m for m in spec.shapes if m not in spec.captions]
    if missing := [m for m in experts if m not in side.x]:
        raise ValueError(f"visual keels are made of all visual modalities, but a side lacks {', '.join(missing)}")
    return torch.cat([normalize(side.pool(m).flatten(1), dim=1) for m in experts], 1)


def check_rows(name: str, keels: int, rows: int, what: str) -> None:
    """Refuse more keels than rows, and warn where there are few rows per keel."""
    if keels > rows:
        raise ValueError(f"method.{name}={keels} keels of {rows} {what}: choose {rows} at most, a row for each")
    if rows < ENOUGH * keels:
        warnings.warn(f"method.{name}={keels} keels of {rows} {what}: few stand for more than one or two", stacklevel=2)
