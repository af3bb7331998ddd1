"""Views of the pictures, `i3d-rgb@flip`: other crops and mirrored ones, in stores of their own, decoded once."""

import numpy as np
import pytest
from click.testing import CliRunner

from featcache import FeatureStore, extractors
from featcache.errors import ConfigError
from featcache.extractors import Extractor
from featcache.media import flow as media_flow
from featcache.media import read_clip
from featcache.media.pictures import made
from featcache.windows import VIEWS, Flow, Pictures, Plan
from pipelines.cli import main
from pipelines.extraction.extractors import load_extractors
from tests.helpers.media import Eye, clip, take, write_video


class Still(Eye):
    """The pictures, cut."""

    def __init__(self):
        super().__init__()
        self.window = Pictures(2, side=40, crop=32)


class Field(Extractor):
    """The fields of flow, cut."""

    name = "field"
    modality = "flow"

    def __init__(self):
        super().__init__(None)
        self.window = Flow(6, side=96, crop=64, method="dis")

    def prepare(self, window):
        return np.stack(window)


def texture(shift=0, mirrored=False):
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (24, 60, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    picture = wide[:, 60 - shift : 60 - shift + 192]
    return np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Texture that moves 3 pixels to the right per picture; and the same film, mirrored."""
    folder = tmp_path_factory.mktemp("films")
    return [
        write_video(folder / f"{mirrored}.mp4", pictures=[texture(3 * k, mirrored) for k in range(12)])
        for mirrored in (False, True)
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_that_part_of_the_picture(films, view):
    whole = take(films[0], Eye(count=2, rate=25.0)).windows[0]
    pictures = np.stack([made(picture, 40) for picture in whole])  # (2, 40, 53, 3)
    top = {"top": 0, "bottom": 8}.get(view.split("-")[0], 4)
    left = {"left": 0, "right": 21}.get(view.removesuffix("-flip").split("-")[-1], 10)
    part = pictures[:, top : top + 32, left : left + 32]
    found = take(films[0], Still().seen(view))
    np.testing.assert_array_equal(found.windows[0], part[:, :, ::-1] if "flip" in view else part)


def test_mirrored_flow_is_the_flow_of_the_mirrored_film(films):
    plain, other = (take(film, Field()).windows[0] for film in films)
    flipped = take(films[0], Field().seen("flip")).windows[0]
    np.testing.assert_array_equal(flipped, plain[:, :, ::-1] * [-1, 1])
    assert np.median(plain[..., 0]) == pytest.approx(3 * 96 / 144, abs=0.1)
    assert np.median(flipped[..., 0]) == pytest.approx(-3 * 96 / 144, abs=0.1)
    assert np.median(np.abs(flipped - other)) < 0.05


def test_all_views_share_decoding_and_flow(films, monkeypatch):
    pairs = []
    flow = media_flow.METHODS["dis"]
    monkeypatch.setitem(media_flow.METHODS, "dis", lambda a, b: (pairs.append(0), flow(a, b))[1])
    every = [Field(), *(Field().seen(view) for view in VIEWS)]
    together = read_clip(films[0], clip(), Plan("segments", 3), every)
    assert len(pairs) == 11
    assert set(together) == {"field", *(f"field@{view}" for view in VIEWS)}
    for one in every:
        assert together[one.name].windows.shape == (3, 6, 64, 64, 2)


def test_a_view_has_the_weights_and_parameters_of_its_extractor():
    plain, flipped = load_extractors(["i3d-rgb", "i3d-rgb@flip"], ["i3d-rgb.count=9"], ["untrained"])
    assert flipped.module is plain.module
    differ = {key for key in plain.recipe if plain.recipe[key] != flipped.recipe[key]}
    assert differ == {"extractor", "window"}
    assert plain.recipe["window"] | {"view": "flip"} == flipped.recipe["window"]
    assert (plain.recipe["window"]["view"], plain.recipe["window"]["count"]) == ("centre", 9)


def test_the_command_fills_a_store_for_each_view(films, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"clip_id,domain,split,source\na,d,train,{films[0]}\n")
    command = ["extract", str(manifest), "hog", "hog@flip", "--stores", str(tmp_path / "stores")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    plain, flipped = (FeatureStore.open(tmp_path / "stores" / "m" / f"{name}.zarr") for name in ("hog", "hog@flip"))
    np.testing.assert_array_equal(plain.window_start, flipped.window_start)
    assert np.abs(plain.features - flipped.features).max() > 0.01
    assert flipped.name == "hog@flip"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hog@flop", "no view 'flop' of 'hog'; choose from flip, top-left"),
        ("hog@top-left", "hog does not crop .* no view 'top-left'; leave @top-left out"),
        ("logmel@flip", "logmel takes no pictures, .* no view 'flip'; leave @flip out"),
        ("nothing@flip", "no extractor 'nothing'"),
    ],
)
def test_a_view_that_cannot_be_is_told(name, message):
    with pytest.raises(ConfigError, match=message):
        load_extractors([name])


def test_a_models_name_may_have_an_at():
    assert extractors.split_view("hf:some@where/model") == ("hf:some@where/model", "")
    assert extractors.split_view("hf:some@where/model@flip") == ("hf:some@where/model", "flip")
