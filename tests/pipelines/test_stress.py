"""Runs that are tested on changed features: the changes by hand, and numbers whose answer is known."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError
from featcache.store import StoreWriter
from heads.batch import Side
from heads.methods import nearest_mean
from heads.nets import adapter
from pipelines.cli import main
from pipelines.config import Feed, Preparation
from pipelines.data.opening import open_run
from pipelines.evaluation import results, stress
from pipelines.evaluation.changes import fewer, noisy, rounded, spread, without
from pipelines.evaluation.engine import RESULTS, STRESS, Case, evaluate_all
from pipelines.evaluation.evaluate import evaluate, trained
from pipelines.report.stress import stress as stress_section
from pipelines.tables.stress import render
from pipelines.training.outputs import outputs
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers import caption_stores, skeleton_stores
from tests.helpers.result_rows import experiment as toy_experiment
from tests.helpers.result_rows import result, rows
from tests.helpers.stores import manifest, run, write_all


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def side(present=((1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (0, 0, 0, 0, 0)), D=4):
    """Three rows of five windows, of which they have 5, 3 and none; another modality is whole."""
    present = torch.tensor(present, dtype=torch.bool)
    x = torch.randn(*present.shape, D, generator=torch.Generator().manual_seed(0)) * present[..., None]
    index = torch.arange(len(present))
    return Side(
        {"rgb": x, "flow": torch.ones(3, 5, 2)}, {"rgb": present, "flow": torch.ones(3, 5).bool()}, {}, index, index
    )


def values(folder, stores, kind, **options):
    return {result.metric: result.value for result in stress.measure(trained(folder, stores), kind, **options)}


# ------------------------------------------------------------------------------------------------------------- changes


def test_a_dropped_modality_is_zero_and_not_present():
    changed = without(side(), ["rgb"])
    assert not changed.x["rgb"].any()
    assert not changed.present["rgb"].any()
    assert torch.equal(changed.x["flow"], side().x["flow"])


@pytest.mark.parametrize(
    ("n", "kept"),
    [(1, ([2], [1])), (2, ([1, 3], [0, 2])), (3, ([0, 2, 4], [0, 1, 2])), (5, ([0, 1, 2, 3, 4], [0, 1, 2]))],
)
def test_windows_at_the_centres_of_equal_parts_are_kept(n, kept):
    changed = fewer(side(), n)
    for row, chosen in enumerate((*kept, [])):
        assert changed.present["rgb"][row].nonzero()[:, 0].tolist() == chosen
        assert torch.equal(changed.x["rgb"][row, chosen], side().x["rgb"][row, chosen])
    assert not changed.x["rgb"][~changed.present["rgb"]].any()


def test_windows_that_are_present_need_not_be_the_first():
    changed = fewer(side(((1, 0, 1, 0, 1), (0, 0, 0, 1, 1), (0, 0, 0, 0, 1))), 1)
    assert changed.present["rgb"].nonzero().tolist() == [[0, 2], [1, 4], [2, 4]]


def test_types_round_as_a_store_of_them_does():
    x = side().x["rgb"]
    assert torch.equal(rounded(side(), "float16").x["rgb"], torch.from_numpy(x.numpy().astype(np.float16).astype("f4")))
    for window, expected in zip(rounded(side(), "int8").x["rgb"][0].tolist(), x[0].tolist(), strict=True):
        scale = max(map(abs, expected)) / 127
        assert window == pytest.approx([round(value / scale) * scale for value in expected], rel=1e-5)
    assert torch.equal(rounded(side(), "int8").x["flow"], side().x["flow"])  # entries of one size are exact
    huge = dataclasses.replace(side(), x={"rgb": side().x["rgb"] * 1e6})
    with pytest.raises(ConfigError, match="float16.*rgb.*65504"):
        rounded(huge, "float16")


def test_noise_has_the_spread_of_each_entry_and_does_not_depend_on_the_pieces():
    std = {"rgb": torch.tensor([0.0, 1.0, 2.0, 10.0]), "flow": torch.zeros(2)}
    wide = side(np.ones((3, 5)).tolist())
    many = dataclasses.replace(wide, x={m: x.repeat(400, 1, 1) for m, x in wide.x.items()},
                               present={m: p.repeat(400, 1) for m, p in wide.present.items()})  # fmt: skip
    added = noisy(0.5, std, 3)(many).x["rgb"] - many.x["rgb"]
    assert added.flatten(0, 1).std(0).tolist() == pytest.approx([0, 0.5, 1, 5], rel=0.05)
    assert added.flatten(0, 1).mean(0).abs().max() < 0.3
    change, parts = noisy(0.5, std, 3), []
    for part in (slice(0, 1), slice(1, 7), slice(7, 1200)):
        piece = dataclasses.replace(many, x={m: x[part] for m, x in many.x.items()},
                                    present={m: p[part] for m, p in many.present.items()})  # fmt: skip
        parts.append(change(piece).x["rgb"])
    assert torch.equal(torch.cat(parts), noisy(0.5, std, 3)(many).x["rgb"])
    assert torch.allclose(noisy(1.0, std, 3)(many).x["rgb"] - many.x["rgb"], 2 * added, atol=1e-4)
    assert not noisy(0.5, std, 3)(side()).x["rgb"][~side().present["rgb"]].any()


def test_the_spread_is_over_all_windows_that_are_present():
    whole = side()
    windows = whole.x["rgb"][whole.present["rgb"]].double().numpy() + 1e4
    moved = dataclasses.replace(whole, x={"rgb": whole.x["rgb"] + 1e4})
    pieces = [dataclasses.replace(moved, x={"rgb": moved.x["rgb"][k : k + 1]},
                                  present={"rgb": moved.present["rgb"][k : k + 1]}) for k in range(3)]  # fmt: skip
    assert spread(pieces)["rgb"].numpy() == pytest.approx(windows.std(0), rel=1e-2)
    assert spread([dataclasses.replace(whole, x={"flow": whole.x["flow"]})])["flow"].tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("draw", ["all", "mean", "segments:2", "each"])
@pytest.mark.parametrize("units", ["none", "source", "domain"])
def test_features_as_they_are_give_the_kept_outputs(stores, tmp_path, draw, units):
    """Stress changes stored windows, before the draw and the preparation; `none` must be the run's own outputs."""
    feeds = {"rgb": Feed("hog", test=draw), "flow": Feed("hof")}
    config = run(feeds=feeds, preparation=Preparation(units=units), target=None)
    it = trained(train(config, stores, tmp_path), stores)
    rows = stress.changed(stress.stored(it.opened, "test", it.opened.check_test()), it.opened, stress.PLAIN)
    found, kept = outputs(it.method, rows, it.opened), it.run.outputs
    assert found["label"] == pytest.approx(kept["label"][0], abs=1e-5)
    plain = {each.metric: each.value for each in evaluate(it.run.folder, stores)}
    assert values(it.run.folder, stores, stress.PLAIN)["top1"] == plain["top1"]


def test_a_modality_that_is_absent_leaves_the_stream_of_the_other(stores, tmp_path):
    it = trained(train(run(), stores, tmp_path), stores)
    rows = stress.changed(stress.stored(it.opened, "test", it.opened.check_test()), it.opened, "drop=flow")
    net, x = it.method.net, torch.from_numpy(it.opened.stores["rgb"].read(np.array(rows.rows)))
    with torch.no_grad():
        expected = net.classifier({"rgb": net.F["rgb"](x.mean(1)).relu(), "flow": torch.zeros(len(x), 8)})["label"]
    assert outputs(it.method, rows, it.opened)["label"] == pytest.approx(expected.numpy(), abs=1e-5)


def test_numbers_of_a_known_answer(tmp_path):
    """The classes differ in rgb only, so without flow nothing is lost, and without rgb a third is right by chance."""
    clips, stores = manifest(), tmp_path / "stores"
    clips.write(stores / clips.name / "manifest.csv")
    for name, size in (("hog", 3), ("hof", 2)):
        recipe = {"extractor": name, "version": 1, "modality": name, "weights_sha256": "none", "dtype": "float32"}
        path = stores / clips.name / f"{name}.zarr"
        with StoreWriter.open(path, clips, recipe, row_shape=(size,), windows=3, facts={}) as writer:
            for row, clip in enumerate(clips):
                x = np.zeros((3, size), np.float32)
                if name == "hog":  # the class in the middle window, another one in the others
                    x[1, clips.classes["label"].index(clip.labels["label"])] = 3.0
                    x[[0, 2], 0] = 1.0
                else:
                    x[:] = 1.0
                writer.done(row, x, np.arange(3), np.arange(3) + 1.0)
    feeds = {"rgb": Feed("hog"), "flow": Feed("hof")}
    folder = train(run(method=nearest_mean.Params(), feeds=feeds, steps=0), stores, tmp_path / "runs")
    assert values(folder, stores, "none")["top1"] == 1
    assert values(folder, stores, "drop=flow")["top1"] == 1
    assert values(folder, stores, "drop=rgb")["top1"] == pytest.approx(1 / 3)
    assert values(folder, stores, "windows=1")["top1"] == 1  # the middle window
    assert values(folder, stores, "dtype=float16")["top1"] == 1
    assert values(folder, stores, "dtype=int8")["top1"] == 1
    assert values(folder, stores, "noise=0.01")["top1"] == 1
    assert values(folder, stores, "noise=100")["top1"] < 1
    assert values(folder, stores, "noise=100") == values(folder, stores, "noise=100")


# --------------------------------------------------------------------------------------------------- what is asked for


def asked(**options):
    return stress.parse(**options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"drop": ("",)}, "--drop ''"),
        ({"drop": ("all,rgb",)}, "--drop all"),
        ({"windows": "0"}, "'0'.*1..T"),
        ({"windows": "3..2"}, r"'3\.\.2'"),
        ({"windows": "x"}, "'x'"),
        ({"windows": "1,,2"}, "--windows '1,,2'"),
        ({"dtype": "float8"}, "float8.*float16, int8"),
        ({"noise": "-0.1"}, r"-0\.1.*above 0"),
        ({"noise": "0"}, "0 .*above 0"),
        ({"noise": "nan"}, "nan.*above 0"),
        ({"noise": "much"}, "much.*above 0"),
    ],
)
def test_values_that_cannot_be_meant_are_one_sentence(options, match):
    options = {"dtypes" if name == "dtype" else name: value for name, value in options.items()}
    with pytest.raises(ConfigError, match=match):
        asked(**options)


def planned(stores, *configs, **options):
    return stress.plan({stores: configs}, asked(**options))


def test_all_sets_of_modalities_that_leave_one(stores):
    base = run()
    three = dataclasses.replace(base, feeds=base.feeds | {"again": Feed("hog")})
    found = planned(stores, base, three, run(feeds={"rgb": Feed("hog")}), drop=("all",))
    assert found.stresses[base.id] == ("none", "drop=rgb", "drop=flow")
    assert found.stresses[three.id] == (
        "none", "drop=rgb", "drop=flow", "drop=again", "drop=rgb+flow", "drop=rgb+again", "drop=flow+again",
    )  # fmt: skip
    ((left, reason),) = found.left_out
    assert left.feeds.keys() == {"rgb"}
    assert "rgb" in reason
    assert left.id not in found.stresses


def test_stresses_have_the_order_and_the_names_of_the_modalities(stores):
    three = dataclasses.replace(run(), feeds=run().feeds | {"again": Feed("hog")})
    found = planned(stores, three, drop=("flow,rgb", "again"), windows="2..T,1", dtypes="int8", noise="0.5,0.50")
    assert found.stresses[three.id] == (
        "none", "drop=rgb+flow", "drop=again", "windows=2", "windows=3", "windows=1", "dtype=int8", "noise=0.5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"drop": ("audio",)}, "'audio'.*flow, rgb"),
        ({"drop": ("rgb,flow",)}, "--drop rgb,flow.*left"),
        ({"windows": "4"}, "--windows 4.*3 windows"),
        ({"windows": "4..T"}, "--windows 4..T.*3 windows"),
    ],
)
def test_a_wish_that_no_run_can_fulfil_is_one_sentence(stores, options, match):
    with pytest.raises(ConfigError, match=match):
        planned(stores, run(), **options)


def test_results_are_lines_of_their_own_and_are_not_measured_twice(stores, tmp_path):
    configs = [run(seed=0), run(seed=1)]
    for config in configs:
        train(config, stores, tmp_path)
    cases = [Case(config, "toy") for config in configs]
    evaluate_all(cases, stores, tmp_path)
    plain = (tmp_path / RESULTS).read_bytes()
    found = planned(stores, *configs, drop=("all",), noise="1")
    (first, _) = evaluate_all(cases, stores, tmp_path, stresses=found.stresses)
    assert first.status == "measured"
    assert (tmp_path / RESULTS).read_bytes() == plain
    lines = results.read(tmp_path / STRESS, stressed=True)
    assert {line.stress for line in lines} == {"none", "drop=rgb", "drop=flow", "noise=1"}
    assert {(line.run, line.stress, line.metric) for line in lines} >= {
        (config.id, "drop=rgb", metric) for config in configs for metric in ("top1", "macro_f1", "ece")
    }
    size = (tmp_path / STRESS).stat().st_size
    again = evaluate_all(cases, stores, tmp_path, stresses=found.stresses)
    assert {outcome.status for outcome in again} == {"kept"}
    assert (tmp_path / STRESS).stat().st_size == size
    more = planned(stores, *configs, drop=("all",), noise="1,2")
    evaluate_all(cases, stores, tmp_path, stresses=more.stresses)
    new = [json.loads(line)["stress"] for line in (tmp_path / STRESS).read_text().splitlines()[len(lines) :]]
    assert set(new) == {"noise=2"}


def test_stressed_and_plain_lines_of_one_file_never_mix(tmp_path):
    path, (one, *_) = tmp_path / "results.jsonl", rows(toy_experiment())
    stressed = [
        dataclasses.replace(one, stress=kind, value=value) for kind, value in (("none", 0.9), ("drop=rgb", 0.1))
    ]
    results.append(path, [one, *stressed])
    assert results.read(path) == [one]
    assert results.read(path, stressed=True) == stressed
    assert "stress" not in json.loads(path.read_text().splitlines()[0])
    torn = path.read_text().splitlines()
    path.write_text("\n".join([torn[0], torn[2][:-9] + '00000000"}', torn[1], ""]))  # a damaged drop=rgb
    with pytest.warns(UserWarning, match="1 damaged line"):  # neither the line of `none` nor the plain one replaces it
        results.read(path)
    results.append(path, [stressed[1]])
    assert results.read(path, stressed=True).damaged == ""


def test_one_sentence_for_a_wrong_wish_and_nothing_written(stores, tmp_path, capsys):
    train(run(), stores, tmp_path / "runs")
    file = tmp_path / "toy.py"
    file.write_text(EXPERIMENT)
    with pytest.raises(SystemExit):
        main(["evaluate", str(file), "--stores", str(stores), "--runs", str(tmp_path / "runs"), "--drop", "smell"])
    assert "smell" in (error := capsys.readouterr().err)
    assert "Traceback" not in error
    assert not list((tmp_path / "runs").glob("*.jsonl"))


EXPERIMENT = '''"""Toy."""
from tests.helpers.stores import run

RUNS = [run()]
'''


def test_the_command_and_its_table(stores, tmp_path, capsys):
    train(run(), stores, tmp_path / "runs")
    file = tmp_path / "toy.py"
    file.write_text(EXPERIMENT)
    where = [str(file), "--stores", str(stores), "--runs", str(tmp_path / "runs")]
    main(["evaluate", *where, "--drop", "all", "--windows", "1..T", "--workers", "1"], standalone_mode=False)
    main(["table", *where, "--stress", "--metric", "macro_f1"], standalone_mode=False)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(STRESS)
    heads = [
        "none",
        *(head for n in ("drop=rgb", "drop=flow", *(f"windows={k}" for k in (1, 2, 3))) for head in (n, "change")),
    ]
    assert [cell.strip() for cell in printed[1].strip("|").split("|")][1:] == heads


# --------------------------------------------------------------------------------------------------------------- table


def stressed_rows(of):
    """Plain accuracies; without rgb 10 points less, with noise 1 point more per seed."""
    changes = {"noise=2": lambda seed: 0.02, "none": lambda seed: 0.0, "drop=rgb": lambda seed: -0.1 - 0.01 * seed}
    return [
        dataclasses.replace(row, value=row.value + change(row.seed), stress=kind)
        for kind, change in changes.items()
        for row in rows(of)
    ]


def test_the_table_has_numbers_and_changes_seed_by_seed():
    lines = render(stressed_rows(toy_experiment()), toy_experiment()).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == ["method", "none", "drop=rgb", "change", "noise=2", "change"]
    assert cells[2] == ["source-only", "35.0 ± 5.0", "24.0 ± 4.0", "-11.0 ± 1.0", "37.0 ± 5.0", "+2.0 ± 0.0"]
    assert not any("interval" in line or "Marked" in line for line in lines)  # this table has neither


def test_the_table_as_csv_and_latex():
    (line,) = [
        line
        for line in render(stressed_rows(toy_experiment()), toy_experiment(), format="csv").splitlines()
        if line.startswith("source-only,drop=rgb")
    ]
    assert line == "source-only,drop=rgb,24.0,4.0,3,0 1 2,-11.0,1.0,top1"
    assert r"source-only & 35.0 $\pm$ 5.0 & 24.0" in render(
        stressed_rows(toy_experiment()), toy_experiment(), format="latex"
    )


def test_a_row_without_a_stress_has_holes_and_no_results_are_an_error():
    of = toy_experiment()
    some = [row for row in stressed_rows(of) if row.row == "source-only" or row.stress == "none"]
    assert "–" in render(some, of)
    with pytest.raises(ConfigError, match="featcache evaluate toy --drop"):
        render([], of)


def test_numbers_of_an_earlier_training_are_left_out():
    """`none` was measured again after the run was trained again, and drop=rgb was not."""
    of = toy_experiment()
    old, new = (results.Measurement("a kind", files, 1) for files in ("old", "new"))
    found = [
        dataclasses.replace(row, measurement=old if row.stress == "drop=rgb" else new) for row in stressed_rows(of)
    ]
    printed = render(found, of)
    assert "drop=rgb" not in printed
    assert "noise=2" in printed


def test_numbers_of_other_weights_than_the_plain_table_are_marked():
    of = toy_experiment()
    mean = dataclasses.replace(
        of, runs=tuple(dataclasses.replace(r, select="mean", eval_every=1, keep=2) for r in of.runs)
    )
    found = [dataclasses.replace(result(run, 0.5), stress="none", select="last") for run in mean.runs]
    assert "**SELECTION: " in render(found, mean)
    assert "SELECTION" not in render(stressed_rows(of), of)


def test_the_report_has_the_table(tmp_path):
    of = toy_experiment()
    results.append(tmp_path / STRESS, stressed_rows(of))
    (section,) = stress_section(of, tmp_path)
    assert "<h2>Changed features</h2>" in section
    assert "<td>-11.0 ± 1.0</td>" in section
    assert stress_section(dataclasses.replace(of, runs=of.runs[:0]), tmp_path) == []
    assert stress_section(of, tmp_path / "elsewhere") == []


class Fragile(adapter.Adapter):
    """A net that does not read `present`."""

    def encode(self, side):
        """Encode, unless something is missing."""
        if not all(present.all() for present in side.present.values()):
            raise ValueError("needs all windows")
        return super().encode(side)


def test_a_net_that_cannot_lose_a_modality_is_named_and_the_rest_is_measured(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter, "NET", Fragile)
    train(run(), stores, tmp_path)
    found = planned(stores, run(), drop=("all",), dtypes="int8")
    (outcome,) = evaluate_all([Case(run())], stores, tmp_path, stresses=found.stresses)
    assert outcome.status == "measured"
    for kind in ("drop=rgb", "drop=flow"):
        assert f"{run().id} cannot be tested with {kind}: needs all windows" in outcome.without
    assert {line.stress for line in results.read(tmp_path / STRESS, stressed=True)} == {"none", "dtype=int8"}


def test_a_store_that_is_missing_is_an_error_of_its_runs_only(stores, tmp_path):
    lost = run(feeds={"rgb": Feed("hog"), "flow": Feed("nowhere")})
    train(run(), stores, tmp_path)
    found = planned(stores, lost, run(), dtypes="int8")
    ended = evaluate_all([Case(lost), Case(run())], stores, tmp_path, stresses=found.stresses)
    assert [outcome.status for outcome in ended] == ["failed", "measured"]


def test_opened_runs_are_not_changed(stores, tmp_path):
    """Stress reads; a plain evaluation afterwards gives the same numbers."""
    folder = train(run(preparation=Preparation(units="source")), stores, tmp_path)
    before = {each.metric: each.value for each in evaluate(folder, stores)}
    for kind in ("drop=rgb", "windows=1", "dtype=int8", "noise=3"):
        values(folder, stores, kind)
    assert {each.metric: each.value for each in evaluate(folder, stores)} == before
    assert open_run(Run.open(folder).config, stores).config == run(preparation=Preparation(units="source"))


def test_retrieval_loses_experts_but_no_captions(tmp_path):
    """Units are the source's, clips lack an expert and captions, and `none` has the ranks of the kept embeddings."""
    stores = caption_stores.write_all(tmp_path / "stores", uncaptioned=(25,))
    config = caption_stores.run(preparation=Preparation(units="source"))
    it = trained(train(config, stores, tmp_path / "runs"), stores)
    rows = stress.stored(it.opened, "test", it.opened.check_test())
    assert rows.x.keys() == {"object", "action"}
    assert planned(stores, config, drop=("all",)).stresses[config.id] == ("none", "drop=object", "drop=action")
    plain, without_object = (values(it.run.folder, stores, kind) for kind in ("none", "drop=object"))
    assert plain == pytest.approx({each.metric: each.value for each in evaluate(it.run.folder, stores)})
    assert without_object != plain
    with pytest.raises(ConfigError, match="'words'.*action, object"):
        planned(stores, config, drop=("words",))


@pytest.mark.slow
def test_clustering_cannot_lose_a_layout(tmp_path):
    stores = skeleton_stores.write_all(tmp_path / "stores")
    config = skeleton_stores.run()
    with pytest.raises(ConfigError, match="--drop all: each branch"):
        planned(stores, config, drop=("all",))
    folder = train(config, stores, tmp_path / "runs")
    plain = {each.metric: each.value for each in evaluate(folder, stores)}
    assert values(folder, stores, "none") == pytest.approx(plain)


def test_noise_needs_train_rows_with_the_modality(stores, tmp_path):
    """Only tests see the flow, so no train row says what its spread is."""
    first = train(run(), stores, tmp_path)
    feeds = {"rgb": Feed("hog"), "flow": Feed("hof", seen_by="test")}
    folder = train(run(feeds=feeds, init_from=first.name, row="late"), stores, tmp_path)
    with pytest.raises(ConfigError, match="--noise.*'flow'"):
        values(folder, stores, "noise=1")
    assert values(folder, stores, "drop=flow")
