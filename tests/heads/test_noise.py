"""The draws of nets and losses: their distributions, and the same numbers for a head alone and in a group."""

import pytest
import torch
from scipy import stats
from torch.autograd import gradcheck

from heads import noise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


LIKE = torch.zeros((), dtype=torch.float64)
DRAWS = {
    "uniform": lambda: noise.uniform(3, 4, like=LIKE),
    "normal": lambda: noise.normal(3, 4, like=LIKE),
    "integers": lambda: noise.integers(-2, 5, 3, 4, device=LIKE.device),
    "beta": lambda: noise.beta(0.5, 2.0, 7, like=LIKE),
    "dropout, 8 bits": lambda: noise.dropout(torch.ones(3, 5), 0.5),
    "dropout, 16 bits": lambda: noise.dropout(torch.ones(3, 5), 0.1),
    "several": lambda: noise.dropout(noise.normal(9, like=LIKE), 0.3) + noise.uniform(9, like=LIKE),
}
EVERY = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@EVERY
def test_a_head_draws_the_same_alone_and_in_a_group(draw):
    generators, alone = [generator(seed) for seed in range(3)], []
    for seed in range(3):
        with noise.one(generator(seed)):
            alone.append(torch.stack([draw(), draw()]))

    def of_head(head):
        with noise.many(generators, head):
            return torch.stack([draw(), draw()])

    group = torch.vmap(of_head, randomness="same")(torch.arange(3))
    assert torch.equal(group, torch.stack(alone))
    assert not torch.equal(alone[0], alone[1])


@EVERY
def test_a_generator_leaves_the_global_stream_alone(draw):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with noise.one(generator()):
        first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    with noise.one(generator()):
        assert torch.equal(draw(), first)
    outside = draw()  # from the global stream, which has the seed 5
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(draw(), outside)


def test_the_inner_generator_draws_and_an_error_ends_it():
    with noise.one(generator(1)):
        with noise.one(generator(2)):
            inner = noise.uniform(4, like=LIKE)
        with pytest.raises(RuntimeError), noise.one(generator(3)):
            noise.uniform(-1, like=LIKE)
        outer = noise.uniform(4, like=LIKE)
    for seed, drawn in ((1, outer), (2, inner)):
        with noise.one(generator(seed)):
            assert torch.equal(noise.uniform(4, like=LIKE), drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_have_their_distributions(dtype):
    """Kolmogorov-Smirnov tests of 20,000 numbers."""
    like = torch.zeros((), dtype=dtype)
    with noise.one(generator()):
        drawn = {
            stats.uniform(): noise.uniform(20_000, like=like),
            stats.norm(): noise.normal(100, 200, like=like).flatten(),
            **{
                stats.beta(a, b): noise.beta(a, b, 20_000, like=like) for a, b in ((0.85, 0.85), (0.2, 3.0), (5.0, 5.0))
            },
        }
        counts = torch.bincount(noise.integers(2, 6, 20_000, device=like.device), minlength=6)
    for distribution, x in drawn.items():
        assert x.dtype == dtype
        assert stats.kstest(x.double().numpy(), distribution.cdf).pvalue > 1e-3, distribution
    assert counts[:2].sum() == 0
    assert stats.chisquare(counts[2:].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9, 1 - 1e-9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    n = 1_000_003
    with noise.one(generator()):
        y = noise.dropout(torch.ones(n, dtype=torch.float64), p)
    dropped, nearest = (y == 0).double().mean().item(), min(round(p * 2**16), 2**16 - 1) / 2**16
    assert nearest == pytest.approx(p, abs=2**-15)
    assert abs(dropped - nearest) <= 4 * (nearest * (1 - nearest) / n) ** 0.5
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - nearest)], rel=1e-12)
    assert y.mean().item() == pytest.approx(1, abs=4 * (nearest / (1 - nearest) / n) ** 0.5 + 1e-12)
    halves = (y == 0).view(-1)[:-1].view(2, -1).double()  # neighbours in a word and rows are not related
    assert abs(torch.corrcoef(halves)[0, 1]) < 0.01 or p in (0.0, 1 - 1e-9)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 0, 2), (3, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_shape_and_type(shape, dtype):
    for p in (0.0, 0.25, 0.1):
        y = noise.dropout(torch.ones(shape, dtype=dtype), p)
        assert (y.shape, y.dtype) == (shape, dtype)


def test_the_gradient_of_dropout_is_its_mask():
    x = torch.randn(40, 30, dtype=torch.float64, requires_grad=True, generator=generator())

    def dropped(x):
        with noise.one(generator(1)):
            return noise.dropout(x, 0.25)

    y = dropped(x)
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    assert torch.allclose(x.grad * x, y)
    assert gradcheck(dropped, (x[:4, :5].detach().requires_grad_(),))


def test_the_module_drops_in_training_only_and_has_no_weights():
    drop, x = noise.Dropout(0.5), torch.ones(8, 8)
    assert (drop(x) == 0).any()
    before = torch.get_rng_state()
    assert drop.eval()(x) is x
    assert noise.dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)
    assert (drop.state_dict(), repr(drop)) == ({}, "Dropout(p=0.5)")
