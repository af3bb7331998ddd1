"""Keels: centroids of frozen descriptors of one side, and the vectors that are assigned to them [ACP, Sec. 3.2].

They depend on the cached rows alone, so runs on the same rows share them (`Method.shared`).

Shapes: B rows of a side, N of the whole, D entries of a vector, K keels.
"""

import warnings
from hashlib import sha256

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heads.batch import Side, Spec
from heads.cluster import kmeans
from heads.methods import Shared

VERSION = 1  # of what is computed from equal rows; raise it when that changes
SEED = 0  # one for all runs, whatever their seed: keels are part of the data
ENOUGH = 10  # rows per keel below which a warning is due


def check_rows(name: str, keels: int, rows: int, what: str) -> None:
    """Refuse more keels than rows, and warn where there are few rows per keel."""
    if rows < keels:
        raise ValueError(f"method.{name}={keels} keels of {rows} {what}: there must be a row for each; lower {name}")
    if rows < ENOUGH * keels:
        warnings.warn(f"method.{name}={keels} keels of {rows} {what}: few stand for more than one or two", stacklevel=2)


def visual_vector(spec: Spec, side: Side) -> Tensor:
    """All visual modalities side by side (B, D), each at length 1, so that none drowns the others; 0 where missing."""
    experts = [m for m in spec.shapes if m not in spec.captions]
    if missing := [m for m in experts if m not in side.x]:
        raise ValueError(f"visual keels are made of all visual modalities, but a side lacks {', '.join(missing)}")
    return torch.cat([normalize(side.pool(m).flatten(1), dim=1) for m in experts], 1)


def keels(rows_ND: Tensor, k: int, shared: Shared) -> tuple[Tensor, Tensor]:
    """Centroids (K, D) of the rows that are not 0, and the sha256 of these rows (32,) uint8."""
    rows_ND = rows_ND[rows_ND.any(1)]
    inputs = sha256(rows_ND.cpu().contiguous().numpy().data).digest()
    recipe = f"keels {VERSION}, rows {tuple(rows_ND.shape)} {inputs.hex()}, k {k}, seed {SEED}"
    centroids_KD = shared(sha256(recipe.encode()).hexdigest(), lambda: kmeans(rows_ND, k, SEED))
    return centroids_KD.to(rows_ND.device), torch.tensor(list(inputs), dtype=torch.uint8, device=rows_ND.device)
