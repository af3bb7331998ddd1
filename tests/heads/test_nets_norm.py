"""Batch normalisation in the adapter: torch's where all rows count, blind to those that do not."""

import dataclasses

import pytest
import torch

from heads.batch import Batch
from heads.batch_norm import BatchNorm
from heads.methods import dann
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, side, without

torch.set_num_threads(1)

EVERYONE = torch.ones(6, dtype=torch.bool)


def rows(n=6, dim=3):
    return 4 + 2 * torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def build(spec=SPEC, **params):
    torch.manual_seed(0)
    return adapter.NET(adapter.Params(dim=8, batch_norm=True, **params), spec)


def test_is_torchs_where_all_rows_count():
    mine, torchs = BatchNorm(3).double(), torch.nn.BatchNorm1d(3).double()
    for step in range(3):
        a = rows() + step
        assert torch.allclose(mine(a, EVERYONE), torchs(a))
    assert torch.allclose(mine.mean, torchs.running_mean)
    assert torch.allclose(mine.var, torchs.running_var)
    assert torch.allclose(mine.eval()(a, EVERYONE), torchs.eval()(a))


def test_rows_that_do_not_count_change_nothing():
    """They are normalised with the others, and could as well not be there."""
    in_B = torch.tensor([True, False, True, True, False, True])
    mine, without_them = BatchNorm(3).double(), BatchNorm(3).double()
    a = rows()
    a[~in_B] = 1e6
    assert torch.allclose(mine(a, in_B)[in_B], without_them(a[in_B], in_B[in_B]))
    for name, buffer in mine.named_buffers():
        assert torch.equal(buffer, without_them.get_buffer(name))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_take_the_averages_and_leave_them(count):
    norm = BatchNorm(3).double()
    norm(rows(), EVERYONE)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    a = rows().requires_grad_()
    out = norm(a, torch.arange(6) < count)
    assert torch.equal(out, (a - before["mean"]) / (before["var"] + 1e-5).sqrt())
    out.sum().backward()
    assert a.grad.isfinite().all()
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name])


def test_gradient():
    norm = BatchNorm(2).double()
    in_B = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(lambda a: norm(a, in_B), rows(4, 2).requires_grad_())


@torch.no_grad()
def test_head_of_rod_equals_its_layers():
    """512 -> 1000, BN, ReLU, dropout, K, per modality, as plain torch layers; scores added."""
    spec = dataclasses.replace(SPEC, shapes={"rgb": (512,), "flow": (512,)}, windows={"rgb": 1, "flow": 1})
    net = adapter.NET(adapter.Params(dim=1000, batch_norm=True, dropout=0.0), spec)
    s, z = side(spec, labelled=True), 0
    for m in spec.shapes:
        FC, BN, head = torch.nn.Linear(512, 1000), torch.nn.BatchNorm1d(1000), net.classifier.G[f"{m}:label"]
        FC.weight, FC.bias = net.F[m].weight, torch.nn.Parameter(torch.randn(1000))  # BN takes any bias out again
        z = z + head(BN(FC(s.x[m][:, 0])).relu())
    assert torch.allclose(net.classify(net.encode(s))["label"], z, atol=1e-4)


def test_scales_and_shifts_of_a_modality_do_not_matter_in_training():
    net, s = build(dropout=0.0), side(SPEC, labelled=True)
    other = dataclasses.replace(s, x={m: 30 * x + 5 for m, x in s.x.items()})
    for m, f in net.encode(s).items():
        assert torch.allclose(net.encode(other)[m], f, atol=1e-3)  # but for ε


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_absent_rows_are_no_part_of_it(spec):
    """Neither in the moments of the others nor in the features."""
    net, s = build(spec, dropout=0.0), side(spec, labelled=True)
    gone = torch.arange(8) < 3
    present = dataclasses.replace(
        s,
        x={m: x[3:] for m, x in s.x.items()},
        present={m: there[3:] for m, there in s.present.items()},
    )
    f = net.encode(without(s, "flow", gone))["flow"]
    assert not f[gone].any()
    assert torch.allclose(f[3:], net.encode(present)["flow"], atol=1e-6)


def test_every_parameter_learns_and_state_round_trips():
    method = dann.Dann(dann.Params(), SPEC, build())
    for b in (
        batch(SPEC),
        batch(SPEC, rows=1),
        Batch(*(without(one, "flow", slice(None)) for one in vars(batch(SPEC)).values())),
    ):
        method.zero_grad()
        sum(method(b, 0.5).values()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    method.zero_grad()
    sum(method(batch(SPEC), 0.5).values()).backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []
    other = build()
    other.load_state_dict(method.net.state_dict())
    s = side(SPEC, labelled=False)
    for m, f in method.net.eval().encode(s).items():
        assert torch.equal(other.eval().encode(s)[m], f)


def test_tests_depend_on_no_batch():
    net, s = build(), side(SPEC, labelled=True)
    net.encode(s)
    net.eval()
    one = dataclasses.replace(
        s, x={m: x[:1] for m, x in s.x.items()}, present={m: there[:1] for m, there in s.present.items()}
    )
    for m, f in net.encode(one).items():
        assert torch.allclose(f[0], net.encode(s)[m][0], atol=1e-6)
