"""AdaBN: statistics against loops, and that no shift or stretch of single entries between domains is left."""

import dataclasses

import pytest
import torch
from torch import nn

from heads.batch import Batch
from heads.methods import adabn
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, side, without


def build(spec, seed=0):
    torch.manual_seed(seed)
    return adabn.METHOD(adabn.Params(), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def fill(method, source, target, epoch=0, parts=2):
    """begin_epoch, with each side in parts."""

    def sweep(name):
        s = {"source": source, "target": target}[name]
        for rows in torch.arange(len(s.index)).chunk(parts):
            yield pick(s, rows)

    with torch.no_grad():
        method.begin_epoch(epoch, sweep)


def pick(s, rows):
    cut = lambda of: {name: value[rows] for name, value in of.items()}  # noqa: E731
    return type(s)(cut(s.x), cut(s.present), cut(s.y), s.domain[rows], s.index[rows])


def sides(spec=SPEC, rows=12):
    source, target = side(spec, rows, labelled=True), side(spec, rows - 3, labelled=False, seed=1, domain=1)
    return source, dataclasses.replace(target, x={m: 3 * x + 5 for m, x in target.x.items()})


def holes(s, modality="rgb"):
    """The first clip has one window of the modality left, the second none."""
    s = without(s, modality, [1])
    present = s.present[modality].clone()
    present[0, 1:] = False
    return dataclasses.replace(
        s,
        x={**s.x, modality: s.x[modality] * present.reshape(*present.shape, *[1] * (s.x[modality].dim() - 2))},
        present={**s.present, modality: present},
    )


def naive(sides, modality, entry, domain):
    """(mean, standard deviation) of one entry, over clips of means over windows."""
    first, second = [], []
    for s in sides:
        for i in range(len(s.index)):
            there = [w for w in range(s.present[modality].shape[1]) if s.present[modality][i, w]]
            if there and domain in (None, int(s.domain[i])):
                values = [s.x[modality][i, w][entry].item() for w in there]
                first.append(sum(values) / len(values))
                second.append(sum(v * v for v in values) / len(values))
    mean = sum(first) / len(first)
    return mean, (sum(second) / len(second) - mean**2) ** 0.5


@pytest.mark.parametrize("parts", [1, 4])
def test_statistics_equal_the_loops(parts):
    method, (source, target) = build(SPEC), map(holes, sides())
    fill(method, source, target, parts=parts)
    for m, entry in (("rgb", 0), ("rgb", 5), ("flow", 2)):
        for row, domain in enumerate((0, 1, None)):
            mean, std = naive((source, target), m, entry, domain)
            assert method.get_buffer(f"mean_{m}")[row, entry].item() == pytest.approx(mean, rel=1e-4, abs=1e-5)
            assert method.get_buffer(f"std_{m}")[row, entry].item() == pytest.approx(std, rel=1e-4)


def test_every_domain_ends_at_mean_0_and_variance_1():
    spec = dataclasses.replace(EK, domains=("a", "b", "c"))
    source, target = sides(spec)
    source = dataclasses.replace(source, domain=torch.tensor([0, 1] * 6))
    target = dataclasses.replace(target, domain=torch.full_like(target.domain, 2))
    method = build(spec)
    fill(method, source, target)
    for domain, s in enumerate((source, source, target)):
        for x in method.normalise(pick(s, s.domain == domain)).x.values():
            windows = x.flatten(0, 1)
            assert windows.mean(0).abs().max() < 1e-4
            assert (windows.var(0, correction=0) - 1).abs().max() < 1e-3


def test_windows_that_are_not_there_stay_zero():
    method, (source, target) = build(SPEC), sides()
    target = holes(target)
    fill(method, source, target)
    x = method.normalise(target).x["rgb"]
    assert x[~target.present["rgb"]].abs().max() == 0
    assert x[target.present["rgb"]].abs().min() > 0


def test_the_target_may_be_moved_and_stretched_at_will():
    method, (source, target) = build(SPEC), sides()
    fill(method, source, target)
    said = method.predict(target)["label"]
    scale = {m: 1 + torch.arange(x[0, 0].numel()).reshape(x.shape[2:]) for m, x in target.x.items()}
    other = dataclasses.replace(target, x={m: 10 * scale[m] * x - 40 for m, x in target.x.items()})
    assert not torch.allclose(method.predict(other)["label"], said, atol=1e-2)  # with statistics of the old one
    fill(method, source, other)
    assert torch.allclose(method.predict(other)["label"], said, atol=1e-3)


def test_source_and_target_labels_take_no_part():
    one, other = build(SPEC), build(SPEC)
    source, target = sides()
    fill(one, source, target)
    fill(other, dataclasses.replace(source, y={"label": source.y["label"].flip(0)}), target)
    for name, value in one.named_buffers():
        assert torch.equal(value, other.get_buffer(name))


def test_later_epochs_look_at_nothing():
    method, (source, target) = build(SPEC), sides()
    fill(method, source, target)
    before = method.get_buffer("mean_rgb").clone()
    method.begin_epoch(1, lambda name: pytest.fail("features are cached: there is nothing new to see"))
    assert torch.equal(method.get_buffer("mean_rgb"), before)


def test_domains_and_modalities_never_seen_take_the_statistics_of_all():
    method, (source, target) = build(SPEC), sides()
    target = dataclasses.replace(target, x={"rgb": target.x["rgb"]}, present={"rgb": target.present["rgb"]})
    fill(method, source, target)
    everyone = [method.get_buffer(f"mean_{m}")[2] for m in ("rgb", "flow")]
    assert torch.equal(method.get_buffer("mean_flow")[1], everyone[1])
    assert not torch.allclose(method.get_buffer("mean_rgb")[1], everyone[0], atol=0.5)
    stranger = side(SPEC, labelled=False, domain=-1)
    x = (stranger.x["rgb"] - everyone[0]) / method.get_buffer("std_rgb")[2]
    assert torch.allclose(method.normalise(stranger).x["rgb"], x)


def test_entries_that_never_change_become_zero():
    method, (source, target) = build(SPEC), sides()
    for s in (source, target):
        s.x["rgb"][..., 0] = 7.0
    fill(method, source, target)
    assert method.normalise(target).x["rgb"][..., 0].abs().max() < 1e-3


def test_predictions_survive_a_checkpoint():
    method, other = build(SPEC), build(SPEC, seed=1)
    source, target = sides()
    fill(method, source, target)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predict(target)["label"], method.predict(target)["label"])


def test_it_takes_the_place_of_the_units_of_the_net():
    source, target = sides()
    said = []
    for standardise in (False, True):
        torch.manual_seed(0)
        net = adapter.NET(adapter.Params(dim=8, standardise=standardise), SPEC)
        method = adabn.AdaBN(adabn.Params(), SPEC, net).eval()
        net.begin(lambda name: iter([source]))
        fill(method, source, target)
        said.append(method.predict(target)["label"])
    assert torch.equal(*said)


# ----------------------------------------------------------------------------------------- layers of the net, by domain


def build_layers(spec=SPEC, **params):
    torch.manual_seed(0)
    net = adapter.NET(adapter.Params(dim=8, batch_norm=True, dropout=0.0), spec)
    return adabn.METHOD(adabn.Params(**params), spec, net)


def taught(method, source, target, steps=20):
    """The method after steps on both sides whole, without updates: only its running averages move."""
    fill(method, source, target)
    method.train()
    for _ in range(steps):
        method.losses(Batch(source, target), 0.5)
    return method.eval()


def naive_features(method, s, modality, by):
    """f of each row of one domain: a = W mean of windows, then (a - mean of a) / std of a over the rows of `by`."""
    F, BN = method.net.F[modality], method.net.BN[modality]

    def linear(side):
        normalised = method.normalise(side)
        has = normalised.has(modality)
        return F(normalised.pool(modality).flatten(1))[has]

    every = linear(by)
    a = (linear(s) - every.mean(0)) / (every.var(0, correction=1) + 1e-5).sqrt()  # torch's: unbiased in tests
    return (BN.gamma * a + BN.beta).clamp_min(0)


def test_layers_have_the_statistics_of_each_domain():
    source, target = map(holes, sides())
    source = dataclasses.replace(source, domain=torch.tensor([0, 1] * 6))
    target = dataclasses.replace(target, domain=torch.full_like(target.domain, 2))
    method = taught(build_layers(dataclasses.replace(SPEC, domains=("a", "b", "c"))), source, target, steps=200)
    for s, domain in ((source, 0), (source, 1), (target, 2)):
        of_domain = pick(s, s.domain == domain)
        f = method.features(of_domain)
        for m in s.x:
            expected = naive_features(method, of_domain, m, by=of_domain)
            assert torch.allclose(f[m][of_domain.has(m)], expected, atol=1e-4)
            others = naive_features(method, of_domain, m, by=source if domain == 2 else target)
            assert not torch.allclose(expected, others, atol=0.1)


def test_statistics_of_layers_survive_a_checkpoint():
    source, target = sides()
    method, other = taught(build_layers(), source, target, steps=3), build_layers().eval()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predict(target)["label"], method.predict(target)["label"])
    method.layers.start()
    assert not torch.allclose(other.predict(target)["label"], method.predict(target)["label"])


def test_rows_of_several_domains_keep_their_order():
    source, target = sides()
    source = dataclasses.replace(source, domain=torch.tensor([0, 1] * 6))
    method = taught(build_layers(), source, target)
    whole = method.predict(source)["label"]
    for row in range(12):
        alone = method.predict(pick(source, torch.tensor([row])))["label"]
        assert torch.allclose(alone[0], whole[row], atol=1e-5)


def test_a_domain_and_a_modality_that_no_layer_has_seen_have_the_mean_of_the_others():
    source, target = sides()
    method = taught(build_layers(), source, dataclasses.replace(target, x={"rgb": target.x["rgb"]}))
    for m, domain in (("rgb", 5), ("rgb", -1), ("flow", 1)):
        layer = method.net.BN[m]
        known = [0, 1] if m == "rgb" else [0]
        with method.layers.statistics(domain):
            mean, var = layer.mean.clone(), layer.var.clone()
        each = []
        for d in known:
            with method.layers.statistics(d):
                each.append((layer.mean.clone(), layer.var.clone()))
        assert torch.allclose(mean, sum(m for m, _ in each) / len(each))
        assert torch.allclose(var, sum(v for _, v in each) / len(each))


def test_target_rows_teach_no_weights_and_the_net_keeps_its_own_statistics():
    (source, target), method = sides(), build_layers()
    fill(method, source, target)
    own = {name: value.clone() for name, value in method.net.named_buffers()}
    method.train()
    alone = method.losses(Batch(source, target), 0.5)["L_C"]
    other = method.losses(Batch(source, dataclasses.replace(target, x={m: -x for m, x in target.x.items()})), 0.5)[
        "L_C"
    ]
    assert torch.equal(alone, other)
    assert all(torch.equal(value, own[name]) for name, value in method.net.named_buffers())


def test_layers_off_and_nets_without_layers_are_as_before():
    """Weights of earlier runs have no statistics by domain, and fit."""
    for method in (build_layers(layers=False), build(SPEC)):
        assert {name.partition(".")[0] for name in method.state_dict()} == {
            "net", "mean_rgb", "std_rgb", "mean_flow", "std_flow"
        }  # fmt: skip
    method, (source, target) = build_layers(layers=False), sides()
    taught(method, source, target)
    assert torch.equal(method.features(target)["rgb"], method.net.encode(method.normalise(target))["rgb"])


class Torch(nn.Module):
    """A layer of torch in the place of the net's own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.BatchNorm1d(8)

    def forward(self, a_BD, _):
        return self.layer(a_BD)


def build_torch_layers(spec=SPEC):
    net = build_layers(spec).net
    net.BN = nn.ModuleDict({m: Torch() for m in spec.shapes})
    return adabn.METHOD(adabn.Params(), spec, net)


@pytest.mark.parametrize("build_of", [build_layers, build_torch_layers])
def test_a_domain_with_one_row_in_a_batch_has_its_averages(build_of):
    """One row has no variance. Its averages stay, and its features are those of tests; other rows learn as ever."""
    source, target = sides()
    source = dataclasses.replace(source, domain=torch.tensor([0] * 11 + [1]))
    target = dataclasses.replace(target, domain=torch.full_like(target.domain, 2))
    method = build_of(dataclasses.replace(SPEC, domains=("a", "b", "c")))
    taught(method, dataclasses.replace(source, domain=torch.tensor([0, 1] * 6)), target)
    before = {name: value.clone() for name, value in method.layers.named_buffers()}
    last = pick(source, torch.tensor([11]))
    in_tests = method.features(last)["rgb"]
    method.train().losses(Batch(source, target), 0.5)["L_C"].backward()
    for name, value in method.layers.named_buffers():
        if value.is_floating_point():
            assert torch.equal(value[1], before[name][1])
            assert not torch.equal(value[0], before[name][0])
    assert torch.allclose(method.features(last)["rgb"], in_tests)
    assert all(layer.training for layer in method.layers.layers)


def test_layers_of_torch_work_too():
    """A net of one's own may have them; their statistics are updated in place while gradients are pending."""
    torch_method, (source, target) = build_torch_layers(), sides()
    source = dataclasses.replace(source, domain=torch.tensor([0, 1] * 6))
    fill(torch_method, source, target)
    torch_method.train().losses(Batch(source, target), 0.5)["L_C"].backward()
    assert taught(torch_method, source, target).predict(target)["label"].isfinite().all()
    assert torch_method.net.BN["rgb"].layer.running_mean.eq(0).all()
