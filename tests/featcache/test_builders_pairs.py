"""The generated pairs: each shift does what its name says, exactly, and nothing else; and what is written."""

from copy import deepcopy

import numpy as np
import pytest

from featcache import Manifest, builders
from featcache.builders import pairs
from featcache.builders.pairs import APART, AXES, CAPTIONS, ROWS, SHIFTS, STYLE, WORDS, D, K, T, draw, features, turned
from featcache.errors import FeatcacheError
from featcache.importing import import_features
from tests.conftest import ROOT

CARD = (ROOT / "data_manifests" / "pairs.md").read_text()


@pytest.fixture
def clips():
    """The source's clips."""
    return draw("source", "train")


def shifted(clips, name):
    after = deepcopy(clips)
    SHIFTS[name](after)
    return after


def changed(before, after):
    """What a shift has changed."""
    same = lambda a, b: all(np.array_equal(a[m], b[m]) for m in a) if isinstance(a, dict) else np.array_equal(a, b)  # noqa: E731
    return {name for name in vars(before) if not same(getattr(before, name), getattr(after, name))}


@pytest.mark.parametrize(
    ("name", "touched"),
    [
        ("none", set()),
        ("mean", {"shown"}),
        ("rotation", {"shown"}),
        ("topics", {"topic", "named", "shown", "described"}),
        ("style", {"style"}),
        ("swapped", {"named", "described"}),
    ],
)
def test_a_shift_touches_nothing_but_what_it_names(clips, name, touched):
    assert changed(clips, shifted(clips, name)) == touched
    assert name in SHIFTS


def test_mean_moves_all_clips_alike(clips):
    after = shifted(clips, "mean")
    for m, s in APART.items():
        assert np.allclose(after.shown[m] - clips.shown[m], 0.75 * s * (AXES[0] - AXES[K - 1]))


def test_rotation_keeps_distances_and_turns_every_clip_by_60_degrees(clips):
    after = shifted(clips, "rotation")
    for m in APART:
        u, v = clips.shown[m], after.shown[m]
        assert np.allclose(u @ u.T, v @ v.T)
        assert np.allclose((u * v).sum(1) / (u * u).sum(1), 0.5)


def test_topics_are_rare_where_they_were_frequent_and_captions_follow(clips):
    after = shifted(clips, "topics")
    for m, s in APART.items():
        shares = np.bincount(clips.topic[m], minlength=K)
        assert np.array_equal(np.bincount(after.topic[m], minlength=K), shares[::-1])
        assert shares[0] > 2 * shares[K - 1]
        details = clips.shown[m] - s * AXES[clips.topic[m]]
        assert np.allclose(after.shown[m], s * AXES[after.topic[m]] + details)
        assert np.allclose(after.described[m], after.shown[m][after.clip_of])


def test_swapped_topics_are_called_by_their_neighbours_name(clips):
    after = shifted(clips, "swapped")
    for m, s in APART.items():
        pairs_seen = set(zip(clips.topic[m].tolist(), after.named[m].tolist(), strict=True))
        assert pairs_seen == {(k, k + 1 if k % 2 == 0 else k - 1) for k in range(K)}
        details = clips.described[m] - s * AXES[clips.topic[m]][clips.clip_of]
        assert np.allclose(after.described[m], s * AXES[after.named[m]][after.clip_of] + details)


def test_captions_belong_to_clips_and_speak_of_something(clips):
    count = np.bincount(clips.clip_of)
    assert (count.min(), count.max()) == CAPTIONS
    assert len(count) == ROWS["train"]
    assert np.stack(list(clips.speaks.values())).any(0).all()
    assert clips.has["object"].all()
    assert 0.05 < 1 - clips.has["scene"].mean() < 0.15
    for c, text in enumerate(pairs.sentences(clips)):
        expected = [WORDS[m][clips.topic[m][clips.clip_of[c]]] for m in APART if clips.speaks[m][c]]
        assert text == " ".join(expected)


def test_rows_are_content_turned_with_noise(clips):
    x, said = features(clips, "source", "train")
    for m in APART:
        noise = x[m] @ turned(m, D) - clips.shown[m][:, None]
        assert noise.std() == pytest.approx(0.5, rel=0.03)
        assert abs(noise.mean()) < 0.02
    back = said @ turned("sentence", 3 * D + STYLE)
    for e, m in enumerate(APART):
        part = back[:, e * D : (e + 1) * D] - clips.described[m] * clips.speaks[m][:, None]
        assert part.std() == pytest.approx(0.25, rel=0.03)
    assert np.abs(back[:, 3 * D :].mean(0) - clips.style[0]).max() < 0.05


def test_equal_seeds_equal_clips_and_domains_are_drawn_anew():
    first, again, other, target = (
        draw("source", "train"),
        draw("source", "train"),
        draw("source", "train", 1),
        draw("none", "train"),
    )
    assert changed(first, again) == set()
    assert not np.array_equal(first.shown["object"], other.shown["object"])
    assert not np.array_equal(first.shown["object"], target.shown["object"])


@pytest.mark.slow
def test_what_is_written_can_be_imported_and_counts_as_the_card_says(tmp_path):
    seen = []
    manifest = builders.load("pairs").build(tmp_path, progress=lambda done, total: seen.append((done, total)))
    captions = Manifest.read(tmp_path / "pairs_captions.csv")
    assert Manifest.read(tmp_path / "pairs.csv") == manifest
    assert {clip.of for clip in captions.clips} == {clip.clip_id for clip in manifest.clips}
    sizes = {(d, s): len(manifest.rows(domain=d, split=s)) for d in ("source", *SHIFTS) for s in ROWS}
    assert sizes == {(d, s): n for d in ("source", *SHIFTS) for s, n in ROWS.items()}
    assert seen[-1] == (len(manifest.clips),) * 2
    for m, there in zip(("clips", "captions"), (manifest, captions), strict=True):
        assert f"| {m} | {len(there.clips)}" in CARD
    for name in SHIFTS:
        assert f"| `{name}` |" in CARD
    rows = {}
    for name, there in (("pairs", manifest), ("pairs_captions", captions)):
        import_features([tmp_path / f"{name}.npz"], "npz", there, tmp_path / "stores")
        rows |= {path.stem: path for path in (tmp_path / "stores" / name).glob("*.zarr")}
    assert set(rows) == {*APART, "sentence"}
    x, _ = features(draw("source", "train"), "source", "train")
    arrays = np.load(tmp_path / "pairs.npz")
    assert np.array_equal(arrays["object"][: ROWS["train"]], x["object"])
    assert arrays["object"].shape == (len(manifest.clips), T, D)
    assert len(arrays["scene"]) == len(arrays["scene.clip_id"])
    assert f"{len(manifest.clips) - len(arrays['scene'])} clips are missing in `scene`" in CARD


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatcacheError, match="file"):
        pairs.build(tmp_path / "file")
