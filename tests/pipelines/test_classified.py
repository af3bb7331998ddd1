"""The features that a run looks at are those that its method classifies, in the windows in which it classifies them."""

import dataclasses

import numpy as np
import pytest
import torch

from heads.batch import Side
from heads.methods import adabn, cia, nearest_mean, source_only
from heads.nets import adapter
from heads.testing.problems import EK, SPEC
from heads.testing.problems import side as drawn
from pipelines.config import Feed
from pipelines.data.rows import Rows
from pipelines.evaluation.evaluate import norms
from pipelines.measures.accuracy import coefficient_of_variation
from pipelines.training.outputs import clip_features, collapsed, feature_norms, features

EACH = {"rgb": Feed("i3d-rgb", test="each"), "flow": Feed("i3d-flow", test="each"), "audio": Feed("tbn-audio")}
T = {"rgb": 4, "flow": 4, "audio": 3}


def rows_of(side, feeds):
    return Rows(side.index.tolist(), side.x, side.present, {}, side.domain, {m: feeds[m] for m in side.x})


def gappy(seed=0):
    """Rows with gaps: single windows, a modality, and both feeds of separate windows at once; and their Rows."""
    spec = dataclasses.replace(EK, windows=T)
    whole, present = drawn(spec, rows=7, labelled=False, seed=seed), {}
    for k, m in enumerate(whole.x):
        mask = torch.rand(7, T[m], generator=torch.Generator().manual_seed(k + seed)) < 0.6
        mask[k + 1] = False  # lacks the modality
        mask[0] = m == "audio"  # has the whole modality only
        mask[5] = torch.arange(T[m]) == k  # single windows, in other places
        present[m] = mask
    x = {m: x * present[m].reshape(*present[m].shape, *[1] * (x.dim() - 2)) for m, x in whole.x.items()}
    side = dataclasses.replace(whole, x=x, present=present, y={})
    return spec, side, rows_of(side, EACH)


def one(side, i, k):
    """Row i as it is classified with the k-th of its separate windows."""
    cut = {m: slice(k, k + 1) if EACH[m].test == "each" else slice(None) for m in side.x}
    x, present = ({m: value[i : i + 1, cut[m]] for m, value in of.items()} for of in (side.x, side.present))
    return Side(x, present, {}, side.domain[i : i + 1], side.index[i : i + 1])


def method_of(module, spec, **changes):
    torch.manual_seed(1)
    net = adapter.Adapter(adapter.Params(dim=9), spec)
    return module.METHOD(dataclasses.replace(module.Params(), **changes), spec, net)


@pytest.mark.parametrize("module", [source_only, cia])
def test_norms_and_features_are_means_over_the_windows_that_are_classified(module):
    """Against a loop over single rows and windows; in cia a modality's feature depends on the windows of others."""
    spec, side, rows = gappy()
    method = method_of(module, spec)
    found, by_label = clip_features(method, rows), feature_norms(method, rows)
    method.eval()
    norms_of = {}
    for m in side.x:
        mine = side.present[m] if m != "audio" else side.present["rgb"] | side.present["flow"]
        for i in range(7):
            windows = [k for k in range(4) if mine[i, k]] or range(4)
            with torch.no_grad():
                f = [method.features(one(side, i, k))[m][0] for k in windows]
            assert torch.allclose(found[m][i], sum(f) / len(f), atol=1e-6)
            for label, part in method.parts.items():
                if side.present[m][i].any():
                    norms_of.setdefault((label, m), []).append(sum(v[part].norm().item() for v in f) / len(f))
    assert by_label.keys() == norms_of.keys()
    for cell, values in norms_of.items():
        assert len(values) == (6 if cell[1] == "audio" else 5)
        assert by_label[cell] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_norms_of_separate_windows_are_not_those_of_their_mean():
    spec, side, rows = gappy(seed=3)
    method = method_of(source_only, spec)
    of_mean = feature_norms(method, dataclasses.replace(rows, feeds={m: Feed(m) for m in side.x}))
    apart = feature_norms(method, rows)
    assert all(apart["verb", m] > 1.05 * of_mean["verb", m] for m in ("rgb", "flow"))
    assert apart["verb", "audio"] == pytest.approx(of_mean["verb", "audio"])
    assert features(method, {"target": rows})["target"].shape == (7, 27)


def shifted(scales=((30.0, 3.0), (0.1, 10.0)), rows=400):
    """A spec and two sides in which rgb and flow have another mean and spread in each domain."""
    spec = dataclasses.replace(SPEC, shapes={"rgb": (16,), "flow": (16,)}, windows={"rgb": 1, "flow": 1})
    sides = {}
    for d, (name, scale) in enumerate(zip(("source", "target"), scales, strict=True)):
        rng = np.random.default_rng(d)
        x = {
            m: torch.from_numpy(s * (5 + rng.standard_normal((rows, 1, 16)))).float()
            for m, s in zip(spec.shapes, scale, strict=True)
        }
        present = {m: torch.ones(rows, 1, dtype=torch.bool) for m in x}
        y = {} if d else {"label": torch.arange(rows) % 4}
        sides[name] = Side(x, present, y, torch.full((rows,), d), torch.arange(rows))
    return dataclasses.replace(spec, rows={"source": rows, "target": rows}), sides


@dataclasses.dataclass(frozen=True)
class Config:
    source: tuple = ("a",)
    absent: str = "refuse"


@dataclasses.dataclass(frozen=True)
class Opened:
    """The parts of an `Opened` that `norms` reads."""

    rows: dict
    config: Config = Config()

    def test_rows(self, *domains):
        return self.rows["source"].rows

    def test(self, *domains):
        return self.rows["source" if domains else "target"]


def measured(module, scales=((30.0, 3.0), (0.1, 10.0)), **changes):
    """Norms of a method that has read the sides of the shift, the method, its sides and their Rows."""
    spec, sides = shifted(scales)
    method = method_of(module, spec, **changes)
    with torch.no_grad():
        method.begin_epoch(0, lambda name: iter([sides[name]]))
    rows = {name: rows_of(side, {m: Feed(m) for m in side.x}) for name, side in sides.items()}
    return norms(method, Opened(rows)), method, sides, rows


def test_norms_of_adabn_are_those_of_the_normalised_features():
    """What enters the net has variance 1 in both modalities and domains, so norms are nearly equal."""
    raw, *_ = measured(source_only)
    values, method, sides, _ = measured(adabn)
    assert raw["cv_st"] > 0.7
    assert values["cv_st"] < 0.1
    for name, side in sides.items():
        for m in side.x:
            x_BI = method.normalise(side).x[m][:, 0]
            assert torch.allclose(x_BI.std(0, correction=0), torch.ones(16), atol=1e-4)
            norm = method.net.F[m](x_BI).clamp_min(0).norm(dim=1).mean().item()
            assert values[f"norm/{name}/{m}"] == pytest.approx(norm, rel=1e-4)
    cv = coefficient_of_variation([values[f"norm/source/{m}"] for m in ("rgb", "flow")])
    assert values["cv_s"] == pytest.approx(cv)


def test_norms_of_a_fitted_classifier_are_those_of_the_rows_it_reads():
    """Standardised by domain, 16 entries have mean square 1; the net, which predicts nothing, is not looked at."""
    values, method, sides, rows = measured(nearest_mean, standardise="domain")
    for name, side in sides.items():
        x = {m: x[:, 0] for m, x in side.x.items()}
        for m in x:
            standardised = (x[m] - x[m].mean(0)) / x[m].std(0, correction=0)
            assert values[f"norm/{name}/{m}"] == pytest.approx(standardised.norm(dim=1).mean().item(), rel=1e-4)
    f = features(method, rows)
    assert f["target"].shape == (400, 32)
    assert torch.allclose(f["target"].mean(0), torch.zeros(32), atol=1e-4)


def test_collapse_is_that_of_the_features_that_are_classified():
    """The net of source-only sees entries of 1e-5 and its features vanish; AdaBN's net sees them with variance 1."""
    for module, expected in ((source_only, ["rgb"]), (adabn, [])):
        _, method, _, rows = measured(module, scales=((1e-5, 1.0), (1e-5, 1.0)))
        with torch.no_grad():
            method.net.F["rgb"].bias.zero_()
        assert collapsed(method, rows.values()) == expected, module
