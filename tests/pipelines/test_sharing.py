"""Features in memory that runs and workers share: one copy, whole or absent, and the same batches."""

import dataclasses
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from featcache.errors import StoreError
from heads.methods import rna
from pipelines.bench import workers
from pipelines.config import Feed
from pipelines.data import sharing, tiers
from pipelines.data.draws import batches, draws
from pipelines.data.opening import open_run
from pipelines.data.sharing import Place, copies, held, join, meeting_place
from pipelines.training import engine
from pipelines.training.runs import Run
from tests.conftest import ROOT
from tests.helpers import caption_stores
from tests.helpers.stores import run, write_all

KEY = "0123456789abcdef" * 4


def adapting(draw="mean", test="mean", **changes):
    """RNA from day to night on both stores."""
    feeds = {m: Feed(name, train=draw, test=test) for m, name in (("rgb", "hog"), ("flow", "hof"))}
    return run(**{"target": "night", "method": rna.Params(), "feeds": feeds, **changes})


@pytest.fixture
def stores(tmp_path):
    return write_all(tmp_path / "stores")


@pytest.fixture
def place():
    """A place that this process has joined, for two workers with equal features."""
    with meeting_place(2, 1) as made:
        join(made)
        yield made
        join(None)


def other_worker():
    """Forget the tensors of this process, as another worker that has joined the same place does not know them."""
    sharing._here.clear()


def rights_of(tensor):
    """The rights of the pages of a tensor, as in /proc/self/maps."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(address, 16) for address in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return line.split()[1]
    return None


def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def filled(value, log):
    def fill(x):
        log.append(value)
        x.fill_(value)

    return fill


def test_runs_of_a_process_share_a_tensor_while_one_uses_it():
    log = []
    first = held(KEY, (3, 2), "cpu", filled(1, log))
    assert held(KEY, (3, 2), "cpu", filled(2, log)) is first
    assert held(KEY[::-1], (3, 2), "cpu", filled(3, log)).eq(3).all()
    del first
    assert held(KEY, (3, 2), "cpu", filled(4, log)).eq(4).all()
    assert log == [1, 3, 4]


def test_workers_map_one_copy_that_nobody_can_write(place):
    log = []
    first = held(KEY, (3, 2), "cpu", filled(1, log))
    other_worker()
    second = held(KEY, (3, 2), "cpu", filled(2, log))
    assert second is not first
    assert torch.equal(first, second)
    assert log == [1]
    assert {rights_of(first), rights_of(second)} == {"r--s"}


@pytest.mark.slow
def test_a_copy_ends_with_its_last_user(place):
    before, log = open_files(), []
    first = held(KEY, (3, 2), "cpu", filled(1, log))
    other_worker()
    second = held(KEY, (3, 2), "cpu", filled(2, log))
    del first
    other_worker()
    third = held(KEY, (3, 2), "cpu", filled(3, log))  # from the second, because the first is gone
    assert third.eq(1).all()
    del second, third
    assert open_files() == before
    assert held(KEY, (3, 2), "cpu", filled(4, log)).eq(4).all()
    assert log == [1, 4]


def test_views_keep_a_copy(place):
    row = held(KEY, (3, 2), "cpu", filled(1, []))[1]
    gc.collect()
    assert row.eq(1).all()


@pytest.mark.slow
def test_a_copy_that_could_not_be_filled_is_not_there(place):
    def damaged(x):
        x.fill_(9)
        raise StoreError("a block is damaged")

    before, log = open_files(), []
    with pytest.raises(StoreError, match="a block is damaged"):
        held(KEY, (3, 2), "cpu", damaged)
    assert open_files() == before
    assert held(KEY, (3, 2), "cpu", filled(1, log)).eq(1).all()


def test_an_open_file_with_the_number_of_a_copy_is_not_taken_for_it(place):
    """A line of the list outlives its copy; another file has its number then, here even one of the same size."""
    gone = held(KEY, (3, 2), "cpu", filled(1, []))
    number = int(Path(os.pread(sharing._list, 1000, 0).decode().split()[1]).name)
    del gone
    other = os.memfd_create("other")
    os.ftruncate(other, 24)
    os.dup2(other, number)
    try:
        assert held(KEY, (3, 2), "cpu", filled(5, [])).eq(5).all()
    finally:
        for file in {other, number}:
            os.close(file)


@pytest.mark.parametrize("part", ["", "\n", "0123", KEY, f"{KEY} /proc/1/fd/3", f"{KEY} /proc/1/fd/3 7"])
def test_a_part_of_a_line_in_the_list_hides_no_copy(part, place):
    """A worker was killed while it wrote its line, before or after another one did."""
    log = []
    os.write(sharing._list, part.encode())
    held(KEY[::-1], (3, 2), "cpu", filled(0, []))  # may be added to that line
    first = held(KEY, (3, 2), "cpu", filled(1, log))
    os.write(sharing._list, part.encode())
    other_worker()
    second = held(KEY, (3, 2), "cpu", filled(2, log))
    assert first.eq(1).all()
    assert second.eq(1).all()
    assert log == [1]


@pytest.mark.parametrize("refused", ["memfd_create", "ftruncate", "open"])
def test_a_system_that_refuses_gives_each_worker_its_own_copy(refused, place, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(1, "not permitted")

    log = []
    first = held(KEY, (3, 2), "cpu", filled(1, log))
    monkeypatch.setattr(os, refused, refuse)
    other_worker()
    second = held(KEY[::-1], (3, 2), "cpu", filled(2, log))
    third = held(KEY, (3, 2), "cpu", filled(3, log))
    assert (first[0, 0], second[0, 0], third[0, 0]) == (1, 2, 3 if refused == "open" else 1)


def test_nobody_shares_without_a_place(monkeypatch):
    with meeting_place(1, 1) as alone:
        assert alone is None
    with meeting_place(8, 3) as place:
        assert place.sets == 3
    join(Place("/proc/self/fd/nothing", 1))
    assert copies(8) == 8
    monkeypatch.delattr(os, "memfd_create")
    with meeting_place(8, 3) as place:
        assert place is None


def test_copies_are_the_sets_of_features_and_not_the_workers(place, monkeypatch):
    monkeypatch.setattr(tiers, "size", lambda count: f"{int(count)} B")
    assert copies(8) == 1
    assert tiers._choose(400, 9, 0, "cpu", 1000, 8) == (
        "resident",
        "400 B in float32, of 1000 B free RAM shared by 8 runs with 1 set of features",
    )
    assert tiers._choose(401, 9, 0, "cpu", 1000, 8)[0] == "mapped"
    assert tiers._choose(392, 9, 1, "cpu", 1000, 8)[0] == "resident"  # each worker decodes an archive
    assert tiers._choose(393, 9, 1, "cpu", 1000, 8)[0] == "mapped"
    join(None)
    assert tiers._choose(50, 9, 0, "cpu", 1000, 8)[0] == "resident"
    assert tiers._choose(51, 9, 0, "cpu", 1000, 8)[0] == "mapped"


# ---------------------------------------------------------------------------------------------------------------- runs


def drawn(config, stores, **options):
    """Three batches of a run, and its sweeps of both sides and the test rows."""
    opened = open_run(config, stores, **options)
    with batches(draws(config, opened.sides), 3) as stream:
        sides = [dataclasses.replace(side, x={m: x.clone() for m, x in side.x.items()})
                 for batch in stream for side in (batch.source, batch.target)]  # fmt: skip
    return opened, [*sides, *opened.sweep("source"), *opened.sweep("target"), *opened.test().sweep()]


def same(ones, others):
    return all(
        torch.equal(one.x[m], other.x[m]) and torch.equal(one.present[m], other.present[m])
        for one, other in zip(ones, others, strict=True)
        for m in one.x
    )


@pytest.mark.parametrize("holdout", [0.0, 0.25])
@pytest.mark.parametrize("draw", ["mean", "segments:2", "random:2"])
def test_shared_features_give_the_same_batches(holdout, draw, stores, place):
    config = adapting(draw, "mean", holdout=holdout)
    _first, shared = drawn(config, stores)
    other_worker()
    _second, again = drawn(config, stores)
    assert same(shared, again)
    join(None)
    other_worker()
    _, alone = drawn(config, stores)
    assert same(shared, alone)
    assert same(shared, drawn(config, stores, tier="mapped")[1])


@pytest.mark.parametrize("holdout", [0.0, 0.25])
def test_runs_that_differ_in_their_seed_have_one_copy(holdout, stores, monkeypatch):
    """Even if they hold out other rows of the source."""
    read, reading = [], tiers.Features._read
    monkeypatch.setattr(tiers.Features, "_read", lambda self, m, rows: (read.append(m), reading(self, m, rows))[1])
    opened = [open_run(adapting(holdout=holdout, seed=seed), stores) for seed in range(3)]
    sides = [run.sides for run in opened]
    assert len(read) == 2 * 2  # modalities x (source, target)
    held_out = {tuple(rows["source_val"].rows) for rows in sides} if holdout else set()
    assert len(held_out) == (3 if holdout else 0)
    assert len({rows["source"].x["rgb"].data_ptr() for rows in sides}) == 1


def test_captions_have_one_copy_too(tmp_path):
    where = caption_stores.write_all(tmp_path)
    opened = [open_run(caption_stores.run(holdout=0.3, seed=seed), where) for seed in range(3)]
    tables = [run.sides["source"].captions.table for run in opened]
    assert len({tuple(table.rows) for table in tables}) == 3
    assert len({table.x["sentence"].data_ptr() for table in tables}) == 1


@pytest.mark.slow
def test_a_killed_worker_leaves_no_half_copy_and_no_lock(place):
    code = f"""if True:
        import os
        from pipelines.data.sharing import Place, held, join
        def fill(x):
            x[:500] = 9
            os.kill(os.getpid(), {signal.SIGKILL})
        join(Place({place.path!r}, 1))
        held({KEY!r}, (1000, 3), "cpu", fill)
    """
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert held(KEY, (1000, 3), "cpu", filled(2, [])).eq(2).all()


@pytest.mark.slow
def test_workers_train_what_one_process_trains(stores, tmp_path):
    configs = [adapting("random:2", seed=seed, steps=6) for seed in range(2)]
    for count in (1, 2):
        outcomes = engine.run_all(configs, stores, tmp_path / str(count), workers=count)
        assert {outcome.status for outcome in outcomes} == {"trained"}
        assert {"1 set of features" in outcome.tier_why for outcome in outcomes} == {count == 2}
    alone, together = ([Run.open(tmp_path / count / config.id) for config in configs] for count in "12")
    assert [run.log() for run in alone] == [run.log() for run in together]


@pytest.mark.slow
def test_eight_workers_take_the_memory_of_one(tmp_path):
    """With all that Python and torch take."""
    workers.write(tmp_path, 1 << 30)
    one, eight = (workers.memory_of(tmp_path, count) for count in (1, 8))
    assert one > 7 << 27  # the features of three quarters of the clips, and Python
    assert eight < 1.3 * one
