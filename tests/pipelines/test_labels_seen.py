"""Tables on features whose network was trained on labels of the tested clips."""

from dataclasses import replace

import pytest

from featcache.errors import ConfigError
from featcache.training_data import text
from featcache.weights.catalogue import CATALOGUE, EPIC100, KINETICS
from pipelines import experiments
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
from pipelines.experiments._data import BEHIND
from pipelines.tables.build import build, norms_grid
from pipelines.training.train import train
from tests.helpers.result_rows import experiment, result, rows
from tests.helpers.stores import run, write_all

DATA = {"day": ("Day 2020",), "night": (KINETICS, "Night 2021")}


def noted(toy, weights):
    trained_on = {"rgb": text(CATALOGUE[weights].trained_on), "audio": "nothing"}
    made = build([replace(row, trained_on=trained_on) for row in rows(toy)], toy, "top1")
    return made, [note.text for note in made.notes if note.loud and note.text.startswith("LABELS SEEN")]


def test_a_table_on_stores_whose_network_saw_the_target_says_so(tmp_path):
    facts = {"trained_on": text(CATALOGUE["i3d-rgb"].trained_on)}
    stores = write_all(tmp_path / "stores", weights="a" * 64, facts=facts)
    config = replace(run(steps=2), fidelity="exact")
    folder = train(config, stores, tmp_path / "runs")
    toy = Experiment("toy", "Toy.", (config,), data=DATA)
    results = evaluate(folder, stores, "toy")
    made = build(results, toy, "top1")
    (loud,) = [note.text for note in made.notes if note.loud and note.text.startswith("LABELS SEEN")]
    assert "night" in loud
    assert KINETICS in loud
    assert [line.fidelity for line in made.lines] == ["labels seen"]
    clean = build(results, replace(toy, data={"day": (KINETICS,), "night": ("Night 2021",)}), "top1")
    assert not [note for note in clean.notes if note.text.startswith("LABELS SEEN")]
    assert [line.fidelity for line in clean.lines] == ["exact"]


def test_a_table_of_norms_says_so_once():
    toy = replace(experiment(), data=DATA)
    trained_on = {"rgb": text(CATALOGUE["i3d-rgb"].trained_on)}
    norms = [result(run, 0.5, metric, trained_on=trained_on) for run in toy.runs for metric in ("cv_s", "cv_t")]
    _, below = norms_grid(norms, toy)
    assert [KINETICS in note.text for note in below if note.text.startswith("LABELS SEEN")] == [True]
    assert below[0].loud
    _, below = norms_grid([replace(row, trained_on={"rgb": "nothing"}) for row in norms], toy)
    assert not [note for note in below if "trained on" in note.text]


def test_only_the_rows_that_are_tested_there_lose_their_fidelity():
    made, loud = noted(replace(experiment(), data=DATA), "i3d-rgb")
    assert len(loud) == 1
    assert "(night)" in loud[0]
    assert {line.fidelity for line in made.lines} == {"labels seen / adapter"}


@pytest.mark.parametrize(("weights", "loud"), [("tbn-epic-100", 1), ("i3d-rgb", 0), ("bninception-imagenet", 0)])
def test_it_is_not_known_whether_data_hold_a_domain_without_a_record(weights, loud):
    made, warnings = noted(experiment(), weights)
    assert not warnings
    calm = [note.text for note in made.notes if "not known whether" in note.text]
    assert len(calm) == 1
    assert "DATA" in calm[0]


def test_features_by_rule_have_no_note():
    made = build([replace(row, trained_on={"rgb": "nothing"}) for row in rows(experiment())], experiment(), "top1")
    assert not [note for note in made.notes if "were trained on" in note.text]


def test_unknown_training_data_is_noted_once():
    unknown = {"rgb": "not known", "audio": "not known"}
    made = build([replace(row, trained_on=unknown) for row in rows(experiment())], experiment(), "top1")
    assert len([note for note in made.notes if "rgb, audio: not known" in note.text]) == 1


@pytest.mark.parametrize(
    ("name", "weights", "seen"),
    [
        ("rna_epic100", "tbn-epic-100", True),
        ("rna_epic100", "tbn-epic-55", False),
        ("rna_epic8", "tbn-epic-100", True),
        ("rna_epic8", "tbn-epic-55", True),
        ("rna_epic8", "bninception-imagenet", False),
        ("xmc_epic8", "i3d-rgb", False),
        ("mtran_epic8", "i3d-flow", False),
        ("xmc_ucf_hmdb", "i3d-rgb", False),
    ],
)
def test_published_experiments_on_public_weights(name, weights, seen):
    chosen = experiments.load(name)
    config = next(config for config in chosen.runs if config.row)
    row = result(
        config,
        0.5,
        chosen.task.headlines[0] if "epic100" not in name else "top1/verb",
        recipes={},
        trained_on={"rgb": text(CATALOGUE[weights].trained_on)},
    )
    made = build([row], chosen, "top1" if "epic100" not in name else "top1/verb")
    assert any(note.loud and note.text.startswith("LABELS SEEN") for note in made.notes) is seen


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_knows_the_data_behind_its_domains(name):
    chosen = experiments.load(name)
    for config in chosen.runs:
        assert None not in chosen.data_behind(config).values()
        assert set(config.source) <= BEHIND[config.manifest].keys()


def test_the_target_of_epic100_is_in_epic_100_train():
    chosen = experiments.load("rna_epic100")
    assert chosen.data_behind(chosen.runs[0]) == {"target": (EPIC100,)}


def test_an_unknown_domain_hides_no_known_one():
    toy = replace(experiment(), data={"day": (KINETICS,)})
    made, loud = noted(toy, "i3d-rgb")
    assert len(loud) == 1
    assert "(day)" in loud[0]
    (calm,) = [note.text for note in made.notes if "not known whether" in note.text]
    assert "night" in calm
    assert "day" not in calm.partition("clips of")[2]
    adapted = next(config for config in toy.runs if config.target == "night")
    assert toy.data_behind(replace(adapted, test="day")) == {"day": (KINETICS,), "night": None}


def test_data_of_an_experiment_file_extends_what_is_known():
    chosen = replace(experiments.load("rna_epic100"), data={"mine": ("my kitchen",)})
    assert chosen.data_behind(chosen.runs[0]) == {"target": (EPIC100,)}
    assert chosen.data_behind(replace(chosen.runs[0], test="mine"))["mine"] == ("my kitchen",)


def test_results_of_an_earlier_version_say_once_that_training_data_are_not_known():
    toy = experiment()
    for earlier, count in (({"read": {"store rgb": "cd"}}, 1), ({}, 0)):  # made by hand without stores: no note
        made = build([replace(row, **earlier) for row in rows(toy)], toy, "top1")
        texts = [note.text for note in made.notes if "not known what" in note.text]
        assert len(texts) == count
        assert all("`featcache evaluate`" in text for text in texts)


@pytest.mark.parametrize("data", ["['a']", "{'night': 'Night'}", "{'night': (1,)}"])
def test_wrong_data_of_an_experiment_file(tmp_path, data):
    file = tmp_path / "mine.py"
    file.write_text(f"from tests.helpers.stores import run\nRUNS = (run(),)\nDATA = {data}\n")
    with pytest.raises(ConfigError, match=r"mine\.py: DATA"):
        experiments.load(file)
