"""The data that networks were trained on: every entry of the catalogue names them, and stores and copies keep them."""

import pytest

from featcache import FeatureStore, training_data
from featcache.extractors import Runtime, load
from featcache.importing import import_features
from featcache.store.info import facts, text
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
        info = facts(store)
        assert info["trained_on"] == CATALOGUE[TBN].trained_on
        assert f"{EPIC100} ({LABELS})" in text(info, 0)
