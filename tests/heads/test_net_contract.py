"""What every file of heads/nets keeps, those of each task, and what the adapter promises beyond."""

import dataclasses
import inspect

import pytest
import torch

from featcache import registry
from heads import nets
from heads.batch import Side, gather
from heads.nets import Net, Retrieval, adapter
from tests.helpers.problems import CAPTIONED, EK, SPEC, only, side, small, without

MODULES = {name: registry.load(nets, name, "net") for name in registry.names(nets)}


def nets_of(task):
    """Over the nets of a task."""
    found = {name: module for name, module in MODULES.items() if module.NET.task == task}
    return pytest.mark.parametrize("module", found.values(), ids=found)


EVERY, RETRIEVAL = nets_of("classification"), nets_of("retrieval")
SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(module, spec, **params):
    torch.manual_seed(0)
    return module.NET(dataclasses.replace(module.Params(), **{**small(module), **params}), spec).eval()


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_files_follow_the_layout(module):
    assert module.__doc__.strip()
    assert issubclass(module.NET, Net)
    assert issubclass(module.NET, Retrieval) == (module.NET.task == "retrieval")
    assert dataclasses.is_dataclass(module.Params)
    assert module.Params.__dataclass_params__.frozen
    source = inspect.getsource(module.Params)
    for field in dataclasses.fields(module.Params):
        assert f"  {field.name}:" in source
        line = next(line for line in source.splitlines() if line.strip().startswith(f"{field.name}:"))
        assert "#: " in line, f"{module.__name__}.Params.{field.name} says nothing of itself"


@EVERY
@SPECS
def test_shapes_and_parts(module, spec):
    net, s = build(module, spec), side(spec, labelled=True)
    f = net.encode(s)
    assert f.keys() - {"fused"} == spec.shapes.keys()
    assert {tuple(value.shape) for value in f.values()} == {(8, net.dim)}
    assert {t: tuple(z.shape) for t, z in net.classify(f).items()} == {t: (8, k) for t, k in spec.classes.items()}
    taken = [k for part in net.parts.values() for k in range(*part.indices(net.dim))]
    assert sorted(taken) == list(range(net.dim))  # the parts cover D once
    for label, part in net.parts.items():
        others = {m: value.clone() for m, value in f.items()}
        for value in others.values():
            mask = torch.ones(net.dim, dtype=torch.bool)
            mask[part] = False
            value[:, mask] = 99.0
        assert torch.allclose(net.classify(others)[label], net.classify(f)[label])  # a label reads nothing but its part


@EVERY
@SPECS
def test_reads_is_all_that_a_task_classifies(module, spec):
    """And nothing else: where logits of a label have a gradient, the features are among what it reads."""
    net = build(module, spec)
    f = {m: f_BD.detach().requires_grad_() for m, f_BD in net.encode(side(spec, labelled=True)).items()}
    for label, z in net.classify(f).items():
        grads = torch.autograd.grad(z.square().sum(), list(f.values()), allow_unused=True)
        used = [g if g is not None else torch.zeros_like(f_BD) for g, f_BD in zip(grads, f.values(), strict=True)]
        read = torch.autograd.grad(net.reads(f)[label].sum(), list(f.values()), allow_unused=True)
        for g_z, g_r in zip(used, read, strict=True):
            assert torch.equal(g_z != 0, torch.zeros_like(g_z, dtype=torch.bool) if g_r is None else g_r != 0)
        assert net.reads(f)[label].shape == (8, sum(int(g[0].sum()) for g in read if g is not None))


@EVERY
@SPECS
def test_rows_do_not_depend_on_their_batch(module, spec):
    net, s = build(module, spec), side(spec, rows=7, labelled=True)

    def alone(k):
        cut = lambda values: {m: v[k : k + 1] for m, v in values.items()}  # noqa: E731
        return Side(cut(s.x), cut(s.present), {}, s.domain[k : k + 1], s.index[k : k + 1])

    together = net.classify(net.encode(s))
    one_by_one = gather(map(alone, range(7)), lambda row: net.classify(net.encode(row)))
    for label, z in together.items():
        assert torch.allclose(z, one_by_one[label], atol=1e-6)


@EVERY
@SPECS
def test_the_classifier_is_what_classify_learns_and_encode_does_not(module, spec):
    net = build(module, spec)
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    f = net.encode(side(spec, labelled=True))
    alone = {m: f_BD.detach() for m, f_BD in f.items()}

    def reached(outputs):
        total = torch.stack([out.sum() for out in outputs.values()]).sum()
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        return {name for name, grad in zip(parameters, found, strict=True) if grad is not None}

    classifier = {name for name in parameters if name.startswith("classifier.")}
    assert reached(net.classify(alone)) == classifier
    assert reached(f) == parameters.keys() - classifier


@EVERY
def test_stays_in_the_state_dict(module):
    net, other = build(module, EK), build(module, EK)
    other.load_state_dict(net.state_dict())
    s = side(EK, labelled=True)
    for label, z in net.classify(net.encode(s)).items():
        assert torch.equal(other.classify(other.encode(s))[label], z)


# ---------------------------------------------------------------------------------------------------------- retrieval

CLIPS = CAPTIONED.shapes.keys() - set(CAPTIONED.captions)


@RETRIEVAL
def test_a_side_is_encoded_as_far_as_it_goes(module):
    """Clips and captions do not see each other; a method gets either or both."""
    net, pairs = build(module, CAPTIONED), side(CAPTIONED, labelled=True)
    both, clips, captions = (net.encode(only(pairs, m)) for m in (pairs.x, CLIPS, CAPTIONED.captions))
    assert (both.keys(), clips.keys(), captions.keys()) == ({"visual", "text"}, {"visual"}, {"text"})
    assert both["visual"].shape == both["text"].shape == (8, net.dim)
    assert torch.equal(both["visual"], clips["visual"])
    assert torch.equal(both["text"], captions["text"])
    assert net.predict(pairs).keys() == both.keys()
    assert net.similarity(both["text"][:3], both["visual"]).shape == (3, 8)


@RETRIEVAL
def test_similarities_do_not_depend_on_other_rows(module):
    net, pairs = build(module, CAPTIONED), without(side(CAPTIONED, labelled=True), "action", [2])
    f = net.encode(pairs)
    xi = net.similarity(f["text"], f["visual"])
    for i in (0, 2):
        cut = lambda values, i=i: {m: v[i : i + 1] for m, v in values.items()}  # noqa: E731
        alone = net.encode(Side(cut(pairs.x), cut(pairs.present), {}, pairs.domain[:1], pairs.index[:1]))
        assert torch.allclose(net.similarity(f["text"], alone["visual"])[:, 0], xi[:, i], atol=1e-6)
        assert torch.allclose(net.similarity(alone["text"], f["visual"])[0], xi[i], atol=1e-6)


@RETRIEVAL
def test_a_row_without_anything_is_0(module):
    net, pairs = build(module, CAPTIONED), side(CAPTIONED, labelled=True)
    for m in pairs.x:
        pairs = without(pairs, m, [1])
    for f in net.encode(pairs).values():
        assert f.isfinite().all()
        assert f.any(1).tolist() == [row != 1 for row in range(8)]


@RETRIEVAL
def test_the_ranking_loss_reaches_every_weight(module):
    net, pairs = build(module, CAPTIONED).train(), side(CAPTIONED, labelled=True)
    terms = net.loss(net.encode(pairs), pairs)
    assert terms.keys() == {"L_R"}
    terms["L_R"].backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@RETRIEVAL
def test_a_net_of_retrieval_stays_in_the_state_dict(module):
    net, other, pairs = build(module, CAPTIONED), build(module, CAPTIONED), side(CAPTIONED, labelled=True)
    other.load_state_dict(net.state_dict())
    for name, f in net.encode(pairs).items():
        assert torch.equal(other.encode(pairs)[name], f)


# ------------------------------------------------------------------------------------------------------ more of adapter


def test_mean_fusion_averages_the_scores_of_the_modalities_there_are():
    added, averaged = (build(adapter, SPEC, fusion=fusion) for fusion in ("sum", "mean"))
    f = added.encode(side(SPEC, labelled=True))
    g = added.classifier.g[":label"]
    assert torch.allclose(averaged.classify(f)["label"] - g, (added.classify(f)["label"] - g) / 2, atol=1e-6)
    alone = {"rgb": f["rgb"]}
    assert torch.equal(averaged.classify(alone)["label"], added.classify(alone)["label"])
    with pytest.raises(ValueError, match="no net.fusion 'max'; choose from sum, mean"):
        build(adapter, SPEC, fusion="max")


def test_standardised_features_do_not_depend_on_the_scale_and_origin_of_the_cache():
    moved = lambda s: dataclasses.replace(s, x={m: 40 * x * s.present[m][..., None] + 7 for m, x in s.x.items()})  # noqa: E731
    source, other = (without(side(SPEC, rows=30, labelled=True, seed=k), "flow", [1, 2]) for k in (0, 1))
    nets_ = [build(adapter, SPEC, standardise=True, act="none") for _ in range(2)]
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
    first, second = build(adapter, SPEC, standardise=True), build(adapter, target_only(SPEC), standardise=True)
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
    net, s = build(adapter, SPEC), without(side(SPEC, labelled=True), "flow", [2, 5])
    s.present["rgb"][3, 1] = False
    z = net.classify(net.encode(s))["label"]
    for row in range(8):
        assert torch.allclose(z[row], naive_logits(net, s, row), atol=1e-5)


def test_adapter_masking_a_modality_is_leaving_it_out():
    net, s = build(adapter, SPEC), side(SPEC, labelled=True)
    masked = net.classify(net.encode(without(s, "flow", slice(None))))["label"]
    f = net.encode(s)
    assert torch.allclose(masked, net.classify({"rgb": f["rgb"]})["label"], atol=1e-6)


def test_adapter_features_of_absent_rows_take_no_gradient():
    net, s = build(adapter, SPEC), without(side(SPEC, labelled=True), "flow", slice(None))
    net.classify(net.encode(s))["label"].sum().backward()
    assert net.F["flow"].weight.grad.abs().max() == 0


def test_adapter_activation_and_dropout():
    s = side(SPEC, rows=64, labelled=True)
    assert (build(adapter, SPEC).encode(s)["rgb"] >= 0).all()
    assert (build(adapter, SPEC, act="none").encode(s)["rgb"] < 0).any()
    net = build(adapter, SPEC, act="none", dropout=0.25, dim=64).train()
    assert 0.2 < (net.encode(s)["rgb"] == 0).float().mean() < 0.3
    with pytest.raises(ValueError, match="no net.act 'gelu'; choose from relu, none"):
        build(adapter, SPEC, act="gelu")


def test_adapter_cuts_an_uneven_size():
    parts = build(adapter, EK, dim=9).parts
    assert parts == {"noun": slice(0, 4), "verb": slice(4, 9)}
    with pytest.raises(ValueError, match="net.dim 1 cannot be cut into 2 parts"):
        build(adapter, EK, dim=1)
