"""Weights in every published layout fit our networks; those that do not are refused with the name that does not fit."""

import functools

import pytest
import torch
from torch import nn

from featcache.backbones import layouts
from featcache.backbones.i3d import I3D
from featcache.errors import WeightsError
from tests.helpers.backbones import (
    NETS,
    assert_same,
    filled,
    hassony2,
    module_wrapped,
    old_tsn,
    on_meta,
    places365,
    tbn,
    untouched,
    used,
    weights,
)

LAYOUTS = [
    ("i3d", "i3d", 3, untouched),
    ("i3d", "i3d", 3, hassony2),
    ("i3d", "i3d", 2, hassony2),
    ("i3d", "i3d", 3, module_wrapped),
    ("bninception", "tbn-rgb", 3, untouched),
    ("bninception", "tbn-rgb", 3, functools.partial(tbn, "rgb")),
    ("bninception", "tbn-flow", 10, functools.partial(tbn, "flow")),
    ("bninception", "tbn-audio", 1, functools.partial(tbn, "spec")),
    ("bninception", "tbn-flow", 10, old_tsn),
    pytest.param("resnext101", "resnext101", 3, untouched, marks=pytest.mark.slow),
    ("densenet161", "densenet161", 3, untouched),
    ("densenet161", "densenet161", 3, places365),
    pytest.param("r2plus1d-34", "r2plus1d-34", 3, untouched, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    ("net", "layout", "channels", "publish"),
    LAYOUTS,
    ids=lambda value: getattr(value, "__name__", None) or (value.func.__name__ if callable(value) else str(value)),
)
def test_every_published_layout_becomes_ours(net, layout, channels, publish):
    official = weights(net, channels)
    found = layouts.convert(publish(official), layout)
    wanted = used(net, channels)
    if publish is old_tsn:
        wanted = {name: value for name, value in wanted.items() if value.dim()}
    assert_same(found, wanted)
    make = NETS[net].make
    module = filled(make if channels == 3 else lambda: make(channels), found)
    state = module.state_dict()
    assert_same({name: state[name] for name in wanted}, wanted)


@pytest.mark.parametrize(("layout", "channels"), [("tbn-rgb", 3), ("tbn-flow", 10), ("tbn-audio", 1)])
def test_weights_of_imagenet_fit_every_stream_of_bninception(layout, channels):
    """TSN's rule: the first kernels are averaged over the colours, so a picture of equal colours gives the same sum."""
    official = weights("bninception")
    published = {name.replace("fc.", "last_linear."): value for name, value in official.items()}
    found = layouts.convert(published, layout)
    first = "conv1_7x7_s2.weight"
    assert_same({name: value for name, value in found.items() if name != first}, without_first(used("bninception")))
    assert found[first].shape == (64, channels, 7, 7)
    if channels == 3:
        assert torch.equal(found[first], official[first])
    else:
        for channel in range(channels):
            torch.testing.assert_close(found[first][:, channel], official[first].mean(1))
    filled(lambda: NETS["bninception"].make(channels), found)


@pytest.mark.parametrize("layout", ["tbn-flow", "tbn-audio"])
@pytest.mark.parametrize("classifier", ["new_fc.", "fc_action.", "base_model.fc."])
def test_an_rgb_stream_is_not_averaged_for_another_stream(layout, classifier):
    official = weights("bninception")
    stream = {name.replace("fc.", classifier): value for name, value in official.items()}
    first = "conv1_7x7_s2.weight"
    found = layouts.convert(stream, layout)
    assert torch.equal(found[first], official[first])
    with pytest.raises(WeightsError, match=first):
        filled(lambda: NETS["bninception"].make(layouts.LAYOUTS[layout].channels), found)


def without_first(state):
    return {name: value for name, value in state.items() if name != "conv1_7x7_s2.weight"}


def test_layouts_under_test_are_all_that_there_are():
    assert {getattr(case, "values", case)[1] for case in LAYOUTS} == layouts.LAYOUTS.keys()  # slow ones are params


def test_a_stream_that_the_file_lacks_is_named():
    state = {f"module.rgb.{key}": value for key, value in weights("bninception").items()}
    with pytest.raises(WeightsError, match="lack the stream spec; .* rgb;"):
        layouts.convert(state, "tbn-audio")


def test_two_entries_for_one_name_are_refused():
    state = weights("i3d") | hassony2(weights("i3d"))
    with pytest.raises(WeightsError, match=r"both Conv3d_1a_7x7.conv3d.weight and conv3d_1a_7x7.conv3d.weight .*one"):
        layouts.convert(state, "i3d")


def small():
    return nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3))


def small_weights(**changes):
    state = {key: torch.full_like(value, 0.5) for key, value in small().state_dict().items() if value.dim()}
    return {key: value for key, value in (state | changes).items() if value is not None}


def test_a_network_filled_is_the_network_of_the_file():
    state = small_weights()
    for module in (small(), on_meta(small)):
        layouts.fill(module, state, "the file")
        assert_same(module.state_dict(), {**state, "1.num_batches_tracked": torch.tensor(0)})
        assert list(module.state_dict()) == list(small().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_precision_is_the_networks(dtype):
    module = small()
    layouts.fill(module, {key: value.to(dtype) for key, value in small_weights().items()}, "the file")
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32, torch.int64}
    assert_same({key: module.state_dict()[key] for key in small_weights()}, small_weights())


BAD = [
    ({"0.weight": None}, r"the file .* Sequential: missing.* 1 of 6, first 0.weight$"),
    ({"0.bias": torch.zeros(3)}, r"the file .* Sequential: unknown.* 1, first 0.bias$"),
    ({"0.weight": None, "1.bias": None, "a.b": torch.zeros(1)}, r"missing.* 2 of 6, .* unknown.* 1, first a.b$"),
    ({"0.weight": torch.zeros(3, 10, 1, 1)}, r"0.weight has the shape \(3, 10, 1, 1\), not \(3, 2, 1, 1\)"),
    ({"1.running_var": torch.zeros(1, 3)}, r"1.running_var has the shape \(1, 3\), not \(3,\)"),
    ({"1.bias": torch.zeros(3, dtype=torch.int8)}, r"1.bias is torch.int8, not torch.float32"),
    ({"1.bias": [0.0, 0.0, 0.0]}, r"1.bias is a list, not a tensor"),
    ({"1.running_mean": torch.tensor([0, torch.nan, 0])}, r"1.running_mean has values that are not finite"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[",".join(changes) for changes, _ in BAD])
def test_what_does_not_fit_is_named_and_nothing_is_loaded(changes, message):
    module = small()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        layouts.fill(module, small_weights(**changes), "the file")
    assert_same(module.state_dict(), before)


@pytest.mark.parametrize("net", NETS)
def test_weights_of_another_network_are_refused(net):
    make, layout, _ = NETS[net]
    other = next(key for key in NETS if key != net)
    with pytest.raises(WeightsError, match=r"missing.* \d+ of \d+, first .*; unknown.* \d+, first "):
        layouts.fill(on_meta(make), layouts.convert(weights(other), layout), "the file")


def test_flow_weights_for_an_rgb_network_are_refused():
    with pytest.raises(
        WeightsError, match=r"Conv3d_1a_7x7.conv3d.weight has the shape \(64, 2, 7, 7, 7\), not \(64, 3, 7"
    ):
        filled(I3D, used("i3d", 2))
