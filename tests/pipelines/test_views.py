"""Training on views: each row from one of its stores, everything else as without; sweeps and tests never see one."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from featcache.errors import ConfigError, StoreError
from featcache.store import StoreWriter
from featcache.store.mapped import Mapped
from heads.methods import rna
from pipelines.cli import main
from pipelines.config import Feed, RunConfig, override
from pipelines.data import tiers
from pipelines.data.draws import Draw, draws
from pipelines.data.gathering import Buffers
from pipelines.data.opening import open_run
from pipelines.evaluation.evaluate import evaluate
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.stores import manifest, run, small_blocks, write_store
from tests.pipelines.test_tiers import DRAWS, T, check, clone, equal

WIDTH = 128  # rows of whole pages, four at a time
VIEWS = {"rgb": ("hog", "hog@flip", "hog@left"), "flow": ("hof", "hof@flip", "hof@left")}
#: in the fast suite: mapped features give the same tensors as resident ones, see below
RESIDENT_OR_STREAMING = pytest.mark.parametrize(
    "tier", ["resident", pytest.param("mapped", marks=pytest.mark.slow), "streaming"]
)
ALL_TIERS = pytest.mark.parametrize("tier", tiers.TIERS)
EVERY = pytest.mark.parametrize(("train_draw", "test_draw"), DRAWS)


def write_view(folder, name, view, *, clips=None, windows=T, width=WIDTH, lacking=None, start=0.0, **recipe):
    """Features that say their view, row and window; row r has 1 + r % windows of them. `lacking`: row -> why."""
    dtype, clips = "float32" if view == 1 else "float16", clips or manifest()
    plain = {"extractor": name, "version": 1, "modality": "rgb", "weights_sha256": "none", "dtype": dtype}
    with StoreWriter.open(
        folder / f"{name}.zarr", clips, plain | recipe, row_shape=(width,), windows=windows, facts={}
    ) as writer:
        for row in range(len(clips)):
            t = 1 + row % windows
            x = np.zeros((t, width), np.float32)
            x[:, 0], x[:, 1], x[:, 2] = view, row, np.arange(t)
            if row in (lacking or {}):
                writer.failed(row, lacking[row])
            else:
                writer.done(row, x, np.arange(t) + start, np.arange(t) + start + 1.0)


@pytest.fixture(scope="module")
def patch():
    with small_blocks() as patch:
        yield patch


@pytest.fixture(scope="module")
def stores(tmp_path_factory, patch):
    """Two views of each store; flow lacks a training row of the source in all of them."""
    stores = tmp_path_factory.mktemp("stores")
    manifest().write(stores / "toy" / "manifest.csv")
    for modality, names in VIEWS.items():
        for view, name in enumerate(names):
            lacking = {1: "moov atom not found"} if modality == "flow" else {}
            write_view(stores / "toy", name, view, modality=modality, lacking=lacking)
    return stores


def feeds(train="all", test="all", views=True):
    return {
        m: Feed(name, train=train, test=test, views=tuple(others) if views else ())
        for m, (name, *others) in VIEWS.items()
    }


def viewed(train="all", test="all", views=True, **changes):
    plain = {"method": rna.Params(), "target": "night", "absent": "mask", "batch": (5, 6)}
    return run(**{**plain, "feeds": feeds(train, test, views), **changes})


def drawn(config, opened, count):
    """Side name -> its next batches, each in memory of its own."""
    sides = draws(config, opened.sides)
    return {name: [clone(next(draw)) for _ in range(count)] for name, draw in sides.items()}


# ------------------------------------------------------------------------------------------------------------ drawing


@RESIDENT_OR_STREAMING
@EVERY
def test_a_row_is_what_one_of_its_stores_says(tier, train_draw, test_draw, stores):
    """All of its windows come from that store, which is not always the same; against numpy, row by row."""
    config = viewed(train_draw, test_draw)
    opened = open_run(config, stores, tier=tier)
    drawn_views = set()
    for name, sides in drawn(config, opened, 12).items():
        rows = opened.sides[name].rows
        for side in sides:
            for m, names in VIEWS.items():
                for i, position in enumerate(side.index.tolist()):
                    x, row = side.x[m][i].numpy(), rows[position]
                    view = int(x[0, 0])
                    key = m if view == 0 else f"{m}/{names[view]}"
                    check(x, side.present[m][i].numpy(), opened.stores[key], row, train_draw)
                    drawn_views.add((m, view))
    assert drawn_views == {(m, view) for m, names in VIEWS.items() for view in range(len(names))}


@pytest.mark.slow
@RESIDENT_OR_STREAMING
def test_every_view_of_every_row_is_drawn_about_equally(tier, stores):
    """And each modality's by itself: all nine pairs of rgb and flow occur alike."""
    config = viewed("random:1")
    counts, pairs = Counter(), Counter()
    opened = open_run(config, stores, tier=tier)
    for side in drawn(config, opened, 300)["target"]:  # 1800 rows of 12
        rgb, flow = (side.x[m][:, 0, 0].long().tolist() for m in ("rgb", "flow"))
        counts.update(zip(side.index.tolist(), rgb, strict=True))
        pairs.update(zip(rgb, flow, strict=True))
    assert len(counts) == 12 * 3
    assert all(abs(count / 150 - 1 / 3) < 0.15 for count in counts.values())  # 4 standard deviations
    assert len(pairs) == 9
    assert all(abs(count / 1800 - 1 / 9) < 0.03 for count in pairs.values())


@pytest.mark.parametrize("train_draw", ["all", "random:2", "shared:2", "segments:2"])
@ALL_TIERS
def test_views_move_no_other_draw(tier, train_draw, stores):
    """Rows, labels and windows are those of the run without views; a row of view 0 is the same to the bit."""
    with_views, without = (viewed(train_draw, views=views) for views in (True, False))
    viewed_batches, plain_batches = (
        drawn(config, open_run(config, stores, tier=tier), 8) for config in (with_views, without)
    )
    others = 0
    for name in ("source", "target"):
        for a, b in zip(viewed_batches[name], plain_batches[name], strict=True):
            for m in VIEWS:
                others += int((a.x[m][:, 0, 0] > 0).sum())
                a.x[m][..., 0] = b.x[m][..., 0]  # all but which view it is
            equal(a, b)
    assert others > 50


@EVERY
def test_resident_and_mapped_give_the_same_tensors(train_draw, test_draw, stores, monkeypatch):
    config = viewed(train_draw, test_draw)
    resident, mapped = (drawn(config, open_run(config, stores, tier=tier), 7) for tier in ("resident", "mapped"))
    monkeypatch.setattr(tiers, "why_not", lambda store: "no")
    read = drawn(config, open_run(config, stores), 7)  # resident, and nothing mapped
    for name in ("source", "target"):
        for a, b, c in zip(resident[name], mapped[name], read[name], strict=True):
            equal(a, b)
            equal(a, c)


@pytest.mark.parametrize("train_draw", ["all", "random:2", "mean"])
def test_reused_memory_holds_the_same_batches(train_draw, stores):
    table = open_run(viewed(train_draw), stores, tier="mapped").sides["source"]
    buffers = Buffers()
    fresh, reused = (Draw(table, 4, 0, "source", memory) for memory in (None, buffers))
    kept = []
    for _ in range(12):
        equal(next(fresh), next(reused))
        kept.append(len(buffers._memory))
    assert kept[-1] == kept[2]  # all there is after a turn: nothing grows with the sizes of the views' parts


@ALL_TIERS
def test_pools_of_a_method_have_views(tier, stores):
    config = viewed("random:1")
    draw = draws(config, open_run(config, stores, tier=tier).sides)["target"]
    draw.use([torch.tensor([3, 3, 7]), torch.tensor([5])])
    sides = [clone(next(draw)) for _ in range(40)]
    row_views = {(int(row), int(x[0, 0])) for side in sides for row, x in zip(side.index, side.x["rgb"], strict=True)}
    assert row_views == {(row, view) for row in (3, 5, 7) for view in range(3)}


def test_seeds_and_sides_draw_views_of_their_own(stores):
    table = open_run(viewed("random:1"), stores).sides["source"]
    views = [
        torch.cat([next(draw).x["rgb"][:, 0, 0] for _ in range(9)])
        for draw in (Draw(table, 4, *how) for how in ((0, "source"), (1, "source"), (0, "target"), (0, "source")))
    ]
    assert torch.equal(views[0], views[3])
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


# ------------------------------------------------------------------------------------------------ sweeps and evaluation


@ALL_TIERS
@EVERY
def test_sweeps_and_tests_see_the_store_alone(tier, train_draw, test_draw, stores):
    with_views, without = (viewed(train_draw, test_draw, views, holdout=0.25) for views in (True, False))
    viewed_run, plain_run = (open_run(config, stores, tier=tier) for config in (with_views, without))
    for name in ("source", "source_val", "target"):
        for a, b in zip(viewed_run.sides[name].sweep(), plain_run.sides[name].sweep(), strict=True):
            equal(a, b)
            assert all((x[..., 0] == 0).all() for x in a.x.values())
    for a, b in zip(viewed_run.test("day", "night").sweep(), plain_run.test("day", "night").sweep(), strict=True):
        equal(a, b)
    assert viewed_run.test().views == {}
    assert viewed_run.spec == plain_run.spec


@pytest.fixture
def read(monkeypatch):
    """What is read ahead and let go of: [(what, view, rows)]."""
    seen = []
    for what in ("ahead", "release"):
        real = getattr(Mapped, what)

        def spy(self, rows, what=what, real=real):
            seen.append((what, int(self.array[0, 0, 0]), sorted(rows.tolist())))
            real(self, rows)

        monkeypatch.setattr(Mapped, what, spy)
    return seen


def test_streaming_reads_of_each_view_the_rows_that_are_drawn_from_it(stores, read, monkeypatch):
    monkeypatch.setattr("pipelines.data.draws.GROUP", 1)
    config = viewed("all", batch=(4, 6), feeds={"rgb": feeds()["rgb"]})  # a batch is a block
    opened = open_run(config, stores, tier="streaming")
    at, draw, taken = opened.sides["source"].rows, draws(config, opened.sides)["source"], []
    for _ in range(9):
        side = next(draw)
        views = side.x["rgb"][:, 0, 0].long()
        taken.append([sorted(at[i] for i in side.index[views == view].tolist()) for view in range(3)])
    opened.features.stream.reader.shutdown()
    for call, expected in (("ahead", taken[1:]), ("release", taken[:8])):
        rows_of_views = [[rows for name, view, rows in read if (name, view) == (call, k)] for k in range(3)]
        assert [list(rows) for rows in zip(*rows_of_views, strict=True)][:8] == expected
    assert any(rows for batch in taken for rows in batch[1:])


def test_streaming_sweeps_read_no_view(stores, read, monkeypatch):
    monkeypatch.setattr("pipelines.data.rows.SWEEP_ROWS", 5)
    opened = open_run(viewed(feeds={"rgb": feeds()["rgb"]}), stores, tier="streaming")
    assert sum(len(side.index) for side in opened.sweep("source")) == 12
    opened.features.stream.reader.shutdown()
    assert sum(len(rows) for call, view, rows in read if (call, view) == ("release", 0)) == 12
    assert not [rows for _, view, rows in read if view and rows]


# -------------------------------------------------------------------------------------------------------------- memory


def test_views_count_when_a_tier_is_chosen(stores):
    """Of 24 training rows all views are held, of 6 test rows the stores alone."""
    floats = (24 * 6 + 6 * 2) * T * WIDTH * 4
    stored = 24 * T * WIDTH * 2 * (2 + 4 + 2) + 6 * T * WIDTH * 2 * 2  # first views are float32
    for needs, share, tier, less in (
        (floats, tiers.RESIDENT, "resident", "mapped"),
        (stored, tiers.MAPPED, "mapped", "streaming"),
    ):
        memory = int(needs / share) + 1
        found = [open_run(viewed(), stores, memory=budget).features.tier for budget in (memory, memory - 2)]
        assert found == [tier, less]


# ------------------------------------------------------------------------------------------------------- configurations


def test_views_survive_json_and_are_part_of_the_id():
    config = viewed()
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert (again, again.id) == (config, config.id)
    assert again.feeds["rgb"].views == ("hog@flip", "hog@left")
    assert viewed(views=False).id != config.id


def test_views_are_set_as_text():
    config = override(viewed(views=False), "feeds.rgb.views=hog@flip, hog@left")
    assert config.feeds["rgb"].views == ("hog@flip", "hog@left")
    assert override(config, "feeds.rgb.views=").feeds["rgb"].views == ()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"views": ("hog",)}, "feeds.rgb names store 'hog' twice; name it once, as store or in views"),
        ({"views": ("a", "b", "a")}, "feeds.rgb names store 'a' twice"),
        ({"views": "hog@flip"}, "feeds.rgb.views='hog@flip' must be a tuple"),
        ({"views": (1,)}, "feeds.rgb.views: 1 is not text"),
        ({"views": ("a",), "seen_by": "test"}, "feeds.rgb.views.*seen_by='test'; leave"),
    ],
)
def test_views_that_cannot_be_meant_are_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        run(feeds={"rgb": Feed("hog", **changes)}, init_from="earlier")


# ------------------------------------------------------------------------------------------------------------- opening


def one(folder, *, absent="refuse", **changes):
    """A run on view `hog@other` of hog, the view written with these changes; row 0 is of the source, 12 of its test."""
    manifest().write(folder / "toy" / "manifest.csv")
    write_view(folder / "toy", "hog", 0)
    write_view(folder / "toy", "hog@other", 2, **changes)
    return run(feeds={"rgb": Feed("hog", train="mean", test="mean", views=("hog@other",))}, absent=absent)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": 64}, r"its row_shape is \(64,\), not \(128,\)"),
        (
            {"windows": 3},
            "store 'hog@other' .*'hog'.*windows is 3, not 4; .*feeds.rgb.views",
        ),
        ({"modality": "flow"}, "its modality is 'flow', not 'rgb'"),
        ({"weights_sha256": "untrained:0"}, "its weights_sha256 is 'untrained:0', not 'none'"),
    ],
)
def test_stores_that_are_no_views_are_refused(changes, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        open_run(one(tmp_path, **changes), tmp_path)


def test_views_of_other_clips_unfinished_or_missing_are_refused(tmp_path):
    config = one(tmp_path)
    write_store(tmp_path / "toy", manifest(), "begun", stop_after=7)
    write_view(tmp_path / "toy", "strange", 1, clips=manifest(train=5))
    for view, error, complaint in (
        ("begun", StoreError, "is unfinished"),
        ("strange", StoreError, "was made from other clips than manifest 'toy'"),
        ("hog@othr", ConfigError, "no store 'hog@othr' in .*; did you mean 'hog@other'"),
    ):
        feed = dataclasses.replace(config.feeds["rgb"], views=("hog@other", view))
        with pytest.raises(error, match=complaint):
            open_run(dataclasses.replace(config, feeds={"rgb": feed}), tmp_path)


@pytest.mark.parametrize("absent", ["refuse", "drop", "mask"])
def test_a_clip_that_a_view_lacks_is_named(absent, tmp_path):
    config = one(tmp_path, absent=absent, lacking={2: "moov atom not found", 3: "no"})
    with pytest.raises(
        ConfigError,
        match=r"2 of 12 clips .*'hog@other'.*'hog'.*'day_chop_train2' "
        r"\(hog@other: moov atom not found; hog: 3 windows from 0 to 3 s\).*feeds.rgb.views",
    ):
        _ = open_run(config, tmp_path).sides


def test_windows_at_other_times_are_refused(tmp_path):
    config = one(tmp_path, start=0.5)
    with pytest.raises(
        ConfigError,
        match=r"12 of 12 clips .* 'day_chop_train0' \(hog@other: 1 window from 0.5 to 1.5 s; hog: 1 window from 0 to",
    ):
        _ = open_run(config, tmp_path).sides


def test_times_that_nobody_knows_are_no_other_times(tmp_path):
    opened = open_run(one(tmp_path, start=np.nan), tmp_path)
    assert set(opened.sides["source"].views) == {"rgb"}


def test_rows_that_are_not_drawn_may_lack_a_view(tmp_path):
    """Rows of the tests, and of domains that the run does not train on."""
    config = one(tmp_path, lacking=dict.fromkeys(range(12, 36), "no"))
    opened = open_run(config, tmp_path)
    assert (len(opened.sides["source"]), len(opened.test())) == (12, 6)
    with pytest.raises(ConfigError, match="12 of 12 clips have other windows in view 'hog@other'"):
        _ = open_run(dataclasses.replace(config, source=("night",), test="day"), tmp_path).sides


# ---------------------------------------------------------------------------------------------------------------- runs


def test_a_run_says_what_views_it_read_and_is_trained_again_when_one_changes(tmp_path):
    config = dataclasses.replace(one(tmp_path / "stores"), steps=3)
    folder = train(config, tmp_path / "stores", tmp_path / "runs")
    facts = Run.open(folder).facts
    assert list(facts.recipes) == ["rgb", "rgb/hog@other"]
    assert set(facts.read) == {"store rgb", "store rgb/hog@other", "manifest"}
    assert facts.spec.shapes == {"rgb": (WIDTH,)}
    before = (folder / "run.json").stat().st_mtime_ns
    train(config, tmp_path / "stores", tmp_path / "runs")
    assert (folder / "run.json").stat().st_mtime_ns == before
    write_view(tmp_path / "stores" / "new", "hog@other", 3)
    (tmp_path / "stores" / "toy" / "hog@other.zarr").rename(tmp_path / "old")
    (tmp_path / "stores" / "new" / "hog@other.zarr").rename(tmp_path / "stores" / "toy" / "hog@other.zarr")
    with pytest.raises(ConfigError, match="store rgb/hog@other has changed since run"):
        evaluate(folder, tmp_path / "stores")
    train(config, tmp_path / "stores", tmp_path / "runs")
    assert Run.open(folder).facts.note.endswith(" changed: store rgb/hog@other")


def test_tiers_train_alike_and_views_make_a_difference(stores, tmp_path):
    logs = {}
    for name, views, memory in (("resident", True, None), ("mapped", True, 500_000), ("without", False, None)):
        config = viewed("random:2", "each", views, steps=6)
        made = Run.open(train(config, stores, tmp_path / name, memory=memory))
        assert made.facts.tier == ("mapped" if name == "mapped" else "resident")
        logs[name] = made.log()
    assert logs["resident"] == logs["mapped"] != logs["without"]


def test_views_are_set_on_the_command_line(tmp_path):
    stores = tmp_path / "stores"
    one(stores)
    words = ("--stores", stores, "--runs", tmp_path / "runs", "--workers", 1, "--seeds", 0, "--only", "source-only")
    settings = ("steps=2", "feeds.rgb.train=mean", "feeds.rgb.test=mean", "feeds.rgb.views=hog@other")
    words = (*words, *(word for setting in settings for word in ("--set", setting)))
    experiment = tmp_path / "mine.py"
    experiment.write_text(
        "from heads.methods import source_only\nfrom heads.nets import adapter\n"
        "from pipelines.config import Feed, RunConfig\n"
        "RUNS = (RunConfig('toy', source_only.Params(), adapter.Params(), {'rgb': Feed('hog')}, row='source-only',\n"
        "                  source=('day',), test='night', epoch='source', batch=(6, 6)),)\n"
    )
    result = CliRunner().invoke(main, [str(word) for word in ("train-head", experiment, *words)])
    assert result.exit_code == 0, result.output
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert Run.open(folder).config.feeds["rgb"].views == ("hog@other",)
    assert "rgb/hog@other" in Run.open(folder).facts.recipes
