"""Extractors with a network: sampling, pixels, flow in eight bits, spectrograms, weights; shared decoding."""

import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from featcache import FeatureStore, extractors, training_data, weights
from featcache.backbones.bninception import BNInception
from featcache.errors import ConfigError, MediaError, WeightsError
from featcache.extractors import Runtime, _flow, _sampling, i3d_flow, i3d_rgb, tbn_audio, tbn_flow, tbn_rgb
from featcache.extractors._frozen import Frozen, fill_by_seed, placed
from featcache.media import Take, read_clip
from featcache.media import flow as media_flow
from featcache.media import pictures as media_pictures
from featcache.media.pictures import made
from featcache.media.source import open_source
from featcache.windows import Flow, Pictures, Plan, interleaved
from pipelines.cli import main
from pipelines.extraction.extractors import load_extractors
from tests.helpers import hf_models as _hf_models
from tests.helpers.media import Watcher, clip, numbered, take, write_sound, write_video


class Native(Watcher):
    """Rows are the numbers of the pictures; the window is whatever is given."""

    def __init__(self, **window):
        super().__init__()
        self.window = Pictures(**window)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """50 numbered pictures at 25 per second."""
    return write_video(tmp_path_factory.mktemp("film") / "v.mp4", pictures=[numbered(n) for n in range(50)])


@pytest.mark.parametrize(
    ("window", "plan", "expected"),
    [
        ({"count": 4}, "segments:1", [[23, 24, 25, 26]]),
        ({"count": 4, "stride": 3}, "segments:1", [[20, 23, 26, 29]]),
        ({"count": 5, "spread": True}, "segments:2", [[2, 7, 12, 17, 22], [27, 32, 37, 42, 47]]),
        ({"count": 2, "spread": True, "interleaved": True}, "segments:5", [[n, n + 25] for n in (2, 7, 12, 17, 22)]),
        ({"count": 5, "spread": True, "interleaved": True}, "segments:1", [[5, 15, 25, 35, 45]]),
        ({"count": 60, "stride": 1}, "segments:1", [[0] * 5 + list(range(50)) + [49] * 5]),
        ({"count": 2, "stride": 10}, "uniform:1", [[20, 30]]),
    ],
)
def test_windows_take_the_sources_own_pictures(film, window, plan, expected):
    assert take(film, Native(**window), plan=plan).windows.tolist() == expected


@pytest.mark.parametrize("length", [50, 97, 1000])
def test_stride_two_and_inner_five_are_the_test_windows_of_mm_sada(length):
    """Its code, by pictures of [start, stop): centres by linspace, 16 pictures from centre - 16 in steps of 2."""
    rate, start = 60.0, 30
    times = np.arange(start + length + 50) / rate

    def shown(moments, *_):
        numbers = np.searchsorted(times, np.asarray(moments) + 1e-9, "right") - 1
        return numbers.clip(start, start + length - 1)

    reel = SimpleNamespace(times=times, stop=len(times) / rate, shown=shown)
    clip_ = start / rate, (start + length) / rate
    centres = np.linspace(start + 16, start + length - 16, 7)[1:-1]
    for extractor in (i3d_rgb.I3DRgb(i3d_rgb.Params(stride=2)), i3d_flow.I3DFlow(i3d_flow.Params(stride=2))):
        found = media_pictures.planned(reel, extractor, Plan.parse("inner:5"), *clip_)
        np.testing.assert_allclose(Plan.parse("inner:5").centres(*clip_, 32 / rate) * rate, centres)
        late = 0 if extractor.name == "i3d-flow" else 1  # 31 pictures lie around the centre, 33 in a window of flow
        for window, centre in zip(found, (centres + 1e-6).astype(int).tolist(), strict=True):
            numbers = [item.number for item in window.items]
            assert numbers == [min(n + late, start + length - 1) for n in range(centre - 16, centre + 16, 2)]


@given(st.floats(0, 1e3), st.floats(0.1, 1e3), st.integers(1, 7), st.integers(1, 16))
def test_interleaved_windows_divide_every_part_of_the_clip_equally(start, length, windows, count):
    bounds = interleaved(start, start + length, windows, count)
    taken = [first + (np.arange(count) + 0.5) * (last - first) / count for first, last in bounds]
    moments = start + (np.arange(windows * count) + 0.5) * length / (windows * count)
    np.testing.assert_allclose(np.sort(np.concatenate(taken)), moments, rtol=1e-9)
    assert all(np.diff(window).size == 0 or np.allclose(np.diff(window), length / count) for window in taken)


def test_a_recipe_names_interleaving_only_where_it_is():
    plain, turns = (i3d_rgb.I3DRgb(i3d_rgb.Params(sampling=s)).recipe["window"] for s in ("uniform", "interleaved"))
    assert turns == {**plain, "interleaved": True}
    assert "interleaved" not in plain


def test_a_window_in_pictures_stays_in_its_clip(film):
    found = take(film, Native(count=4), clip(start=10, stop=13, unit="frames"))
    assert found.windows.tolist() == [[10, 10, 11, 12]]
    assert found.start == pytest.approx([0.4])
    assert found.stop == pytest.approx([0.52])


def test_all_gives_one_window_per_stretch_of_time(film):
    assert take(film, Native(count=1), plan="all:0.5").windows.tolist() == [[6], [18], [31], [43]]


def test_pictures_are_resized_along_their_shorter_side():
    assert made(numbered(3, 96, 64), 30).shape == (30, 45, 3)
    assert made(numbered(3, 64, 96), 128, grey=True).shape == (192, 128)
    assert made(np.full((50, 70, 3), 77, np.uint8), 20).min() == 77


@pytest.mark.parametrize("sampling", ["densely", ""])
def test_an_unknown_sampling_lists_the_known_ones(sampling):
    with pytest.raises(ConfigError, match="i3d-rgb.sampling is .*; choose from dense, uniform"):
        i3d_rgb.I3DRgb(i3d_rgb.Params(sampling=sampling))
    with pytest.raises(ConfigError, match=r"rate is 5, .* uniform .*; leave one"):
        i3d_rgb.I3DRgb(i3d_rgb.Params(sampling="uniform", rate=5.0))
    with pytest.raises(ConfigError, match="i3d-flow.method is 'raft'; choose from dis, tvl1"):
        i3d_flow.I3DFlow(i3d_flow.Params(method="raft"))


def test_the_known_methods_of_flow_are_those_of_media():
    assert sorted([*media_flow.METHODS, media_flow.STORED]) == sorted(_flow.METHODS)


# ------------------------------------------------------------------------------------------------------------- pixels


def test_i3d_sees_minus_one_to_one():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(1, 2, 4, 5, 3)
    x = i3d_rgb.I3DRgb(i3d_rgb.Params()).transform(pixels)
    assert x.shape == (1, 3, 2, 4, 5)
    assert x[0, :, 0].unique().tolist() == [-1]
    assert x[0, :, 1].unique().tolist() == [1]
    mm_sada = i3d_rgb.I3DRgb(i3d_rgb.Params(divisor=256)).transform(pixels)
    assert mm_sada.max().item() == pytest.approx((255 / 256 - 0.5) * 2)


INPUTS = {  # shorter side, crop, and what the first channel makes of black and of white
    "i3d-rgb": (256, 224, -1, 1),
    "i3d-flow": (256, 224, -1, 1),
    "tbn-rgb": (256, 224, -104, 255 - 104),
    "tbn-flow": (256, 224, -128, 127),
    "resnext101": (256, 224, -0.485 / 0.229, (1 - 0.485) / 0.229),
    "densenet161-places": (256, 224, -0.485 / 0.229, (1 - 0.485) / 0.229),
    "r2plus1d-34": (128, 112, -0.43216 / 0.22803, (1 - 0.43216) / 0.22803),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_network_sees_what_it_was_trained_on(name):
    side, crop, black, white = INPUTS[name]
    extractor = extractors.load(name)
    assert (extractor.window.side, extractor.window.crop) == (side, crop)
    channels = 2 if "flow" in name else 3
    for value, expected in ((0, black), (255, white)):
        shape = (1, extractor.window.count, crop, crop, channels)
        if name == "tbn-rgb":
            shape = (1, crop, crop, channels)
        x = extractor.transform(torch.full(shape, value, dtype=torch.uint8))
        assert x[0, 0].min().item() == pytest.approx(expected, abs=1e-4)
        assert x[0, 0].max().item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("window", "pairs"),
    [
        ({"count": 3}, [(23, 24), (24, 25), (25, 26)]),
        ({"count": 3, "stride": 2}, [(22, 24), (24, 26), (26, 28)]),
        ({"count": 2, "rate": 5.0}, [(20, 25), (25, 30)]),
        ({"count": 5, "spread": True}, [(5, 6), (15, 16), (25, 26), (35, 36), (45, 46)]),
        ({"count": 2, "spread": True, "stride": 2}, [(12, 14), (37, 39)]),
    ],
)
def test_a_field_of_flow_is_between_neighbours_at_the_windows_pace(film, window, pairs):
    extractor = Native(count=1)
    extractor.window = Flow(**window, side=64, method="dis")
    reel = open_source(film).reel
    (found,) = media_pictures.planned(reel, extractor, Plan("segments", 1), 0.0, 2.0)
    assert [(item.number, item.after) for item in found.items] == pairs


def test_nothing_is_held_when_a_film_has_been_read(film, monkeypatch):
    shelves = []
    shelf = media_pictures._Shelf
    monkeypatch.setattr(media_pictures, "_Shelf", lambda waiting: (shelves.append(shelf(waiting)), shelves[-1])[1])
    read_clip(film, clip(), Plan("segments", 5), [tbn_flow.TbnFlow(tbn_flow.Params(method="dis")), Native(count=4)])
    assert [made.arrays for made in shelves] == [{}]


def test_a_picture_too_thin_is_refused():
    with pytest.raises(MediaError, match="8000 x 2 .*; crop it"):
        made(np.zeros((2, 8000, 3), np.uint8), 256)


def test_tbn_sees_bgr_minus_the_mean():
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3)
    x = tbn_rgb.TbnRgb(tbn_rgb.Params()).transform(pixels)
    assert x.flatten().tolist() == [30 - 104, 20 - 117, 10 - 128]


def test_standardised_as_torchvision_does():
    pixels = torch.arange(24, dtype=torch.uint8).view(1, 2, 4, 3)
    x = _sampling.standardised(_sampling.channels_first(pixels), _sampling.IMAGENET)
    mean, std = map(torch.tensor, _sampling.IMAGENET)
    expected = (pixels[0, 1, 2] / 255 - mean) / std
    torch.testing.assert_close(x[0, :, 1, 2], expected)


def test_stacked_flow_has_right_and_down_of_one_field_side_by_side():
    fields = torch.arange(10, dtype=torch.uint8).view(1, 5, 1, 1, 2).expand(1, 5, 3, 4, 2)
    x = tbn_flow.TbnFlow(tbn_flow.Params()).transform(fields)
    assert x.shape == (1, 10, 3, 4)
    assert x[0, :, 0, 0].tolist() == [k - 128 for k in range(10)]


def test_a_translation_comes_back_as_that_flow_in_eight_bits(tmp_path):
    """Texture that moves 3 pixels to the right per picture, at the size that flow is computed at."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (64, 100, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    pictures = [np.ascontiguousarray(wide[:, 90 - 3 * k : 90 - 3 * k + 256]) for k in range(12)]
    path = write_video(tmp_path / "t.mp4", pictures=pictures)
    extractor = i3d_flow.I3DFlow(i3d_flow.Params(count=10, method="dis"))
    found = take(path, extractor).windows[0]
    assert found.shape == (10, 224, 224, 2)
    middle = np.median(found[:, 60:-60, 60:-60].reshape(-1, 2), axis=0)
    assert middle.tolist() == [round(128 + 3 * 127.5 / 20), 128]


@pytest.mark.slow
def test_overlapping_windows_share_pictures_and_flow(film, monkeypatch):
    """Of three extractors, two of which want the same flow: every field is computed once, every picture made once."""
    pairs, greys = [], []
    flow = media_flow.METHODS["dis"]
    monkeypatch.setitem(media_flow.METHODS, "dis", lambda a, b: (pairs.append(0), flow(a, b))[1])
    monkeypatch.setattr(media_pictures, "made", lambda p, side, grey: (greys.append(grey), made(p, side, grey))[1])
    three = [
        i3d_flow.I3DFlow(i3d_flow.Params(method="dis")),
        tbn_flow.TbnFlow(tbn_flow.Params(method="dis")),
        i3d_rgb.I3DRgb(i3d_rgb.Params()),
    ]
    together = read_clip(film, clip(), Plan.parse("segments:5"), three)
    assert len(pairs) == 49
    assert greys.count(True) == 50
    assert greys.count(False) <= 50
    for extractor in three:
        assert isinstance(together[extractor.name], Take)
        np.testing.assert_array_equal(
            together[extractor.name].windows, take(film, extractor, plan="segments:5").windows
        )


# -------------------------------------------------------------------------------------------------------------- sound


def test_tbn_hears_around_its_centre_inside_the_file(tmp_path):
    path = write_sound(tmp_path / "s.wav", np.linspace(0, 1, 10 * 24000), 24000)
    extractor = tbn_audio.TbnAudio(tbn_audio.Params())
    found = take(path, extractor, clip(4.0, 5.0), plan="segments:5")
    np.testing.assert_allclose((found.start + found.stop) / 2, [4.1, 4.3, 4.5, 4.7, 4.9], atol=1e-6)
    assert found.windows[:, len(found.windows[0]) // 2] == pytest.approx([0.41, 0.43, 0.45, 0.47, 0.49], abs=1e-3)
    at_its_ends = take(path, extractor, plan="segments:25")
    assert at_its_ends.start[0] == 0
    assert at_its_ends.stop[-1] == pytest.approx(10)


def test_the_spectrogram_has_the_published_shape_and_a_tone_lands_in_its_bin():
    times = np.arange(round(tbn_audio.RATE * tbn_audio.SECONDS)) / tbn_audio.RATE
    for k in (20, 100, 200):
        tone = torch.from_numpy(np.sin(2 * np.pi * k * tbn_audio.RATE / tbn_audio.FFT * times).astype(np.float32))
        S = tbn_audio.spectrogram(tone[None])
        assert S.shape == (1, 256, 256)
        assert S[0, :, 5:-5].argmax(0).unique().tolist() == [k]


def test_the_spectrogram_equals_a_fourier_transform_by_hand():
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 2400)
    S = tbn_audio.spectrogram(torch.from_numpy(sound)[None].float())[0]
    padded = np.pad(sound, tbn_audio.FFT // 2)
    hann = np.zeros(tbn_audio.FFT)
    left = (tbn_audio.FFT - tbn_audio.FRAME) // 2
    hann[left : left + tbn_audio.FRAME] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(tbn_audio.FRAME) / tbn_audio.FRAME)
    for column in (0, 7, 15):
        piece = padded[column * tbn_audio.HOP :][: tbn_audio.FFT]
        power = np.abs(np.fft.rfft(piece * hann)) ** 2
        np.testing.assert_allclose(S[:, column], np.log(power + 1e-6), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.mark.slow
def test_untrained_weights_are_drawn_by_seed_and_said(tmp_path):
    one, same, other = (extractors.load("tbn-audio").ready(Runtime("untrained", seed=seed)) for seed in (3, 3, 4))
    one.size = same.size = other.size = 2  # windows of a forward pass
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 30696)).astype(np.float32)
    rows = one(sound)
    np.testing.assert_array_equal(rows, same(sound))
    np.testing.assert_array_equal(one(sound[[1, 0, 1]]), rows[[1, 0, 1]])  # in two passes
    assert np.abs(rows - other(sound)).max() > 1e-3
    assert one.recipe["weights_sha256"] == "untrained:3"


@pytest.mark.slow
def test_a_file_of_weights_is_loaded_and_its_digest_is_in_the_recipe(tmp_path):
    net = BNInception(1)
    fill_by_seed(net, 7)
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.state_dict().items()}}, path)
    mine = extractors.load("tbn-audio").ready(Runtime(str(path)))
    drawn = extractors.load("tbn-audio").ready(Runtime("untrained", seed=7))
    mine.size = drawn.size = 2  # windows of a forward pass
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 30696)).astype(np.float32)
    np.testing.assert_allclose(mine(sound), drawn(sound), rtol=1e-5)
    assert len(mine.recipe["weights_sha256"]) == 64
    with pytest.raises(WeightsError, match="mine.pth does not fit"):
        extractors.load("tbn-rgb").ready(Runtime(str(path)))


def test_a_copy_of_fetched_weights_is_recognised(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_WEIGHTS", str(tmp_path))
    net = BNInception(1)
    copy, fetched = tmp_path / "copy.pth", weights.place(weights.CATALOGUE["tbn-epic-100"])
    fill_by_seed(net, 7)
    torch.save(net.state_dict(), copy)
    assert "trained_on" not in extractors.load("tbn-audio").ready(Runtime(str(copy))).facts
    shutil.copy(copy, fetched)
    recorded = extractors.load("tbn-audio").ready(Runtime(str(copy))).facts
    assert recorded["trained_on"] == training_data.text(weights.CATALOGUE["tbn-epic-100"].trained_on)
    monkeypatch.setitem(
        weights.CATALOGUE, "i3d-rgb", replace(weights.CATALOGUE["i3d-rgb"], sha256=weights.digest(copy)[:8])
    )
    fetched.unlink()
    recorded = extractors.load("tbn-audio").ready(Runtime(str(copy))).facts
    assert recorded["trained_on"] == training_data.text(weights.CATALOGUE["i3d-rgb"].trained_on)


def test_without_weights_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="featcache weights fetch i3d-rgb"):
        extractors.load("i3d-rgb").ready(Runtime())
    with pytest.raises(WeightsError, match="i3d-rgb has no weights yet"):
        extractors.load("i3d-rgb")(np.zeros((1, 16, 224, 224, 3), np.uint8))


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"precision": "int8"}, "precision is 'int8'; choose from fp32, bf16, fp16"),
        ({"compile": "yes"}, "compile is 'yes'; choose from off, on, graphs"),
        ({"device": "tpu9"}, "no device 'tpu9'"),
        ({"device": "cuda:77"}, "no device 'cuda:77': torch has .* use cpu"),
        ({"compile": "graphs"}, "compile is 'graphs' .* on 'cpu'; use --device cuda"),
    ],
)
def test_a_wrong_runtime_is_told(runtime, message):
    with pytest.raises(ConfigError, match=message):
        extractors.load("tbn-audio").ready(Runtime("untrained", **runtime))


class Tiny(Frozen):
    """A network that is compiled in seconds."""

    name = "tiny"
    row_shape = (4,)

    def build(self):
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))

    def transform(self, windows):
        return windows.permute(0, 3, 1, 2).float() / 255

    def pool(self, features):
        return features.mean((2, 3))


@pytest.mark.parametrize(("allowed", "said"), [(True, "on"), (False, "off")])
def test_facts_name_the_gpu_and_whether_it_rounds_factors(monkeypatch, allowed, said):
    one = Tiny(None).ready(Runtime("untrained"))
    assert "tf32" not in one.facts
    one.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU called {device}")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert (one.facts["device"], one.facts["tf32"]) == ("a GPU called cuda", said)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_rows():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    plain, compiled = (Tiny(None).ready(Runtime("untrained", compile=mode)) for mode in ("off", "on"))
    assert compiled.module._compiled_call_impl is not None
    np.testing.assert_allclose(compiled(pixels), plain(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [True, False])
def test_the_memory_order_changes_no_more_than_last_digits(order):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    rows = Tiny(None).ready(Runtime("untrained", channels_last=order))(pixels)
    x = torch.from_numpy(pixels)
    reference = Tiny(None).ready(Runtime("untrained"))
    np.testing.assert_allclose(
        rows, reference.pool(reference.module(reference.transform(x))).numpy(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16"])
def test_a_lower_precision_is_in_the_recipe_and_near(precision):
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 30696)).astype(np.float32)
    full = extractors.load("tbn-audio").ready(Runtime("untrained"))
    low = extractors.load("tbn-audio").ready(Runtime("untrained", precision=precision))
    assert "precision" not in full.recipe
    assert low.recipe["precision"] == precision
    a, b = full(sound)[0], low(sound)[0]
    assert 0.99 < float(a @ b / math.sqrt(float(a @ a) * float(b @ b))) < 1


def test_the_command_extracts_with_untrained_weights_and_says_so(film, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"clip_id,domain,split,source\na,d,train,{film}\n")
    stores = tmp_path / "stores"
    command = ["extract", str(manifest), "tbn-rgb", "--stores", str(stores), "--windows", "segments:3"]
    refused = CliRunner().invoke(main, command, env={"FEATCACHE_WEIGHTS": str(tmp_path / "none")})
    assert refused.exit_code == 1
    assert "tbn-epic-100" in refused.output
    assert not (stores / "m" / "tbn-rgb.zarr").exists()
    result = CliRunner().invoke(main, [*command, "--weights", "untrained", "--weights-seed", "5"])
    assert result.exit_code == 0, result.output
    store = FeatureStore.open(stores / "m" / "tbn-rgb.zarr")
    assert store.weights_sha256 == "untrained:5"
    assert {name: store.facts[name] for name in ("licence", "device", "compile")} == {
        "licence": "no weights",
        "device": "cpu",
        "compile": "off",
    }
    assert store.features.shape == (1, 3, 1024)
    assert "untrained:5" in CliRunner().invoke(main, ["info", str(store.path)]).output


def test_untrained_is_for_those_whose_weights_are_not_named(tmp_path):
    for order in (("untrained", "tbn-rgb=/nowhere/mine.pth"), ("tbn-rgb=/nowhere/mine.pth", "untrained")):
        with pytest.raises(WeightsError, match=r"mine\.pth"):
            load_extractors(["tbn-rgb", "tbn-audio"], weights=order)


def test_a_wrong_choice_of_weights_is_told(film, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"clip_id,domain,split,source\na,d,train,{film}\n")
    result = CliRunner().invoke(main, ["extract", str(manifest), "tbn-rgb", "--weights", "mine.pth"])
    assert result.exit_code == 1
    assert "--weights mine.pth: write untrained, or EXTRACTOR=FILE with one of tbn-rgb" in result.output


def test_weights_for_what_has_no_network_are_refused():
    with pytest.raises(ConfigError, match=r"hog has no network, so --weights hog=mine.pth cannot be used"):
        load_extractors(["hog"], weights=["hog=mine.pth"])
    assert load_extractors(["hog"], weights=["untrained"])[0].recipe == extractors.load("hog").recipe


def test_two_extractors_do_not_fill_one_store(tmp_path):
    """A model's folder and its link have one name, and so would their stores."""
    pytest.importorskip("transformers")
    model = _hf_models.vit(tmp_path / "one" / "model")
    other = _hf_models.vit(tmp_path / "two" / "model")
    with pytest.raises(ConfigError, match="would both fill .*model.zarr; extract them into two --stores folders"):
        load_extractors([f"hf:{model}", f"hf:{other}"])


@pytest.mark.parametrize(("convolution", "dims"), [(torch.nn.Conv1d, 1), (torch.nn.Conv2d, 2), (torch.nn.Conv3d, 3)])
@pytest.mark.parametrize("groups", [1, 4])
def test_small_wide_convolutions_in_bf16_are_near_those_in_fp32(convolution, dims, groups):
    """On processors with AMX oneDNN computes them wrongly in bfloat16."""
    torch.manual_seed(0)
    layer, x = convolution(8 * groups, 8 * groups, 8, groups=groups), torch.randn(2, 8 * groups, *[12] * dims)
    with torch.inference_mode():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            halves = placed(layer, Runtime(precision="bf16", channels_last=False))(x).float()
    assert torch.cosine_similarity(exact.flatten(), halves.flatten(), 0) > 0.999
