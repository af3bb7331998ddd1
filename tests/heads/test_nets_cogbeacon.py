"""RNA's convolutions on CogBeacon against sums over positions, and their published sizes."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Side, Spec
from heads.methods import rna
from heads.nets import cogbeacon
from heads.testing.problems import SPEC, batch, side, without

torch.set_num_threads(1)

COG = Spec(
    {"eeg": (24,), "face": (280,)}, {"eeg": 1, "face": 1}, {"label": 2}, {"source": 8, "target": 8}, ("V1", "V2")
)
SHORT = dataclasses.replace(SPEC, shapes={"rgb": (25,), "flow": (2, 6)})


def build(spec=COG, **params):
    torch.manual_seed(0)
    return cogbeacon.CogBeacon(cogbeacon.Params(**params), spec).double()


def some(spec):
    s = side(spec, labelled=True)
    return Side({m: x.double() for m, x in s.x.items()}, s.present, s.y, s.domain, s.index)


def naive_block(conv, x):
    """Channels of numbers to channels of numbers: each position by itself, the larger of two, nothing below 0."""
    out = []
    for W, b in zip(conv.weight.tolist(), conv.bias.tolist(), strict=True):
        y = [
            b + sum(W[c][k] * row[position + k] for c, row in enumerate(x) for k in range(3))
            for position in range(len(x[0]) - 2)
        ]
        out.append([max(y[2 * i], y[2 * i + 1], 0.0) for i in range(len(y) // 2)])
    return out


def naive(net, m, x):
    """f_m of one row, and the positions after each block."""
    h, lengths = [x.tolist()], []
    convolutions = [layer for layer in net.branch[m].modules() if isinstance(layer, torch.nn.Conv1d)]
    for conv in convolutions:
        h = naive_block(conv, h)
        lengths.append(len(h[0]))
    f = torch.tensor([number for channel in h for number in channel], dtype=torch.float64)
    if lengths[-1] > 1:
        U = net.branch[m][-1]
        f = U.weight @ f + U.bias
    return f, lengths


@torch.no_grad()
@pytest.mark.parametrize(
    ("spec", "dim", "lengths"),
    [
        (COG, 64, {"eeg": [11, 4, 1], "face": [139, 68, 33]}),
        (SHORT, 16, {"rgb": [11, 4, 1], "flow": [5, 1]}),  # 12 numbers: two blocks
        (SPEC, 8, {"rgb": [2], "flow": [1]}),  # 6 and 5 numbers: one
    ],
    ids=["CogBeacon", "25 and 12 numbers", "6 and 5 numbers"],
)
def test_equals_its_equations(spec, dim, lengths):
    net, last = build(spec, dim=dim), list(spec.shapes)[-1]
    s = without(some(spec), last, [2])
    f = net.encode(s)
    z = net.classify(f)["label"]
    for row in range(3):
        logits = net.classifier.g[":label"].clone()
        for m in spec.shapes:
            if (m, row) == (last, 2):
                assert not f[m][row].any()
                continue
            f_m, found = naive(net, m, s.x[m][row].mean(0).flatten())
            assert found == lengths[m]
            assert torch.allclose(f[m][row], f_m)
            logits = logits + net.classifier.G[f"{m}:label"].weight @ f_m
        assert torch.allclose(z[row], logits)


def test_published_size():
    """EEG 24 -> 64 features without a layer; the face's 33 positions of 32 channels through one of 1056 -> 64."""
    net = build()
    shapes = {name: tuple(p.shape) for name, p in net.branch.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "eeg.1.0.weight": (16, 1, 3),
        "eeg.2.0.weight": (32, 16, 3),
        "eeg.3.0.weight": (64, 32, 3),
        "face.1.0.weight": (8, 1, 3),
        "face.2.0.weight": (16, 8, 3),
        "face.3.0.weight": (32, 16, 3),
        "face.5.weight": (64, 1056),
    }
    assert {m: G.weight.shape for m, G in net.classifier.G.items()} == dict.fromkeys(
        ("eeg:label", "face:label"), (2, 64)
    )


def test_a_block_by_hand():
    """1 2 4 8 16 -> differences over two steps 3, 6, 12 -> the larger of the first two; the third has no partner."""
    block = cogbeacon.block(1, 2)
    block[0].weight.data = torch.tensor([[[-1.0, 0.0, 1.0]], [[1.0, 0.0, -1.0]]])
    block[0].bias.data.zero_()
    assert block(torch.tensor([[[1.0, 2.0, 4.0, 8.0, 16.0]]])).tolist() == [[[6.0], [0.0]]]


@pytest.mark.parametrize(("L", "blocks"), [(3, 0), (4, 1), (9, 1), (10, 2), (21, 2), (22, 3), (1000, 3)])
def test_room_for_blocks(L, blocks):
    assert len(cogbeacon.positions(L)) == blocks


def test_logits_are_as_good_as_logarithms_of_softmax():
    """Implementation detail 4: a LogSoftmax per modality before the sum changes neither probabilities nor the loss."""
    net, s = build(), some(COG)
    f = net.encode(s)
    summed = sum(net.classify({m: f_BD})["label"].log_softmax(1) for m, f_BD in f.items())
    z = net.classify(f)["label"]  # the bias is 0 at the start, so that it is no matter how often it is added
    assert torch.allclose(summed.softmax(1), z.softmax(1))
    assert torch.allclose(cross_entropy(summed, s.y["label"]), cross_entropy(z, s.y["label"]))


def test_order_of_the_numbers_matters():
    """Unlike the adapter, whose first layer can be permuted with its input."""
    net, s = build(), some(COG)
    turned = Side({m: x.flip(2) for m, x in s.x.items()}, s.present, {}, s.domain, s.index)
    for m, f in net.encode(turned).items():
        assert not torch.allclose(f, net.encode(s)[m])


def test_rna_trains_it():
    method = rna.Rna(rna.Params(), COG, build().float())
    sum(method(batch(COG), 0.5).values()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.net.parameters())


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="net.dim 20 is no multiple of 8"):
        build(dim=20)
    with pytest.raises(ValueError, match="4 numbers or more.*'flow' has 3.*adapter"):
        build(dataclasses.replace(SPEC, shapes={"rgb": (6,), "flow": (3,)}))
