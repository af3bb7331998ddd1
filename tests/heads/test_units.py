"""Preparation of features: against loops in numpy, and units that neither a large mean nor a small scale spoils."""

import dataclasses

import numpy as np
import pytest
import torch

from heads.testing.problems import CAPTIONED, SPEC, side, without
from heads.units import Prepare

SHAPES = dict(SPEC.shapes)


def sides():
    """A source (domain 0) and a target (domain 1) that is stretched and moved; a source row lacks rgb."""
    source, target = side(SPEC, 12, labelled=True), side(SPEC, 9, labelled=False, seed=1, domain=1)
    target = dataclasses.replace(target, x={m: 3 * x + 5 for m, x in target.x.items()})
    return without(source, "rgb", [2]), target


def prepared(prepare, s):
    return {m: prepare(m, x.clone(), s.present[m], s.domain) for m, x in s.x.items()}


def pooled(s, modality):
    """Means over windows, of the rows that have the modality: numpy (rows, D)."""
    return s.pool(modality)[s.has(modality)].double().numpy()


@pytest.mark.parametrize(("rows", "size"), [("sum", lambda v: np.abs(v).sum()), ("length", np.linalg.norm)])
def test_every_row_has_sum_or_length_one_and_a_row_of_zeros_stays(rows, size):
    source, _ = sides()
    source.x["flow"][3, 1] = 0
    for m, x in prepared(Prepare(rows, "none", SHAPES, 2), source).items():
        for i in range(12):
            for t in range(SPEC.windows[m]):
                was = source.x[m][i, t].numpy()
                assert x[i, t].numpy() == pytest.approx(was / size(was) if was.any() else was, rel=1e-5)


def test_rows_as_they_are_without_units_are_not_touched():
    source, _ = sides()
    for m, x in prepared(Prepare("as-is", "none", SHAPES, 2), source).items():
        assert torch.equal(x, source.x[m])


def test_units_of_the_source_are_its_mean_and_spread_and_hold_for_the_target():
    source, target = sides()
    prepare = Prepare("as-is", "source", SHAPES, 2)
    prepare.measure([source], iter(lambda: pytest.fail("the target must not be read"), None))
    assert not prepared(prepare, source)["rgb"][2].any()  # absent windows stay 0
    for m, x in prepared(prepare, target).items():
        mean = pooled(source, m).mean(0)
        windows = ((source.x[m].double().numpy() - mean) ** 2).mean(1)[source.has(m).numpy()]
        expected = (target.x[m].numpy() - mean) / np.sqrt(windows.mean(0))
        assert x.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_units_by_domain_leave_no_shift_and_a_domain_outside_has_its_own():
    source, target = sides()
    other = side(SPEC, 10, labelled=False, seed=4, domain=-1)
    other = dataclasses.replace(other, x={m: 100 * x - 70 for m, x in other.x.items()})
    prepare = Prepare("as-is", "domain", SHAPES, 2)
    prepare.measure([source], [target], [other])
    for s in (source, target, other):
        for m, x in prepared(prepare, s).items():
            windows = x[s.has(m)].flatten(0, 1)
            assert windows.mean(0).abs().max() < 1e-4
            assert (windows.var(0, correction=0) - 1).abs().max() < 1e-3


def test_units_are_those_of_rows_at_unit_sum():
    source, target = sides()
    prepare = Prepare("sum", "source", SHAPES, 2)
    prepare.measure([source], [target])
    windows = prepared(prepare, source)["flow"].flatten(0, 1)
    assert windows.mean(0).abs().max() < 1e-4
    assert (windows.var(0, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize(("mean", "spread"), [(1e4, 0.05), (0.0, 1e-9), (-3e-7, 1e-9), (195.0, 1e-3)])
def test_a_large_mean_or_a_small_unit_hides_no_spread(mean, spread):
    source = side(SPEC, 200, labelled=True)
    x = {m: (mean + spread * x.double()).float() for m, x in source.x.items()}
    prepare = Prepare("as-is", "source", SHAPES, 1)
    prepare.measure([dataclasses.replace(source, x=x)], [])
    seen = prepared(prepare, dataclasses.replace(source, x=x))["rgb"]
    assert seen.std().item() == pytest.approx(1, rel=0.05)


def test_a_constant_entry_becomes_zero():
    source, target = sides()
    source.x["flow"][..., 1] = 195.3
    prepare = Prepare("as-is", "source", SHAPES, 1)
    prepare.measure([source], [target])
    assert prepared(prepare, source)["flow"][..., 1].abs().max() < 1e-3


@pytest.mark.parametrize("units", ["source", "domain"])
def test_a_modality_that_the_source_lacks_has_the_units_of_the_target(units):
    source, target = sides()
    source = dataclasses.replace(source, x={"rgb": source.x["rgb"]}, present={"rgb": source.present["rgb"]})
    prepare = Prepare("as-is", units, SHAPES, 2)
    prepare.measure([source], [target])
    assert prepared(prepare, target)["flow"].flatten(0, 1).mean(0).abs().max() < 1e-4


@pytest.mark.parametrize("units", ["source", "domain"])
def test_rows_that_all_lack_a_modality_give_it_no_units(units):
    """As in a feed with `absent="mask"`: the side has the modality, and none of its rows does."""
    source, target = sides()
    target.x["flow"][:] = 1e4 + target.x["flow"] / 20  # no spread is hidden, although the first rows have none
    outside = without(side(SPEC, 9, labelled=False, seed=4, domain=-1), "flow", range(9))
    prepare = Prepare("as-is", units, SHAPES, 2)
    prepare.measure([without(source, "flow", range(12))], [target], [outside] if units == "domain" else [])
    for domain in (1, -1):
        x = prepared(prepare, dataclasses.replace(target, domain=torch.full((9,), domain)))["flow"].flatten(0, 1)
        assert x.mean(0).abs().max() < 1e-2
        assert (x.var(0, correction=0) - 1).abs().max() < 1e-2


def test_captions_have_the_units_of_the_source_whatever_the_domain():
    source = side(CAPTIONED, 12, labelled=True)
    prepare = Prepare("as-is", "domain", dict(CAPTIONED.shapes), 2, CAPTIONED.captions)
    prepare.measure([source], [side(CAPTIONED, 9, labelled=False, seed=1, domain=1)])
    one, other = (prepared(prepare, dataclasses.replace(source, domain=torch.full((12,), d))) for d in (0, -1))
    assert torch.equal(one["words"], other["words"])
    assert not torch.allclose(one["object"], other["object"])


def test_units_are_saved_and_unmeasured_ones_are_refused():
    source, target = sides()
    prepare, other = (Prepare("as-is", "domain", SHAPES, 2) for _ in range(2))
    prepare.measure([source], [target])
    with pytest.raises(RuntimeError, match="not measured"):
        prepared(other, target)
    other.load_state_dict(prepare.state_dict())
    assert torch.equal(prepared(prepare, target)["rgb"], prepared(other, target)["rgb"])
