"""Clipping is a part of the update: equal to `clip_grad_norm_` and a step after it."""

import copy

import pytest
import torch
from torch import nn

from heads.batch import Spec
from heads.methods import source_only
from heads.nets import adapter
from pipelines.config import Optim
from pipelines.training.optimizers import optimizers, update, update_each
from tests.helpers.stores import run

SPEC = Spec({"rgb": (6,), "flow": (5,)}, {"rgb": 1, "flow": 1}, {"label": 4}, {"source": 9})
OPTIMS = [
    Optim("sgd", 0.1, clip_norm=2.0),
    Optim("sgd", 0.1, 0.9, 0.01, nesterov=True, clip_norm=2.0),
    Optim("adam", 0.1, weight_decay=0.01, clip_norm=2.0),
]


def methods(optim):
    """Two equal methods with equal optimisers."""
    for _ in range(2):
        torch.manual_seed(0)
        method = source_only.SourceOnly(source_only.Params(), SPEC, adapter.NET(adapter.Params(dim=7), SPEC))
        ((_, optimizer),) = optimizers(method, list(method.parameters()), run(optim=optim))
        yield method, optimizer


def grads(method, scale, missing=False):
    generator = torch.Generator().manual_seed(1)
    for k, parameter in enumerate(method.parameters()):
        drawn = scale * torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if missing and k == 0 else drawn


def naive(optim, optimizer, parameters):
    """The plain way."""
    nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
    optimizer.step()


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: f"{optim.name}, momentum {optim.momentum}")
@pytest.mark.parametrize("missing", [False, True], ids=["all", "one without gradient"])
def test_clipping_equals_clip_grad_norm(optim, missing):
    """Norms far above the limit, just below it, and 0, in one sequence of steps."""
    (ours, optimizer), (plain, plain_optimizer) = methods(optim)
    for scale in (100.0, 1.0, 0.01, 0.0, 30.0):
        for method in (ours, plain):
            grads(method, scale, missing)
        update(optim, optimizer, 0.0)
        naive(optim, plain_optimizer, plain.parameters())
        for (name, w), expected in zip(ours.named_parameters(), plain.parameters(), strict=True):
            assert torch.allclose(w, expected, rtol=1e-6, atol=1e-6), (name, scale)


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: f"{optim.name}, momentum {optim.momentum}")
def test_small_gradients_are_not_scaled(optim):
    (clipped, optimizer), (free, _) = methods(optim)
    ((_, free_optimizer),) = optimizers(free, list(free.parameters()), run(optim=optim))
    for method in (clipped, free):
        grads(method, 0.01)
    update(optim, optimizer, 0.0)
    free_optimizer.step()
    assert all(torch.equal(w, v) for w, v in zip(clipped.parameters(), free.parameters(), strict=True))


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: f"{optim.name}, momentum {optim.momentum}")
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_gradients_that_are_not_finite_reach_the_weights(optim, value):
    """As after `clip_grad_norm_`: an infinite entry becomes NaN, and with NaN every weight does; a run then stops."""
    (ours, optimizer), (plain, plain_optimizer) = methods(optim)
    for method in (ours, plain):
        grads(method, 1.0)
        next(method.parameters()).grad[0, 0] = value
    update(optim, optimizer, 0.0)
    naive(optim, plain_optimizer, plain.parameters())
    for (name, w), expected in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(w.isfinite(), expected.isfinite()), name
        assert torch.allclose(w, expected, atol=1e-6, equal_nan=True), name
    assert not next(ours.parameters()).isfinite().all()


def test_without_a_limit_gradients_are_taken_as_they_are():
    free = Optim("sgd", 0.1, weight_decay=0.0)
    (ours, optimizer), (plain, _) = methods(free)
    before = copy.deepcopy(plain)
    for method in (ours, plain):
        grads(method, 100.0)
    update(free, optimizer, 0.0)
    for w, start, v in zip(ours.parameters(), before.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(w, start - 0.1 * v.grad, atol=1e-5)


def test_no_gradient_at_all_is_no_step():
    (ours, optimizer), (plain, _) = methods(OPTIMS[0])
    grads(ours, 1.0)
    for parameter in ours.parameters():
        parameter.grad = None
    update(OPTIMS[0], optimizer, 0.0)
    assert all(torch.equal(w, v) for w, v in zip(ours.parameters(), plain.parameters(), strict=True))


def test_parameters_of_any_shape_are_clipped_run_by_run():
    """Scalars among them, of which a stack has only the dimension of runs."""
    shapes, optim = [(), (3,), (2, 3), (0,)], Optim("sgd", 0.1, clip_norm=2.0)
    generator = torch.Generator().manual_seed(0)
    drawn = [[10.0**k * torch.randn(shape, generator=generator) for shape in shapes] for k in (-1, 0, 1)]
    stacked = [nn.Parameter(torch.ones(3, *shape)) for shape in shapes]
    update_each(optim, torch.optim.SGD(stacked, lr=0.1), [torch.stack(each) for each in zip(*drawn, strict=True)], 0.0)
    for k, gradients in enumerate(drawn):
        alone = [nn.Parameter(torch.ones(shape)) for shape in shapes]
        for p, gradient in zip(alone, gradients, strict=True):
            p.grad = gradient.clone()
        naive(optim, torch.optim.SGD(alone, lr=0.1), alone)
        for p, expected in zip(stacked, alone, strict=True):
            assert torch.allclose(p[k], expected, atol=1e-6)
