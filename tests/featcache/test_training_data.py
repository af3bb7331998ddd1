"""The data that networks were trained on: every entry of the catalogue names them, and stores and copies keep them."""

import time

import pytest

from featcache import FeatureStore, training_data
from featcache.exporting import export_features
from featcache.extractors import Runtime, load
from featcache.importing import import_features
from featcache.store.info import info, text
from featcache.weights.catalogue import CATALOGUE, EPIC55, EPIC100, HASHTAGS, IMAGENET, LABELS
from tests.helpers.stores import manifest, write_store

TBN = "tbn-epic-100"


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_names_its_training_data_and_the_text_that_states_it(name):
    weights = CATALOGUE[name]
    assert weights.trained_on
    assert set(weights.trained_on.values()) <= {LABELS, HASHTAGS}
    assert weights.source
    assert training_data.parse(training_data.text(weights.trained_on)) == weights.trained_on


def test_the_public_weights_of_tbn_have_seen_epic_kitchens():
    assert CATALOGUE[TBN].trained_on[EPIC100] == LABELS
    assert EPIC100 not in CATALOGUE["tbn-epic-55"].trained_on
    assert CATALOGUE["tbn-epic-55"].trained_on[EPIC55] == LABELS


@pytest.mark.parametrize(
    ("recipe", "facts", "expected"),
    [
        ({"weights_sha256": "none"}, {}, {}),
        ({"weights_sha256": "untrained:3"}, {}, {}),
        ({"weights_sha256": "0" * 64}, {}, None),
        ({"weights_sha256": "0" * 64}, {"trained_on": "Places365 (labels)"}, {"Places365": "labels"}),
        ({"weights_sha256": CATALOGUE["resnext101-32x8d"].sha256 + "0" * 56}, {}, {IMAGENET: LABELS}),
        ({"weights_sha256": "none", "extractor": "vector"}, {}, None),
        ({"weights_sha256": "none", "window": {"kind": "numbers"}}, {}, None),
        ({"weights_sha256": "none"}, {"trained_on": "EPIC-KITCHENS-100 train"}, None),
        ({"weights_sha256": "none", "external": {"files": [{}]}}, {}, None),
        ({"weights_sha256": "none", "external": {"files": ["x"]}}, {}, None),
        ({"weights_sha256": "none", "external": {"files": {"a": 1}}}, {}, None),
        ({"weights_sha256": "none", "external": {"files": [{"recipe": None}]}}, {}, None),
        ({"weights_sha256": "none", "external": {"files": 5}}, {}, None),
        ({"weights_sha256": "none", "external": [1]}, {}, None),
        ({"external": {"files": [{"recipe": {"trained_on": "A (labels)"}}]}}, {}, {"A": LABELS}),
        (
            {"external": {"files": [{"recipe": {"trained_on": f"A ({kind})"}} for kind in (LABELS, HASHTAGS)]}},
            {},
            {"A": LABELS},
        ),
        ({"weights_sha256": "external"}, {}, None),
        ({"weights_sha256": "external", "external": {"files": [{}]}}, {}, None),
        ({"weights_sha256": "external", "external": {"files": [{"recipe": {"weights_sha256": "none"}}]}}, {}, {}),
        (
            {"external": {"files": [{"recipe": {"weights_sha256": "none"}}, {"recipe": {"weights_sha256": "1" * 64}}]}},
            {},
            None,
        ),
    ],
)
def test_training_data_of_a_store(recipe, facts, expected):
    assert training_data.of(recipe, facts) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "ImageNet",
        "(labels)",
        " (labels)",
        "A (labels) ",
        " A (labels)",
        "A (Labels)",
        "A labels",
        "A (labels), B",
        "A (labels), A (hashtags)",
        "A (labels); B (labels)",
        "A (labels)\nB (labels)",
        "A (labels),B (labels)",
    ],
)
def test_a_record_that_cannot_be_parsed_is_not_known(text):
    assert training_data.parse(text) is None
    assert training_data.of({"weights_sha256": "none"}, {"trained_on": text or "?"}) is None


def test_a_long_record_is_parsed_at_once():
    start = time.process_time()
    assert training_data.parse(", a" * 100_000) is None
    assert len(training_data.parse(", ".join(f"a{k} (labels)" for k in range(20_000)))) == 20_000
    assert time.process_time() - start < 2


@pytest.mark.parametrize("format", ["npz", "parquet"])
def test_a_store_that_is_exported_and_imported_keeps_its_training_data(tmp_path, format):
    recorded = {"trained_on": training_data.text(CATALOGUE[TBN].trained_on)}
    write_store(tmp_path / "toy", manifest(), "hog", weights="a" * 64, facts=recorded)
    path = tmp_path / "toy" / "hog.zarr"
    file = tmp_path / "out"
    for step in ("once", "twice"):
        export_features([path], format, file, overwrite=True)
        (made,) = import_features([file], format, manifest(), tmp_path / step)
        path = made.path
        assert info(path)["trained_on"] == CATALOGUE[TBN].trained_on
    write_store(tmp_path / "toy", manifest(), "hof", weights="a" * 64)
    export_features([tmp_path / "toy" / "hof.zarr"], format, file, overwrite=True)
    (made,) = import_features([file], format, manifest(), tmp_path / "unknown")
    assert info(made.path)["trained_on"] is None


def test_only_labels_count_as_seen():
    trained_on = {"A": LABELS, "B": HASHTAGS}
    assert training_data.seen(trained_on, {"A", "B"}) == ["A"]
    assert training_data.seen(trained_on, {"C"}) == []
    assert training_data.seen(None, {"A"}) == []


def test_extractors_with_random_or_no_weights_record_no_training_data():
    for name in ("hog", "tbn-rgb"):
        assert "trained_on" not in load(name).ready(Runtime("untrained" if name == "tbn-rgb" else "")).facts


def test_info_and_copies_of_a_store_keep_its_training_data(tmp_path):
    recorded = {"licence": "MIT", "trained_on": training_data.text(CATALOGUE[TBN].trained_on)}
    write_store(tmp_path / "toy", manifest(), "hog", facts=recorded)
    path = tmp_path / "toy" / "hog.zarr"
    (copied,) = import_features([path], "store", manifest(), tmp_path / "copies")
    for store in (path, copied.path):
        assert FeatureStore.open(store).facts["licence"] == "MIT"
        facts = info(store)
        assert facts["trained_on"] == CATALOGUE[TBN].trained_on
        assert f"{EPIC100} ({LABELS})" in text(facts, 0)
