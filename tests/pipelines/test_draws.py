"""From stores to batches: who is drawn how often, which windows, which labels, and what is refused."""

import dataclasses
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import ConfigError, StoreError
from heads.batch import joined
from heads.methods import rna
from pipelines.config import Feed, Preparation
from pipelines.data import sharing
from pipelines.data.draws import Draw, batches, draw_batch, draws
from pipelines.data.gathering import TURNS, Buffers, centres, mean
from pipelines.data.opening import open_run
from pipelines.data.rows import Rows
from pipelines.data.tiers import Features
from tests.conftest import ROOT
from tests.helpers.stores import CLASSES, manifest, run, write_all, write_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def adapting(**changes):
    return run(**{"method": rna.Params(), "target": "night", **changes})


def table(rows, domains=(0,), windows=4, feeds=None):
    """Rows whose features say their own row and window: x[row, window] = [row, window]."""
    feeds = feeds or {"rgb": Feed("hog")}
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(windows), indexing="ij"), -1).float()
    domain = torch.arange(rows) * len(domains) // rows
    present = torch.ones(rows, windows, dtype=torch.bool)
    return Rows(list(range(rows)), dict.fromkeys(feeds, grid), dict.fromkeys(feeds, present), {}, domain, feeds)


# ----------------------------------------------------------------------------------------------------------- drawing


@given(rows=st.integers(1, 20), size=st.integers(1, 12), passes=st.integers(1, 4))
def test_every_row_equally_often(rows, size, passes):
    draw = Draw(table(rows), size, seed=0, side="source")
    taken = Counter(row for _ in range(passes * rows) for row in next(draw).index.tolist())
    assert set(taken.values()) == {passes * size}  # passes * rows batches of `size` are passes * size visits each


@given(rows=st.integers(2, 20), size=st.integers(1, 7))
def test_no_row_again_before_all_others(rows, size):
    draw = Draw(table(rows), size, seed=1, side="source")
    stream = [row for _ in range(3 * rows) for row in next(draw).index.tolist()]
    for start in range(0, len(stream) - rows + 1, rows):
        assert sorted(stream[start : start + rows]) == list(range(rows))


def test_domains_are_pools_of_equal_share_in_order():
    draw = Draw(table(12, domains=("a", "b", "c")), 7, seed=0, side="source")
    for _ in range(5):
        assert next(draw).domain.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_pools_of_a_method_replace_the_domains():
    draw = Draw(table(10), 4, seed=0, side="target")
    draw.use([torch.tensor([1, 3, 5]), torch.tensor([8])])
    for _ in range(6):
        rows = next(draw).index.tolist()
        assert set(rows[:2]) <= {1, 3, 5}
        assert rows[2:] == [8, 8]


@pytest.mark.parametrize(
    ("pools", "complaint"),
    [
        ([torch.tensor([], dtype=torch.long)], "pool of the target must have one row or more"),
        ([torch.tensor([10])], r"pool of the target must have .* in \[0, 10\)"),
        ([torch.tensor([-1])], r"pool of the target must have .* in \[0, 10\)"),
        ([], "0 pools cannot fill.*4 rows of the target"),
        ([torch.tensor([0])] * 5, "5 pools cannot fill a batch of 4 rows of the target"),
    ],
)
def test_impossible_pools_are_refused(pools, complaint):
    with pytest.raises(ValueError, match=complaint):
        Draw(table(10), 4, seed=0, side="target").use(pools)


def test_same_seed_same_rows_whatever_else_is_drawn():
    plain, busy = (
        table(9),
        table(9, feeds={"rgb": Feed("hog", train="random:2"), "flow": Feed("hof", train="shared:1")}),
    )
    streams = [
        [next(draw).index.tolist() for _ in range(8)] for draw in (Draw(t, 4, 3, "source") for t in (plain, busy))
    ]
    assert streams[0] == streams[1]
    other = Draw(plain, 4, 4, "source")
    assert streams[0] != [next(other).index.tolist() for _ in range(8)]


def test_a_batch_carries_its_rows_and_windows():
    batch = next(Draw(table(9), 4, 0, "source"))
    assert batch.x["rgb"].shape == (4, 4, 2)
    assert torch.equal(batch.x["rgb"][:, :, 0], batch.index[:, None].expand(4, 4).float())


def windows_of(train, feeds=("rgb", "flow"), draws=200):
    """(draws * 4, k) window numbers per modality."""
    draw = Draw(table(9, feeds={m: Feed("x", train=train) for m in feeds}), 4, 0, "source")
    batches = [next(draw) for _ in range(draws)]
    return {m: torch.cat([b.x[m][:, :, 1] for b in batches]) for m in feeds}


def test_random_windows_are_different_ordered_even_and_per_modality():
    drawn = windows_of("random:2")
    for k in drawn.values():
        assert (k[:, 0] < k[:, 1]).all()
        counts = torch.bincount(k.flatten().long(), minlength=4) / k.numel()
        assert (counts - 0.25).abs().max() < 0.04
    assert not torch.equal(drawn["rgb"], drawn["flow"])


def test_shared_windows_are_the_same_for_all():
    drawn = windows_of("shared:2")
    assert torch.equal(drawn["rgb"], drawn["flow"])
    assert len(torch.unique(drawn["rgb"], dim=0)) == 6  # all pairs of 4 occur


def test_centres_by_hand():
    assert centres("segments:5", 25).tolist() == [2, 7, 12, 17, 22]  # TBN's 5 of 25
    assert centres("segments:2", 5).tolist() == [1, 3]
    assert centres("all", 25) is None
    assert (windows_of("segments:2")["rgb"] == torch.tensor([1.0, 3.0])).all()


def test_means_are_of_the_present_windows():
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    present = torch.tensor([[True, True, False], [False, False, False]])
    pooled, any_present = mean(x, present)
    assert pooled.tolist() == [[[2.0, 4.0]], [[0.0, 0.0]]]
    assert any_present.tolist() == [[True], [False]]


# ------------------------------------------------------------------------------------------------- memory and threads


@pytest.mark.parametrize("train", ["all", "random:2", "segments:2", "mean"])
def test_reused_memory_holds_the_same_batches(train):
    feeds = {"rgb": Feed("hog", train=train), "flow": Feed("hof", train=train)}
    fresh, reused = (Draw(table(9, feeds=feeds), 4, 0, "source", buffers) for buffers in (None, Buffers()))
    for _ in range(3 * TURNS):
        a, b = next(fresh), next(reused)
        assert all(torch.equal(a.x[m], b.x[m]) for m in feeds)


def test_memory_is_used_by_turns():
    draw = Draw(table(9), 4, 0, "source", Buffers())
    x = [next(draw).x["rgb"] for _ in range(TURNS + 1)]
    assert len({values.data_ptr() for values in x}) == TURNS == 2
    assert x[0].data_ptr() == x[TURNS].data_ptr()


def test_a_prefetched_batch_stays_while_it_is_in_use():
    draw, fresh = Draw(table(9), 4, 0, "source", Buffers()), Draw(table(9), 4, 0, "source")
    with batches({"source": draw}, 20, prefetch=True) as stream:
        for batch in stream:
            time.sleep(0.002)  # the next one is drawn meanwhile
            assert torch.equal(batch.source.x["rgb"], next(fresh).x["rgb"])


def test_prefetching_draws_the_same_and_no_more():
    """So pools that come afterwards are drawn from at once."""
    streams = []
    for prefetch in (False, True):
        draw, seen = Draw(table(9), 4, 0, "source", Buffers()), []
        for pools in ([torch.arange(9)], [torch.tensor([1, 2]), torch.tensor([5])], [torch.tensor([7])]):
            draw.use(pools)
            with batches({"source": draw}, 5, prefetch=prefetch) as stream:
                seen += [batch.source.x["rgb"][:, 0, 0].tolist() for batch in stream]
        streams.append(seen)
    assert streams[0] == streams[1]
    assert len(streams[0]) == 15
    assert streams[0][-1] == [7] * 4


def test_no_batches_are_none():
    with batches({"source": Draw(table(9), 4, 0, "source")}, 0, prefetch=True) as stream:
        assert list(stream) == []


class Broken(Draw):
    """Gives two batches, then an error."""

    def __next__(self):
        self.given = getattr(self, "given", 0) + 1
        if self.given > 2:
            raise StoreError("the disk is gone")
        return super().__next__()


@pytest.mark.parametrize("prefetch", [False, True])
def test_errors_of_the_thread_reach_who_asks(prefetch):
    given, before = [], threading.active_count()

    def use():
        with batches({"source": Broken(table(9), 4, 0, "source")}, 9, prefetch=prefetch) as stream:
            for batch in stream:
                given.append(batch)

    with pytest.raises(StoreError, match="the disk is gone"):
        use()
    assert len(given) == 2
    assert threading.active_count() == before


def test_the_thread_ends_when_its_user_fails():
    before = threading.active_count()

    def use():
        with batches({"source": Draw(table(9), 4, 0, "source")}, 100, prefetch=True) as stream:
            next(stream)
            assert threading.active_count() == before + 1
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        use()
    assert threading.active_count() == before


@pytest.mark.slow
def test_leaving_the_interpreter_in_the_middle_is_clean():
    code = """
        import torch
        from pipelines.data.draws import Draw, batches
        from pipelines.data.rows import Rows
        from pipelines.config import Feed
        x, present = {"rgb": torch.zeros(9, 4, 2)}, {"rgb": torch.ones(9, 4, dtype=torch.bool)}
        table = Rows(list(range(9)), x, present, {}, torch.zeros(9), {"rgb": Feed("hog")})
        context = batches({"source": Draw(table, 4, 0, "source")}, 10**9, prefetch=True)
        stream = context.__enter__()
        print(len(next(stream).source.index))
    """
    left = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (left.returncode, left.stdout, left.stderr) == (0, "4\n", "")


# ----------------------------------------------------------------------------------------------------------- opening


def test_sides_hold_the_right_rows_and_values(stores):
    opened = open_run(adapting(), stores)
    clips, hog = opened.manifest, opened.stores["rgb"]
    assert {name: len(rows) for name, rows in opened.sides.items()} == {"source": 12, "target": 12}
    for name, domain in (("source", "day"), ("target", "night")):
        rows = opened.sides[name]
        for position, row in enumerate(rows.rows):
            assert (clips.clips[row].domain, clips.clips[row].split) == (domain, "train")
            assert torch.equal(rows.x["rgb"][position], torch.from_numpy(hog[row]))
    assert [clips.clips[row].domain for row in opened.test().rows] == ["night"] * 6
    names = [CLASSES[k] for k in opened.sides["source"].y["label"]]
    assert names == [clips.clips[row].labels["label"] for row in opened.sides["source"].rows]


def test_spec_says_what_may_be_known(stores):
    spec = open_run(adapting(feeds={"rgb": Feed("hog", train="random:2"), "flow": Feed("hof")}), stores).spec
    assert spec.shapes == {"rgb": (8,), "flow": (6,)}
    assert spec.windows == {"rgb": 2, "flow": 3}
    assert spec.classes == {"label": 3}
    assert spec.rows == {"source": 12, "target": 12}
    assert spec.domains == ("day", "night")


def test_target_and_test_rows_have_no_labels(stores):
    opened = open_run(adapting(), stores)
    sides = draws(opened.config, opened.sides)
    assert set(next(sides["source"]).y) == {"label"}
    assert next(sides["target"]).y == {}
    assert opened.sides["target"].y == opened.test().y == {}
    assert all(side.y == {} for side in opened.sweep("target"))
    assert all(set(side.y) == {"label"} for side in opened.sweep("source"))


def test_domains_are_numbered_and_strangers_are_minus_one(stores):
    opened = open_run(adapting(), stores)
    assert set(opened.sides["target"].domain.tolist()) == {1}
    assert set(open_run(run(), stores).test().domain.tolist()) == {-1}


def test_a_sweep_is_every_row_in_order_with_test_windows(stores):
    feeds = {"rgb": Feed("hog", train="random:1", test="segments:1"), "flow": Feed("hof", train="random:1")}
    opened = open_run(adapting(feeds=feeds), stores)
    sides = list(opened.sweep("target"))
    assert torch.cat([side.index for side in sides]).tolist() == list(range(12))
    rows = opened.sides["target"]
    assert torch.equal(torch.cat([side.x["rgb"] for side in sides]), rows.x["rgb"][:, [1]])
    assert torch.equal(torch.cat([side.x["flow"] for side in sides]), rows.x["flow"])
    with pytest.raises(ValueError, match="no side 'source_val'.*has: source, target"):
        opened.sweep("source_val")


@pytest.fixture
def nothing_held(monkeypatch):
    """Forget the features that a test before this one has in memory."""
    monkeypatch.setattr(sharing, "_here", WeakValueDictionary())


def test_only_the_rows_of_named_sides_are_read(stores, monkeypatch, nothing_held):
    opened, asked, read = open_run(run(), stores), [], Features._read
    monkeypatch.setattr(Features, "_read", lambda self, m, rows: (asked.append(rows), read(self, m, rows))[1])
    assert set(opened.sides) == {"source"}
    opened.test()
    clips = opened.manifest.clips
    assert {(clips[row].domain, clips[row].split) for rows in asked for row in rows} == {
        ("day", "train"),
        ("night", "test"),
    }


def test_seen_by_hides_a_feed_from_a_side(stores):
    feeds = {"rgb": Feed("hog"), "flow": Feed("hof", seen_by="source test")}
    opened = open_run(adapting(feeds=feeds), stores)
    assert set(opened.sides["target"].x) == {"rgb"}
    assert set(opened.sides["source"].x) == set(opened.test().x) == {"rgb", "flow"}
    assert set(opened.spec.shapes) == {"rgb", "flow"}  # over all feeds
    with pytest.raises(ConfigError, match="share no modality"):
        adapting(feeds={"rgb": Feed("hog", "source test")})


def test_holdout_is_stratified_seeded_and_hidden_from_methods(stores):
    opened = open_run(run(holdout=0.25), stores)
    kept, held = opened.sides["source"], opened.sides["source_val"]
    assert sorted(kept.rows + held.rows) == opened.manifest.rows(domain="day", split="train")
    assert Counter(held.y["label"].tolist()) == {0: 1, 1: 1, 2: 1}
    assert open_run(run(holdout=0.25), stores).sides["source_val"].rows == held.rows
    others = {tuple(open_run(run(holdout=0.25, seed=k), stores).sides["source_val"].rows) for k in range(5)}
    assert len(others) > 1
    assert opened.spec.rows == {"source": 9}
    with pytest.raises(ValueError, match="no side 'source_val'"):
        opened.sweep("source_val")


def test_holdout_is_of_every_domain(tmp_path):
    stores = write_all(tmp_path, manifest(domains=("day", "dusk", "night")))
    held = open_run(run(source=("day", "dusk"), holdout=0.25), stores).sides["source_val"]
    assert Counter(zip(held.domain.tolist(), held.y["label"].tolist(), strict=True)) == {
        (d, c): 1 for d in range(2) for c in range(3)
    }


def test_held_out_rows_are_seen_as_the_source_is(stores):
    feeds = {"rgb": Feed("hog"), "flow": Feed("hof", seen_by="source target")}
    opened = open_run(run(feeds=feeds, holdout=0.25), stores)
    assert set(opened.sides["source_val"].x) == {"rgb", "flow"}
    assert set(opened.test().x) == {"rgb"}


def test_source_and_target_draw_from_their_own_streams():
    same = table(9)
    source, target = Draw(same, 4, 3, "source"), Draw(same, 4, 3, "target")
    assert [next(source).index.tolist() for _ in range(4)] != [next(target).index.tolist() for _ in range(4)]


def test_holdout_leaves_every_class_a_row(stores):
    opened = open_run(run(holdout=0.95), stores)  # 0.95 of 4 rows per class would be all of them
    assert Counter(opened.sides["source"].y["label"].tolist()) == {0: 1, 1: 1, 2: 1}


def test_holdout_of_less_than_a_row_is_refused(stores):
    with pytest.raises(ConfigError, match="holdout=0.01 of 12 rows .*raise it"):
        _ = open_run(run(holdout=0.01), stores).sides


# ------------------------------------------------------------------------------------------------- lacking modalities


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """Row 1 (day, train) has no flow, row 19 (night, train) could not be read, row 13 (day, test) has no flow."""
    stores, clips = tmp_path_factory.mktemp("gaps"), manifest()
    clips.write(stores / "toy" / "manifest.csv")
    write_store(stores / "toy", clips, "hog")
    write_store(stores / "toy", clips, "hof", states={1: "absent", 19: "failed", 13: "absent"})
    return stores


def test_refusing_names_a_clip_and_the_reason(gaps):
    with pytest.raises(ConfigError, match=r"1 of 12 clips .*'day_chop_train1' has no flow \(no sound\).*absent=drop"):
        _ = open_run(run(), gaps).sides


def test_dropping_leaves_the_rows_out(gaps):
    opened = open_run(adapting(absent="drop"), gaps)
    assert 1 not in opened.sides["source"].rows
    assert 19 not in opened.sides["target"].rows
    assert {name: len(rows) for name, rows in opened.sides.items()} == {"source": 11, "target": 11}


def test_masking_keeps_them_without_a_fake_vector(gaps):
    rows = open_run(adapting(absent="mask"), gaps).sides["source"]
    at = rows.rows.index(1)
    assert not rows.present["flow"][at].any()
    assert rows.x["flow"][at].abs().max() == 0
    assert rows.present["flow"].sum() == 11 * 3
    assert rows.present["rgb"].all()


def test_a_modality_the_run_does_not_use_may_be_lacking(gaps):
    assert len(open_run(run(feeds={"rgb": Feed("hog")}), gaps).sides["source"]) == 12


def test_a_domain_that_cannot_teach_is_named(tmp_path):
    """It would silently be no part of a run that carries its name."""
    whole = manifest(domains=("day", "dusk", "night"))
    dusk = whole.rows(domain="dusk", split="train")
    fewer = dataclasses.replace(whole, clips=tuple(c for row, c in enumerate(whole.clips) if row not in dusk))
    config = run(source=("day", "dusk"), absent="drop")
    with pytest.raises(ConfigError, match="domain 'dusk' of the source has no train rows.*train on$"):
        _ = open_run(config, write_all(tmp_path / "fewer", fewer)).sides
    whole.write(tmp_path / "gaps" / "toy" / "manifest.csv")
    write_store(tmp_path / "gaps" / "toy", whole, "hog")
    write_store(tmp_path / "gaps" / "toy", whole, "hof", states=dict.fromkeys(dusk, "absent"))
    with pytest.raises(ConfigError, match="domain 'dusk' of the source has no train rows .* all 12 lack a modality"):
        _ = open_run(config, tmp_path / "gaps").sides
    with pytest.raises(ConfigError, match="domain 'dusk' of the target has no train rows"):
        _ = open_run(adapting(target="dusk", test="night", absent="drop"), tmp_path / "gaps").sides


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_refused(stores, monkeypatch, nothing_held, bad):
    opened, read = open_run(run(), stores), Features._read

    def broken(self, modality, rows):
        x = read(self, modality, rows).clone()
        x[-1, 1, 2] = bad
        return x

    monkeypatch.setattr(Features, "_read", broken)
    with pytest.raises(StoreError, match="hog.zarr has features that are not finite; .*`featcache check`"):
        _ = opened.sides


# ------------------------------------------------------------------------------------------------------ bad run input


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"manifest": "toys"}, "no stores of a manifest 'toys' in .*'toy'"),
        ({"feeds": {"rgb": Feed("hogg")}}, "no store 'hogg' in .*'hog'.*hog, hof"),
        ({"source": ("dusk",)}, "no domain 'dusk' in manifest 'toy'; it has: day, night"),
        ({"train_split": "val"}, "domain 'day' of the source has no val rows to train on"),
        (
            {"feeds": {"rgb": Feed("hog", train="random:4")}},
            "feeds.rgb.train=random:4 .*3 windows of store 'hog'",
        ),
        ({"feeds": {"rgb": Feed("hog", test="segments:4")}}, "feeds.rgb.test=segments:4 .*3 windows of store 'hog'"),
        (
            {"feeds": {"rgb": Feed("hog", train="shared:2"), "flow": Feed("hof", train="shared:1")}},
            "feeds with train=shared .*same windows.*: rgb shared:2 of 3, flow shared:1 of 3",
        ),
    ],
)
def test_what_is_not_there_is_named(stores, changes, complaint):
    with pytest.raises((ConfigError, ValueError), match=complaint):
        _ = open_run(run(**changes), stores).sides


def test_a_device_that_is_not_there_is_named(stores):
    with pytest.raises(ConfigError, match="no device 'cuda:99' .*cpu"):
        open_run(run(), stores, "cuda:99")
    with pytest.raises(ConfigError, match="no device 'gpu' .*cpu"):
        open_run(run(), stores, "gpu")


def test_an_unfinished_store_is_refused_with_the_command(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog", stop_after=7)
    with pytest.raises(
        StoreError, match=f"36 of 36 clips were not tried; .* `featcache extract MANIFEST hog --stores {tmp_path}`"
    ):
        open_run(run(feeds={"rgb": Feed("hog")}), tmp_path)


def test_a_store_of_another_manifest_is_refused(tmp_path):
    write_all(tmp_path)
    manifest(train=5).write(tmp_path / "toy" / "manifest.csv")
    with pytest.raises(StoreError, match="was made from other clips"):
        open_run(run(), tmp_path)


def test_a_source_clip_without_label_is_named_and_a_target_clip_needs_none(tmp_path):
    hidden = manifest(labels=lambda d, split, name: {} if (d, split) == ("night", "train") else {"label": name})
    write_all(tmp_path, hidden)
    assert len(open_run(adapting(), tmp_path).sides["target"]) == 12
    with pytest.raises(ConfigError, match="clip 'night_chop_train0' of domain 'night' has no 'label'"):
        _ = open_run(run(source=("night",)), tmp_path).sides


def test_a_manifest_without_labels_is_refused(tmp_path):
    write_all(tmp_path, manifest(labels=lambda *_: {}))
    with pytest.raises(ConfigError, match="manifest .* has no labels.*column"):
        open_run(run(), tmp_path)


def test_half_precision_stores_give_single_precision(tmp_path):
    opened = open_run(run(), write_all(tmp_path))
    assert opened.sides["source"].x["rgb"].dtype == torch.float32
    assert opened.stores["rgb"].features.dtype == np.float32
    assert dataclasses.is_dataclass(opened.spec)


# ------------------------------------------------------------------------------------------------- both sides at once


@pytest.mark.parametrize(
    ("train", "batch"), [("all", (3, 2)), ("random:2", (3, 2)), ("mean", (3, 2)), ("random:1", (2, 4))]
)
def test_both_sides_of_a_batch_follow_each_other_in_memory(stores, train, batch):
    config = adapting(feeds={"rgb": Feed("hog", train=train, test="all")}, batch=batch)
    sides = draws(config, open_run(config, stores).sides)
    for _ in range(2 * TURNS + 1):
        drawn = draw_batch(sides)
        s, t = drawn.both()
        both = joined(s, t)
        assert both.x["rgb"].data_ptr() == s.x["rgb"].data_ptr()
        assert torch.equal(both.x["rgb"], torch.cat([s.x["rgb"], t.x["rgb"]]))
        assert torch.equal(both.present["rgb"], torch.cat([s.present["rgb"], t.present["rgb"]]))
        moved = dataclasses.replace(t, x={"rgb": t.x["rgb"] + 1})  # as a method may
        assert torch.equal(joined(s, moved).x["rgb"], torch.cat([s.x["rgb"], t.x["rgb"] + 1]))


def test_sides_of_other_memory_are_joined_by_a_copy(stores):
    feeds = {"rgb": Feed("hog", train="all"), "flow": Feed("hof", seen_by="source test")}
    config = adapting(feeds=feeds)
    drawn = draw_batch(draws(config, open_run(config, stores).sides))
    assert drawn.source.joint is None  # the target lacks a modality
    assert joined(*drawn.both()) is None
    config = adapting(preparation=Preparation(units="source"))
    opened = open_run(config, stores)
    opened.measure()
    s, t = draw_batch(draws(config, opened.sides)).both()
    assert torch.equal(joined(s, t).x["rgb"], torch.cat([s.x["rgb"], t.x["rgb"]]))
