"""ST-GCN: the official graphs, names and outputs, a naive loop over joints, and what its branches read."""

import dataclasses
import json
import zlib

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm

from featcache.joints import LAYOUTS
from heads.nets.stgcn import Block, Encoder, Params, graph_convolution, pooled
from heads.skeletons import SKELETONS, partitions, skeleton
from pipelines.bench.clustering import weights_first
from tests.helpers.backbones import DATA, by_rule
from tests.helpers.bones import edges
from tests.helpers.skeleton_problems import ONE, TWO, net, side, spec

torch.set_num_threads(1)
OFFICIAL = json.loads((DATA / "stgcn.json").read_text())  # on 25 joints
REFERENCES = np.load(DATA / "stgcn.npz")
LAYOUT = {25: "ntu-25", 20: "kinect-20", 15: "shared-15", 17: "coco-17"}
EVERY = pytest.mark.parametrize("V", SKELETONS)


def official(V):
    """Names and shapes of the official state dict."""
    of_joints = {25: V, 75: 3 * V}
    return {name: [of_joints.get(size, size) for size in shape] for name, shape in OFFICIAL.items()}


def entry(name, shape):
    if name.endswith("edge_importance"):
        n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        return torch.from_numpy((1 + 0.1 * n).astype(np.float32))
    return by_rule(name, shape)


# ----------------------------------------------------------------------------------------------------------- skeletons


@EVERY
def test_bones_and_centre_are_those_of_the_layout_that_is_extracted(V):
    layout, ours = LAYOUTS[LAYOUT[V]], skeleton(V)
    assert len(layout.names) == V
    assert {frozenset(bone) for bone in ours.bones} == {frozenset(bone) for bone in edges(LAYOUT[V])}
    assert len(ours.bones) == V - 1
    assert layout.names[ours.centre] == layout.centre


@EVERY
def test_parts_are_the_torso_and_the_limbs_by_their_names(V):
    names, parts = LAYOUTS[LAYOUT[V]].names, skeleton(V).parts
    assert sorted(joint for part in parts for joint in part) == list(range(V))
    torso, *limbs = [{names[joint] for joint in part} for part in parts]
    face = {"nose", "left eye", "right eye", "left ear", "right ear"}
    assert torso <= {"head", "neck", "shoulder centre", "spine", "hip centre"} or torso == face
    words = {frozenset(name.split()[0] for name in limb) for limb in limbs}
    assert words == {frozenset({"left"}), frozenset({"right"})}
    arms, legs = limbs[:2], limbs[2:]
    assert all(any("elbow" in name for name in arm) for arm in arms)
    assert all(any("knee" in name for name in leg) for leg in legs)


@EVERY
def test_partitions_sort_the_neighbours_of_each_joint(V):
    A, bones = partitions(V), {frozenset(bone) for bone in skeleton(V).bones}
    assert torch.allclose(A.sum((0, 1)), torch.ones(V))
    assert ((A > 0).sum(0) <= 1).all()
    for v, w in np.ndindex(V, V):
        assert (A[:, v, w].sum() > 0) == (v == w or frozenset((v, w)) in bones)
    assert torch.equal(A[0] > 0, torch.eye(V, dtype=torch.bool))
    centre = skeleton(V).centre
    assert not A[2, :, centre].any()  # none is nearer to the centre than the centre
    assert (A[2, centre] > 0).sum() == (A[1, :, centre] > 0).sum()  # to all its neighbours it is the nearer one


@pytest.mark.parametrize("V", [25, 15])
def test_partitions_are_the_official_ones(V):
    np.testing.assert_allclose(partitions(V).numpy(), REFERENCES[f"stgcn_{V}_adjacency"], atol=1e-7)


def test_other_numbers_of_joints_list_the_known_ones():
    with pytest.raises(ValueError, match="no skeleton of 18 joints.* 25, 20, 15, 17"):
        skeleton(18)


# ------------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("V", [25, 15])
def test_names_shapes_and_outputs_are_the_official_ones(V):
    encoder, wanted = Encoder(Params(), 3, V).eval(), official(V)
    assert [(name, list(value.shape)) for name, value in encoder.state_dict().items()] == list(wanted.items())
    encoder.load_state_dict({name: encoder.A if name == "A" else entry(name, shape) for name, shape in wanted.items()})
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 3, 50, V, 2)).astype(np.float32))
    with torch.inference_mode():
        maps = encoder(x)
    assert maps.shape == (2, 2, 256, 13)
    reference = REFERENCES[f"stgcn_{V}_joints_2x3x50x{V}x2"]
    assert np.linalg.norm(pooled(maps).numpy() - reference) < 1e-5 * np.linalg.norm(reference)


def naive_gcn(x, A, weight, bias):
    """Joint by joint: what each neighbour says through its partition's matrix."""
    K, V, W = A.shape
    D = len(bias) // K
    y = torch.zeros(len(x), D, x.shape[2], W, dtype=x.dtype)
    for w in range(W):
        for k in range(K):
            for v in range(V):
                said = torch.einsum("dc,bct->bdt", weight[k * D : (k + 1) * D, :, 0, 0], x[:, :, :, v])
                y[..., w] += A[k, v, w] * (said + bias[k * D : (k + 1) * D, None])
    return y


def naive_block(block, x, A, stride):
    """One block in eval mode, its convolution over time frame by frame."""

    def bn(module, y):
        return batch_norm(y, module.running_mean, module.running_var, module.weight, module.bias)

    conv, over_time = block.gcn["conv"], block.tcn[2]
    y = bn(block.tcn[0], naive_gcn(x, A * block.edge_importance, conv.weight, conv.bias)).clamp_min(0)
    T, reach = x.shape[2], over_time.weight.shape[2] // 2
    frames = []
    for t in range(0, T, stride):
        near = [(k, t + k - reach) for k in range(2 * reach + 1) if 0 <= t + k - reach < T]
        frames.append(sum(torch.einsum("dc,bcv->bdv", over_time.weight[:, :, k, 0], y[:, :, s]) for k, s in near))
    y = bn(block.tcn[3], torch.stack(frames, 2) + over_time.bias[:, None, None])
    if block.residual is not None and len(block.residual) == 2:
        conv = block.residual[0]
        y = y + bn(block.residual[1], torch.einsum("dc,bctv->bdtv", conv.weight[..., 0, 0], x[:, :, ::stride])
                   + conv.bias[:, None, None])  # fmt: skip
    elif block.residual is not None:
        y = y + x
    return y.clamp_min(0)


@pytest.mark.parametrize(("C", "D", "stride", "residual"), [(3, 4, 1, False), (4, 4, 1, True), (2, 5, 2, True)])
@pytest.mark.parametrize("T", [7, 8])
def test_a_block_equals_loops_over_joints_and_frames(C, D, stride, residual, T):
    torch.manual_seed(0)
    block = Block(C, D, 15, 3, stride, 0.5, residual=residual).double().eval()
    for p in [*block.parameters(), *block.buffers()]:
        if p.is_floating_point():
            p.data.uniform_(0.5, 1.5)
    x, A = torch.randn(2, C, T, 15, dtype=torch.float64), partitions(15).double()
    with torch.no_grad():
        assert torch.allclose(block(x, A), naive_block(block, x, A, stride))


@pytest.mark.parametrize(("C", "D"), [(3, 5), (5, 2)])
def test_the_graph_convolution_equals_loops_and_the_codes_order(C, D):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, C, 4, 15), (3, 15, 15), (3 * D, C, 1, 1), (3 * D,))
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    found = graph_convolution(*given)
    assert torch.allclose(found, naive_gcn(*given))
    assert torch.allclose(found, weights_first(*given))


def test_gradients_of_the_graph_convolution():
    torch.manual_seed(0)
    shapes = ((2, 2, 3, 4), (3, 4, 4), (6, 2, 1, 1), (6,))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(graph_convolution, inputs)


def test_first_weights_are_normal_and_biases_0():
    made = net(ONE, width=16, dim=64)
    convs = torch.cat([p.flatten() for name, p in made.named_parameters() if p.dim() == 4])
    assert convs.std().item() == pytest.approx(0.02, rel=0.05)
    norms = torch.cat([m.weight for m in made.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.01)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(p.any() for name, p in made.named_parameters() if name.endswith("bias"))
    assert all((block.edge_importance == 1).all() for block in made.encoder["B0"].st_gcn_networks)


def test_a_branch_reads_its_feed_and_a_side_has_the_branches_of_its_feeds():
    made = net(TWO).eval()
    source, target = side(TWO, "source"), side(TWO, "target")
    assert made.encode(source).keys() == {"B0"}
    f = made.encode(target)
    assert {branch: tuple(v.shape) for branch, v in f.items()} == {"B0": (6, 6), "B1": (6, 6)}
    moved = made.encode(dataclasses.replace(target, x={**target.x, "own": target.x["own"] + 1}))
    assert torch.equal(moved["B0"], f["B0"])
    assert not torch.equal(moved["B1"], f["B1"])
    assert made.outputs(made.encode(target)).keys() == {"feature_B0", "feature_B1"}
    assert made.classify(f)["label"].shape == (6, 3)
    assert net(ONE).encode(side(ONE, "source")).keys() == {"B0", "B1"}  # one feed: both read it


def test_features_are_means_over_frames_joints_and_bodies_of_each_body_by_itself():
    made, x = net(ONE).eval(), side(ONE, "target").x["shared"][:, 0]
    both = made.maps("B0", x)
    for body in (0, 1):
        assert torch.allclose(made.maps("B0", x[..., [body]])[:, 0], both[:, body], atol=1e-6)
    assert torch.allclose(pooled(both), both.mean(3).mean(1), atol=1e-6)
    assert torch.allclose(pooled(made.maps("B0", x.flip(4))), pooled(both), atol=1e-6)  # their order does not count


def test_rows_do_not_depend_on_their_batch():
    made, x = net(TWO).eval(), side(TWO, "target").x["own"][:, 0]
    together = made.maps("B1", x)
    for row in range(len(x)):
        assert torch.allclose(made.maps("B1", x[[row]])[0], together[row], atol=1e-6)


def test_what_it_cannot_read_is_refused():
    with pytest.raises(ValueError, match="no skeleton of 18 joints"):
        net(spec(18))
    with pytest.raises(ValueError, match="one window of .* feed 'shared' has 2 of"):
        net(dataclasses.replace(ONE, windows={"shared": 2}))
    with pytest.raises(ValueError, match="takes one label kind and one or two feeds"):
        net(dataclasses.replace(ONE, classes={"verb": 3, "noun": 4}))
    with pytest.raises(ValueError, match=r"net.kernel 4 is not odd"):
        net(ONE, kernel=4)
