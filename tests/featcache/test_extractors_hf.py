"""`hf:MODEL`: tiny models of each family through the real loading code, against transformers called directly."""

import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError, WeightsError
from featcache.extractors import Runtime, load
from featcache.extractors import _processor as processor
from featcache.extractors.hf import Params
from featcache.windows import Caption, Pictures, Sound, Tokens
from tests.helpers import hf_models as _hf_models

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = (_hf_models.CLIP_MEAN, _hf_models.CLIP_STD)
HALF = ([0.5] * 3, [0.5] * 3)
MODALITY = {"ast": "audio", "wav2vec2": "audio", "whisper": "audio", "bert": "text"}  # the others see pictures
TEXTS = [
    "someone cuts the bread",
    "a dog runs in the park",
    "a",
    "someone cuts the onion a carrot the bread in the park number a dog runs in the park someone",
    "a " * 10_000,
]


@pytest.fixture(scope="module", autouse=True)
def library():
    """Transformers, imported by the tests that need it and not by every process that collects them."""
    global transformers
    transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of each family's tiny model, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def folder(family):
        if family not in made:
            (root / family).mkdir()
            made[family] = _hf_models.FAMILIES[family](root / family)
        return made[family]

    return folder


@pytest.fixture
def copied(folders, tmp_path):
    def copy(family):
        folder = tmp_path / family
        folder.mkdir()
        for path in folders(family).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy


def ready(folder, runtime=None, **params):
    return load("hf", replace(Params(), model=str(folder), **params)).ready(runtime or Runtime())


def pictures(seed, count, height=48, width=64):
    """Smooth colours that move."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (3, 1, 1)) + np.arange(count)[:, None, None, None] * 0.3
    y, x = np.mgrid[:height, :width] / rng.uniform(3, 12)
    waves = 127.5 + 127.4 * np.sin(x + rng.uniform(0.3, 1.5) * y + phase)
    return list(np.ascontiguousarray(waves.transpose(0, 2, 3, 1)).astype(np.uint8))


def windows(extractor, count=5):
    """Raw windows as a decoder gives them."""
    if isinstance(extractor.window, Pictures):
        return [pictures(seed, extractor.window.count) for seed in range(count)]
    if isinstance(extractor.window, Sound):
        n = round(extractor.window.rate * extractor.window.seconds)
        times, rng = np.arange(n) / extractor.window.rate, np.random.default_rng(0)
        tones = [0.3 * np.sin(2 * np.pi * 300 * (k + 1) * times) + rng.normal(0, 0.05, n) for k in range(count)]
        return [tone.astype(np.float32) for tone in tones]
    return TEXTS[:count]


def prepared(extractor, count=5):
    return np.stack([extractor.prepare(window) for window in windows(extractor, count)])


def direct(folder, **inputs):
    """What AutoModel gives for one window, apart from any code of ours."""
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        return model(**inputs)


def tensor(window, statistics):
    mean, std = (np.array(values, np.float32)[:, None, None] for values in statistics)
    return torch.from_numpy((window.astype(np.float32) / 255 - mean) / std)


FAMILIES = list(_hf_models.FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_finite_rows_whatever_the_batch(folders, family):
    extractor = ready(folders(family))
    assert extractor.name == f"hf:{family}"
    assert extractor.store == f"hf-{family}"
    assert extractor.modality == MODALITY.get(family, "rgb")
    batch = prepared(extractor)
    rows = extractor(batch)
    assert rows.shape == (5, *extractor.row_shape)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert np.abs(rows[0] - rows[1]).max() > 1e-4
    alone = np.concatenate([extractor(batch[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(rows, alone, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(extractor(batch[::-1]), rows[::-1], atol=1e-6, rtol=1e-5)
    recipe = json.loads(json.dumps(extractor.recipe))
    assert recipe["params"]["model"] == family
    assert len(recipe["weights_sha256"]) == 64
    assert recipe["window"]["kind"] in ("pictures", "sound", "caption")


@pytest.mark.parametrize(
    ("family", "statistics", "size"),
    [("dinov2", IMAGENET, 28), ("vit", HALF, 32), ("convnext", HALF, 64), ("clip", CLIP, 32), ("siglip", HALF, 32)],
)
def test_rows_of_pictures_are_the_mean_over_the_window_of_what_the_model_gives(folders, family, statistics, size):
    extractor = ready(folders(family), frames=3)
    assert extractor.window == Pictures(3, 8.0)
    window = extractor.prepare(pictures(1, 3))
    assert window.shape == (3, 3, size, size)
    assert window.dtype == np.uint8
    pixels = tensor(window, statistics)
    if family in ("clip", "siglip"):
        model = transformers.AutoModel.from_pretrained(folders(family)).eval()
        with torch.no_grad():
            found = model.vision_model(pixels).pooler_output
            found = model.visual_projection(found) if family == "clip" else found
    elif family in ("vit", "dinov2"):  # ViT: its classifier was saved without a pooler
        found = direct(folders(family), pixel_values=pixels).last_hidden_state[:, 0]
    else:
        found = direct(folders(family), pixel_values=pixels).pooler_output
    np.testing.assert_allclose(extractor(window[None])[0], found.mean(0).numpy(), atol=1e-5)


def test_rows_of_videos_are_the_mean_over_patches_of_all_pictures(folders):
    extractor = ready(folders("videomae"), rate=5.0)
    assert extractor.window == Pictures(4, 5.0)
    window = extractor.prepare(pictures(2, 4))
    found = direct(folders("videomae"), pixel_values=tensor(window, HALF)[None]).last_hidden_state
    assert found.shape == (1, 2 * 4, 16)
    np.testing.assert_allclose(extractor(window[None]), found.mean(1).numpy(), atol=1e-5)
    np.testing.assert_array_equal(ready(folders("videomae"), pool="mean")(window[None]), extractor(window[None]))
    with pytest.raises(ConfigError, match=r"hf:videomae\.frames is 8; this model takes 4; write 0 or 4"):
        ready(folders("videomae"), frames=8)


@pytest.mark.parametrize("family", ["ast", "wav2vec2", "whisper"])
def test_rows_of_sound(folders, family):
    extractor = ready(folders(family))
    assert extractor.window == Sound(16000, {"ast": 0.64, "wav2vec2": 2.0, "whisper": 2.0}[family])
    sound = windows(extractor)[1]
    inputs = transformers.AutoFeatureExtractor.from_pretrained(folders(family))(
        sound, sampling_rate=16000, return_tensors="pt"
    )
    if family == "whisper":
        model = transformers.WhisperModel.from_pretrained(folders(family)).eval()
        with torch.no_grad():
            found = model.encoder(inputs["input_features"]).last_hidden_state.mean(1)
    else:
        found = direct(folders(family), **inputs)
        found = found.pooler_output if family == "ast" else found.last_hidden_state.mean(1)
    np.testing.assert_allclose(extractor(extractor.prepare(sound)[None]), found.numpy(), atol=1e-5)


def test_silence_that_pads_a_window_of_whisper_does_not_count(folders):
    extractor = ready(folders("whisper"), seconds=0.5)
    assert extractor.window == Sound(16000, 0.5)
    window = extractor.prepare(windows(extractor)[0])[None]
    model = transformers.WhisperModel.from_pretrained(folders("whisper")).eval()
    with torch.no_grad():
        tokens = model.encoder(torch.from_numpy(window)).last_hidden_state
    assert tokens.shape == (1, 100, 16)  # two seconds
    np.testing.assert_allclose(extractor(window), tokens[:, :25].mean(1).numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match=r"hf:whisper\.seconds is 3; this model takes at most 2"):
        ready(folders("whisper"), seconds=3.0)


def test_rows_of_text_are_the_mean_over_tokens(folders):
    folder = folders("bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mean, cls = ready(folder), ready(folder, pool="cls")
    assert mean.window == Caption()
    batch = prepared(mean)
    assert batch.shape == (5, 3, 40)
    for k, text in enumerate(TEXTS):
        inputs = tokenizer(text, truncation=True, max_length=40, return_tensors="pt")
        found = direct(folder, **inputs).last_hidden_state[0].numpy()
        np.testing.assert_allclose(mean(batch)[k], found.mean(0), atol=1e-5)
        np.testing.assert_allclose(cls(batch)[k], found[0], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "clip"])
def test_rows_of_tokens_are_those_of_the_last_layer(folders, name):
    """Of a text alone: neither padding nor other texts of the batch change them."""
    folder = folders(name)
    tokenizer, extractor = transformers.AutoTokenizer.from_pretrained(folder), ready(folder, tokens=9, modality="text")
    model = transformers.AutoModel.from_pretrained(folder)
    assert (extractor.window, extractor.row_shape) == (Tokens(9), (16,))
    batch = prepared(extractor)
    rows = extractor(batch)
    assert rows.shape == (5, 9, 16)
    for k, text in enumerate(TEXTS):
        inputs = tokenizer(text, truncation=True, max_length=extractor.length, return_tensors="pt")
        with torch.inference_mode():
            found = getattr(model, "text_model", model)(**inputs).last_hidden_state[0, :9].numpy()
        assert extractor.tokens(batch[k]) == len(found)
        np.testing.assert_allclose(rows[k, : len(found)], found, atol=1e-5)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_tower_of_text(folders, family):
    """SigLIP saw captions padded to its full length, without a mask."""
    folder = folders(family)
    extractor = ready(folder, modality="text")
    assert (extractor.modality, extractor.window) == ("text", Caption())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = extractor(prepared(extractor))
    remarks = [extractor.remark(window) for window in prepared(extractor)]
    assert [k for k, remark in enumerate(remarks) if remark] == [4]
    assert remarks[4].startswith("the caption fills the model's 24 tokens")
    for row, text in zip(rows, TEXTS, strict=True):
        padding = {"padding": "max_length"} if family == "siglip" else {}
        inputs = tokenizer(text, truncation=True, max_length=24, return_tensors="pt", **padding)
        with torch.no_grad():
            mask = None if family == "siglip" else inputs["attention_mask"]
            found = model.get_text_features(inputs["input_ids"], attention_mask=mask).pooler_output
        np.testing.assert_allclose(row, found[0].numpy(), atol=1e-5)


def test_what_pool_means_for_pictures(folders):
    for family, statistics in (("dinov2", IMAGENET), ("clip", CLIP)):
        window = ready(folders(family)).prepare(pictures(0, 1))[None]
        model = transformers.AutoModel.from_pretrained(folders(family)).eval()
        with torch.no_grad():
            tokens = getattr(model, "vision_model", model)(tensor(window[0], statistics)).last_hidden_state
        assert tokens.shape == (1, 5, 16)  # CLS and 2 x 2 patches
        np.testing.assert_allclose(ready(folders(family), pool="cls")(window), tokens[:, 0].numpy(), atol=1e-5)
        mean = tokens[:, 1:].mean(1).numpy()
        np.testing.assert_allclose(ready(folders(family), pool="mean")(window), mean, atol=1e-5)
    with pytest.raises(ConfigError, match=r"hf:videomae\.pool is 'cls', but this model has no such token"):
        ready(folders("videomae"), pool="cls")


# Preprocessing


def kernel(x, cubic):
    x = np.abs(x)
    if not cubic:
        return np.maximum(1 - x, 0)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resized(lines, size, cubic):
    """Along the first axis, as Pillow does: the kernel is as wide as what becomes one pixel; result in 8 bits."""
    scale = len(lines) / size
    wide = max(scale, 1)
    out = []
    for k in range(size):
        centre = (k + 0.5) * scale
        support = (2 if cubic else 1) * wide
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), len(lines))
        weights = kernel((np.arange(first, last) + 0.5 - centre) / wide, cubic)
        out.append(np.tensordot(weights / weights.sum(), lines[first:last].astype(float), 1))
    return np.clip(np.round(out), 0, 255)


def published(picture, height, width, cubic):
    columns = resized(picture.transpose(1, 0, 2), width, cubic).transpose(1, 0, 2)
    return resized(columns, height, cubic)


@pytest.mark.parametrize(
    ("family", "shape", "resize", "crop", "cubic"),
    [  # shape of the picture, then (height, width) after resizing and after cropping
        ("dinov2", (48, 64), (32, 42), (28, 28), True),
        ("dinov2", (65, 48), (43, 32), (28, 28), True),
        ("dinov2", (9, 7), (41, 32), (28, 28), True),
        ("vit", (48, 65), (32, 32), (32, 32), False),
        ("convnext", (150, 201), (73, 97), (64, 64), True),
        ("clip", (101, 77), (41, 32), (32, 32), True),
        ("videomae", (48, 64), (32, 42), (32, 32), False),
        ("siglip", (33, 200), (32, 32), (32, 32), True),
    ],
)
def test_pictures_are_resized_and_cropped_as_published(folders, family, shape, resize, crop, cubic):
    extractor = ready(folders(family))
    window = pictures(7, extractor.window.count, *shape)
    picture = window[0]
    full = published(picture, *resize, cubic)
    top, left = (resize[0] - crop[0]) // 2, (resize[1] - crop[1]) // 2
    expected = full[top : top + crop[0], left : left + crop[1]].transpose(2, 0, 1)
    assert np.abs(extractor.prepare(window)[0] - expected).max() <= 1


def test_a_crop_beyond_the_picture_is_black_around_it(copied):
    folder = copied("dinov2")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"do_resize": False, "crop_size": {"height": 28, "width": 42}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    picture = pictures(0, 1, 21, 60)[0]
    found = processor.read(folder, "dinov2", "dinov2").picture(picture)
    expected = np.zeros((28, 42, 3), np.uint8)
    expected[3:24] = picture[:, 9:51]
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_settings_may_lie_in_the_file_of_a_whole_processor(copied):
    folder = copied("clip")
    file = folder / "preprocessor_config.json"
    before = processor.read(folder, "clip", "clip")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(file.read_text())}))
    file.unlink()
    assert processor.read(folder, "clip", "clip") == before


def test_what_a_file_leaves_out_is_its_processor_s_own(copied):
    folder = copied("clip")
    (folder / "preprocessor_config.json").write_text('{"feature_extractor_type": "CLIPFeatureExtractor"}')
    found = processor.read(folder, "clip", "clip")
    assert (found.size, found.crop, found.mode) == (224, (224, 224), "bicubic")
    assert (found.mean, found.std) == (tuple(CLIP[0]), tuple(CLIP[1]))
    assert found.scale == 1 / 255


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"image_processor_type": "LevitImageProcessor"},
            r"the processor 'LevitImageProcessor', which is not supported.* ViT,",
        ),
        ({"do_pad": True}, r"do_pad=True, which is not supported"),
        ({"resample": 1}, r"resample=1; supported: 2 .bilinear. and 3"),
        ({"do_center_crop": False}, r"pictures keep their shape"),
        ({"size": {"longest_edge": 5}}, r"size in .* of dinov2 is \{'longest_edge': 5\}; supported: height"),
        ({"crop_size": {"shortest_edge": 5}}, r"pictures keep their shape"),
    ],
)
def test_preprocessing_that_is_not_known_is_refused(copied, change, words):
    folder = copied("dinov2")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=words):
        ready(folder)


# Models that cannot be had


def test_missing_settings_are_one_sentence(copied):
    folder = copied("dinov2")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"hf: preprocessor_config.json of dinov2: .*JSON.*download the model again"):
        ready(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"hf: dinov2 has no preprocessor_config.json, .*; put it into"):
        ready(folder)
    (folder / "config.json").write_text('{"model_type": "imagined"}')
    with pytest.raises(ConfigError, match=rf"transformers {transformers.__version__} has no model type 'imagined'"):
        ready(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(
        WeightsError, match=r"hf:dinov2: model 'dinov2' in .* cannot be loaded: .*download the model again"
    ):
        ready(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"hf:dinov2: .* has no config.json"):
        ready(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no weights; put model.safetensors there"):
        ready(folder)


def test_sound_and_text_need_their_settings_too(copied):
    sound, text = copied("wav2vec2"), copied("bert")
    (sound / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"hf:wav2vec2: .* has no feature extractor for sound: "):
        ready(sound)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (text / name).unlink()
    with pytest.raises(WeightsError, match=r"hf:bert: .* has no tokenizer; put tokenizer.json there, or vocab.txt"):
        ready(text)


def test_a_tensor_that_is_missing_is_named(copied):
    from safetensors.torch import load_file, save_file

    folder = copied("dinov2")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("layernorm.weight"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"lack 1 of the model's tensors, the first is '{name}'"):
        ready(folder)


def test_damaged_weights_are_one_sentence(copied):
    folder = copied("dinov2")
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(WeightsError, match=r"hf:dinov2: model 'dinov2' in .* cannot be loaded: "):
        ready(folder)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"model": ""}, ConfigError, "hf needs a model: write hf:MODEL"),
        (
            {"model": "nobody/there"},
            WeightsError,
            r"hf:nobody/there: model 'nobody/there' is not in the cache .*, and HF_HUB_OFFLINE is set; .* hf:FOLDER",
        ),
        ({"model": "a/b/c"}, ConfigError, r"'a/b/c' is neither a folder nor an id of the hub, OWNER/MODEL"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(params, error, words):
    with pytest.raises(error, match=words):
        load("hf", replace(Params(), **params)).ready(Runtime())


def test_pickled_weights_are_fetched_only_where_there_are_no_others(folders, copied, monkeypatch):
    folder, asked = copied("dinov2"), []

    def fetch(model, *, revision, allow_patterns, ignore_patterns):
        asked.append((model, revision, [p for p in allow_patterns if p.endswith((".bin", ".safetensors"))]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    extractor = ready("some/model", revision="v1")
    assert asked == [("some/model", "v1", ["*.safetensors"])]
    assert (extractor.name, extractor.store) == ("hf:some/model", "hf-some--model")
    assert extractor.recipe["params"]["revision"] == "v1"
    assert extractor.weights_sha256 == ready(folders("dinov2")).weights_sha256

    asked.clear()
    model = transformers.AutoModel.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pickled = ready("some/model", revision="v1")
    assert asked[1:] == [("some/model", "v1", ["*.safetensors", "*pytorch_model*.bin"])]
    batch = prepared(extractor)
    np.testing.assert_array_equal(pickled(batch), extractor(batch))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def fetch(model, **others):
        raise ConnectionError("no route\nto anything")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(WeightsError, match=r"not in the cache .*, and the hub was not reached: no route; run `hf"):
        ready("some/model")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"pool": "max"}, r"hf.pool is 'max'; choose from 'auto', 'mean', 'cls'"),
        ({"modality": "flow"}, r"hf.modality is 'flow'; choose from '', 'rgb', 'audio', 'text'"),
        ({"frames": -1}, r"hf.frames is -1; allowed"),
        ({"rate": 0.0}, r"hf.rate is 0.0; allowed"),
        ({"seconds": float("nan")}, r"hf.seconds is nan; allowed"),
    ],
)
def test_parameters_are_checked_before_anything_is_loaded(monkeypatch, params, words):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=words):
        load("hf", replace(Params(), **params))


@pytest.mark.parametrize(
    ("name", "others", "words"),
    [
        ("dinov2", {}, r"tokens is 4; only text .* pool 'auto'"),
        ("bert", {"pool": "cls"}, r"tokens is 4; only text .* pool 'auto'"),
        ("siglip", {"modality": "text"}, r"tokens is 4; .* padding .*; write 0"),
    ],
)
def test_tokens_that_cannot_be_rows(folders, name, others, words):
    with pytest.raises(ConfigError, match=words):
        ready(folders(name), tokens=4, **others)


def test_a_modality_that_the_model_lacks(folders):
    with pytest.raises(ConfigError, match=r"hf:clip\.modality is 'audio'; this model has rgb, text"):
        ready(folders("clip"), modality="audio")
    with pytest.raises(ConfigError, match=r"hf:bert\.modality is 'rgb'; this model has text"):
        ready(folders("bert"), modality="rgb")


def test_the_argument_of_the_name_is_the_model(folders):
    extractor = load(f"hf:{folders('bert')}")
    assert extractor.params.model == str(folders("bert"))
    assert load("hf:facebook/dinov2-base").store == "hf-facebook--dinov2-base"


# Running


def test_untrained_needs_only_settings(copied):
    folder = copied("dinov2")
    (folder / "model.safetensors").unlink()
    one, same, other = (ready(folder, Runtime(weights="untrained", seed=seed)) for seed in (1, 1, 2))
    batch = prepared(one)
    np.testing.assert_array_equal(one(batch), same(batch))
    assert np.abs(one(batch) - other(batch)).max() > 0.01
    assert one.weights_sha256 == "untrained:1"


@pytest.mark.parametrize("family", ["dinov2", "bert", "wav2vec2", "videomae"])
def test_bf16_is_near(folders, family):
    exact, halves = ready(folders(family)), ready(folders(family), Runtime(precision="bf16"))
    batch = prepared(exact)
    a, b = exact(batch), halves(batch)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999
    assert halves.recipe["precision"] == "bf16"


@pytest.mark.parametrize("family", ["bert", "wav2vec2", "clip"])
def test_threads_may_prepare(folders, family):
    extractor = ready(folders(family))
    raw, expected = windows(extractor), prepared(extractor)
    found = {}

    def work(worker):
        found[worker] = [extractor.prepare(window) for _ in range(8) for window in raw][-5:]

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in range(4):
        np.testing.assert_array_equal(found[worker], expected)
