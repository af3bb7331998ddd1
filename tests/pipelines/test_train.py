"""The loop against one written by hand, and everything a run promises: repeatable, whole, blind to target labels."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from featcache import registry
from featcache.errors import ConfigError
from featcache.store import StoreWriter
from heads import methods
from heads.batch import Batch
from heads.methods import rna, source_only
from heads.nets import adapter
from heads.testing.problems import net_for, small
from pipelines.config import Feed, Optim, override
from pipelines.data.opening import open_run
from pipelines.evaluation.evaluate import evaluate
from pipelines.training import engine
from pipelines.training import train as train_module
from pipelines.training.outputs import feature_norms, look, outputs
from pipelines.training.runs import Run, files_of
from pipelines.training.train import train
from tests.helpers import caption_stores as captioned
from tests.helpers.stores import manifest, run, write_all, write_store
from tests.helpers.weights import HEAD, put


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def captioned_stores(tmp_path_factory):
    return captioned.write_all(tmp_path_factory.mktemp("stores"))


HEALTHY = {"net": adapter.Params(dim=64), "optim": Optim(lr=0.01, clip_norm=5.0)}  # narrow or faster, RNA collapses


def adapting(**changes):
    return run(**{"method": rna.Params(), "target": "night", "row": "RNA (UDA)", **HEALTHY, **changes})


EVERY = pytest.mark.parametrize(
    "config", [run(), run(method=rna.Params(), **HEALTHY), adapting()], ids=["source", "DG", "UDA"]
)


# ------------------------------------------------------------------------------------------------------------ the loop


def test_equals_a_loop_written_by_hand(stores, tmp_path):
    """Momentum, weight decay, milestones and clipping included; rows from the same stream of draws."""
    optim = Optim(lr=0.3, momentum=0.8, weight_decay=0.01, milestones=(0.5,), gamma=0.2, clip_norm=0.4)
    config = run(net=adapter.Params(dim=8, dropout=0.0), optim=optim, steps=9, batch=(5, 5))
    log = Run.open(train(config, stores, tmp_path)).log()

    opened = open_run(config, stores)
    torch.manual_seed(config.seed)
    net = adapter.Adapter(config.net, opened.spec)
    velocity = {name: None for name, _ in net.named_parameters()}
    rows = opened.sides["source"]
    draw = train_module.draws(config, opened.sides)["source"]
    for step in range(9):
        index = next(draw).index
        z = torch.zeros(5, 3)
        for m, x in rows.x.items():
            z = z + net.F[m](x[index].mean(1)).clamp_min(0) @ net.classifier.G[f"{m}:label"].weight.T
        loss = cross_entropy(z + net.classifier.g[":label"], rows.y["label"][index])
        assert log[step]["L_C"] == pytest.approx(loss.item(), rel=1e-4)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        total = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        lr = 0.3 * (0.2 if step / 9 >= 0.5 else 1.0)
        with torch.no_grad():
            for (name, w), g in zip(net.named_parameters(), gradients, strict=True):
                g = g * min(1.0, 0.4 / total) + 0.01 * w
                velocity[name] = g if velocity[name] is None else 0.8 * velocity[name] + g
                w -= lr * velocity[name]


@EVERY
def test_same_seed_same_log_to_the_digit(config, stores, tmp_path):
    first, again = (train(config, stores, tmp_path / str(k)) for k in range(2))
    assert (first / "log.jsonl").read_text() == (again / "log.jsonl").read_text()
    for name, weights in Run.open(first).method().state_dict().items():
        assert torch.equal(weights, Run.open(again).method().state_dict()[name])
    other = train(override(config, "seed=1"), stores, tmp_path / "other")
    assert (first / "log.jsonl").read_text() != (other / "log.jsonl").read_text()


@EVERY
def test_looking_on_the_way_leaves_the_log_equal(config, stores, tmp_path):
    plain = train(config, stores, tmp_path)
    watched = train(override(config, "eval_every=1", "keep=3"), stores, tmp_path)
    assert plain != watched
    assert (plain / "log.jsonl").read_text() == (watched / "log.jsonl").read_text()


def test_methods_of_a_table_start_from_the_same_net_and_see_the_same_rows(stores, tmp_path):
    """Their first cross entropy is the same number: same weights, same rows, same dropout."""
    configs = [run(**HEALTHY), run(method=rna.Params(), **HEALTHY), adapting()]
    first = [Run.open(train(config, stores, tmp_path)).log()[0]["L_C"] for config in configs]
    assert first[0] == first[1]
    without_dropout = [dataclasses.replace(config, net=adapter.Params(dim=64, dropout=0.0)) for config in configs]
    first = [Run.open(train(config, stores, tmp_path)).log()[0]["L_C"] for config in without_dropout]
    assert first[0] == first[1] == pytest.approx(first[2], rel=1e-6)  # both sides in one product: other last digits


def test_labels_of_the_target_change_nothing(tmp_path):
    """All but the labels of the target's train rows is the same; so are the log and the outputs."""
    rolled = {"chop": "peel", "peel": "stir", "stir": "chop"}
    logs = []
    for k, relabel in enumerate((False, True)):
        said = rolled if relabel else {}
        clips = manifest(labels=lambda d, _, name, said=said: {"label": said.get(name, name) if d == "night" else name})
        made = Run.open(train(adapting(), write_all(tmp_path / f"stores{k}", clips), tmp_path / f"runs{k}"))
        logs.append((made.log(), made.outputs["label"].tolist()))
    assert logs[0] == logs[1]


def test_kept_points_are_the_last_ones(stores, tmp_path):
    made = Run.open(train(run(steps=11, eval_every=3, keep=3), stores, tmp_path))
    assert [point["step"] for point in made.points] == [6, 9, 11]
    assert made.outputs["label"].shape == (3, 6, 3)
    few = Run.open(train(run(steps=11, eval_every=3, keep=2), stores, tmp_path))
    assert [point["step"] for point in few.points] == [9, 11]
    every = Run.open(train(run(steps=12, eval_every=3, keep=4), stores, tmp_path))
    assert [point["step"] for point in every.points] == [3, 6, 9, 12]  # the end is one point, not two


def test_points_that_will_not_be_kept_are_not_looked_at(stores, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        train_module, "look", lambda method, step, *rest: (steps.append(step), look(method, step, *rest))[1]
    )
    train(run(steps=60, eval_every=2, keep=3), stores, tmp_path)
    assert steps == [56, 58, 60]


def test_a_kept_point_is_what_a_shorter_run_ends_with(stores, tmp_path):
    """With a constant learning rate and a method that ignores progress."""
    long = Run.open(train(run(steps=12, eval_every=6, keep=2), stores, tmp_path))
    short = Run.open(train(run(steps=6), stores, tmp_path))
    assert np.array_equal(long.outputs["label"][0], short.outputs["label"][0])


def test_source_val_accuracy_is_recorded(stores, tmp_path):
    made = Run.open(train(run(holdout=0.25, select="source_val", eval_every=4, keep=3), stores, tmp_path))
    assert all(0 <= point["source_val"] <= 1 for point in made.points)
    assert made.facts.spec.rows == {"source": 9}


def test_each_window_by_itself_is_the_mean_of_softmax(stores, tmp_path):
    feeds = {"rgb": Feed("hog", test="each"), "flow": Feed("hof", test="each")}
    config = run(feeds=feeds)
    made = Run.open(train(config, stores, tmp_path))
    opened = open_run(config, stores)
    rows, method = opened.test(), made.method()
    p = 0
    for k in range(3):
        one = next(rows.sweep())
        x = {m: values[:, [k]] for m, values in one.x.items()}
        present = {m: values[:, [k]] for m, values in one.present.items()}
        p = p + method.predict(dataclasses.replace(one, x=x, present=present))["label"].softmax(1) / 3
    assert np.allclose(np.exp(made.outputs["label"][0]), p.detach().numpy(), atol=1e-6)


def test_each_window_beside_a_whole_modality(stores, tmp_path):
    """Only feeds that say `each` are cut: the others lend all of their windows to every one."""
    config = run(feeds={"rgb": Feed("hog", test="each"), "flow": Feed("hof")}, steps=3)
    made = Run.open(train(config, stores, tmp_path))
    one, method, p = next(open_run(config, stores).test().sweep()), made.method(), 0
    for k in range(3):
        x, present = (
            {m: tensors[m][:, [k]] if m == "rgb" else tensors[m] for m in tensors} for tensors in (one.x, one.present)
        )
        p = p + method.predict(dataclasses.replace(one, x=x, present=present))["label"].softmax(1) / 3
    assert np.allclose(np.exp(made.outputs["label"][0]), p.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("windows", ["all", "each"])
def test_looking_hides_labels_and_restores_the_mode(windows, training, stores):
    config = run(feeds={"rgb": Feed("hog", test=windows)}, holdout=0.25)
    opened = open_run(config, stores)
    method = Watcher(config.method, opened.spec, adapter.Adapter(config.net, opened.spec)).train(training)
    train_module.look(method, 0, opened.test(), opened)
    assert set(method.saw) == {((), False)}
    assert method.training == training


def test_norms_are_measured_without_dropout(finished, stores):
    method, rows = Run.open(finished).method(), open_run(run(), stores).test()
    expected = feature_norms(method, rows)
    assert feature_norms(method.train(), rows) == expected
    assert method.training


class Watcher(source_only.SourceOnly):
    """Writes down which labels it is shown when it predicts, and in which mode."""

    def predict(self, side):
        self.saw = [*getattr(self, "saw", []), (tuple(side.y), self.training)]
        return super().predict(side)


# ------------------------------------------------------------------------------------------- clocks, pools, optimisers


class Recorder(source_only.SourceOnly):
    """Source-only that writes down what the loop does to it."""

    def __init__(self, params, spec, net):
        super().__init__(params, spec, net)
        self.seen = []

    def begin_epoch(self, epoch, sweep):
        rows = torch.cat([side.index for side in sweep("source")]).tolist()
        self.seen.append((epoch, self.training, torch.is_grad_enabled(), rows))
        return {"source": [torch.tensor([epoch % 3]), torch.tensor([5])]}

    def losses(self, batch, progress):
        assert self.training
        self.seen.append((batch.source.index.tolist(), progress))
        return super().losses(batch, progress)


def recorded(config, stores):
    opened = open_run(config, stores)
    torch.manual_seed(0)
    method = Recorder(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    train_module.fit(method, config, opened, opened.test())
    return method.seen


def test_epochs_are_a_clock_and_pools_are_drawn_from(stores):
    record = recorded(run(steps=5, epoch=2, batch=(4, 4)), stores)
    begins = [entry for entry in record if len(entry) == 4]
    steps = [entry for entry in record if len(entry) == 2]
    assert begins == [(epoch, False, False, list(range(12))) for epoch in range(3)]
    assert [rows for rows, _ in steps] == [[0, 0, 5, 5]] * 2 + [[1, 1, 5, 5]] * 2 + [[2, 2, 5, 5]]
    assert [progress for _, progress in steps] == [0, 0.2, 0.4, 0.6, 0.8]


def test_prefetching_changes_nothing(stores):
    """Pools of begin_epoch hold from the next batch on, whatever was drawn ahead."""
    config = run(steps=11, epoch=3, batch=(4, 4), eval_every=4, keep=3)
    prefetched = []
    for prefetch in (False, True):
        opened = open_run(config, stores)
        torch.manual_seed(0)
        method = Recorder(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
        log, points = train_module.fit(method, config, opened, opened.test(), prefetch=prefetch)
        prefetched.append((log, [point.outputs["label"].tolist() for point in points], method.seen))
    assert prefetched[0] == prefetched[1]


@pytest.mark.parametrize(
    ("workers", "least", "prefetch"), [(1, 6 * 42 * 4, True), (1, 6 * 42 * 4 + 1, False), (2, 1, False)]
)
def test_large_batches_are_prefetched_where_a_core_is_left(workers, least, prefetch, stores, tmp_path, monkeypatch):
    """A batch has 6 rows of 3 windows of 8 and 6 numbers."""
    asked, fit = [], train_module.fit
    monkeypatch.setattr(train_module, "PREFETCH_BYTES", least)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)  # of the machine; of these the process may use
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(
        train_module, "fit", lambda *args, prefetch: (asked.append(prefetch), fit(*args, prefetch=prefetch))[1]
    )
    train(run(), stores, tmp_path, workers=workers)
    assert asked == [prefetch]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in registry.names(methods)
        if "clustering" not in registry.load(methods, name, "method").METHOD.tasks
    ],
)
@pytest.mark.filterwarnings("ignore:method.:UserWarning")  # so few rows to find prototypes in
def test_past_batches_are_not_looked_at_again(name, stores, captioned_stores, monkeypatch):
    """The memory of a batch is used again: every method trains the same when it is overwritten with NaN."""
    module = registry.load(methods, name, "method")
    sees = module.METHOD.needs + module.METHOD.may
    make = run if "classification" in module.METHOD.tasks else captioned.run
    config = make(
        method=module.Params(**small(module)),
        source=("day",) if "source" in sees else (),
        target="night" if "target" in sees else None,
        holdout=0.25 if "source_val" in sees else 0.0,
        init_from="some_0" if "init_from" in module.METHOD.needs else None,
        steps=5,
        epoch=2,
        **(HEALTHY if make is run else {}),
    )

    @contextlib.contextmanager
    def overwriting(sides, count, *, prefetch):
        def stream():
            past = []
            for _ in range(count):
                for x in past:
                    x.fill_(math.nan)
                batch = Batch(**{side: next(draw) for side, draw in sides.items()})
                past = [x for side in (batch.source, batch.target) if side for x in side.x.values()]
                yield batch

        yield stream()

    logs = []
    for batches in (train_module.batches, overwriting):
        monkeypatch.setattr(train_module, "batches", batches)
        opened = open_run(config, stores if make is run else captioned_stores)
        torch.manual_seed(0)
        method = module.METHOD(config.method, opened.spec, net_for(module, opened.spec))
        logs.append(train_module.fit(method, config, opened, opened.test())[0])
    assert len(logs[0]) == config.steps
    assert logs[0] == logs[1]


def test_padded_windows_have_no_say(tmp_path):
    """`each` averages what a row has: as if its other windows had never been there."""
    clips, short = manifest(), {}
    clips.write(tmp_path / "toy" / "manifest.csv")
    for name, size in (("hog", 8), ("hof", 6)):
        recipe = {"extractor": name, "version": 1, "modality": name, "weights_sha256": "none", "dtype": "float32"}
        with StoreWriter.open(
            tmp_path / "toy" / f"{name}.zarr", clips, recipe, row_shape=(size,), windows=3, facts={}
        ) as writer:
            for row in range(len(clips)):
                t = short[row] = 1 + row % 3
                if (name, row % 5) == ("hof", 0):
                    writer.absent(row, "no motion")
                else:
                    x = np.random.default_rng(row).standard_normal((t, size)).astype(np.float32)
                    writer.done(row, x, np.arange(t), np.arange(t) + 1.0)
    feeds = {"rgb": Feed("hog", test="each"), "flow": Feed("hof", test="each")}
    config = run(feeds=feeds, absent="mask", steps=3)
    opened = open_run(config, tmp_path)
    method = Run.open(train(config, tmp_path, tmp_path / "runs")).method()
    rows = opened.test()
    softmax = np.exp(outputs(method, rows, opened)["label"])
    side = next(rows.sweep())
    for i, row in enumerate(rows.rows):
        p = []
        for k in range(short[row]):
            x, present = ({m: tensors[m][[i]][:, [k]] for m in tensors} for tensors in (side.x, side.present))
            alone = dataclasses.replace(side, x=x, present=present, domain=side.domain[[i]], index=side.index[[i]])
            p.append(method.predict(alone)["label"].softmax(1)[0].detach().numpy())
        assert np.allclose(softmax[i], np.mean(p, 0), atol=1e-6)


def test_an_epoch_of_the_source_is_one_pass(stores):
    seen = recorded(run(steps=6, epoch="source", batch=(5, 5)), stores)  # 12 rows: 3 batches of 5
    assert [len(entry) for entry in seen] == [4, 2, 2, 2] * 2


def test_no_steps_still_begins_once_and_predicts(stores, tmp_path):
    assert [entry[0] for entry in recorded(run(steps=0), stores)] == [0]
    made = Run.open(train(run(steps=0), stores, tmp_path))
    assert made.log() == []
    assert made.outputs["label"].shape == (1, 6, 3)


class TwoPlayers(source_only.SourceOnly):
    """The classifier and the rest take turns; the rest only plays the second round."""

    def players(self):
        head = list(self.net.classifier.parameters())
        return {"head": head, "body": [p for p in self.parameters() if not any(p is h for h in head)]}

    def rounds(self, batch, progress):
        before = {name: p.clone() for name, p in self.named_parameters()}
        yield "head", self(batch, progress)
        self.after_head = {name for name, p in self.named_parameters() if not torch.equal(p, before[name])}
        yield "head body", {"again": self(batch, progress)["L_C"]}
        self.after_both = {name for name, p in self.named_parameters() if not torch.equal(p, before[name])}


def test_players_are_updated_in_their_rounds(stores):
    config = run(steps=1)
    opened = open_run(config, stores)
    torch.manual_seed(0)
    method = TwoPlayers(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    log, _ = train_module.fit(method, config, opened, opened.test())
    head = {"net.classifier.G.rgb:label.weight", "net.classifier.G.flow:label.weight", "net.classifier.g.:label"}
    assert method.after_head == head
    assert method.after_both == {name for name, _ in method.named_parameters()}
    assert set(log[0]) == {"step", "L_C", "again"}


def test_longest_prefix_decides_the_optimiser(stores):
    config = run(optim_for={"net": Optim(lr=1.0), "net.F": Optim("adam", 2.0), "net.F.rgb": Optim(lr=3.0)})
    opened = open_run(config, stores)
    method = source_only.SourceOnly(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    named = {id(p): name for name, p in method.named_parameters()}
    made = train_module.optimizers(method, method.players()["all"], config)
    optim_of = {
        named[id(p)]: (type(optimizer).__name__, optim.lr)
        for optim, optimizer in made
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert optim_of["net.F.rgb.weight"] == ("SGD", 3.0)
    assert optim_of["net.F.flow.bias"] == ("Adam", 2.0)
    assert optim_of["net.classifier.g.:label"] == ("SGD", 1.0)
    assert len(optim_of) == len(named)


@pytest.mark.parametrize("optim", [Optim("adam", 0.05, weight_decay=0.3), Optim("sgd", 0.05, 0.9, 0.3, nesterov=True)])
def test_optimisers_take_their_settings(optim, stores):
    """Two steps by hand: Adam with L2 in its gradient, SGD with Nesterov's momentum."""
    config = run(optim=optim)
    opened = open_run(config, stores)
    method = source_only.SourceOnly(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    weights = method.net.classifier.G["rgb:label"].weight
    ((_, optimizer),) = train_module.optimizers(method, method.players()["all"], config)
    w, m, v = weights.detach().clone().double(), 0.0, 0.0
    for step in (1, 2):
        weights.grad = torch.full_like(weights, 0.7 * step)
        train_module.update(optim, optimizer, 0.0)
        g = 0.7 * step + 0.3 * w
        if optim.name == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - 0.05 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        else:
            m = g if step == 1 else 0.9 * m + g
            w = w - 0.05 * (g + 0.9 * m)
    assert torch.allclose(weights.double(), w, atol=1e-5)


def test_a_prefix_without_parameters_is_named(stores, tmp_path):
    with pytest.raises(ConfigError, match="optim_for.*'net.G'.*there are: .*net"):
        train(run(optim_for={"net.G": Optim()}), stores, tmp_path)


def test_a_learning_rate_of_one_part_moves_only_that_part(stores, tmp_path):
    """What has (almost) no learning rate stays where it was."""
    config = run(optim=Optim(lr=1e-30, weight_decay=0.0), optim_for={"net.F": Optim(lr=0.1)})
    opened = open_run(config, stores)
    torch.manual_seed(config.seed)
    start = adapter.Adapter(config.net, opened.spec).state_dict()
    end = Run.open(train(config, stores, tmp_path)).method().net.state_dict()
    moved = {name for name in start if not torch.allclose(start[name], end[name], atol=1e-20)}
    assert moved == {f"F.{m}.{part}" for m in ("rgb", "flow") for part in ("weight", "bias")}


# --------------------------------------------------------------------------------------------------------------- RNA


@pytest.mark.parametrize("config", [run(method=rna.Params()), adapting()], ids=["DG", "UDA"])
def test_rna_shrinks_the_norm_gap(config, stores, tmp_path):
    def gap(config):
        method = Run.open(train(dataclasses.replace(config, steps=100, **HEALTHY), stores, tmp_path)).method()
        rows = open_run(config, stores).test("day")
        with torch.no_grad():
            f = method.net.encode(next(rows.sweep()))
        norms = [float(v.norm(dim=1).mean()) for v in f.values()]
        return max(norms) / min(norms)

    assert gap(config) < 1.3 < 3 < gap(run())


def test_several_sources(tmp_path):
    stores = write_all(tmp_path / "stores", manifest(domains=("day", "dusk", "night")))
    config = run(method=rna.Params(), source=("day", "dusk"))
    assert Run.open(train(config, stores, tmp_path)).facts.spec.domains == ("day", "dusk")


def test_several_tasks(tmp_path):
    two = manifest(labels=lambda d, split, name: {"verb": name, "noun": {"chop": "leek"}.get(name, "soup")})
    stores = write_all(tmp_path / "stores", two)
    made = Run.open(train(adapting(), stores, tmp_path))
    assert made.outputs["verb"].shape == (1, 6, 3)
    assert made.outputs["noun"].shape == (1, 6, 2)


def test_masked_modalities_train(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog")
    write_store(tmp_path / "toy", clips, "hof", states=dict.fromkeys(range(0, 36, 3), "absent"))
    made = Run.open(train(adapting(absent="mask"), tmp_path, tmp_path / "runs"))
    assert made.outputs["label"].shape == (1, 6, 3)


# ------------------------------------------------------------------------------------------------------- run folders


def test_a_run_can_be_loaded_and_says_the_same(stores, tmp_path):
    config = adapting()
    folder = train(config, stores, tmp_path)
    made, opened = Run.open(folder), open_run(config, stores)
    assert made.config == config
    predicted = outputs(Run.open(folder).method(), opened.test(), opened)
    assert np.array_equal(predicted["label"], made.outputs["label"][-1])
    assert made.outputs["rows"].tolist() == opened.manifest.rows(domain="night", split="test")
    assert made.facts.recipes == {m: store.recipe_sha256 for m, store in opened.stores.items()}
    assert made.facts.untrained == ()


def test_untrained_weights_are_recorded(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog", weights="untrained:0")
    write_store(tmp_path / "toy", clips, "hof")
    assert Run.open(train(run(), tmp_path, tmp_path / "runs")).facts.untrained == ("rgb",)


def test_a_finished_run_is_kept_and_changed_features_train_it_again(tmp_path):
    stores = write_all(tmp_path / "stores")
    folder = train(run(), stores, tmp_path)
    before = (folder / "run.json").stat().st_mtime_ns
    assert train(run(), stores, tmp_path) == folder
    assert (folder / "run.json").stat().st_mtime_ns == before

    shutil.rmtree(stores / "toy" / "hof.zarr")
    write_store(stores / "toy", manifest(), "hof", seed=9)
    old_log = (folder / "log.jsonl").read_text()
    assert train(run(), stores, tmp_path) == folder
    assert Run.open(folder).facts.note.endswith(" changed: store flow")
    assert (folder / "log.jsonl").read_text() != old_log


def test_init_from_copies_all_that_fits(stores, tmp_path):
    first = run(seed=7, **HEALTHY)
    folder = train(first, stores, tmp_path)
    second = Run.open(train(adapting(init_from=first.id, steps=0), stores, tmp_path)).method()
    for name, weights in Run.open(folder).method().state_dict().items():
        assert torch.equal(second.state_dict()[name], weights)
    plain = Run.open(train(adapting(steps=0), stores, tmp_path)).method()
    for name, weights in plain.state_dict().items():
        if name.startswith("D."):  # what the earlier run has not is drawn as ever
            assert torch.equal(second.state_dict()[name], weights)


def test_a_retrained_first_stage_makes_the_second_stale(tmp_path):
    stores = write_all(tmp_path / "stores")
    stage_a, stage_b = run(), run(seed=1, init_from=run().id)
    train(stage_a, stores, tmp_path)
    train(stage_b, stores, tmp_path)
    shutil.rmtree(tmp_path / stage_a.id)
    train(stage_a, stores, tmp_path)  # the same weights again
    assert Run.open(train(stage_b, stores, tmp_path)).facts.note == "new"
    method = Run.open(tmp_path / stage_a.id).method()
    put(tmp_path / stage_a.id, {name: w + 1 for name, w in method.state_dict().items()})
    note = Run.open(train(stage_b, stores, tmp_path)).facts.note
    assert note.endswith(" changed: init_from")


def test_a_first_stage_that_does_not_fit_is_named(stores, tmp_path):
    with pytest.raises(ConfigError, match="init_from.*nothing_0"):
        train(run(init_from="nothing_0"), stores, tmp_path)
    wide = run(net=adapter.Params(dim=16))
    train(wide, stores, tmp_path)
    with pytest.raises(ConfigError, match="init_from.*lacks net"):
        train(run(init_from=wide.id), stores, tmp_path)


def test_a_diverging_run_names_term_and_step_and_leaves_nothing(stores, tmp_path):
    with pytest.raises(ConfigError, match=r"term L_C is (nan|inf) at step \d+; lower optim.lr, or set optim.clip_norm"):
        train(run(optim=Optim(lr=1e18), steps=40), stores, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_rna_learns_without_collapse_in_a_healthy_setting(stores, tmp_path, seed):
    """Finite is not enough: collapsed features are finite and look aligned."""
    config = adapting(steps=120, seed=seed)
    made = Run.open(train(config, stores, tmp_path))
    L_C = [terms["L_C"] for terms in made.log()]
    assert sum(L_C[-10:]) < 0.3 * sum(L_C[:10])
    for rows in open_run(config, stores).sides.values():
        assert min(feature_norms(made.method(), rows).values()) > 1
    assert made.facts.collapsed == ()


def test_a_net_that_was_trained_for_no_step_has_not_collapsed(stores, tmp_path):
    """Of features so small that a net would be called dead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.training.outputs.COLLAPSED", 1e9)
        facts = [Run.open(train(adapting(steps=steps), stores, tmp_path)).facts.collapsed for steps in (0, 1)]
    assert facts == [(), ("flow", "rgb")]


def test_a_collapse_is_told(stores, tmp_path):
    """Tiny batches in a narrow net: clipped steps stay finite, all features die, and L_g is a perfect 0."""
    config = adapting(steps=120, batch=(3, 3), optim=Optim(lr=0.01, clip_norm=20.0), net=adapter.Params(dim=4))
    made = Run.open(train(config, stores, tmp_path))
    assert made.log()[-1]["L_g"] == 0
    assert made.facts.collapsed == ("flow", "rgb")
    assert {result.collapsed for result in evaluate(made.folder, stores)} == {("flow", "rgb")}


def test_weights_that_are_no_numbers_are_named(stores, monkeypatch):
    """After the last step no loss is computed any more that would show it."""
    config = run(steps=1)
    opened = open_run(config, stores)
    method = source_only.SourceOnly(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    broken = lambda optim, optimizer, progress: method.net.F["rgb"].weight.data.fill_(math.inf)  # noqa: E731
    monkeypatch.setattr(train_module, "update", broken)
    with pytest.raises(ConfigError, match="net.F.rgb.weight.*not finite.*lower optim.lr"):
        train_module.fit(method, config, opened, opened.test())


class Nonsense(source_only.SourceOnly):
    """Says NaN of its first row."""

    def predict(self, side):
        z = super().predict(side)["label"]
        z[0, 0] = float("nan")
        return {"label": z}


def test_outputs_that_are_no_numbers_are_named(stores):
    config = run(steps=0)
    opened = open_run(config, stores)
    method = Nonsense(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    with pytest.raises(ConfigError, match="'label'.*not finite.*lower optim.lr"):
        train_module.fit(method, config, opened, opened.test())


class Stray(source_only.SourceOnly):
    """Gives pools of a side that the run has not."""

    def begin_epoch(self, epoch, sweep):
        return {"target": [torch.tensor([0])]}


def test_pools_of_a_side_that_is_not_there_are_named(stores):
    config = run()
    opened = open_run(config, stores)
    method = Stray(config.method, opened.spec, adapter.Adapter(config.net, opened.spec))
    with pytest.raises(ValueError, match="begin_epoch.*'target'.*source"):
        train_module.fit(method, config, opened, opened.test())


@pytest.mark.parametrize("name", ["config.json", "run.json", "log.jsonl", HEAD, "outputs.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "bytes", "{}", "null", '{"steps": 3}'])
def test_a_damaged_run_is_named_and_trained_again(name, damage, finished, stores, tmp_path):
    folder = shutil.copytree(finished, tmp_path / finished.name)
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        as_bytes = {"empty": b"", "cut": whole[:-40], "text": b"garbage", "bytes": b"\xff\x00\x80" * 99}
        path.write_bytes(as_bytes.get(damage, damage.encode()))
    with pytest.raises(ConfigError, match=f"{name} is (missing|damaged .*);.*`featcache train-head`"):
        Run.open(folder)
    assert train(run(), stores, tmp_path) == folder
    note = Run.open(folder).facts.note
    assert name in note
    assert path.read_bytes() == whole or name == "run.json"  # which has the seconds it took


@pytest.fixture(scope="module")
def finished(stores, tmp_path_factory):
    return train(run(), stores, tmp_path_factory.mktemp("finished"))


def test_a_damaged_first_stage_is_named(finished, stores, tmp_path):
    folder = shutil.copytree(finished, tmp_path / finished.name)
    (folder / HEAD).write_bytes(b"")
    with pytest.raises(ConfigError, match="init_from.*head.safetensors is damaged"):
        train(run(seed=1, init_from=folder.name), stores, tmp_path)


def test_a_killed_run_leaves_nothing_half(stores, tmp_path):
    """SIGKILL in the middle of writing: the old folder or none, and the next run is whole."""
    child = os.fork()
    if not child:
        np.savez = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
        try:
            train(run(), stores, tmp_path)
        finally:
            os._exit(0)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / run().id).exists()
    folder = train(run(), stores, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_engine_uses_one_thread_and_gives_the_others_back(stores, tmp_path, monkeypatch):
    """Sums of several threads differ in their last digits from those of one."""
    threads = []
    monkeypatch.setattr(engine, "train_unless_done", lambda *_: threads.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        engine.run_all([run(), run(seed=1)], stores, tmp_path)
        assert (threads, torch.get_num_threads()) == ([1, 1], 2)
    finally:
        torch.set_num_threads(1)  # as tests/_stores.py has it


def test_a_run_folder_is_plain_files(stores, tmp_path):
    folder = train(run(), stores, tmp_path)
    assert sorted(os.listdir(folder)) == ["SHA256SUMS", *sorted(files_of(folder))]
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    assert json.loads((folder / "config.json").read_text())["method"]["name"] == "source_only"
    assert isinstance(folder, Path)
