"""The surrogate of 3C-GAN: its terms by definition, who learns from which, what is generated."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch
from heads.methods import gan3c
from heads.testing.methods import build
from heads.testing.problems import EK, SPEC, batch, side, without

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
TARGET = ("target",)
torch.set_num_threads(1)
TERMS = {"D": {"L_D"}, "G": {"L_adv", "L_sem"}, "net": {"L_gen", "L_w", "L_clu"}}


def prepared(spec, **params):
    """A method that has measured the target, and the target; a net that has moved since. In eval mode."""
    method, rows = build(gan3c, spec, TARGET, params=params).eval(), side(spec, 18, labelled=False, seed=3)
    for x in rows.x.values():
        x.mul_(40.0).add_(7.0)
    with torch.no_grad():
        method.begin_epoch(0, lambda _: iter([rows]))
        for p in method.net.parameters():
            p.add_(0.1)
    return method, rows


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


# -------------------------------------------------------------------------------------------------------------- terms


@SPECS
def test_terms_equal_their_definitions(spec):
    method, t = prepared(spec, lambda_s=0.7, lambda_g=0.6, lambda_w=0.5)
    torch.manual_seed(1)
    x_g = method.generate(t)
    of = {"real": method.D(method.units(t)), "generated": method.D(method.units(x_g))}
    D = {kind: [sigmoid(v) for v in z_B1.flatten().tolist()] for kind, z_B1 in of.items()}
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    L_y = sum(cross_entropy(z, x_g.y[label]).item() for label, z in method.predict(x_g).items())
    L_clu = sum(
        mean([-sum(q * math.log(q) for q in row) for row in z.softmax(1).tolist()]) for z in method.predict(t).values()
    )
    L_w = 0.01 * sum(p.numel() for p in method.net.parameters())  # all weights are 0.1 from the source's

    def term(make):
        torch.manual_seed(1)
        return {name: value.item() for name, value in make().items()}

    assert term(lambda: method.discrimination(Batch(target=t), 0.5))["L_D"] == pytest.approx(
        mean([-math.log(d) for d in D["real"]]) + mean([-math.log(1 - d) for d in D["generated"]]), rel=1e-4
    )
    generation = term(lambda: method.generation(Batch(target=t), 0.5))
    assert generation["L_adv"] == pytest.approx(mean([-math.log(d) for d in D["generated"]]), rel=1e-4)
    assert generation["L_sem"] == pytest.approx(0.7 * L_y, rel=1e-4)
    for progress in (0.0, 0.1, 0.9):
        ramp = 2 / (1 + math.exp(-10 * progress)) - 1
        adaptation = term(lambda progress=progress: method.adaptation(Batch(target=t), progress))
        assert adaptation["L_gen"] == pytest.approx(0.6 * ramp * L_y, rel=1e-4)
        assert adaptation["L_clu"] == pytest.approx(L_clu, rel=1e-4)
        assert adaptation["L_w"] == pytest.approx(0.5 * L_w, rel=1e-4)


def test_a_discriminator_that_knows_nothing():
    method, t = prepared(SPEC)
    for p in method.D.parameters():
        p.data.zero_()
    assert method.discrimination(Batch(target=t), 0.5)["L_D"].item() == pytest.approx(2 * math.log(2))
    assert method.generation(Batch(target=t), 0.5)["L_adv"].item() == pytest.approx(math.log(2))


@SPECS
def test_each_player_updates_itself_on_its_own_terms(spec):
    method, b = prepared(spec)[0], batch(spec, TARGET)
    players = method.players()
    assert players.keys() == TERMS.keys()
    optimizers = {who: torch.optim.SGD(parameters, lr=0.01) for who, parameters in players.items()}
    order = []
    for who, terms in method.rounds(b, 0.5):
        order.append(who)
        assert terms.keys() == TERMS[who]
        before = {name: p.clone() for name, p in method.named_parameters()}
        method.zero_grad()
        sum(terms.values()).backward()
        optimizers[who].step()
        moved = {name.partition(".")[0] for name, p in method.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {who}
    assert order == ["D", "G", "net"]
    assert method.losses(b, 0.5).keys() == set().union(*TERMS.values())


def test_the_net_does_not_change_the_generator_nor_the_discriminator():
    method, t = prepared(SPEC)
    sum(method.adaptation(Batch(target=t), 0.5).values()).backward()
    assert all(p.grad is None for p in [*method.G.parameters(), *method.D.parameters(), *method.source.parameters()])
    method.zero_grad()
    method.discrimination(Batch(target=t), 0.5)["L_D"].backward()
    assert all(p.grad is None for p in method.G.parameters())


# ---------------------------------------------------------------------------------------------------- generated clips


@SPECS
def test_generated_clips_are_clips_with_labels(spec):
    method, rows = prepared(spec)
    t = without(rows, "flow", [1, 4])
    t.present["rgb"][0, 1:] = False
    x_g = method.generate(t)
    assert {m: x.shape for m, x in x_g.x.items()} == {m: x.shape for m, x in t.x.items()}
    for m, x in x_g.x.items():
        gone = ~t.present[m]
        assert x[gone].abs().sum() == 0
        assert (x[~gone].flatten(1).abs().sum(1) > 0).all()
    for label, k in spec.classes.items():
        assert set(x_g.y[label].tolist()) <= set(range(k))
    assert x_g.y.keys() == spec.classes.keys()
    assert t.y == {}


def test_labels_are_uniform_and_drawn_anew():
    method, rows = prepared(SPEC)
    drawn = torch.cat([method.generate(rows).y["label"] for _ in range(50)])
    assert (torch.bincount(drawn, minlength=4) / len(drawn) - 0.25).abs().max() < 0.08


def test_units_of_the_target_have_mean_zero_and_spread_one():
    """Of clips, windows averaged; and generated features of 0 and 1 are the target's mean and a deviation more."""
    method, rows = prepared(SPEC)
    seen = method.units(rows)
    assert seen.shape == (18, 3 * 6 + 2 * 5)
    of_rgb = seen[:, :18].reshape(18, 3, 6).mean(1)
    assert of_rgb.mean(0).abs().max() < 1e-5
    assert torch.allclose(of_rgb.std(0, unbiased=False), torch.ones(6), atol=1e-4)
    for p in method.G.parameters():
        p.data.zero_()
    for value in (0.0, 1.0):
        method.G[-1].bias.data.fill_(value)
        x, pooled = method.generate(rows).x["rgb"], rows.pool("rgb")
        expected = pooled.mean(0) + value * pooled.std(0, unbiased=False)
        assert torch.allclose(x, expected.expand_as(x), rtol=1e-4)
        assert torch.allclose(method.units(method.generate(rows)), torch.full((18, 28), value), atol=1e-4)


def test_rows_without_a_modality_are_not_measured():
    method = build(gan3c, SPEC, TARGET).eval()
    rows = side(SPEC, 18, labelled=False, seed=3)
    with torch.no_grad():
        method.begin_epoch(0, lambda _: iter([without(rows, "flow", slice(0, 9))]))
    half = rows.pool("flow")[9:]
    assert torch.allclose(method.standard.get_buffer("mean:flow"), half.mean(0), atol=1e-6)
    assert torch.allclose(method.standard.get_buffer("std:flow"), half.std(0, unbiased=False), atol=1e-6)


def test_a_modality_that_the_target_is_not_shown():
    method, rows = prepared(SPEC)
    rgb = dataclasses.replace(rows, x={"rgb": rows.x["rgb"]}, present={"rgb": rows.present["rgb"]})
    assert list(method.generate(rgb).x) == ["rgb"]
    assert method.units(rgb)[:, 18:].abs().max() == 0
    sum(method.losses(Batch(target=rgb), 0.5).values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
