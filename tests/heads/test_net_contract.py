"""Every file of heads/nets keeps the contract of its task (heads/testing/nets.py); what the adapter promises beyond."""

import dataclasses
from typing import ClassVar

import pytest
import torch

from featcache import registry
from heads import nets
from heads.nets import adapter
from heads.testing import ClusteringNetTests, NetTests, RetrievalNetTests
from heads.testing import nets as contract
from heads.testing.problems import EK, SPEC, side, without

NETS = [registry.load(nets, name, "net") for name in registry.names(nets)]


class EveryNet:
    """All files with a net of the task."""

    @classmethod
    def modules(cls):
        return [module for module in NETS if module.NET.task == cls.task]


class TestClassification(EveryNet, NetTests):
    pass


class TestBatchNorm(NetTests):
    """The adapter with batch normalisation, which encodes each side by itself."""

    module = adapter
    params: ClassVar = {"batch_norm": True}


class TestRetrieval(EveryNet, RetrievalNetTests):
    pass


class TestClustering(EveryNet, ClusteringNetTests):
    pass


def test_every_net_is_tested():
    tested = {tests.task for tests in EveryNet.__subclasses__()}
    for task in registry.names("pipelines.tasks"):
        assert task in tested, f"add `class Test{task.title()}(EveryNet, ...)` with the contract of {task} nets"
    for module in NETS:
        assert module.NET.task in tested, f"{module.__name__} has a net of {module.NET.task!r}, which is no task"


# ------------------------------------------------------------------------------------------------------ more of adapter


def build(spec, **params):
    return contract.build(adapter, spec, params)


def test_mean_fusion_averages_the_scores_of_the_modalities_there_are():
    added, averaged = (build(SPEC, fusion=fusion) for fusion in ("sum", "mean"))
    f = added.encode(side(SPEC, labelled=True))
    g = added.classifier.g[":label"]
    assert torch.allclose(averaged.classify(f)["label"] - g, (added.classify(f)["label"] - g) / 2, atol=1e-6)
    alone = {"rgb": f["rgb"]}
    assert torch.equal(averaged.classify(alone)["label"], added.classify(alone)["label"])
    with pytest.raises(ValueError, match="no net.fusion 'max'; choose from sum, mean"):
        build(SPEC, fusion="max")


def test_standardised_features_do_not_depend_on_the_scale_and_origin_of_the_cache():
    moved = lambda s: dataclasses.replace(s, x={m: 40 * x * s.present[m][..., None] + 7 for m, x in s.x.items()})  # noqa: E731
    source, other = (without(side(SPEC, rows=30, labelled=True, seed=k), "flow", [1, 2]) for k in (0, 1))
    nets_ = [build(SPEC, standardise=True, act="none") for _ in range(2)]
    nets_[0].begin(lambda name: iter([{"source": source}[name]]))
    nets_[1].begin(lambda name: iter([{"source": moved(source)}[name]]))
    plain, scaled = nets_[0].encode(other), nets_[1].encode(moved(other))
    for m in plain:
        assert torch.allclose(plain[m], scaled[m], atol=1e-5)
    assert not plain["flow"][[1, 2]].any()
    x = nets_[0].units({m: source.pool(m)[source.has(m)] for m in source.x})
    for v in x.values():
        assert v.mean(0).abs().max() < 1e-5
        assert torch.allclose(v.std(0, unbiased=False), torch.ones(v.shape[1]), atol=1e-5)


def test_a_stage_without_a_source_keeps_the_units_it_was_given():
    first, second = build(SPEC, standardise=True), build(target_only(SPEC), standardise=True)
    first.begin(lambda name: iter([side(SPEC, labelled=True)]))
    second.load_state_dict(first.state_dict())
    second.begin(lambda name: pytest.fail(f"swept {name}"))
    assert torch.equal(second.units.get_buffer("mean:rgb"), first.units.get_buffer("mean:rgb"))
    assert first.units.get_buffer("mean:rgb").any()


def target_only(spec):
    return dataclasses.replace(spec, rows={"target": spec.rows["target"]})


# ----------------------------------------------------------------------------------------------------------- adapter


def naive_logits(net, s, row):
    """The equations of the file, by hand, for one row: modalities that are there, mean of the windows that are."""
    z = net.classifier.g[":label"].clone()
    for m in s.x:
        windows = [w for w in range(s.x[m].shape[1]) if s.present[m][row, w]]
        if windows:
            x = sum(s.x[m][row, w].flatten() for w in windows) / len(windows)
            f = (net.F[m].weight @ x + net.F[m].bias).clamp_min(0)
            z = z + net.classifier.G[f"{m}:label"].weight @ f
    return z


def test_adapter_equals_its_equations():
    net, s = build(SPEC), without(side(SPEC, labelled=True), "flow", [2, 5])
    s.present["rgb"][3, 1] = False
    z = net.classify(net.encode(s))["label"]
    for row in range(8):
        assert torch.allclose(z[row], naive_logits(net, s, row), atol=1e-5)


def test_adapter_masking_a_modality_is_leaving_it_out():
    net, s = build(SPEC), side(SPEC, labelled=True)
    masked = net.classify(net.encode(without(s, "flow", slice(None))))["label"]
    f = net.encode(s)
    assert torch.allclose(masked, net.classify({"rgb": f["rgb"]})["label"], atol=1e-6)


def test_adapter_features_of_absent_rows_take_no_gradient():
    net, s = build(SPEC), without(side(SPEC, labelled=True), "flow", slice(None))
    net.classify(net.encode(s))["label"].sum().backward()
    assert net.F["flow"].weight.grad.abs().max() == 0


def test_adapter_activation_and_dropout():
    s = side(SPEC, rows=64, labelled=True)
    assert (build(SPEC).encode(s)["rgb"] >= 0).all()
    assert (build(SPEC, act="none").encode(s)["rgb"] < 0).any()
    net = build(SPEC, act="none", dropout=0.25, dropout_at="features", dim=64).train()
    assert 0.2 < (net.encode(s)["rgb"] == 0).float().mean() < 0.3
    with pytest.raises(ValueError, match="no net.dropout_at 'both'; choose from logits, features"):
        build(SPEC, dropout_at="both")
    with pytest.raises(ValueError, match="no net.act 'gelu'; choose from relu, none"):
        build(SPEC, act="gelu")


WITH_A_PLACE = [module for module in NETS if "dropout_at" in module.Params.__dataclass_fields__]


@pytest.mark.parametrize("module", WITH_A_PLACE, ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
@pytest.mark.parametrize("dropout_at", ["logits", "features"])
def test_dropout_is_at_its_place(module, spec, dropout_at):
    """At the logits features are those of eval mode, and scores are random; otherwise only features are random."""
    net, s = contract.build(module, spec, {"dropout": 0.5, "dropout_at": dropout_at}), side(spec, labelled=True)
    f_eval = net.encode(s)
    z_eval = net.outputs(f_eval)
    net.train()
    f, again = net.encode(s), net.encode(s)
    z, z_again = net.classify(f), net.classify(f)
    for m, f_BD in f.items():
        assert torch.equal(f_BD, again[m]) == torch.equal(f_BD, f_eval[m]) == (dropout_at == "logits")
    for label, z_BK in z.items():
        assert torch.equal(z_BK, z_again[label]) == (dropout_at == "features")
        assert not torch.allclose(z_BK, z_eval[label])
    if dropout_at == "logits":  # scores are linear in the features, and dropout keeps their mean
        for label, z_BK in z_eval.items():
            mean_BK = torch.stack([net.classify(f)[label] for _ in range(300)]).mean(0)
            assert torch.allclose(mean_BK, z_BK, atol=0.25)


def test_adapter_cuts_an_uneven_size():
    parts = build(EK, dim=9).parts
    assert parts == {"noun": slice(0, 4), "verb": slice(4, 9)}
    with pytest.raises(ValueError, match="net.dim 1 cannot be cut into 2 parts"):
        build(EK, dim=1)
