"""From captions and clips to batches: which captions a side has, how they are drawn, and what is refused."""

import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError
from featcache.manifest import Clip, Manifest
from heads.methods import mmd, rna, source_only
from heads.nets import adapter
from pipelines.config import Feed, RunConfig
from pipelines.data.captions import clip_rows
from pipelines.data.draws import batches, draws
from pipelines.data.opening import open_run
from tests.helpers.caption_stores import CAPTIONS, EXPERTS, TOKENS, captions, clips, feeds, run, write, write_all


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def adapting(**changes):
    return run(**{"method": mmd.Params(), "target": "night", **changes})


def drawn(config, stores, count=10, **options):
    with batches(draws(config, open_run(config, stores, **options).sides), count) as stream:
        for batch in stream:  # its x is valid until the next
            source = dataclasses.replace(batch.source, x={m: x.clone() for m, x in batch.source.x.items()})
            yield dataclasses.replace(batch, source=source)


def store_rows(stores, name, manifest="clips_captions"):
    from featcache import FeatureStore

    store = FeatureStore.open(stores / manifest / f"{name}.zarr")
    return store.read(np.arange(len(store))), store.present


# ------------------------------------------------------------------------------------------------------------- drawing


def test_a_source_batch_has_a_caption_of_each_clip_the_same_one_in_all_feeds(stores):
    words, present = store_rows(stores, "words")
    sentence, _ = store_rows(stores, "sentence")
    clip_manifest, texts = clips(), captions(clips())
    rows = open_run(run(), stores).sides["source"].rows
    for batch in drawn(run(), stores):
        s = batch.source
        assert set(s.x) == {*EXPERTS, *CAPTIONS}
        assert s.x["words"].shape == (6, TOKENS, CAPTIONS["words"])
        for k, row in enumerate(s.index.tolist()):
            own_captions = [c for c, text in enumerate(texts) if text.of == clip_manifest.clips[rows[row]].clip_id]
            (c,) = [c for c in own_captions if np.array_equal(sentence[c], s.x["sentence"][k])]
            assert np.array_equal(words[c], s.x["words"][k])  # padded with zeros
            assert np.array_equal(present[c], s.present["words"][k])
            assert present[c].sum() == 1 + c % TOKENS


def test_a_target_has_no_captions(stores):
    opened = open_run(adapting(), stores)
    assert all(set(batch.target.x) == set(EXPERTS) for batch in drawn(adapting(), stores))
    assert opened.sides["target"].captions is None
    for side in ("source", "target"):
        assert all(set(part.x) == set(EXPERTS) for part in opened.sweep(side))


def test_captions_of_a_clip_are_equally_probable(stores):
    counts = Counter()
    for batch in drawn(run(), stores, 600):
        counts.update(zip(batch.source.index.tolist(), batch.source.x["sentence"][:, 0, 0].tolist(), strict=True))
    for row in range(9):
        draws = [n for (clip_row, _), n in counts.items() if clip_row == row]
        assert len(draws) == 1 + row % 3
        assert sum(draws) == 400  # of 9 clips in 600 batches of 6
        assert max(abs(n - 400 / len(draws)) for n in draws) < 4 * 400**0.5 / 2  # four standard deviations of a coin's


def test_every_method_sees_the_same_captions_and_more_captions_move_no_clip(stores):
    plain, adapted = list(drawn(run(), stores)), list(drawn(adapting(), stores))
    for a, b in zip(plain, adapted, strict=True):
        assert all(torch.equal(a.source.x[m], b.source.x[m]) for m in a.source.x)
    fewer = {m: feed for m, feed in feeds().items() if m != "sentence"}
    for a, b in zip(plain, drawn(run(feeds=fewer), stores), strict=True):
        assert torch.equal(a.source.index, b.source.index)
        assert torch.equal(a.source.x["words"], b.source.x["words"])
    other = list(drawn(run(seed=1), stores))
    assert any(not torch.equal(a.source.x["words"], b.source.x["words"]) for a, b in zip(plain, other, strict=True))


@pytest.mark.parametrize("tier", ["mapped", "streaming"])
def test_clips_of_any_tier_have_their_captions(stores, tier):
    """Streamed rows come in another order; a clip has the caption that the same draw gives."""
    resident, other = (list(drawn(run(), stores, tier=wanted)) for wanted in (None, tier))
    for a, b in zip(resident, other, strict=True):
        own = open_run(run(), stores).sides["source"].captions
        assert set(b.source.x) == set(a.source.x)
        if tier == "mapped":
            assert all(torch.equal(a.source.x[m], b.source.x[m]) for m in a.source.x)
        for k, row in enumerate(b.source.index.tolist()):
            own_captions = own.table.x["sentence"][own.row == row]
            assert (own_captions == b.source.x["sentence"][k]).all((1, 2)).any()


def test_the_sweep_has_each_caption_of_the_source_once_beside_its_clip(stores):
    opened = open_run(run(holdout=0.3, seed=3), stores)
    parts = list(opened.sweep("captions"))
    assert all(set(part.x) == set(CAPTIONS) and part.y == {} for part in parts)
    index = torch.cat([part.index for part in parts]).tolist()
    sentence = torch.cat([part.x["sentence"] for part in parts])
    assert len(index) == opened.spec.rows["captions"]
    stored, _ = store_rows(stores, "sentence")
    clip_ids = [clips().clips[opened.sides["source"].rows[row]].clip_id for row in index]
    caption_rows = [c for row in opened.sides["source"].rows for c, t in enumerate(captions(clips())) if _of(t, row)]
    assert np.array_equal(sentence, stored[caption_rows])
    assert clip_ids == [captions(clips()).clips[c].of for c in caption_rows]
    held = opened.sides["source_val"]
    assert set(held.rows).isdisjoint(opened.sides["source"].rows)
    assert len(held.captions.table) == sum(1 + row % 3 for row in held.rows)


def _of(text, row):
    return text.of == clips().clips[row].clip_id


def test_windows_of_captions_are_drawn_as_their_feed_says(stores):
    for train, k in (("random:2", 2), ("mean", 1), ("segments:3", 3)):
        words = dataclasses.replace(feeds()["words"], train=train, test="mean")
        config = run(feeds=feeds(words=words))
        assert open_run(config, stores).spec.windows["words"] == k
        (batch,) = drawn(config, stores, 1)
        assert batch.source.x["words"].shape[1] == k
        assert all(part.x["words"].shape[1] == 1 for part in open_run(config, stores).sweep("captions"))


def test_the_spec_knows_captions_and_no_classes(stores):
    spec = open_run(adapting(), stores).spec
    assert spec.captions == ("words", "sentence")
    assert spec.shapes == {"object": (8,), "action": (6,), "words": (7,), "sentence": (5,)}
    assert spec.rows == {"source": 9, "captions": 18, "target": 9}
    assert (spec.classes, spec.streams, spec.windows["words"]) == ({}, ("visual",), TOKENS)


def test_each_clip_may_have_its_caption_itself(stores):
    """Here an expert stands for the one caption; clip 2 lacks it."""
    own = {"object": Feed("object"), "text": Feed("action", seen_by="source test", captions="own")}
    action, present = store_rows(stores, "action", "clips")
    for absent, rows in (("drop", 8), ("mask", 9)):
        config = run(feeds=own, absent=absent)
        opened = open_run(config, stores)
        assert (opened.spec.rows["source"], opened.spec.rows["captions"]) == (rows, 8)
        for batch in drawn(config, stores):
            own_rows = [opened.sides["source"].rows[row] for row in batch.source.index.tolist()]
            assert np.array_equal(batch.source.x["text"], np.where(present[own_rows][..., None], action[own_rows], 0))
            assert np.array_equal(batch.source.present["text"], present[own_rows])
    with pytest.raises(ConfigError, match="1 of 9 clips .*'day-train2' has no caption.*absent=drop"):
        _ = open_run(run(feeds=own, absent="refuse"), stores).sides


# ------------------------------------------------------------------------------------------------- clips without some


def test_clips_without_captions_are_refused_dropped_or_masked(tmp_path):
    stores = write_all(tmp_path, lacking=(), uncaptioned=(1, 4, 16, 25))  # two of the source, a target's, a test's
    with pytest.raises(ConfigError, match="2 of 9 clips .*'day-train1' has no caption.*absent=drop"):
        _ = open_run(run(absent="refuse"), stores).sides
    dropped, masked = (open_run(run(absent=absent), stores) for absent in ("drop", "mask"))
    assert dropped.sides["source"].rows == [0, 2, 3, 5, 6, 7, 8]
    assert masked.sides["source"].rows == list(range(9))
    for batch in drawn(run(), stores):
        lacking = torch.isin(batch.source.index, torch.tensor([1, 4]))
        for m in CAPTIONS:
            assert not batch.source.x[m][lacking].any()
            assert torch.equal(batch.source.has(m), ~lacking)
    for opened in (dropped, masked):  # a clip of the test stays to be found, and asks for nothing
        test = opened.test()
        assert test.rows == list(range(24, 30))
        assert test.captions.count.tolist() == [1, 0, 3, 1, 2, 3]


def test_captions_without_features_are_refused_or_left_out(tmp_path):
    clip_manifest = clips()
    stores = write_all(tmp_path, lacking=(), unread=[2])  # the second of clip 1
    assert captions(clip_manifest).clips[2].clip_id == "day-train1#1"
    with pytest.raises(ConfigError, match=r"1 of 18 captions .*'day-train1#1' has no words \(nothing.*absent=drop"):
        _ = open_run(run(absent="refuse"), stores).sides
    for absent in ("drop", "mask"):
        assert open_run(run(absent=absent), stores).sides["source"].captions.count.tolist() == [1, 1, 3] + [1, 2, 3] * 2


def test_clips_and_captions_without_features_are_named_and_rank_nothing(tmp_path):
    """A clip without any expert is no candidate, and its captions ask for nothing, like captions without features."""
    of = clips()
    test = of.rows(domain="night", split="test")
    gone = [of.rows(domain="day", split="train")[3], test[0]]
    unread = [k for k, clip in enumerate(captions(of)) if clip.of == of.clips[test[2]].clip_id][:2]  # of three
    stores = write_all(tmp_path, lacking=gone, unread=unread)
    shutil.rmtree(stores / "clips" / "object.zarr")
    points = np.random.default_rng(7).normal(size=(len(of), 4))
    write(stores, of, "object", *EXPERTS["object"], points, gone)
    opened = open_run(run(), stores)
    assert gone[0] not in opened.sides["source"].rows
    tested = opened.test()
    assert tested.rows == test[1:]
    assert tested.captions.count.tolist() == [2, 1, 1, 2, 3]
    texts = list(map(str, opened.left_out))
    assert [text.partition(" have")[0].partition(" has")[0] for text in texts] == [
        "NO FEATURES: 1 of 9 train clips of day",
        "NO FEATURES: 1 of 6 test clips",
        "NO FEATURES: 2 of 11 captions of test clips",
    ]
    assert texts[1].endswith(of.clips[test[0]].clip_id)
    assert open_run(run(), write_all(tmp_path / "whole", lacking=())).left_out == ()


def test_a_side_without_any_caption_is_refused(tmp_path):
    stores = write_all(tmp_path, lacking=(), uncaptioned=range(24, 30))
    with pytest.raises(ConfigError, match="no clip of the test has a caption in manifest 'clips_captions'"):
        open_run(run(), stores).test()


def test_captions_of_unknown_clips_and_manifests_without_of_are_refused():
    clip_manifest = clips()
    stray = Manifest("texts", (Clip("v9#0", "day", "train", "v9.mp4", of="v9"),))
    with pytest.raises(ConfigError, match="row 'v9#0' of caption manifest 'texts' .*'v9'.*`of`.*'clips'"):
        clip_rows(stray, clip_manifest)
    with pytest.raises(ConfigError, match="row 'day-train0' of caption manifest 'clips' .*no clip.*`of`.*'clips'"):
        clip_rows(clip_manifest, clip_manifest)
    assert clip_rows(captions(clip_manifest), clip_manifest).tolist() == [
        row for row in range(30) for _ in range(1 + row % 3)
    ]


def test_a_missing_caption_manifest_lists_those_that_are_there(stores):
    text = Feed("words", seen_by="source test", captions="clips_caption")
    with pytest.raises(ConfigError, match="clips_caption.*clips_captions"):
        open_run(run(feeds={"object": Feed("object"), "words": text}), stores)


# -------------------------------------------------------------------------------------------------------------- config

TEXT = Feed("words", seen_by="source test", captions="clips_captions")
WRONG = {
    "no captions": ({"object": Feed("object")}, "net 'gated'.*needs a feed of captions"),
    "no clips": ({"words": TEXT}, "words are all captions; add a feed"),
    "seen by the target": (feeds(words=Feed("words", captions="clips_captions")), "set seen_by='source test'"),
    "not asked for": (feeds(words=dataclasses.replace(TEXT, seen_by="source")), "set seen_by='source test'"),
    "two manifests": (
        feeds(sentence=dataclasses.replace(TEXT, captions="own")),
        "feeds.sentence.captions='own'.*same captions",
    ),
    "the run's manifest": (
        {"object": Feed("object"), "words": dataclasses.replace(TEXT, captions="clips")},
        "feeds.words.captions='clips'.*'own'",
    ),
    "views": (feeds(words=dataclasses.replace(TEXT, views=("sentence",))), "feeds.words.views.*leave them out"),
    "each": (feeds(object=Feed("object", test="each")), "in retrieval take all or mean"),
}


@pytest.mark.parametrize(("wrong", "complaint"), WRONG.values(), ids=WRONG)
def test_impossible_feeds_are_refused(wrong, complaint):
    with pytest.raises(ConfigError, match=complaint):
        run(feeds=wrong)


def test_runs_of_one_task_refuse_what_is_of_the_other():
    with pytest.raises(ConfigError, match=r"feeds.words.captions='clips_captions'.*classification"):
        run(net=adapter.Params())
    with pytest.raises(ConfigError, match="method 'rna' does classification.*net 'gated' does retrieval"):
        run(method=rna.Params())
    with pytest.raises(ConfigError, match="select='snd'.*retrieval.*source_val"):
        adapting(select="snd")
    with pytest.raises(ConfigError, match="select='source_val' needs held-out source rows"):
        run(select="source_val")
    assert run(select="source_val", holdout=0.2).validators == ("source_val",)
    assert run(method=source_only.Params()).validators == ()


def test_configurations_come_back_from_json_also_without_captions():
    config = adapting()
    assert RunConfig.from_json(config.to_json()) == config
    assert config.to_json()["feeds"]["words"]["captions"] == "clips_captions"
    old = run(net=adapter.Params(), feeds={"object": Feed("object")}).to_json()
    del old["feeds"]["object"]["captions"]
    assert RunConfig.from_json(old).feeds["object"].captions == ""
