"""From kept outputs to result rows: selection rules, several labels, norms, and what is refused."""

import dataclasses
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch

from featcache import Manifest, sums
from featcache.errors import ConfigError
from featcache.files import making_folder
from featcache.store import StoreWriter
from heads.methods import logistic_regression, nearest_mean, rna
from pipelines.config import Feed
from pipelines.data.lacking import nothing_to_compare
from pipelines.data.opening import open_run
from pipelines.data.stores import open_manifest
from pipelines.evaluation.evaluate import by_step, evaluate, predictions
from pipelines.evaluation.predictions import of_run
from pipelines.measures.accuracy import topk_accuracy
from pipelines.measures.outcomes import checksum, decode
from pipelines.tasks.classification import TASK
from pipelines.training import engine
from pipelines.training.runs import NotTrainedError, Run, write_sums
from pipelines.training.train import train
from tests.helpers.stores import CLASSES, STORES, manifest, run, write_all, write_store
from tests.helpers.weights import EARLIER, as_earlier, put


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def values(folder, stores):
    return {result.metric: result.value for result in evaluate(folder, stores)}


def truth(run_folder, clips, label="label"):
    names = clips.classes[label]
    return np.array([names.index(clips.clips[row].labels[label]) for row in Run.open(run_folder).outputs["rows"]])


def test_accuracies_are_those_of_the_kept_outputs(stores, tmp_path):
    folder = train(run(steps=4), stores, tmp_path)
    z, y = Run.open(folder).outputs["label"][0], truth(folder, manifest())
    metrics = values(folder, stores)
    assert metrics["top1"] == pytest.approx(np.mean([row.argmax() == label for row, label in zip(z, y, strict=True)]))
    recalls = [np.mean(z[y == c].argmax(1) == c) for c in range(3)]
    assert metrics["mean_class"] == pytest.approx(np.mean(recalls))
    assert "top5" not in metrics  # of 3 classes


def test_result_rows_say_where_they_come_from(stores, tmp_path):
    config = run(method=rna.Params(), target="night", row="RNA (UDA)", seed=3, select="mean", eval_every=5, keep=2)
    results = evaluate(train(config, stores, tmp_path), stores, "toy table")
    opened = open_run(config, stores)
    assert len({result.metric for result in results}) == len(results)
    for result in results:
        assert (result.run, result.experiment, result.row, result.seed) == (config.id, "toy table", "RNA (UDA)", 3)
        assert (result.source, result.target, result.test, result.n) == (("day",), "night", "night", 6)
        assert (result.select, result.fidelity, result.untrained) == ("mean", "adapter", ())
        assert result.recipes == {m: store.recipe_sha256 for m, store in opened.stores.items()}
        assert result.read["store rgb"] == opened.stores["rgb"].fingerprint
        assert result.config == config.to_json()
        assert result.version
        assert result.limits == ()


def test_result_rows_name_classes_that_only_the_target_has(tmp_path):
    """Of the train clips of the source; its test clips teach nothing."""

    def label(domain, split, name):
        return {"label": "new" if name == CLASSES[0] and (domain, split) != ("day", "train") else name}

    clips = manifest(labels=label)
    stores = write_all(tmp_path / "stores", clips)
    (limits,) = {result.limits for result in evaluate(train(run(), stores, tmp_path / "runs"), stores, "toy")}
    assert [text.split(":")[0] for text in limits] == ["UNSEEN CLASSES"]
    assert "2 of 6 test clips" in limits[0]
    assert "(new)" in limits[0]


def test_results_name_features_that_give_the_label_away(stores, tmp_path):
    assert all(result.leaks == () for result in evaluate(train(run(steps=1), stores, tmp_path), stores))
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    for name in ("hog", "hof"):
        shape, recipe = (
            (8,),
            {"extractor": name, "modality": STORES[name][0], "weights_sha256": "none", "dtype": "float32"},
        )
        path = tmp_path / "toy" / f"{name}.zarr"
        with StoreWriter.open(path, clips, recipe, row_shape=shape, windows=3, facts={}) as writer:
            for row, clip in enumerate(clips):
                x = np.random.default_rng(row).normal(size=(3, 8)).astype(np.float32)
                x[:, 2] = CLASSES.index(clip.labels["label"]) if name == "hog" else x[:, 2]
                writer.done(row, x, np.arange(3), np.arange(3) + 1.0)
    results = evaluate(train(run(steps=1), tmp_path, tmp_path / "runs"), tmp_path)
    (leak,) = results[0].leaks
    assert leak.startswith("rgb (store hog): number 2 of 8 (from 0) is a function of the label in all 36 clips")


def test_selection_rules(stores, tmp_path):
    """On the same kept outputs: the last, the mean over all, and the one that is best on held-out source rows."""
    base = run(eval_every=1, keep=12, steps=12, holdout=0.25, optim=dataclasses.replace(run().optim, lr=0.003))
    by_rule = {
        rule: train(dataclasses.replace(base, select=rule), stores, tmp_path) for rule in ("last", "mean", "source_val")
    }
    made = Run.open(by_rule["last"])
    y = truth(by_rule["last"], manifest())
    points = [topk_accuracy(z, y, 1) for z in made.outputs["label"]]
    assert len(set(points)) > 1, "the test is blind if all points are alike"
    assert values(by_rule["last"], stores)["top1"] == points[-1]
    assert values(by_rule["mean"], stores)["top1"] == pytest.approx(sum(points) / 12)
    held = [point["source_val"] for point in made.points]
    best = max(k for k in range(12) if held[k] == max(held))
    assert values(by_rule["source_val"], stores)["top1"] == points[best]
    for folder in by_rule.values():
        clips = {result.metric: result.clips for result in evaluate(folder, stores)}
        assert [metric for metric, text in clips.items() if text] == ["top1"]
        assert decode(clips["top1"]).value == pytest.approx(values(folder, stores)["top1"])
        assert decode(clips["top1"]).clips == checksum(made.facts.read["manifest"], made.outputs["rows"])


def test_several_labels_have_names_and_an_action(tmp_path):
    two = manifest(labels=lambda d, split, name: {"verb": name, "noun": {"chop": "leek"}.get(name, "soup")})
    stores = write_all(tmp_path / "stores", two)
    folder = train(run(steps=3), stores, tmp_path)
    metrics = values(folder, stores)
    outputs = Run.open(folder).outputs
    right = [outputs[label][0].argmax(1) == truth(folder, two, label) for label in ("verb", "noun")]
    assert metrics["top1/verb"] == pytest.approx(right[0].mean())
    assert metrics["top1/action"] == pytest.approx((right[0] & right[1]).mean())
    assert {"mean_class/noun", "cv_s/verb", "norm/target/rgb/noun"} <= set(metrics)
    assert "top1" not in metrics


def test_norms_are_those_of_the_trained_features(stores, tmp_path):
    config = run(steps=5)
    folder = train(config, stores, tmp_path)
    method, opened, metrics = Run.open(folder).method(), open_run(config, stores), values(folder, stores)
    naive = {}
    for side, domain in (("source", "day"), ("target", "night")):
        rows = opened.manifest.rows(domain=domain, split="test")
        for m, store in opened.stores.items():
            x = torch.from_numpy(np.stack([store[row].mean(0) for row in rows]))
            naive[side, m] = np.mean([method.net.F[m](one).clamp_min(0).norm().item() for one in x])
            assert metrics[f"norm/{side}/{m}"] == pytest.approx(naive[side, m], rel=1e-5)
    for name, sides in (("cv_s", ["source"]), ("cv_t", ["target"]), ("cv_st", ["source", "target"])):
        h = [naive[side, m] for side in sides for m in opened.stores]
        mean = sum(h) / len(h)
        assert metrics[name] == pytest.approx((sum((v - mean) ** 2 for v in h) / len(h)) ** 0.5 / mean, rel=1e-5)


def test_norms_count_only_rows_that_have_the_modality(tmp_path):
    clips = manifest()
    night = clips.rows(domain="night", split="test")
    for folder, states in (("whole", {}), ("gaps", {night[0]: "absent"})):
        clips.write(tmp_path / folder / "toy" / "manifest.csv")
        write_store(tmp_path / folder / "toy", clips, "hog", states=states)
    config = run(feeds={"rgb": Feed("hog")}, absent="mask", steps=2)
    folder = train(config, tmp_path / "gaps", tmp_path / "runs")
    opened = open_run(config, tmp_path / "whole")
    side = next(opened.test().sweep())
    norms = Run.open(folder).method().net.encode(side)["rgb"].norm(dim=1)
    assert values(folder, tmp_path / "gaps")["norm/target/rgb"] == pytest.approx(norms[1:].mean().item(), rel=1e-5)


def test_dead_features_have_norms_but_no_coefficient_of_variation(stores, tmp_path):
    folder = train(run(steps=0), stores, tmp_path)
    weights = {name: torch.zeros_like(w) for name, w in Run.open(folder).method().state_dict().items()}
    put(folder, weights)
    metrics = values(folder, stores)
    assert metrics["norm/source/rgb"] == metrics["norm/target/flow"] == 0
    assert not any(metric.startswith("cv_") for metric in metrics)


def test_weights_and_outputs_that_would_grow_are_refused(stores, tmp_path):
    """Zeros of gigabytes in a few kilobytes: torch and numpy write neither."""
    folder = as_earlier(train(run(steps=0), stores, tmp_path))
    whole = {name: (folder / name).read_bytes() for name in (EARLIER, "outputs.npz")}
    for name, words in ((EARLIER, "head.pt.*compressed"), ("outputs.npz", "outputs.npz.*compressed")):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", bytes(80 << 20))
        with pytest.raises(ConfigError, match=words):
            Run.open(folder)
        (folder / name).write_bytes(whole[name])
    assert Run.open(folder).outputs


def test_predictions_for_a_confusion_matrix(stores, tmp_path):
    folder = train(run(), stores, tmp_path)
    predicted = predictions(folder, stores)
    assert predicted.classes == CLASSES
    assert predicted.truth.tolist() == truth(folder, manifest()).tolist()
    assert (predicted.truth == predicted.predicted).mean() == pytest.approx(values(folder, stores)["top1"])
    with pytest.raises(ConfigError, match="no label 'verb'.*label"):
        predictions(folder, stores, "verb")


def test_a_manifest_is_read_once_until_it_changes(tmp_path):
    clips = manifest()
    write_all(tmp_path, clips)
    first = open_manifest(tmp_path, "toy")
    assert open_manifest(tmp_path, "toy") is first
    Manifest("toy", clips.clips[:-1], clips.root).write(tmp_path / "toy" / "manifest.csv")
    assert len(open_manifest(tmp_path, "toy")) == len(first) - 1


def test_a_changed_manifest_is_refused(tmp_path):
    stores = write_all(tmp_path / "stores")
    folder = train(run(), stores, tmp_path)
    manifest(labels=lambda d, s, name: {"label": "stir"}).write(stores / "toy" / "manifest.csv")
    with pytest.raises(ConfigError, match="manifest 'toy' has changed since run .* was made; train it again"):
        evaluate(folder, stores)


@pytest.mark.parametrize("size", [6, 7])
def test_changed_features_are_refused(tmp_path, monkeypatch, size):
    """Old weights on new features would be measured, under the fingerprint of the old ones."""
    stores = write_all(tmp_path / "stores")
    folder = train(run(), stores, tmp_path)
    shutil.rmtree(stores / "toy" / "hof.zarr")
    monkeypatch.setitem(STORES, "hof", ("flow", size, 0.5))
    write_store(stores / "toy", manifest(), "hof", seed=9)
    with pytest.raises(ConfigError, match="store flow has changed since run .* was made; train it again"):
        evaluate(folder, stores)


def test_a_changed_first_stage_is_refused(stores, tmp_path):
    first = train(run(), stores, tmp_path)
    second = train(run(seed=1, init_from=first.name), stores, tmp_path)
    put(first, {name: w + 1 for name, w in Run.open(first).method().state_dict().items()})
    with pytest.raises(ConfigError, match="init_from has changed since"):
        evaluate(second, stores)


def test_the_row_is_the_experiments(stores, tmp_path):
    folder = train(run(row="stage"), stores, tmp_path)
    assert {result.row for result in evaluate(folder, stores)} == {"stage"}
    results = evaluate(folder, stores, row="source-only")
    assert {(result.row, result.config["row"]) for result in results} == {("source-only", "source-only")}


def with_gaps(stores, states):
    """STORES/toy in which flow lacks rows."""
    clips = manifest()
    clips.write(stores / "toy" / "manifest.csv")
    write_store(stores / "toy", clips, "hog")
    write_store(stores / "toy", clips, "hof", states=states)
    return stores


def test_a_source_that_lacks_a_modality_is_measured_on_what_is_there(tmp_path):
    day = manifest().rows(domain="day", split="test")
    config = run(steps=2)
    stores = with_gaps(tmp_path / "one", {day[0]: "absent"})
    folder = train(config, stores, tmp_path / "one runs")
    whole = next(open_run(config, write_all(tmp_path / "whole")).test("day").sweep())
    h = Run.open(folder).method().net.encode(whole)
    metrics = values(folder, stores)
    assert metrics["norm/source/flow"] == pytest.approx(h["flow"][1:].norm(dim=1).mean().item(), rel=1e-5)
    assert metrics["norm/source/rgb"] == pytest.approx(h["rgb"].norm(dim=1).mean().item(), rel=1e-5)

    for absent in ("refuse", "drop"):
        config = run(steps=2, absent=absent)
        stores = with_gaps(tmp_path / f"all {absent}", dict.fromkeys(day, "absent"))
        metrics = values(train(config, stores, tmp_path / f"runs {absent}"), stores)
        assert "norm/source/rgb" in metrics
        assert "norm/source/flow" not in metrics


def lacking(stores, rows, clips=None):
    """STORES/toy in which these rows have no features at all."""
    return write_all(stores, clips, states=dict.fromkeys(rows, "failed"))


def rows_of(domain, split, clips=None):
    return (clips or manifest()).rows(domain=domain, split=split)


def test_clips_without_features_are_neither_trained_on_nor_scored(tmp_path):
    """They would count as what the head makes of zeros. Results are those of a manifest without them."""
    test, train_rows, target = rows_of("night", "test"), rows_of("day", "train"), rows_of("night", "train")
    gone = [test[0], test[3], train_rows[1], target[5]]
    stores = lacking(tmp_path / "some", gone)
    config = run(method=rna.Params(), target="night", absent="mask")
    made = Run.open(train(config, stores, tmp_path / "runs"))
    assert made.outputs["rows"].tolist() == [row for row in test if row not in gone]
    results = evaluate(made.folder, stores)
    assert {result.n for result in results} == {4}
    predicted = predictions(made.folder, stores)
    names = [manifest().clips[row].labels["label"] for row in made.outputs["rows"]]
    assert [predicted.classes[k] for k in predicted.truth] == names
    assert made.facts.spec.rows == {"source": 11, "target": 11}
    (limits,) = {result.limits for result in results}
    ids = [manifest().clips[row].clip_id for row in gone]
    for words, clip_ids in {
        "2 of 6 test clips have": ids[:2], "1 of 12 train clips of day has": ids[2:3], "of night": ids[3:]
    }.items():  # fmt: skip
        (text,) = [text for text in limits if words in text]
        assert text.startswith("NO FEATURES: ")
        assert text.endswith(f": {', '.join(clip_ids)}")

    whole = write_all(tmp_path / "whole")
    kept = dataclasses.replace(manifest(), clips=tuple(c for k, c in enumerate(manifest()) if k not in gone))
    kept.write(tmp_path / "kept" / "toy" / "manifest.csv")
    for name in STORES:
        write_kept(tmp_path / "kept" / "toy", kept, open_run(run(), whole).stores, name, gone)
    alone = train(config, tmp_path / "kept", tmp_path / "kept runs")
    assert values(alone, tmp_path / "kept") == pytest.approx(values(made.folder, stores))


def write_kept(folder, clips, stores, name, gone):
    """A store with the features of all other rows."""
    (store,) = (store for store in stores.values() if store.name == name)
    rows = [row for row in range(len(store)) if row not in gone]
    with StoreWriter.open(
        folder / f"{name}.zarr", clips, store.recipe, row_shape=store.row_shape, windows=store.windows, facts={}
    ) as writer:
        for row, x in enumerate(store.read(np.array(rows))):
            writer.done(row, x, np.arange(3), np.arange(3) + 1.0)


def test_a_clip_with_one_of_its_features_is_scored(tmp_path):
    stores = with_gaps(tmp_path, dict.fromkeys(rows_of("night", "test"), "absent"))
    (limits,) = {result.limits for result in evaluate(train(run(absent="mask"), stores, tmp_path / "runs"), stores)}
    assert limits == ()


def test_clips_that_a_run_drops_are_named(tmp_path):
    test = rows_of("night", "test")
    stores = with_gaps(tmp_path, {test[1]: "absent"})
    results = evaluate(train(run(absent="drop"), stores, tmp_path / "runs"), stores)
    assert {result.n for result in results} == {5}
    (text,) = results[0].limits
    assert "1 of 6 test clips lacks a modality" in text
    assert manifest().clips[test[1]].clip_id in text


@pytest.mark.parametrize(("domain", "split"), [("night", "test"), ("night", "train"), ("day", "train")])
def test_a_run_without_any_features_of_a_side_is_refused(tmp_path, domain, split):
    stores = lacking(tmp_path / "stores", rows_of(domain, split))
    config = run(method=rna.Params(), target="night", absent="mask")
    with pytest.raises(ConfigError, match=f"{domain}.* all .*have no features|all .* {domain}.*have no features"):
        train(config, stores, tmp_path / "runs")


def test_a_source_without_features_of_test_rows_has_no_norms(tmp_path):
    stores = lacking(tmp_path / "stores", rows_of("day", "test"))
    metrics = values(train(run(absent="mask"), stores, tmp_path), stores)
    assert "cv_t" in metrics
    assert not {"cv_s", "cv_st", "norm/source/rgb"} & metrics.keys()


def test_a_run_that_counted_clips_without_features_is_out_of_date(tmp_path):
    """As runs of earlier versions did; runs on complete stores have no such fact."""
    stores = lacking(tmp_path / "stores", rows_of("night", "test")[:1])
    folder = train(run(absent="mask"), stores, tmp_path / "runs")
    facts = json.loads((folder / "run.json").read_text())
    assert facts["read"].pop("clips without features")
    (folder / "run.json").write_text(json.dumps(facts))
    write_sums(folder)
    with pytest.raises(NotTrainedError, match="clips without features has changed"):
        evaluate(folder, stores)
    assert engine.run_one(run(absent="mask"), stores, tmp_path / "runs", "cpu").status == "trained"
    assert evaluate(folder, stores)
    complete = write_all(tmp_path / "complete")
    whole = Run.open(train(run(absent="mask"), complete, tmp_path / "whole")).facts.read
    assert "clips without features" not in whole


def test_a_run_of_an_earlier_version_of_its_method_is_out_of_date(stores, tmp_path):
    """`C` of logistic regression had another meaning. Runs of other methods have no such fact."""
    config = run(method=logistic_regression.Params(C=1.0), steps=0)
    folder = train(config, stores, tmp_path)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["read"].pop("method logistic_regression") == "2"
    (folder / "run.json").write_text(json.dumps(facts))
    write_sums(folder)
    with pytest.raises(NotTrainedError, match="method logistic_regression has changed"):
        evaluate(folder, stores)
    assert engine.run_one(config, stores, tmp_path, "cpu").status == "trained"
    assert engine.run_one(config, stores, tmp_path, "cpu").status == "kept"
    others = Run.open(train(run(method=nearest_mean.Params(), steps=0), stores, tmp_path)).facts.read
    assert not [name for name in others if name.startswith("method")]


def test_a_run_that_is_replaced_while_it_is_opened_is_read_again(stores, tmp_path, monkeypatch):
    """As `train-head` of another process does, here after SHA256SUMS was read."""
    folder, parse, calls = train(run(steps=2), stores, tmp_path), sums.parse, []

    def replace_at_the_second_call(data):
        calls.append(data)
        if len(calls) == 2:
            with making_folder(folder, replace=True) as scratch:
                shutil.copytree(folder, scratch)
                facts = json.loads((folder / "run.json").read_text())
                (scratch / "run.json").write_text(json.dumps(facts | {"note": "trained again"}))
                write_sums(scratch)
        return parse(data)

    monkeypatch.setattr(sums, "parse", replace_at_the_second_call)
    assert Run.open(folder).facts.note == "trained again"
    assert len(calls) == 4
    (folder / "run.json").write_bytes(b"{}")
    with pytest.raises(NotTrainedError, match="run.json is damaged"):
        Run.open(folder)


def test_a_source_without_test_rows_is_left_out(tmp_path):
    whole = manifest()
    clips = tuple(clip for clip in whole.clips if (clip.domain, clip.split) != ("day", "test"))
    stores = write_all(tmp_path / "stores", dataclasses.replace(whole, clips=clips))
    metrics = values(train(run(), stores, tmp_path), stores)
    assert {metric for metric in metrics if metric.startswith(("norm", "cv"))} == {
        "norm/target/rgb", "norm/target/flow", "cv_t"
    }  # fmt: skip


def test_norms_are_over_all_source_domains(tmp_path):
    stores = write_all(tmp_path / "stores", manifest(domains=("day", "dusk", "night")))
    config = run(source=("day", "dusk"))
    folder = train(config, stores, tmp_path)
    side = next(open_run(config, stores).test("day", "dusk").sweep())
    assert len(side.index) == 12
    h = Run.open(folder).method().net.encode(side)["rgb"].norm(dim=1)
    assert values(folder, stores)["norm/source/rgb"] == pytest.approx(h.mean().item(), rel=1e-5)


def of_points(run_folder, accuracies, held):
    """Replace a run's kept points by ones with these numbers of right test rows and these accuracies on held rows."""
    y = truth(run_folder, manifest())
    z = np.stack([np.eye(3)[np.where(np.arange(len(y)) < right, y, (y + 1) % 3)] for right in accuracies])
    np.savez(run_folder / "outputs.npz", label=z, rows=Run.open(run_folder).outputs["rows"])
    facts = json.loads((run_folder / "run.json").read_text())
    facts["points"] = [{"step": k, "source_val": value} for k, value in enumerate(held)]
    (run_folder / "run.json").write_text(json.dumps(facts))
    write_sums(run_folder)


def test_of_equal_points_the_latest_is_selected_and_shown(stores, tmp_path):
    folder = train(run(holdout=0.25, select="source_val", eval_every=3, keep=4), stores, tmp_path)
    of_points(folder, accuracies=(1, 2, 3, 4), held=(0.5, 0.9, 0.9, 0.1))
    assert values(folder, stores)["top1"] == pytest.approx(3 / 6)
    predicted = predictions(folder, stores)
    assert (predicted.truth == predicted.predicted).sum() == 3


def test_top5_of_an_action_takes_more_than_five_classes_in_each_task():
    many, few = np.random.default_rng(0).normal(size=(9, 7)), np.random.default_rng(1).normal(size=(9, 3))
    y = np.arange(9) % 3
    assert "top5/action" not in TASK.measure({"verb": few, "noun": many}, {"verb": y, "noun": y}, None, 0)
    assert "top5/action" in TASK.measure({"verb": many, "noun": many}, {"verb": y, "noun": y}, None, 0)


def test_test_clips_without_labels_leave_what_needs_none(tmp_path):
    """An accuracy cannot be measured, but validators and norms can; a sentence names what needs the truth."""
    hidden = manifest(labels=lambda d, s, name: {} if d == "night" else {"label": name})
    stores, adapting = write_all(tmp_path / "stores", hidden), run(method=rna.Params(), target="night", row="RNA")
    folder = train(adapting, stores, tmp_path)
    measured = evaluate(folder, stores)
    assert {row.metric.partition("/")[0] for row in measured} == {"validator", "norm", "cv_s", "cv_t", "cv_st"}
    assert {row.n for row in measured} == {0}
    assert all("none of the 6 test clips of night" in nothing_to_compare(row.limits) for row in measured)
    for needy in (predictions, by_step):
        with pytest.raises(ConfigError, match="none of the 6 test clips of night has a label.*featcache predict"):
            needy(folder, stores)
    assert [set(table["truth"]) for table in of_run(Run.open(folder), stores, "RNA")] == [{""}]
    chosen = train(dataclasses.replace(adapting, select="oracle", eval_every=4, keep=2), stores, tmp_path)
    with pytest.raises(ConfigError, match="select=oracle reads labels"):
        evaluate(chosen, stores)


def test_clips_without_labels_are_neither_learned_nor_scored(tmp_path):
    """A domain may be labelled in part: as source, as target of training, and in the test."""
    part = manifest(labels=lambda d, s, name: {} if name == "chop" else {"label": name})
    stores = write_all(tmp_path / "stores", part)
    folder = train(run(method=rna.Params(), target="night"), stores, tmp_path)
    opened = Run.open(folder).opened(stores)
    assert (len(opened.side_rows["source"]), len(opened.side_rows["target"])) == (8, 12)
    assert len(Run.open(folder).outputs["rows"]) == 6
    found = {row.metric: row for row in evaluate(folder, stores)}
    known = predictions(folder, stores)
    assert found["top1"].n == len(known.truth) == 4
    assert found["top1"].value == pytest.approx((known.truth == known.predicted).mean())
    limits = " ".join(found["top1"].limits)
    assert "2 of 6 test clips of night have no label" in limits
    assert "4 of 12 train clips have no label in day" in limits
    (table,) = of_run(Run.open(folder), stores, "RNA")
    assert table["truth"].count("") == 2
    assert len(table["clip_id"]) == 6


def test_labels_of_a_target_change_nothing_in_its_training(tmp_path):
    hidden = manifest(labels=lambda d, s, name: {} if d == "night" else {"label": name})
    outputs = []
    for name, clips in (("with", manifest()), ("without", hidden)):
        stores = write_all(tmp_path / name, clips)
        outputs.append(Run.open(train(run(method=rna.Params(), target="night"), stores, tmp_path / name)).outputs)
    assert np.array_equal(outputs[0]["label"], outputs[1]["label"])


def test_no_run_no_result(tmp_path):
    with pytest.raises(NotTrainedError, match="no finished run at .*nowhere"):
        evaluate(tmp_path / "nowhere", tmp_path)
