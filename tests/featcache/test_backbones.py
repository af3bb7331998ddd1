"""The networks compute what the official definitions compute, and say which inputs they take."""

import functools
import re

import numpy as np
import pytest
import torch
from torch import nn

from featcache.backbones import layouts
from featcache.backbones.bninception import BNInception
from featcache.backbones.densenet import DenseNet161
from featcache.backbones.i3d import I3D, MaxPool, Unit
from featcache.backbones.r2plus1d import R2Plus1D34
from featcache.backbones.resnext import ResNeXt101
from tests.helpers.backbones import (
    FIRST,
    NETS,
    OFFICIAL,
    REFERENCES,
    filled,
    hassony2,
    on_meta,
    places365,
    tbn,
    untouched,
    weights,
)


@pytest.mark.parametrize("net", NETS)
def test_names_and_shapes_are_the_official_ones_in_their_order(net):
    make, _, left_out = NETS[net]
    ours = {name: list(value.shape) for name, value in on_meta(make).state_dict().items()}
    assert left_out <= OFFICIAL[net].keys()
    assert list(ours.items()) == [(name, shape) for name, shape in OFFICIAL[net].items() if name not in left_out]


@pytest.mark.parametrize(("make", "net", "channels"), [(I3D, "i3d", 2), (BNInception, "bninception", 10)])
def test_other_modalities_differ_in_the_first_convolution_only(make, net, channels):
    ours = {name: list(value.shape) for name, value in on_meta(lambda: make(channels)).state_dict().items()}
    rgb = {name: OFFICIAL[net][name] for name in ours}
    assert {name for name in ours if ours[name] != rgb[name]} == {FIRST[net]}
    assert ours[FIRST[net]] == [64, channels, *rgb[FIRST[net]][2:]]


def test_the_wide_resnext_has_the_names_of_the_narrow_one_and_six_times_its_groups_width():
    narrow, wide = on_meta(ResNeXt101).state_dict(), on_meta(lambda: ResNeXt101(48)).state_dict()
    assert list(narrow) == list(wide)
    assert narrow["layer4.2.conv2.weight"].shape == (2048, 64, 3, 3)
    assert wide["layer4.2.conv2.weight"].shape == (12288, 384, 3, 3)
    assert sum(value.numel() for name, value in wide.items() if "running" not in name) == pytest.approx(827e6, rel=0.01)


# Through the layouts in which the files are published, where there are others than ours.
PUBLISHED = {"i3d_flow": hassony2, "bninception": functools.partial(tbn, "rgb"), "densenet161": places365}


#: the fast suite runs one net of pictures from each family, and the one of video that takes the least time
FAST = ("bninception", "densenet161", "i3d_flow")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.startswith(FAST) else pytest.mark.slow) for name in REFERENCES.files],
)
def test_reference_outputs(name):
    net = next(key for key in NETS if name.startswith(key.replace("-", "_")))
    shape = [int(size) for size in re.search(r"_(\d+x\d+x\d+x\d+(?:x\d+)?)", name)[1].split("x")]
    publish = next((PUBLISHED[key] for key in PUBLISHED if name.startswith(key)), untouched)
    make = NETS[net].make if shape[1] == 3 else functools.partial(NETS[net].make, shape[1])
    module = filled(make, layouts.convert(publish(weights(net, shape[1])), NETS[net].layout))
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
    rows = slice(-1, None)  # the last one: rows of video take seconds
    with torch.inference_mode():
        ours = module(x[rows]).numpy().astype(np.float64)
    reference = REFERENCES[name][rows].astype(np.float64)
    assert ours.shape == reference.shape
    sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(reference, axis=1)
    assert ((ours * reference).sum(1) / sizes > 0.99999).all()
    assert np.linalg.norm(ours - reference) < 1e-4 * np.linalg.norm(reference)


SHAPES = [
    (I3D, [(3, 9, 193, 193), (3, 16, 224, 224), (3, 17, 225, 223), (3, 64, 256, 340)], 1024),
    (lambda: I3D(2), [(2, 16, 224, 224), (2, 11, 199, 231)], 1024),
    (BNInception, [(3, size, size) for size in (31, 38, 63, 223, 224, 230, 255, 256)] + [(3, 224, 320)], 1024),
    (lambda: BNInception(10), [(10, 224, 224)], 1024),
    (lambda: BNInception(1), [(1, 256, 256), (1, 256, 70)], 1024),
    (ResNeXt101, [(3, 1, 1), (3, 33, 65), (3, 224, 224)], 2048),
    (lambda: ResNeXt101(48), [(3, 224, 224)], 2048),
    (DenseNet161, [(3, 29, 29), (3, 224, 224), (3, 61, 99)], 2208),
    (R2Plus1D34, [(3, 1, 1, 1), (3, 8, 112, 112), (3, 32, 112, 112), (3, 7, 111, 129)], 512),
]


@pytest.mark.parametrize(("make", "sizes", "width"), SHAPES)
def test_every_supported_size_gives_one_row_per_input(make, sizes, width):
    module = on_meta(make)
    for size in sizes:
        assert module(torch.empty(2, *size, device="meta")).shape == (2, width)


def test_i3d_pools_to_one_vector_per_eight_frames_but_the_last():
    module = on_meta(I3D)
    for frames, vectors in ((9, 1), (16, 1), (17, 2), (24, 2), (25, 3), (64, 7)):
        assert module.pooled(torch.empty(2, 3, frames, 224, 224, device="meta")).shape == (2, 1024, vectors)


REFUSED = [
    (I3D, (1, 3, 8, 224, 224), "I3D needs at least 9 x 193 x 193, not 8 x 224 x 224"),
    (I3D, (1, 3, 16, 192, 224), "not 16 x 192 x 224"),
    (I3D, (1, 3, 16, 224, 192), "not 16 x 224 x 192"),
    (I3D, (1, 2, 16, 224, 224), r"I3D takes \(B, 3, T, H, W\), not \(1, 2, 16, 224, 224\)"),
    (I3D, (3, 16, 224, 224), r"I3D takes \(B, 3, T, H, W\), not \(3, 16, 224, 224\)"),
    (BNInception, (1, 3, 30, 224), "BNInception needs at least 31 x 31, not 30 x 224"),
    (BNInception, (1, 3, 39, 224), "BNInception takes sizes of 32m - 1 to 32m \\+ 6, .* not 39 x 224"),
    (BNInception, (1, 3, 224, 222), "not 224 x 222"),
    (BNInception, (1, 3, 231, 224), "not 231 x 224"),
    (BNInception, (1, 10, 224, 224), r"BNInception takes \(B, 3, H, W\), not \(1, 10, 224, 224\)"),
    (ResNeXt101, (1, 1, 224, 224), r"ResNeXt101 takes \(B, 3, H, W\)"),
    (ResNeXt101, (1, 3, 0, 224), "ResNeXt101 needs at least 1 x 1, not 0 x 224"),
    (DenseNet161, (1, 3, 29, 28), "DenseNet161 needs at least 29 x 29, not 29 x 28"),
    (R2Plus1D34, (1, 3, 112, 112), r"R2Plus1D34 takes \(B, 3, T, H, W\), not \(1, 3, 112, 112\)"),
    (R2Plus1D34, (1, 3, 0, 112, 112), "R2Plus1D34 needs at least 1 x 1 x 1, not 0 x 112 x 112"),
]


@pytest.mark.parametrize(("make", "shape", "message"), REFUSED)
def test_other_inputs_are_refused(make, shape, message):
    with pytest.raises(ValueError, match=message):
        on_meta(make)(torch.empty(shape, device="meta"))


def test_sizes_that_bninception_refuses_would_break_it():
    """Blocks 3c and 4e join maps of equal size at 32m - 1 to 32m + 6 only."""

    def halved(size, pool_only):
        return -(-(size - 1) // 2) if pool_only else -(-size // 2)  # 3 x 3 by 2: unpadded and up, or padded by 1

    def fits(size):
        size = halved(halved(halved(size, False), True), True)  # conv1, pool1, pool2
        for _ in ("3c", "4e"):
            if size < 1 or halved(size, True) != halved(size, False):
                return False
            size = halved(size, False)
        return True

    assert [size for size in range(300) if fits(size)] == [size for size in range(31, 300) if (size + 1) % 32 < 8]


# TensorFlow's "same" padding, by loops


def naive_windows(x, kernel, stride, fill):
    """Every output's index and the numbers under its kernel, after TensorFlow's definition of "same" padding."""
    out = [-(-size // s) for size, s in zip(x.shape, stride, strict=True)]
    total = [max((n - 1) * s + k - size, 0) for n, s, k, size in zip(out, stride, kernel, x.shape, strict=True)]
    padded = np.pad(x, [(pad // 2, pad - pad // 2) for pad in total], constant_values=fill)
    for index in np.ndindex(*out):
        corner = [i * s for i, s in zip(index, stride, strict=True)]
        yield index, padded[tuple(slice(c, c + k) for c, k in zip(corner, kernel, strict=True))]


SIZES = [(5, 7, 9), (4, 6, 8), (1, 2, 3), (3, 8, 5), (2, 1, 1)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1), (3, 2), (2, 2)])
def test_convolutions_are_padded_as_in_tensorflow(size, kernel, stride):
    torch.manual_seed(0)
    unit = Unit(2, 3, kernel, stride).eval()
    nn.init.uniform_(unit.bn.running_mean, -1, 1)
    nn.init.uniform_(unit.bn.running_var, 0, 0.01)  # small enough for the epsilon to matter
    nn.init.uniform_(unit.bn.weight)
    nn.init.uniform_(unit.bn.bias)
    x = np.random.default_rng(0).standard_normal((2, *size))
    w, bn = (
        unit.conv3d.weight.detach().double().numpy(),
        {k: v.double().numpy() for k, v in unit.bn.state_dict().items()},
    )
    wanted = np.zeros((3, *(-(-n // stride) for n in size)))
    for channel in range(2):
        for index, window in naive_windows(x[channel], (kernel,) * 3, (stride,) * 3, 0):
            wanted[:, *index] += (w[:, channel] * window).sum((1, 2, 3))
    scale = (bn["weight"] / np.sqrt(bn["running_var"] + 1e-3))[:, None, None, None]
    wanted = (wanted - bn["running_mean"][:, None, None, None]) * scale + bn["bias"][:, None, None, None]
    with torch.inference_mode():
        found = unit.double()(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(found, np.maximum(wanted, 0), atol=1e-9)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
def test_maxima_are_padded_as_in_tensorflow(size, kernel, stride):
    x = np.random.default_rng(0).uniform(0, 1, size).astype(np.float32)
    found = MaxPool(kernel, stride)(torch.from_numpy(x)[None, None])[0, 0].numpy()
    wanted = np.zeros_like(found)
    for index, window in naive_windows(x, kernel, stride, -np.inf):
        wanted[index] = window.max()
    np.testing.assert_array_equal(found, wanted)
