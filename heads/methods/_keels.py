"""Keels: centroids of frozen descriptors of one side, and soft assignments to them [ACP, Sec. 3.2].

They depend only on the cached rows, so runs on the same rows share them (`Method.shared`).

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

VERSION = 1  # version of the computation; raise it when equal rows begin to give other keels
SEED = 0  # seed of k-means, in every run: keels are part of the data. If each seed of a run holds out other captions,
#           the rows differ, and so do the text keels
ENOUGH = 10  # rows per keel; fewer cause a warning


class Keels(nn.Module):
    """K centroids that do not change once computed. The weights include them and the sha256 of their rows."""

    centroids: Tensor
    rows_sha256: Tensor

    def __init__(self, name: str, k: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.name, self.temperature = name, temperature
        self.register_buffer("centroids", torch.zeros(k, dim))
        self.register_buffer("rows_sha256", torch.zeros(32, dtype=torch.uint8))

    def find(self, rows_ND: Tensor, shared: Shared) -> None:
        """Compute the centroids of the rows that are not 0 (a row that lacks the modality is 0)."""
        whole, rows_ND, k = len(rows_ND), rows_ND[rows_ND.any(1)], len(self.centroids)
        if len(rows_ND) < k:
            raise ValueError(
                f"method.{self.name}={k} keels need as many rows, but {len(rows_ND)} of {whole} rows have features; "
                f"choose 1 to {len(rows_ND)}"
            )
        digest = sha256(rows_ND.cpu().contiguous().numpy().data).digest()
        recipe = f"keels {VERSION}, rows {tuple(rows_ND.shape)} {digest.hex()}, k {k}, seed {SEED}"
        centroids_KD = shared(sha256(recipe.encode()).hexdigest(), lambda: kmeans(rows_ND, k, SEED))
        self.centroids.copy_(centroids_KD)
        self.rows_sha256.copy_(torch.tensor(list(digest)))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return the log of the soft assignment, softmax_k(cos(x, c_k) / τ) -> (B, K)."""
        return log_assignment(x_BD, self.centroids, self.temperature)


def text_keels(spec: Spec, caption: str, N: int, temperature: float) -> Keels:
    """Build `method.N` keels for the source's captions, not computed yet."""
    check_rows("N", N, spec.rows["captions"], "captions of the source")
    return Keels("N", N, prod(spec.shapes[caption]), temperature)


def visual_keels(spec: Spec, K: int, temperature: float) -> Keels:
    """Build `method.K` keels for the target's clips, not computed yet."""
    check_rows("K", K, spec.rows["target"], "clips of the target")
    return Keels("K", K, sum(prod(shape) for m, shape in spec.shapes.items() if m not in spec.captions), temperature)


def find_visual(keels: Keels, spec: Spec, sweep: Sweep, shared: Shared) -> None:
    """Compute the keels of the target's clips."""
    keels.find(gather(sweep("target"), lambda side: {"v": visual_vector(spec, side)})["v"], shared)


def visual_vector(spec: Spec, side: Side) -> Tensor:
    """Concatenate all visual modalities (B, D), each at length 1 so that no modality dominates; 0 where missing."""
    experts = [m for m in spec.shapes if m not in spec.captions]
    if missing := [m for m in experts if m not in side.x]:
        raise ValueError(f"visual keels use all visual modalities, but a side lacks {', '.join(missing)}")
    return torch.cat([normalize(side.pool(m).flatten(1), dim=1) for m in experts], 1)


def check_rows(name: str, keels: int, rows: int, kind: str) -> None:
    """Refuse more keels than rows, and warn where there are few rows per keel."""
    if keels > rows:
        raise ValueError(f"method.{name}={keels} keels are more than the {rows} {kind}; choose at most {rows}")
    if rows < ENOUGH * keels:
        warnings.warn(
            f"method.{name}={keels} keels of {rows} {kind}: most keels represent only one or two rows", stacklevel=2
        )
