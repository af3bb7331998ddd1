"""The tiers give the same batches, each as a naive loop says; which is chosen, and what a run says of it."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import wait

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError, StoreError
from featcache.parallel import in_parallel
from featcache.store import FeatureStore, StoreWriter
from featcache.store.mapped import Mapped
from heads.methods import rna
from pipelines.config import Feed
from pipelines.data import tiers
from pipelines.data.draws import GROUP, draws
from pipelines.data.memory import free_memory
from pipelines.data.opening import open_run
from pipelines.data.tiers import Stream, Wanted, open_features
from pipelines.training import engine
from pipelines.training import train as train_module
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.conftest import ROOT
from tests.helpers.stores import manifest, run, small_blocks

T = 4
SIZES = {"hog": ("rgb", 128), "hof": ("flow", 256)}  # rows of 1 or 2 KB: four are whole pages


def write(stores, *, dtype="float16", ragged=True, lacking=()):
    """STORES/toy: features that say their store, row and window; row r has 1 + r % T windows where ragged."""
    clips = manifest()
    clips.write(stores / "toy" / "manifest.csv")
    for name, (modality, size) in SIZES.items():
        recipe = {"extractor": name, "version": 1, "modality": modality, "weights_sha256": "none", "dtype": dtype}
        rng = np.random.default_rng(size)
        with StoreWriter.open(
            stores / "toy" / f"{name}.zarr", clips, recipe, row_shape=(size,), windows=T, facts={}
        ) as writer:
            for row in range(len(clips)):
                t = 1 + row % T if ragged else T
                x = rng.standard_normal((t, size)).astype(np.float16).astype(np.float32)
                if (name, row) in lacking:
                    writer.absent(row, "no sound")
                else:
                    writer.done(row, x, np.arange(t), np.arange(t) + 1.0)
    return stores


@pytest.fixture(scope="module")
def patch():
    with small_blocks() as patch:
        yield patch


@pytest.fixture(scope="module")
def stores(tmp_path_factory, patch):
    """float16; every length from 1 to T; some clips lack a modality."""
    return write(tmp_path_factory.mktemp("stores"), lacking=[("hof", 1), ("hof", 20), ("hog", 2)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, patch):
    return write(tmp_path_factory.mktemp("whole"), ragged=False)


def feeds(train="all", test="all", other=None):
    return {"rgb": Feed("hog", train=train, test=test), "flow": Feed("hof", train=other or train, test=test)}


def adapting(train="all", test="all", other=None, **changes):
    plain = {"method": rna.Params(), "target": "night", "absent": "mask", "batch": (5, 6)}
    return run(**{**plain, "feeds": feeds(train, test, other), **changes})


DRAWS = [
    ("all", "all"),
    ("random:2", "each"),
    ("shared:3", "segments:3"),
    ("segments:2", "segments:2"),
    ("segments:3", "all"),
    ("mean", "mean"),
    ("mean", "segments:1"),
    ("random:4", "mean"),
]
EVERY = pytest.mark.parametrize(("train_draw", "test_draw"), DRAWS)


def equal(a, b):
    assert a.x.keys() == b.x.keys()
    for m in a.x:
        assert a.x[m].dtype == torch.float32
        assert torch.equal(a.x[m], b.x[m])
        assert torch.equal(a.present[m], b.present[m])
    assert torch.equal(a.index, b.index)
    assert torch.equal(a.domain, b.domain)
    assert a.y.keys() == b.y.keys()
    for label in a.y:
        assert torch.equal(a.y[label], b.y[label])


# ------------------------------------------------------------------------------------------------------- same batches


@EVERY
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_resident_and_mapped_give_the_same_tensors(train_draw, test_draw, dtype, stores, tmp_path, patch):
    stores = stores if dtype == "float16" else write(tmp_path, dtype=dtype, lacking=[("hof", 1)])
    config = adapting(train_draw, test_draw)
    opened = [open_run(config, stores, tier=tier) for tier in ("resident", "mapped")]
    streams = [draws(config, o.sides) for o in opened]
    for _ in range(7):
        for side in ("source", "target"):
            equal(*(next(stream[side]) for stream in streams))
    for side in ("source", "target"):
        for pair in zip(*(o.sweep(side) for o in opened), strict=True):
            equal(*pair)
    for pair in zip(*(o.test("day", "night").sweep() for o in opened), strict=True):
        equal(*pair)


@pytest.mark.parametrize("tier", ["resident", pytest.param("mapped", marks=pytest.mark.slow), "streaming"])
@EVERY
def test_windows_are_the_rows_own(tier, train_draw, test_draw, stores):
    """Against numpy, row by row: what a draw may take of a row with t windows, and what is said to be there."""
    config = adapting(train_draw, test_draw)
    opened = open_run(config, stores, tier=tier)
    stream = draws(config, opened.sides)
    drawn = [(clone(next(stream[s])), opened.sides[s].rows, train_draw) for s in stream for _ in range(12)]
    drawn += [(side, opened.sides[s].rows, test_draw) for s in stream for side in opened.sweep(s)]
    for side, rows, draw in drawn:
        for m, store in opened.stores.items():
            for i, position in enumerate(side.index.tolist()):
                check(side.x[m][i].numpy(), side.present[m][i].numpy(), store, rows[position], draw)


def clone(side):
    """A side whose memory is its own."""
    return dataclasses.replace(side, x={m: x.clone() for m, x in side.x.items()})


def check(x, present, store, row, draw):
    t = int(store.length[row])
    own = store.read([row])[0].astype(np.float32)
    kind, _, k = draw.partition(":")
    if kind in ("all", "each"):
        assert np.array_equal(x, own)
        assert present.tolist() == [w < t for w in range(T)]
        return
    if t == 0:
        assert not present.any()
        assert not x.any()
        return
    assert present.all()
    if kind == "mean":
        assert x.shape == (1, *own.shape[1:])
        assert np.allclose(x[0], own[:t].mean(0), atol=1e-6)
        return
    k = int(k)
    assert len(x) == k
    taken = [int(np.flatnonzero((own == window).all(1))[0]) for window in x]
    assert taken == sorted(taken)
    assert max(taken) < t
    if kind == "segments":
        assert taken == [int((i + 0.5) * t / k) for i in range(k)]
    else:  # random, shared: every window as often as any other, give or take one
        counts = Counter(taken)
        assert len(counts) == min(k, t)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("tier", tiers.TIERS)
def test_shared_windows_are_those_that_all_modalities_have(tier, stores):
    config = adapting("shared:2")
    opened = open_run(config, stores, tier=tier)
    draw = draws(config, opened.sides)["source"]
    seen = set()
    for _ in range(100):
        side = next(draw)
        for i, position in enumerate(side.index.tolist()):
            row = opened.sides["source"].rows[position]
            taken = []
            for m, store in opened.stores.items():
                if store.length[row]:
                    own = store.read([row])[0].astype(np.float32)
                    taken.append(tuple(int(np.flatnonzero((own == w).all(1))[0]) for w in side.x[m][i].numpy()))
            assert len(set(taken)) == 1
            seen |= set(taken)
    assert {(0, 0), (0, 1), (0, 3), (2, 3)} <= seen


def test_windows_of_short_rows_move_no_draw_of_the_others(stores, whole):
    """Rows that have all T windows get the same windows, whether or not others are shorter."""
    config = adapting("random:2")
    short, full = (draws(config, open_run(config, where).sides)["target"] for where in (stores, whole))
    lengths = short.table.present["rgb"].sum(1)
    for _ in range(10):
        index = next(short).index
        assert torch.equal(index, next(full).index)
        short_windows, full_windows = (draw.windows(index)["rgb"] for draw in (short, full))
        same = lengths[index] == T
        assert torch.equal(short_windows[same], full_windows[same])
    assert (lengths == T).any()


def no_mmap(store):
    raise OSError(12, "mmap of 99 bytes: Cannot allocate memory")


@pytest.mark.parametrize(
    ("name", "replacement", "obstacle"),
    [
        ("why_not", lambda store: f"{store.name} has no pages", "hog has no pages"),
        ("Mapped", no_mmap, r"the stores cannot be mapped here \(.*mmap of 99 bytes: Cannot allocate memory\)"),
    ],
)
def test_unmapped_stores_are_read_instead(name, replacement, obstacle, stores, monkeypatch):
    config = adapting("segments:2", "all")
    expected = open_run(config, stores)
    monkeypatch.setattr(tiers, name, replacement)
    opened = open_run(config, stores)
    assert (opened.features.tier, opened.features.maps) == ("resident", {})
    assert re.search(f"in float32, of .*; {obstacle}$", opened.features.why)
    for pair in zip(opened.sweep("source"), expected.sweep("source"), strict=True):
        equal(*pair)
    equal(*(next(draws(config, o.sides)["source"]) for o in (opened, expected)))
    with pytest.raises(StoreError, match=rf"in the tier streaming \(.*\), but {obstacle}"):
        _ = open_run(config, stores, memory=10).sides


@pytest.mark.parametrize("tier", [None, *tiers.TIERS])
def test_a_damaged_store_is_an_error(tier, stores, monkeypatch):
    def damaged(store):
        raise StoreError(f"{store.name} is damaged")

    monkeypatch.setattr(tiers, "Mapped", damaged)
    with pytest.raises(StoreError, match="^hog is damaged$"):
        _ = open_run(adapting(), stores, tier=tier).sides


def test_pieces_are_read_ahead_of_their_copying_and_let_go_of(stores, spied, monkeypatch):
    monkeypatch.setattr(tiers, "PIECE_BYTES", 5 * 1024)
    opened = open_run(run(feeds={"rgb": Feed("hog")}, absent="mask"), stores, tier="resident")
    rows = opened.sides["source"].rows
    a, b, c = rows[:5], rows[5:10], rows[10:]
    calls = [(call, rows) for call, _, rows in spied if rows]
    assert calls == [("ahead", a), ("ahead", b), ("release", a), ("ahead", c), ("release", b), ("release", c)]


def test_mapped_rows_are_populated_and_streamed_ones_are_not(stores, spied):
    opened = {tier: open_run(run(feeds={"rgb": Feed("hog")}, absent="mask"), stores, tier=tier) for tier in tiers.TIERS}
    populated = {}
    for tier, opened_run in opened.items():
        spied.clear()
        rows = opened_run.sides["source"].rows
        populated[tier] = [populated_rows for call, _, populated_rows in spied if call == "populate"]
    assert populated == {"resident": [], "mapped": [rows], "streaming": []}


def test_kept_windows_are_the_only_ones_in_memory(stores, monkeypatch):
    """Sweeps of other windows read the mapped store; there is no second table, but where nothing can be mapped."""
    loaded, resident = [], tiers.Features.resident
    monkeypatch.setattr(
        tiers.Features, "resident", lambda self, m, rows, draw: (loaded.append(draw), resident(self, m, rows, draw))[1]
    )
    config = adapting("segments:2", "all")
    opened = open_run(config, stores, tier="resident")
    for side in opened.sides.values():
        assert all(x.data_ptr() == opened.features.maps[m].tensor().data_ptr() for m, x in side.swept.x.items())
    assert set(loaded) == {"segments:2"}
    monkeypatch.setattr(tiers, "why_not", lambda store: "no")
    _ = open_run(config, stores, tier="resident").sides
    assert set(loaded) == {"segments:2", "all"}


@pytest.mark.parametrize(("share", "rows"), [(5, 5), (0, 1)])
@EVERY
def test_sweeps_have_equal_pieces_in_all_tiers(train_draw, test_draw, share, rows, stores, monkeypatch):
    kind, _, k = test_draw.partition(":")
    row_bytes = 4 * (128 + 256) * (int(k) if kind == "segments" else T)
    monkeypatch.setattr("pipelines.data.rows.SWEEP_BYTES", share * row_bytes)
    for tier in tiers.TIERS:
        opened = open_run(adapting(train_draw, test_draw), stores, tier=tier)
        for sides in (list(opened.sweep("source")), list(opened.test("day", "night").sweep())):
            assert [len(side.index) for side in sides] == [rows] * (12 // rows) + [12 % rows] * (12 % rows > 0)


# ------------------------------------------------------------------------------------------------------------ streaming


@pytest.fixture
def spied(monkeypatch):
    """The calls that read ahead, release and populate rows: [(call, bytes of a row, rows)].

    Threads that read ahead end with the test.
    """
    calls, streams, init = [], [], Stream.__init__
    monkeypatch.setattr(Stream, "__init__", lambda self, *args: (streams.append(self), init(self, *args))[1])
    for call in ("ahead", "release", "populate"):
        real = getattr(Mapped, call)

        def spy(self, rows, call=call, real=real):
            calls.append((call, self.row_bytes, sorted(rows.tolist())))
            real(self, rows)

        monkeypatch.setattr(Mapped, call, spy)
    yield calls
    for stream in streams:
        stream.reader.shutdown(cancel_futures=True)


def test_streaming_draws_every_row_once_per_pass_from_a_few_blocks(stores, spied, monkeypatch):
    monkeypatch.setattr("pipelines.data.draws.GROUP", 2)
    config = adapting("all", batch=(3, 6))
    opened = open_run(config, stores, tier="streaming")
    draw = draws(config, opened.sides)["source"]  # 12 rows: 3 blocks of 4, 2 of them shuffled together
    passes = []
    for _ in range(20):
        rows = [row for _ in range(4) for row in next(draw).index.tolist()]
        assert sorted(rows) == list(range(12))
        assert len({row // 4 for row in rows[:8]}) == 2
        passes.append(rows)
    assert len({tuple(rows) for rows in passes}) == 20
    released = Counter(row for call, size, rows in spied if (call, size) == ("release", 1024) for row in rows)
    assert all(19 <= released[row] <= 20 for row in opened.sides["source"].rows)


def test_streaming_reads_ahead_what_comes_and_lets_go_of_what_was(stores, spied, monkeypatch):
    monkeypatch.setattr("pipelines.data.draws.GROUP", 1)
    config = adapting("all", batch=(4, 6))  # a batch is a block
    opened = open_run(config, stores, tier="streaming")
    draw = draws(config, opened.sides)["source"]
    at = torch.tensor(opened.sides["source"].rows)
    batches = []
    for _ in range(6):
        batches.append(sorted(at[next(draw).index].tolist()))
    opened.features.stream.reader.shutdown()
    for size in (1024, 2048):
        calls = [(call, rows) for call, row_bytes, rows in spied if row_bytes == size]
        assert [rows for call, rows in calls if call == "ahead"][:5] == batches[1:]
        assert [rows for call, rows in calls if call == "release"] == batches[:5]


def test_streaming_sweeps_in_order_and_lets_go(stores, spied, monkeypatch):
    monkeypatch.setattr("pipelines.data.rows.SWEEP_ROWS", 5)
    config = adapting("all")
    opened = open_run(config, stores, tier="streaming")
    sides = [side.index.tolist() for side in opened.sweep("source")]
    assert sides == [list(range(5)), list(range(5, 10)), [10, 11]]
    rows = opened.sides["source"].rows
    released = [rows for call, size, rows in spied if (call, size) == ("release", 1024)]
    assert released == [rows[:5], rows[5:10], rows[10:]]


def test_new_pools_let_go_of_the_old_ones(stores, spied):
    config = adapting("all")
    opened = open_run(config, stores, tier="streaming")
    draw = draws(config, opened.sides)["source"]
    next(draw)
    assert not [call for call, _, _ in spied if call == "release"]
    draw.use([torch.tensor([1, 1, 5])])
    assert set(next(draw).index.tolist()) == {1, 5}
    assert len([call for call, _, _ in spied if call == "release"]) == 2 + 2 * 1  # old group; the 3 rows are used up


class Failing:
    """A mapped store whose rows cannot be read ahead."""

    def ahead(self, rows):
        raise OSError("the disk is gone")

    def release(self, rows):
        pass


@pytest.mark.parametrize("call", ["ahead", "release"])
def test_errors_of_reading_ahead_are_raised_at_the_next_call(call):
    stream = Stream([Failing()], 4)
    stream.ahead(torch.arange(3))
    wait(stream.reading)
    with pytest.raises(OSError, match="the disk is gone"):
        getattr(stream, call)(torch.arange(3))
    stream.close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_thread_that_reads_ahead_ends_with_the_run(fails, stores, tmp_path, monkeypatch):
    def reading():
        return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]

    seen, before, fit = [], set(reading()), train_module.fit

    def spy(*args, prefetch):
        found = fit(*args, prefetch=prefetch)
        seen.extend(set(reading()) - before)
        if fails:
            raise StoreError("the disk is gone")
        return found

    monkeypatch.setattr(train_module, "fit", spy)
    with pytest.raises(StoreError) if fails else contextlib.nullcontext():
        train(adapting("all", steps=6), stores, tmp_path, memory=0)
    assert len(seen) == 1
    assert not seen[0].is_alive()


def test_groups_are_four_blocks():
    assert GROUP == 4  # of 24 to 48 MB each: what docs and benchmarks say


# -------------------------------------------------------------------------------------------------------------- choice


def choose(memory, workers=1, draw="all", tier=None, stores=None):
    opened = {"rgb": FeatureStore.open(stores / "toy" / "hog.zarr")}
    features = open_features(opened, [Wanted(36, {"rgb": draw})], memory=memory, workers=workers, tier=tier)
    return features.tier, features.why


def test_the_tier_that_fits_is_chosen_and_explained(stores):
    floats, stored = 36 * T * 128 * 4, 36 * T * 128 * 2
    at = lambda bytes_, share: int(bytes_ / share) + 1  # noqa: E731
    assert choose(at(floats, tiers.RESIDENT), stores=stores)[0] == "resident"
    assert choose(at(floats, tiers.RESIDENT) - 2, stores=stores)[0] == "mapped"
    assert choose(at(stored, tiers.MAPPED), stores=stores)[0] == "mapped"
    assert choose(at(stored, tiers.MAPPED) - 2, stores=stores)[0] == "streaming"


def test_a_fixed_draw_needs_less(stores):
    floats = 36 * 128 * 4
    memory = int(floats / tiers.RESIDENT) + 1
    assert [choose(memory, draw=draw, stores=stores)[0] == "resident" for draw in ("mean", "segments:1")] == [True] * 2
    assert choose(memory, draw="segments:2", stores=stores)[0] != "resident"
    assert choose(memory, draw="random:1", stores=stores)[0] != "resident"


def test_workers_share_the_memory_and_mapped_pages(stores):
    memory = int(36 * T * 128 * 4 / tiers.RESIDENT) + 1
    assert choose(memory, stores=stores)[0] == "resident"
    assert choose(2 * memory, workers=2, stores=stores)[0] == "resident"
    assert choose(memory, workers=2, stores=stores)[0] == "mapped"
    assert choose(memory, workers=100, stores=stores)[0] == "mapped"


def test_the_reason_has_the_figures(stores, monkeypatch):
    monkeypatch.setattr(tiers, "size", lambda count: f"{int(count)} B")
    floats, stored = 36 * T * 128 * 4, 36 * T * 128 * 2
    assert choose(10**9, stores=stores)[1] == f"{floats} B in float32, of 1000000000 B free RAM"
    assert choose(10**5, workers=3, stores=stores)[1] == (
        f"{floats} B in float32 are more than 40% of 100000 B free RAM shared by 3 runs, "
        f"{stored} B as stored are not more than 60% of 100000 B free RAM"
    )
    assert choose(99, stores=stores)[1] == f"{stored} B as stored are more than 60% of 99 B free RAM"
    assert choose(99, tier="resident", stores=stores) == ("resident", "asked for")
    with pytest.raises(ConfigError, match="no tier 'disk'.*resident, mapped, streaming"):
        choose(99, tier="disk", stores=stores)


def test_half_of_the_memory_is_free_where_the_system_has_no_number(tmp_path):
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert free_memory(proc=tmp_path) == half
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\n")
    assert free_memory(proc=tmp_path) == half


def test_a_system_without_groups_has_the_number_of_its_kernel(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert free_memory(proc=tmp_path) == 5000 << 10


def test_free_memory_is_part_of_the_machine():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() < total


def test_a_device_has_its_own_memory(stores, monkeypatch):
    """Features in float32 lie there; as stored they stay in RAM, and so do decoded archives."""
    monkeypatch.setattr(tiers, "size", lambda count: f"{int(count)} B")
    monkeypatch.setattr(tiers, "free_memory", lambda device="cpu": {"cpu": 10, "cuda:1": 10**6}[device])
    choose = tiers._choose
    assert choose(400_000, 9, 0, "cuda:1", 10, 1) == (
        "resident",
        "400000 B in float32, of 1000000 B free memory on cuda:1",
    )
    assert choose(400_000, 6, 0, "cuda:1", 10, 2) == (
        "mapped",
        "400000 B in float32 are more than 40% of 1000000 B free memory on cuda:1 shared by 2 runs, "
        "6 B as stored are not more than 60% of 10 B free RAM",
    )
    assert choose(400_000, 9, 4, "cuda:1", 10, 1)[0] == "resident"
    assert choose(400_000, 6, 5, "cuda:1", 10, 1)[1].startswith(
        "400000 B in float32 and 5 B of archives that are decoded whole are more than 40% of 10 B free RAM, "
    )


def test_archives_are_decoded_whole(stores):
    """All rows of them, whatever the run wants, beside the features in float32."""
    store = FeatureStore.open(stores / "toy" / "hog.zarr")
    store.archived = True
    floats, decoded = 3 * 128 * 4, 36 * T * 128 * 2
    memory = int((floats + decoded) / tiers.RESIDENT) + 1
    features = open_features({"rgb": store}, [Wanted(3, {"rgb": "mean"})], memory=memory)
    assert features.tier == "resident"
    assert features.why.endswith(
        "hog.zarr is an archive, which cannot be mapped; `featcache unpack` makes a store of it"
    )
    with pytest.raises(StoreError, match=r"in the tier mapped \(.* of archives .*\), but .*featcache unpack"):
        open_features({"rgb": store}, [Wanted(3, {"rgb": "mean"})], memory=memory - 2)


def test_a_second_table_counts_where_nothing_is_mapped(stores, monkeypatch):
    config = adapting("segments:2", "all")
    one, all_ = 2 * 4 * (128 + 256), T * 4 * (128 + 256)  # bytes of a row
    mapped, unmapped = 24 * one + 6 * all_, 24 * (one + all_) + 6 * all_
    memory = int(mapped / tiers.RESIDENT) + 1
    assert open_run(config, stores, memory=memory).features.tier == "resident"
    assert open_run(config, stores, memory=memory - 2).features.tier == "mapped"
    monkeypatch.setattr(tiers, "why_not", lambda store: "no")
    memory = int(unmapped / tiers.RESIDENT) + 1
    assert open_run(config, stores, memory=memory).features.tier == "resident"
    with pytest.raises(StoreError, match="but no$"):
        _ = open_run(config, stores, memory=memory - 2).features


def test_what_is_free_is_the_default(stores, monkeypatch):
    for free, tier in ((10**9, "resident"), (10**5, "mapped"), (99, "streaming")):
        monkeypatch.setattr(tiers, "free_memory", lambda device="cpu", free=free: free)
        assert choose(None, stores=stores)[0] == tier


V1, V2 = "5:memory:", "0::"
FILES = {
    V1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"),
    V2: ("", "memory.max", "memory.current", "file", "shmem"),
}


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize(
    ("groups", "free"),
    [
        ({}, 5000 << 10),
        ({"a/b": ("max", 700, 300, 0)}, 5000 << 10),
        ({"a/b": ("1000", 700, 300, 0)}, 600),
        ({"a/b": ("1000", 700, 300, 120)}, 480),  # tmpfs is page cache that cannot be let go of
        ({"a/b": ("1000", 1500, 300, 0)}, 0),  # above the limit
        ({"a/b": ("1000", 100, 0, 0), "a": ("1000", 800, 0, 0)}, 200),  # the group around it has less
        ({"a/b": ("max", 100, 0, 0), "": ("900", 800, 0, 0)}, 100),
        ({"c": ("1000", 900, 0, 0)}, 5000 << 10),  # another group
        ({"a/b": (str(1 << 62), 700, 300, 0)}, 5000 << 10),
    ],
)
def test_cgroups_leave_what_their_limits_say(version, groups, free, tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 5000 kB\n")
    (tmp_path / "self" / "cgroup").write_text(f"7:cpu,cpuacct:/c\n{version}/a/b\n")
    hierarchy, limit_file, usage_file, cache, tmpfs = FILES[version]
    for group, (limit, usage, cached, shared) in groups.items():
        folder = tmp_path / "cgroup" / hierarchy / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit_file).write_text(f"{limit}\n")
        (folder / usage_file).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 400\n{cache} {cached}\n{tmpfs} {shared}\n")
    assert free_memory("cpu", tmp_path, tmp_path / "cgroup") == free


# ---------------------------------------------------------------------------------------------------------------- runs


def test_a_run_says_its_tier_and_trains_alike(stores, tmp_path):
    config = adapting("random:2", "each", steps=6)
    stored = 30 * T * (128 + 256) * 2  # rows of source, target and test
    logs = {}
    for memory in (None, 2 * stored, 0):
        made = Run.open(train(config, stores, tmp_path / str(memory), memory=memory))
        logs[made.facts.tier] = made.log()
        assert made.facts.tier_why
    assert list(logs) == ["resident", "mapped", "streaming"]
    assert logs["resident"] == logs["mapped"]


def test_runs_that_share_memory_share_the_budget(stores, tmp_path):
    config = adapting("all", steps=1)
    memory = int(30 * T * (128 + 256) * 4 / tiers.RESIDENT) + 1
    found = [Run.open(train(config, stores, tmp_path / str(n), memory=memory, workers=n)).facts.tier for n in (1, 2)]
    assert found == ["resident", "mapped"]


def test_the_engine_says_how_many_share_what_memory(stores, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(engine, "free_memory", lambda: 12345)
    monkeypatch.setattr(engine, "train_unless_done", lambda config, stores, runs, device, *rest: given.append(rest[:2]))
    monkeypatch.setattr(engine, "in_parallel", lambda train_one, jobs, *_: in_parallel(train_one, jobs, 1))
    for workers, runs in ((1, 3), (2, 3), (9, 3)):
        engine.run_all([run(seed=k) for k in range(runs)], stores, tmp_path, workers=workers)
    assert given == [(12345, 1)] * 3 + [(12345, 2)] * 3 + [(12345, 3)] * 3


def test_the_engine_tells_tier_and_reason(stores, tmp_path):
    for status, tier in (("trained", "resident"), ("kept", "")):
        (outcome,) = engine.run_all([adapting(steps=1)], stores, tmp_path)
        assert (outcome.status, outcome.tier) == (status, tier)
        assert ("in float32, of" in outcome.tier_why) == (status == "trained")


@pytest.mark.parametrize("absent", ["refuse", "drop"])
@pytest.mark.parametrize("draw", ["all", "each"])
def test_padding_is_refused_unless_masks_are_read(draw, absent, stores):
    config = adapting("random:2", draw, absent=absent, feeds={"rgb": Feed("hog", train="random:2", test=draw)})
    config = dataclasses.replace(config, source=("night",), target=None, test="day", method=run().method)
    with pytest.raises(
        ConfigError,
        match=f"store 'hog' .*4 windows in 9 of 12 rows.*feeds.rgb.test={draw} .*segments:K, mean.*absent=mask",
    ):
        _ = open_run(config, stores).sides
    for fix in ("segments:2", "mean"):
        fixed = dataclasses.replace(config, feeds={"rgb": Feed("hog", train="random:2", test=fix)})
        assert len(open_run(fixed, stores).sides["source"]) == 12
    assert len(open_run(dataclasses.replace(config, absent="mask"), stores).sides["source"]) == 12


def test_spec_says_one_window_of_means(stores):
    assert open_run(adapting("mean"), stores).spec.windows == {"rgb": 1, "flow": 1}


# -------------------------------------------------------------------------------------------------- larger than memory


@pytest.mark.slow
@pytest.mark.parametrize("gib", [1, 50])
def test_reading_what_is_larger_than_memory_takes_little(gib, tmp_path):
    """A store of holes, swept whole and drawn from; in a process of its own, with blocks of the usual size."""
    code = f"""
        from pathlib import Path
        from pipelines.bench.store import sparse_store, stream_all
        sparse_store(Path({str(tmp_path)!r}) / "bench", {gib << 10})
        stream_all({str(tmp_path)!r}, 40, {gib << 28})  # memory: a quarter of the store
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    printed = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout)
    rows = (gib << 10) - (gib << 10) // 64  # without those of the test
    assert (printed["tier"], printed["swept"]) == ("streaming", rows)
    assert printed["drawn"] == min(rows, 40 * 32)
    assert printed["peak_bytes"] < min(2 << 30, gib << 30)
