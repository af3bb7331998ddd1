"""MTRAN's network against its equations, written out once more with explicit loops."""

import dataclasses
import math

import pytest
import torch

from featcache import registry
from heads import methods
from heads.batch import Side, Spec
from heads.methods import source_only
from heads.methods._fitted import Fitted
from heads.nets import mtran
from heads.testing.problems import EK, SPEC, batch, side, small, sweep, without

torch.set_num_threads(1)


def build(spec=SPEC, **params):
    torch.manual_seed(0)
    return mtran.Mtran(mtran.Params(**{"dim": 6, "layers": 2, **params}), spec).double().eval()


def precise(s):
    return Side({m: x.double() for m, x in s.x.items()}, s.present, s.y, s.domain, s.index)


def some(spec=SPEC, **options):
    return precise(side(spec, labelled=False, **options))


# ------------------------------------------------------------------------------------------------------ the equations


def linear(layer, x):
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(layer.weight.tolist(), bias, strict=True)
    ]


def layer_norm(norm, x):
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    scaled = [(v - mean) / math.sqrt(variance + norm.eps) for v in x]
    return [v * g + b for v, g, b in zip(scaled, norm.weight.tolist(), norm.bias.tolist(), strict=True)]


def plus(u, v):
    return [a + b for a, b in zip(u, v, strict=True)]


def naive_layer(layer, X, present):
    """One layer on lists: (X', A)."""
    q, k, v = ([linear(w, x) for x in X] for w in (layer.W_q, layer.W_k, layer.W_v))
    D, A = len(X[0]), []
    for i in range(len(X)):
        score = [math.exp(sum(a * b for a, b in zip(q[i], k[j], strict=True)) / math.sqrt(D)) for j in range(len(X))]
        score = [s if there else 0.0 for s, there in zip(score, present, strict=True)]
        A.append([s / sum(score) for s in score])
    after = []
    for i, x in enumerate(X):
        seen = [sum(A[i][j] * v[j][d] for j in range(len(X))) for d in range(D)]
        z = layer_norm(layer.LN_SA, plus(seen, x))
        hidden = [max(0.0, h) for h in linear(layer.FFB[0], z)]
        after.append(layer_norm(layer.LN_FFB, plus(linear(layer.FFB[3], hidden), z)))
    return after, A


def naive(net, s, row):
    """f and A of one row, over the windows that are there."""
    f, relations = {}, {}
    for m, branch in net.branch.items():
        present = s.present[m][row].tolist()
        X = [x.flatten().tolist() for x in s.x[m][row]]
        X = X if isinstance(branch.embed, torch.nn.Identity) else [linear(branch.embed, x) for x in X]
        relations[m] = []
        if not any(present):
            f[m] = [0.0] * net.dim
            continue
        for layer in branch.layers:
            X, A = naive_layer(layer, X, present)
            relations[m].append(A)
        rows = [x for x, there in zip(X, present, strict=True) if there]
        f[m] = [sum(values) / len(rows) for values in zip(*rows, strict=True)]
    joined = [v for m in net.branch for v in f[m]]
    f["fused"] = [max(0.0, v) for v in linear(net.fuse[0], joined)]
    return f, relations


def test_equals_its_equations():
    """rgb has the net's own size and is not embedded; flow is. One row lacks flow, another one a window of rgb."""
    net, s = build(), without(some(), "flow", [2])
    s.present["rgb"][3, 1] = False
    f, A = net.attend(s)
    z = net.classify(f)["label"]
    assert set(f) == {"rgb", "flow", "fused"}
    for row in range(8):
        expected, relations = naive(net, s, row)
        for m, values in expected.items():
            assert f[m][row].tolist() == pytest.approx(values, abs=1e-9)
        for m, maps in relations.items():
            if maps:
                assert torch.allclose(A[m][row], torch.tensor(maps, dtype=torch.float64), atol=1e-6)
        assert z[row].tolist() == pytest.approx(linear(net.classifier[":label"], expected["fused"]), abs=1e-9)


def test_published_size():
    """A layer has 5 D² weights, 2 D biases and 4 D of two norms; 63 M in two branches of six layers."""
    spec = dataclasses.replace(SPEC, shapes={"rgb": (1024,), "flow": (1024,)})
    with torch.device("meta"):
        net = mtran.Mtran(mtran.Params(), spec)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(net.branch) == 2 * 6 * (5 * 1024**2 + 6 * 1024) == 62_988_288
    assert count(net) == 62_988_288 + (2048 + 1) * 1024 + (1024 + 1) * 4


# ---------------------------------------------------------------------------------------------------------- invariances


def test_order_of_windows_changes_relations_only_in_order():
    net, s, order = build(), some(), torch.tensor([2, 0, 1])
    turned = Side({**s.x, "rgb": s.x["rgb"][:, order]}, s.present, {}, s.domain, s.index)
    (f, A), (g, B) = net.attend(s), net.attend(turned)
    for m in f:
        assert torch.allclose(f[m], g[m])
    assert torch.allclose(A["rgb"][:, :, order][..., order], B["rgb"])
    assert not torch.allclose(A["rgb"], B["rgb"])


def test_relations_are_shares_of_the_windows_that_are_there():
    net, s = build(), some()
    s.present["rgb"][:4, 2] = False
    A = net.attend(s)[1]
    assert {m: tuple(a.shape) for m, a in A.items()} == {"rgb": (8, 2, 3, 3), "flow": (8, 2, 2, 2)}
    for a in A.values():
        assert torch.allclose(a.sum(-1), torch.ones(a.shape[:-1], dtype=a.dtype))
    assert A["rgb"][:4, ..., 2].max() == 0
    assert A["rgb"][4:, ..., 2].min() > 0


def test_what_lies_in_absent_windows_is_not_read():
    net, s = build(), some()
    s.present["rgb"][:, 1] = False
    before = net.classify(net.encode(s))["label"]
    s.x["rgb"][:, 1] = 1e3
    assert torch.equal(net.classify(net.encode(s))["label"], before)


def test_a_masked_modality_is_one_that_is_left_out():
    net, s = build(), some()
    masked = net.encode(without(s, "flow", slice(None)))
    alone = net.encode(Side({"rgb": s.x["rgb"]}, {"rgb": s.present["rgb"]}, {}, s.domain, s.index))
    assert not masked["flow"].any()
    assert set(alone) == {"rgb", "fused"}
    assert torch.equal(masked["fused"], alone["fused"])


def test_rows_without_a_modality_give_its_branch_no_gradient():
    net, s = build(), without(some(), "flow", slice(None))
    net.classify(net.encode(s))["label"].sum().backward()
    for name, weights in net.branch["flow"].named_parameters():
        assert weights.grad is None or not weights.grad.any(), name
    assert net.branch["rgb"].layers[0].W_q.weight.grad.any()


def test_a_single_window_attends_to_itself_and_its_projections_rest():
    net = build(EK)
    A = net.attend(some(EK))[1]
    assert torch.equal(A["audio"], torch.ones(8, 2, 1, 1, dtype=torch.float64))
    still = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert still == {f"branch.audio.layers.{k}.{w}.weight" for k in range(2) for w in ("W_q", "W_k")}


def test_a_batch_of_none():
    """The pairs of a batch of one clip."""
    net, s = build(), some(rows=0)
    f, A = net.attend(s)
    assert f["fused"].shape == (0, 6)
    assert A["rgb"].shape == (0, 2, 3, 3)


# -------------------------------------------------------------------------------------------------------------- options


def test_dropout_stands_behind_every_layer_but_the_last():
    spec = Spec({"rgb": (64,)}, {"rgb": 2}, {"label": 3}, {"source": 256}, ("a",))
    net, s = build(spec, dim=64, layers=1, dropout=0.25).train(), some(spec, rows=256)
    with torch.no_grad():
        net.fuse[0].bias += 1e3  # so that ReLU gives no zeros
    assert 0.2 < (net.encode(s)["fused"] == 0).double().mean() < 0.3
    layer = net.branch["rgb"].layers[0]
    layer.FFB[0].bias.data += 1e3
    assert 0.2 < (layer.FFB[:3](s.x["rgb"]) == 0).double().mean() < 0.3
    assert 0.2 < (layer.FFB(s.x["rgb"]) == 0).double().mean() < 0.3
    assert [type(m).__name__ for m in net.modules()].count("Dropout") == 3


def test_bfloat16_says_nearly_the_same_in_float32():
    """Only the transformers' products are rounded: to 8 bits, which a post-norm layer does not amplify."""
    torch.manual_seed(0)
    exact = mtran.Mtran(mtran.Params(dim=32), SPEC).eval()
    rounded = mtran.Mtran(mtran.Params(dim=32, precision="bfloat16"), SPEC).eval()
    rounded.load_state_dict(exact.state_dict())
    s = side(SPEC, labelled=False)
    (f, A), (g, B) = exact.attend(s), rounded.attend(s)
    for u, v in ((f, g), (A, B)):
        for m in u:
            assert v[m].dtype == torch.float32
            assert torch.allclose(u[m], v[m], atol=0.05)
            assert m == "fused" or not torch.equal(u[m], v[m])
    sum(a.sum() for a in (*g.values(), *B.values())).backward()
    assert all(p.grad.isfinite().all() for p in rounded.branch.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"precision": "half"}, "no net.precision 'half'; choose from float32, bfloat16"),
        ({"dim": 1}, "net.dim 1 cannot be cut into 2 parts"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        build(EK, **params)


def test_a_modality_alone_is_refused():
    method = source_only.SourceOnly(source_only.Params(per_modality=True), SPEC, build().float())
    with pytest.raises(ValueError, match="net mtran .*fused features.*net adapter"):
        method.losses(batch(SPEC, ("source",)), 0.5)


# --------------------------------------------------------------------------------------------- methods on a fusing net

SINGLE = ("cia", "dlmm", "gradient_blending", "mdann", "sava", "stcda", "ta3n", "tcon")  #: they classify modalities
ON_FUSED = [
    name
    for name in registry.names(methods)
    if "classification" in registry.load(methods, name, "method").METHOD.tasks and name not in SINGLE
]


def on_mtran(name):
    module = registry.load(methods, name, "method")
    torch.manual_seed(0)
    net = mtran.Mtran(mtran.Params(dim=8, layers=1), SPEC)
    return module.METHOD(dataclasses.replace(module.Params(), **small(module)), SPEC, net).eval()


@pytest.mark.parametrize("name", SINGLE)
def test_a_method_that_classifies_modalities_names_a_net_for_it(name):
    def predict():
        method = on_mtran(name)
        with torch.no_grad():
            method.begin_epoch(0, sweep(SPEC))
        return method.predict(side(SPEC, labelled=False))

    with pytest.raises(ValueError, match="net (adapter|trn)"):
        predict()


@pytest.mark.parametrize("name", ON_FUSED)
def test_a_method_looks_at_the_fused_features_only(name):
    """Nothing else is classified; the classifiers of cached features read modalities, and no fused ones."""
    method, rows = on_mtran(name), side(SPEC, labelled=False)
    with torch.no_grad():
        method.begin_epoch(0, sweep(SPEC))
        f = method.features(rows)
        wanted = method.outputs(f, rows)["label"]
        assert set(f) == (set(SPEC.shapes) if isinstance(method, Fitted) else {"fused"})
        assert method.projected(f) == {}  # losses project modalities only
        for m, f_BD in f.items():
            unknown = f | {m: torch.full_like(f_BD, torch.nan)}
            assert not torch.equal(method.outputs(unknown, rows)["label"], wanted)
