"""The generated shifts: each does what its name says, exactly, and nothing else."""

import re
from copy import deepcopy

import numpy as np
import pytest

from featcache import FeatureStore, Manifest, builders
from featcache.builders import shifts
from featcache.builders.shifts import APART, AXES, SHIFTS, D, Domain, K, T, draw, rotation
from featcache.errors import FeatcacheError
from featcache.importing import import_features
from tests.conftest import ROOT

CARD = (ROOT / "data_manifests" / "shifts.md").read_text()
POOLED = np.sqrt(1 + 1 / 4 / T)  # std of an entry of a clip's mean over windows, given its class


@pytest.fixture
def clips():
    """Twenty clips before any shift."""
    rng = np.random.default_rng(0)
    x = {m: rng.standard_normal((20, T, D)) for m in APART}
    return Domain(np.arange(20) % K, x, {m: np.ones(20, bool) for m in APART})


def shifted(clips, name):
    after = deepcopy(clips)
    SHIFTS[name](after)
    return after


def moved(clips, name):
    """Modality -> by how much each clip has moved (N, D); the same in all of its windows."""
    after = shifted(clips, name)
    by = {m: after.x[m] - clips.x[m] for m in APART}
    assert all(np.allclose(by_NTD, by_NTD[:, :1]) for by_NTD in by.values())
    return {m: by_NTD[:, 0] for m, by_NTD in by.items()}


def latent(domain, split):
    """Modality -> rotated back, mean over windows (N, D); and the clips."""
    drawn = draw(domain, split)
    return {m: drawn.x[m].mean(1) @ rotation(m) for m in APART}, drawn


# The shifts


def test_none_changes_nothing(clips):
    after = shifted(clips, "none")
    assert all(np.array_equal(after.x[m], clips.x[m]) and after.has[m].all() for m in APART)
    assert np.array_equal(after.y, clips.y)


def test_mean_moves_all_clips_alike(clips):
    for m, by_ND in moved(clips, "mean").items():
        assert np.allclose(by_ND, by_ND[0])
        assert np.linalg.norm(by_ND[0]) == pytest.approx(0.75 * APART[m] * 2**0.5)


def test_covariance_stretches_what_says_nothing_about_classes(clips):
    after = shifted(clips, "covariance")
    for m in APART:
        assert np.array_equal(after.x[m][..., :K], clips.x[m][..., :K])
        assert np.allclose(after.x[m][..., K:], 5 * clips.x[m][..., K:])


def test_norm_lengthens_the_weaker_modality_alone(clips):
    after = shifted(clips, "norm")
    assert APART["flow"] < APART["rgb"]
    assert np.allclose(np.linalg.norm(after.x["flow"], axis=-1), 10 * np.linalg.norm(clips.x["flow"], axis=-1))
    assert np.array_equal(after.x["rgb"], clips.x["rgb"])


def test_cluster_moves_each_class_by_itself(clips):
    for m, by_ND in moved(clips, "cluster").items():
        centres_KD = np.array([by_ND[clips.y == k][0] for k in range(K)]) + APART[m] * AXES[:K]
        assert np.allclose(by_ND, by_ND[clips.y % K])  # by class, and by nothing else
        assert np.allclose(centres_KD, 0.45 * APART[m] * AXES[:K] + 2.5 * AXES[K : 2 * K])


def test_missing_takes_the_stronger_modality_from_seven_of_ten(clips):
    after = shifted(clips, "missing")
    assert after.has["rgb"].sum() == 6
    assert after.has["flow"].all()
    assert np.array_equal(after.x["rgb"], clips.x["rgb"])
    assert np.array_equal(after.x["flow"], shifted(clips, "cluster").x["flow"])


def test_swapped_changes_labels_alone(clips):
    after = shifted(clips, "swapped")
    assert all(np.array_equal(after.x[m], clips.x[m]) for m in APART)
    assert set(zip(clips.y.tolist(), after.y.tolist(), strict=True)) == {(0, 1), (1, 0), (2, 2), (3, 3), (4, 4)}


# What is drawn


@pytest.mark.parametrize("domain", ["source", "none", "swapped"])
def test_classes_lie_where_the_docstring_says(domain):
    """Within four standard errors of a class mean, and of a variance."""
    x, drawn = latent(domain, "train")
    y = np.where(drawn.y < 2, 1 - drawn.y, drawn.y) if domain == "swapped" else drawn.y
    assert np.bincount(y).tolist() == [40] * K
    for m, s in APART.items():
        means_KD = np.array([x[m][y == k].mean(0) for k in range(K)])
        assert np.abs(means_KD - s * AXES[:K]).max() < 4 * POOLED / 40**0.5
        spread_D = (x[m] - means_KD[y]).var(0) * 200 / (200 - K)
        assert np.abs(spread_D / POOLED**2 - 1).max() < 4 * (2 / 200) ** 0.5


@pytest.mark.parametrize("m", APART)
def test_the_rotation_is_one_and_belongs_to_the_modality(m):
    Q = rotation(m)
    assert np.allclose(Q.T @ Q, np.eye(D))
    assert not np.allclose(rotation("rgb"), rotation("flow"))
    assert not np.allclose(Q, rotation(m, seed=1))


def test_domains_and_splits_share_no_clip_and_another_seed_gives_others():
    same, again = draw("mean", "test"), draw("mean", "test")
    assert np.array_equal(same.x["rgb"], again.x["rgb"])
    assert np.array_equal(same.y, again.y)
    first = [draw(d, s, seed).x["rgb"][0, 0] for d in ("source", *SHIFTS) for s in shifts.ROWS for seed in (0, 1)]
    assert len(np.unique(np.round(first, 6), axis=0)) == len(first)


def oracle(domain):
    """Share of test clips whose class is found by who knows the shift: the nearest centre, in units of the noise."""
    x, drawn = latent(domain, "test")
    distance_NK = np.zeros((len(drawn.y), K))
    for m, s in APART.items():
        centres_KD, scale = s * AXES[:K], 1.0
        if domain == "cluster" or (domain, m) == ("missing", "flow"):
            centres_KD = 0.45 * centres_KD + 2.5 * AXES[K : 2 * K]
        if domain == "mean":
            centres_KD = centres_KD + 0.75 * s * (AXES[0] - AXES[K - 1])
        if (domain, m) == ("norm", "flow"):
            scale = 10.0
        if domain == "swapped":
            centres_KD = centres_KD[[1, 0, 2, 3, 4]]
        there_D = np.arange(D) < (K if domain == "covariance" else D)
        apart_NKD = (x[m][:, None] / scale - centres_KD) * there_D
        distance_NK += (apart_NKD**2).sum(2) * drawn.has[m][:, None]
    return (distance_NK.argmin(1) == drawn.y).mean()


@pytest.mark.parametrize("domain", SHIFTS)
def test_the_card_says_what_an_oracle_reaches(domain, monkeypatch):
    monkeypatch.setattr(shifts, "ROWS", {"test": 5000})
    (said,) = re.findall(rf"^\| `{domain}` .*\| (\d+) \|$", CARD, re.MULTILINE)
    assert 100 * oracle(domain) == pytest.approx(float(said), abs=1)


# The files


def test_build_writes_a_manifest_and_features_that_import_joins(tmp_path, monkeypatch):
    monkeypatch.setattr(shifts, "ROWS", {"train": 10, "test": 20})
    seen = []
    manifest = builders.load("shifts").build(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert manifest == Manifest.read(tmp_path / "shifts.csv")
    assert manifest.domains == tuple(sorted(["source", *SHIFTS]))
    assert len(manifest) == 10 + 30 * len(SHIFTS) == seen[-1][0] == seen[-1][1]
    assert not manifest.rows(domain="source", split="test")
    before = (tmp_path / "shifts.npz").read_bytes()
    shifts.build(tmp_path)
    assert (tmp_path / "shifts.npz").read_bytes() == before

    import_features([tmp_path / "shifts.npz"], "npz", manifest, tmp_path / "stores")
    rgb, flow = (FeatureStore.open(tmp_path / "stores" / "shifts" / f"{m}.zarr") for m in ("rgb", "flow"))
    lacking = [row for row in range(len(manifest)) if rgb.length[row] == 0]
    assert rgb.counts() == {**flow.counts(), "done": len(manifest) - 21, "absent": 21}
    assert set(lacking) < set(manifest.rows(domain="missing"))
    row = manifest.rows(domain="cluster", split="test")[3]
    drawn = draw("cluster", "test")
    assert np.array_equal(flow[manifest.clips[row].clip_id], drawn.x["flow"][3].astype(np.float32))
    assert manifest.clips[row].labels == {"label": "abcde"[drawn.y[3]]}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatcacheError, match="cannot write shifts to .*file"):
        shifts.build(tmp_path / "file")


def test_the_card_counts_the_clips():
    rows = shifts.ROWS
    assert f"| clips | {rows['train'] + len(SHIFTS) * sum(rows.values())}:" in CARD
