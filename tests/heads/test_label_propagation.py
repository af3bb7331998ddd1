"""Graphs of neighbours, labels that spread over them, and the method that says them."""

import dataclasses

import pytest
import torch
from torch.nn.functional import normalize

from heads.graph import neighbour_graph, spread
from heads.methods import label_propagation
from tests.helpers import rotated as _rotated


def rows(N=30, D=4, seed=0):
    return normalize(torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def naive_graph(v, k, gamma):
    """S by loops, dense."""
    N = len(v)
    A = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        others = sorted((j for j in range(N) if j != i), key=lambda j: -(v[i] @ v[j]).item())
        for j in others[:k]:
            A[i, j] = max(0.0, (v[i] @ v[j]).item()) ** gamma
    W = A + A.T
    d = W.sum(1)
    return torch.tensor(
        [[W[i, j] / (d[i] * d[j]).sqrt() if d[i] * d[j] > 0 else 0.0 for j in range(N)] for i in range(N)]
    )


@pytest.mark.parametrize(("k", "gamma"), [(1, 1.0), (5, 3.0), (99, 2.0)])
def test_the_graph_equals_the_naive_loops(k, gamma):
    v = rows()
    assert torch.allclose(neighbour_graph(v, k, gamma).to_dense(), naive_graph(v, k, gamma).double(), atol=1e-6)


def test_pieces_of_the_graph_are_put_together(monkeypatch):
    v = rows(N=23)
    whole = neighbour_graph(v, 4, 3.0).to_dense()
    monkeypatch.setattr("heads.graph.CHUNK", 5)
    assert torch.allclose(neighbour_graph(v, 4, 3.0).to_dense(), whole)


def test_the_graph_is_symmetric_and_no_larger_than_one():
    S = neighbour_graph(rows(), 5, 3.0).to_dense()
    assert torch.allclose(S, S.T)
    assert torch.linalg.eigvalsh(S).abs().max() <= 1 + 1e-9


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.99])
def test_labels_spread_as_the_inverse_says(alpha):
    S = neighbour_graph(rows(), 5, 3.0)
    Y = torch.zeros(30, 3, dtype=torch.float64)
    Y[torch.arange(12), torch.arange(12) % 2] = 1  # the third class has no row
    expected = torch.linalg.solve(torch.eye(30) - alpha * S.to_dense(), Y)
    found = spread(S, Y, alpha)
    assert torch.allclose(found, expected, atol=1e-5)
    assert (found[:, 2] == 0).all()


def test_two_nodes_by_hand():
    # One edge: S = [[0, 1], [1, 0]], so Z = Y + α (other) + α² (own) + ... = (1, α) / (1 - α²).
    S = neighbour_graph(normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=1), 7, 3.0)
    Z = spread(S, torch.tensor([[1.0], [0.0]]), 0.5)
    assert Z.flatten().tolist() == pytest.approx([4 / 3, 2 / 3], rel=1e-5)


def test_a_lone_node_is_reached_by_nothing():
    v = torch.eye(3)[[0, 0, 1, 1, 2]]  # the last is at right angles to all
    Z = spread(neighbour_graph(v, 2, 1.0), torch.eye(5)[:, :2], 0.9)
    assert Z.isfinite().all()
    assert Z[4].tolist() == [0, 0]


def fitted(source, target, **params):
    spec = dataclasses.replace(_rotated.SPEC, rows={"source": len(source.index), "target": len(target.index)})
    torch.manual_seed(0)
    net = _rotated.adapter.NET(_rotated.adapter.Params(dim=16), spec)
    method = label_propagation.LabelPropagation(
        label_propagation.Params(standardise="none", **params), spec, net
    ).eval()
    with torch.no_grad():
        method.begin_epoch(0, lambda name: iter([{"source": source, "target": target}[name]]))
    return method


def test_scores_of_the_graph_s_own_rows_are_exactly_theirs():
    source, target, _ = _rotated.problem()
    method = fitted(source, target, k=10)
    x = torch.cat([source.pool("rgb"), target.pool("rgb")])
    S = neighbour_graph(normalize(x, dim=1), 10, 3.0)
    Y = torch.zeros(120, 3)
    Y[torch.arange(60), source.y["label"]] = 1
    Z = torch.linalg.solve(torch.eye(120) - 0.8 * S.to_dense(), Y)
    expected = Z / Z.sum(1, keepdim=True)
    said = method.predict(target)["label"].exp()
    assert torch.allclose(said, expected[60:], atol=1e-4)
    assert torch.allclose(said.sum(1), torch.ones(60))


def test_a_new_row_takes_what_its_nearest_node_has():
    source, target, _ = _rotated.problem()
    method = fitted(source, target, k=10)
    nearby = dataclasses.replace(target, x={"rgb": 1.7 * target.x["rgb"]})  # another length, the same direction
    assert torch.equal(method.predict(nearby)["label"], method.predict(target)["label"])
