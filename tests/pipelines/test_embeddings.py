"""A-distance and t-SNE on embeddings whose answer is known."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

from featcache.errors import ConfigError
from pipelines.cli import main
from pipelines.data.opening import open_run
from pipelines.data.stores import open_manifest
from pipelines.evaluation import results
from pipelines.evaluation.embeddings import LEAST, a_distance, pairs, tsne
from pipelines.evaluation.evaluate import distances, evaluate
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.stores import run, write_all
from tests.helpers.words import retrieval_run, retrieval_stores


def normal(seed, n, mean=0.0, dim=4):
    return np.random.default_rng(seed).normal(mean, 1.0, (n, dim)).astype(np.float32)


def test_one_distribution_has_no_distance():
    assert abs(a_distance(normal(0, 200), normal(1, 200))) < 0.3


def test_apart_it_is_two():
    assert a_distance(normal(0, 100), normal(1, 100, mean=20)) == 2


def test_a_ring_around_a_ball_is_apart_for_the_kernel_though_the_means_are_equal():
    ball, ring = normal(0, 200, dim=2), normal(1, 200, dim=2)
    ring *= 8 / np.linalg.norm(ring, axis=1, keepdims=True)
    assert a_distance(ball, ring) > 1.9


def test_it_grows_with_the_shift():
    d = [a_distance(normal(0, 200), normal(1, 200, mean)) for mean in (0, 0.5, 1, 3)]
    assert d == sorted(d)
    assert all(-2 <= value <= 2 for value in d)


def test_domains_of_other_sizes_count_the_same():
    many, few = normal(0, 900), normal(1, 60)
    assert abs(a_distance(many, few)) < 0.7  # whoever says "the larger one" errs as often as a coin: 120 rows, not 960
    assert a_distance(many, few + 20) == 2


def test_the_rows_that_count_are_drawn_from_all():
    """Where the later half of a domain is elsewhere, half of the drawn rows are told apart without an error."""
    source = np.concatenate([normal(0, 300), normal(1, 300, mean=20)])
    assert 0.6 < a_distance(source, normal(2, 100)) < 1.4


def test_a_seed_draws_the_same_rows_and_another_draws_others():
    source, target = normal(0, 90), normal(1, 60, mean=0.3)
    assert a_distance(source, target, seed=3) == a_distance(source, target, seed=3)
    assert len({a_distance(source, target, seed=seed) for seed in range(4)}) > 1


def test_the_scale_of_the_features_does_not_matter():
    source, target = normal(0, 100), normal(1, 100, mean=0.5)
    assert a_distance(1024 * source, 1024 * target) == a_distance(source, target)


def test_rows_that_are_all_equal_tell_nothing():
    same = np.ones((40, 3), np.float32)
    assert a_distance(same, same) == 0


def test_too_few_rows_are_an_error():
    with pytest.raises(ConfigError, match=f"A-distance.*{LEAST} rows.*5"):
        a_distance(normal(0, 100), normal(1, 5))


def test_tsne_keeps_groups_together():
    groups = np.repeat(np.eye(3, 6), 20, axis=0)
    placed = tsne(groups + 0.05 * normal(0, 60, dim=6), seed=1)
    assert placed.shape == (60, 2)
    near = np.linalg.norm(placed[:, None] - placed, axis=2) + 1e9 * np.eye(60)
    assert (near.argmin(1) // 20 == np.arange(60) // 20).all()


def test_tsne_is_the_same_each_time():
    x = normal(0, 40)
    np.testing.assert_array_equal(tsne(x, seed=2), tsne(x, seed=2))


def test_rows_of_one_entry_are_placed():
    placed = tsne(normal(0, 12, dim=1), seed=2)
    assert placed.shape == (12, 2)
    assert np.isfinite(placed).all()


def test_tsne_of_next_to_nothing_is_an_error():
    with pytest.raises(ConfigError, match="5 rows"):
        tsne(normal(0, 4))


@pytest.mark.parametrize(
    "x", [np.zeros((9, 3)), np.full((9, 3), 2.5), np.full((9, 3), np.nan)], ids=["0", "2.5", "nan"]
)
def test_tsne_of_equal_rows_is_an_error_instead_of_a_crash(x):
    with pytest.raises(ConfigError, match="9 rows.*equal"):
        tsne(x.astype(np.float32))


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """(stores, run) where night looks quite another than day: 24 test clips of each, with two captions each."""
    folder = tmp_path_factory.mktemp("shifted")
    retrieval_stores(folder / "stores", copies=4, shift=3.0)
    return folder / "stores", train(retrieval_run(steps=20), folder / "stores", folder / "runs")


def test_a_pair_is_a_clip_and_its_first_caption(shifted):
    stores, folder = shifted
    trained, opened = Run.open(folder), open_run(retrieval_run(steps=20), stores)
    found, kept = pairs(trained.method(), opened), trained.outputs
    np.testing.assert_allclose(found.visual, kept["visual"][-1], atol=1e-6)
    captions = [open_manifest(stores, "films_captions").clips[row].clip_id for row in kept["captions"]]
    first = [k for k, name in enumerate(captions) if name.endswith("#0")]
    np.testing.assert_allclose(found.text, kept["text"][-1][first], atol=1e-6)
    assert kept["clip"][first].tolist() == list(range(24))


def command(folder, stores, runs, **changes):
    """What `featcache evaluate --a-distance` of this run leaves: its result, and metric -> value."""
    experiment = folder / "mine.py"
    experiment.write_text(f"from tests.helpers.words import retrieval_run\nRUNS = (retrieval_run(**{changes}),)")
    words = ["evaluate", experiment, "--stores", stores, "--runs", runs, "--a-distance"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result, {row.metric: row.value for row in results.read(runs / "results.jsonl")}


def test_evaluate_adds_a_distances_where_they_are_asked_for(shifted, tmp_path):
    stores, folder = shifted
    values = {row.metric: row.value for row in distances(folder, stores)}
    assert set(values) == {"a_distance/joint", "a_distance/video"}
    assert min(values.values()) > 1
    result, written = command(tmp_path, stores, folder.parent, steps=20)
    assert result.exit_code == 0, result.output
    assert written == values | {row.metric: row.value for row in evaluate(folder, stores)}
    again, _ = command(tmp_path, stores, folder.parent, steps=20)
    assert "1 kept" in again.stderr
    path = folder.parent / "results.jsonl"
    rest = [line for line in path.read_bytes().splitlines(keepends=True) if b'"metric": "a_distance/' not in line]
    path.write_bytes(b"".join(rest))
    again, written_again = command(tmp_path, stores, folder.parent, steps=20)
    assert "1 measured" in again.stderr
    assert written_again == written
    assert len(path.read_bytes().splitlines()) == len(written)  # only the distances were measured


def test_where_there_is_no_a_distance_side_and_split_are_named_and_recalls_are_kept(tmp_path):
    stores, runs = tmp_path / "stores", tmp_path / "runs"
    retrieval_stores(stores)
    train(retrieval_run(steps=1), stores, runs)
    result, written = command(tmp_path, stores, runs, steps=1)
    assert result.exit_code == 1
    assert "1 of 1 runs" in result.stderr
    assert re.search("source day, split test: A-distance.* 20 rows.* 6", result.stderr)
    assert "t2v/R@1" in written
    assert "a_distance/video" not in written


def test_a_run_without_captions_has_no_pairs(tmp_path):
    folder = train(run(steps=1), write_all(tmp_path / "stores"), tmp_path / "runs")
    with pytest.raises(ConfigError, match="is a classification run"):
        distances(folder, tmp_path / "stores")
