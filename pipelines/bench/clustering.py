"""Benchmarks of clustering: Sinkhorn against a step of CoDT, and two orders of a graph convolution."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from heads.batch import Batch, Side, Spec
from heads.methods import codt
from heads.nets import stgcn
from heads.skeletons import partitions
from pipelines.bench._lines import Line, alternate

FRAMES, JOINTS, BODIES, ROWS = 50, 25, 2, 128  #: shape of a batch's side
MEMORY, CLUSTERS = 20_000, 51
LAYERS = ((3, 16, 50), (16, 16, 50), (16, 32, 50), (32, 32, 25), (32, 64, 25), (64, 64, 13), (64, 256, 13))
COUNTS = (1, 3, 1, 2, 1, 1, 1)  #: number of blocks with these channels and frames


def sinkhorn() -> Iterator[Line]:
    """Pseudo-labels of the whole memory in both branches, which each step computes, against that step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape: tuple[int, ...] = (3, FRAMES, JOINTS, BODIES)
    rows = {"source": MEMORY, "target": MEMORY}
    spec = Spec({"skeleton": shape}, {"skeleton": 1}, {"label": 60}, rows, ("s", "t"), clusters=CLUSTERS)
    method = codt.Codt(codt.Params(), spec, stgcn.Stgcn(stgcn.Params(), spec)).train()
    with torch.no_grad():
        for branch in method.remembered:
            groups = torch.randn(CLUSTERS, 256).relu()
            noise = torch.randn(MEMORY, 256).relu()
            method.get_buffer(f"memory:{branch}").copy_(
                groups[torch.rand(MEMORY).square().mul(CLUSTERS).long()] + noise
            )
            method.draw_clusters(branch)
    batch = Batch(side(labelled=True), side(labelled=False))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4)

    def step(n: int) -> None:
        for _, terms in method.rounds(batch, 0.5):
            method.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()

    @torch.no_grad()
    def labels(n: int) -> None:
        for branch in method.remembered:
            method.assign(branch)

    ours, plain = alternate(labels, step, rounds=1)
    measured = (
        f"CoDT's pseudo-labels: two memories of {MEMORY:,} x {CLUSTERS} through Sinkhorn, which its step includes"
    )
    yield measured, f"the step, {ROWS} + {ROWS} rows", ours, plain, lambda s: f"{s:.2f} s"


def graph() -> Iterator[Line]:
    """The graph convolutions of all ten blocks, forward and backward."""
    torch.set_num_threads(1)
    A, bodies = partitions(JOINTS), 64
    inputs = []
    for (C, D, T), count in zip(LAYERS, COUNTS, strict=True):
        shapes = ((bodies, C, T, JOINTS), (3 * D, C, 1, 1), (3 * D,))
        inputs += [[torch.randn(shape, requires_grad=True) for shape in shapes]] * count

    def run(convolution: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        for x, weight, bias in inputs:
            convolution(x, A, weight, bias).sum().backward()

    ours, plain = alternate(lambda n: run(stgcn.graph_convolution), lambda n: run(weights_first), rounds=3)
    name = f"graph convolutions of ST-GCN's ten blocks, {bodies} bodies of {JOINTS} joints"
    yield f"{name}: three products, one convolution", "W first, one einsum", ours, plain, lambda s: f"{s:.2f} s"


def weights_first(x_BCTV: Tensor, A_KVW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution as in ST-GCN's code: Σ_k (W_k x + b_k) A_k in one einsum over K D channels."""
    y = conv2d(x_BCTV, weight, bias).unflatten(1, (len(A_KVW), -1))
    return torch.einsum("nkctv,kvw->nctw", y, A_KVW)


def side(*, labelled: bool) -> Side:
    """Normal joints of two bodies."""
    x = {"skeleton": torch.randn(ROWS, 1, 3, FRAMES, JOINTS, BODIES)}
    y = {"label": torch.arange(ROWS) % 60} if labelled else {}
    return Side(x, {"skeleton": torch.ones(ROWS, 1, dtype=torch.bool)}, y, torch.zeros(ROWS), torch.arange(ROWS))


def clusters(_: Path) -> Iterator[Line]:
    """Graph convolutions, and pseudo-labels by optimal transport."""
    yield from graph()
    yield from sinkhorn()


BENCHMARKS = {"clustering": clusters}
