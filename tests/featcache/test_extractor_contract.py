"""What every file of featcache/extractors promises; a new one is tested by being there."""

import dataclasses
import inspect
import json
import threading

import numpy as np
import pytest

from featcache import extractors
from featcache.errors import ConfigError
from featcache.extractors import Runtime
from featcache.extractors._frozen import Frozen
from featcache.media.skeleton import Skeleton
from featcache.windows import WHOLE, Flow, Joints, Numbers, Pictures, Plan, Sound
from tests.conftest import ROOT
from tests.helpers.media import clip, numbered, take, write_video

NAMES = extractors.names()


def raw_window(window, seed):
    """A window as a decoder would hand it over: texture, flow, noise over a tone, a sentence, bodies, numbers."""
    rng = np.random.default_rng(seed)
    if isinstance(window, Flow):
        coarse = rng.normal(0, 3, (window.count, 8, 8, 2)).astype(np.float32)
        return list(coarse.repeat(window.crop // 8, 1).repeat(window.crop // 8, 2))
    if isinstance(window, Pictures) and window.crop:
        coarse = rng.integers(0, 256, (window.count, 8, 8, 3), dtype=np.uint8)
        return list(coarse.repeat(window.crop // 8, 1).repeat(window.crop // 8, 2))
    if isinstance(window, Joints):
        return Skeleton(rng.normal((0, 0, 3), 0.3, (2, 60, 25, 3)).astype(np.float32), 30.0)
    if isinstance(window, Numbers):
        return rng.normal(0, 1, (1, 6))
    if isinstance(window, Pictures):
        texture = rng.integers(0, 256, (9, 14 + window.count, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        return [np.ascontiguousarray(texture[:, 3 * k : 3 * k + 96]) for k in range(window.count)]
    if isinstance(window, Sound):
        times = np.arange(round(window.seconds * window.rate)) / window.rate
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * times) + rng.normal(0, 0.05, len(times))
        return sound.astype(np.float32)
    return f"someone cuts the {rng.choice(['bread', 'carrot', 'onion'])} number {seed}"


def small(name):
    """Parameters with which a network of that name is quick, and a table has the columns of `raw_window`."""
    params = extractors.default_params(name)
    changed = {
        "resnext101": {"count": 2},
        "densenet161-places": {"count": 2},
        "r2plus1d-34": {"count": 4},
        "i3d-rgb": {"count": 9},
        "i3d-flow": {"count": 9, "method": "dis"},
        "tbn-flow": {"method": "dis"},
        "vector": {"dims": 6},
    }
    return dataclasses.replace(params, **changed.get(name, {}))


@pytest.fixture(scope="module", params=NAMES)
def extractor(request):
    if request.param == "hf":
        pytest.skip("has no model of its own: test_extractors_hf.py makes some")
    if request.param == "sentence-bert":
        pytest.skip("its default model has to be fetched: test_extractors_sentence_bert.py runs another")
    return extractors.load(request.param, small(request.param)).ready(Runtime("untrained"))


@pytest.fixture(scope="module")
def prepared(extractor):
    few = 2 if isinstance(extractor, Frozen) else 7  # a forward pass takes a second
    return np.stack([extractor.prepare(raw_window(extractor.window, seed)) for seed in range(few)])


@pytest.fixture(scope="module")
def rows(extractor, prepared):
    return extractor(prepared)


@pytest.fixture
def one_by_one(extractor, monkeypatch):
    """A forward pass of a network is not filled up to its usual number of windows."""
    monkeypatch.setattr(extractor, "size", 1, raising=False)


def works(built):
    """With a network, what has been prepared is enough: its parameters are about windows."""
    window = built.prepare(raw_window(built.window, 0))
    if not isinstance(built, Frozen):
        row = built(window[None])
        assert row.shape == (1, *built.row_shape)
        assert np.isfinite(row).all()


def source(extractor):
    return ROOT / "featcache" / "extractors" / f"{extractor.name.replace('-', '_')}.py"


def test_the_file_name_is_the_name(extractor):
    assert extractor.name in NAMES
    assert source(extractor).exists()
    assert extractor.modality in ("rgb", "flow", "audio", "text", "skeleton", "vector")
    assert isinstance(extractor.window, (Pictures, Sound, *WHOLE))


def test_rows_are_finite_float32_of_the_promised_shape(extractor, prepared, rows):
    assert rows.shape == (len(prepared), *extractor.row_shape)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_rows_are_of_order_one_and_tell_windows_apart(extractor, rows):
    """Heads train on rows as they are. Of a network without its training, size says little."""
    assert 0.01 < np.abs(rows).mean() < (500 if isinstance(extractor, Frozen) else 5)
    assert np.abs(rows).max() < (5000 if isinstance(extractor, Frozen) else 50)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_rows_do_not_depend_on_the_batch(extractor, prepared, rows):
    """To the bit: neither on its size nor on what else is in it, nor on the place."""
    order = [1, 1] if isinstance(extractor, Frozen) else [*range(len(prepared))][::-1]
    np.testing.assert_array_equal(extractor(prepared[order]), rows[order])
    if not isinstance(extractor, Frozen):
        alone = np.concatenate([extractor(prepared[k : k + 1]) for k in range(len(prepared))])
        np.testing.assert_array_equal(rows, alone)


def test_the_same_window_gives_the_same_row_again(extractor):
    first, second = (extractor.prepare(raw_window(extractor.window, 3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    if not isinstance(extractor, Frozen):  # with a network, a matter of batches: see above
        np.testing.assert_array_equal(extractor(first[None]), extractor(second[None]))


def test_an_extractor_does_not_change_its_window(extractor):
    window, untouched = raw_window(extractor.window, 4), raw_window(extractor.window, 4)
    windows = extractor.prepare(window)[None]
    if not isinstance(extractor, Frozen):
        extractor(windows)
    if isinstance(window, Skeleton):
        window, untouched = window.joints, untouched.joints
    np.testing.assert_array_equal(window, untouched)


def test_prepare_is_reentrant(extractor, prepared):
    found = [None] * len(prepared)

    def work(first):
        for k in range(first, len(prepared), 2):
            found[k] = extractor.prepare(raw_window(extractor.window, k))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, prepared)


def test_prepared_windows_stack_whatever_the_size_of_the_pictures(extractor):
    if not isinstance(extractor.window, Pictures) or extractor.window.crop:
        pytest.skip("not an extractor of pictures, or they are all cropped alike before")
    sizes = [(48, 64), (64, 48), (240, 320), (1, 1), (13, 200)]
    windows = [extractor.prepare([numbered(255, 4 * w, 2 * h)] * extractor.window.count) for h, w in sizes]
    assert np.isfinite(extractor(np.stack(windows))).all()


def test_silence_and_black_are_finite(extractor, one_by_one):
    if isinstance(extractor.window, WHOLE):
        pytest.skip("has neither sound nor pictures")
    if isinstance(extractor.window, Flow):
        window = [np.zeros((224, 224, 2), np.float32)] * extractor.window.count
    elif isinstance(extractor.window, Pictures):
        size = (extractor.window.crop,) * 2 if extractor.window.crop else (48, 64)
        window = [np.zeros((*size, 3), np.uint8)] * extractor.window.count
    else:
        window = np.zeros(round(extractor.window.seconds * extractor.window.rate), np.float32)
    assert np.isfinite(extractor(extractor.prepare(window)[None])).all()


def test_the_recipe_is_json_and_names_every_parameter(extractor):
    recipe = json.loads(json.dumps(extractor.recipe))
    assert recipe["extractor"] == extractor.name
    assert set(recipe["params"]) == {field.name for field in dataclasses.fields(extractor.params)}
    assert recipe["window"]["kind"] == type(extractor.window).__name__.lower()


def test_facts_are_text_that_no_recipe_has(extractor):
    facts = json.loads(json.dumps(extractor.facts))
    assert facts["licence"] == "no weights"
    assert facts.get("device", "") == ("cpu" if isinstance(extractor, Frozen) else "")
    assert not set(facts) & set(extractor.recipe)


def test_parameters_are_frozen_and_documented(extractor):
    params = type(extractor.params)
    assert params.__dataclass_params__.frozen
    lines = [line for kind in params.__mro__[:-1] for line in inspect.getsource(kind).splitlines()]
    for field in dataclasses.fields(params):
        line = next(line for line in lines if line.strip().startswith(f"{field.name}:"))
        assert "#: " in line, f"{extractor.name}.Params.{field.name} has no #: comment"


WRONG = (0, -1, float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("value", WRONG)
def test_a_number_is_refused_by_name_or_works(extractor, value):
    """Nothing else: no crash, no warning, no row that is not finite."""
    params = extractor.params
    for field in dataclasses.fields(params):
        if type(getattr(params, field.name)) not in (int, float):
            continue
        wrong = dataclasses.replace(params, **{field.name: value})
        try:
            built = type(extractor)(wrong)
        except ConfigError as error:
            assert f"{extractor.name}.{field.name} is {value:g}; allowed: " in str(error)
            continue
        works(built)


def test_every_number_has_bounds_and_works_at_them_or_is_refused(extractor):
    params = extractor.params
    for field in dataclasses.fields(params):
        default = getattr(params, field.name)
        if type(default) not in (int, float):
            continue
        low, high = field.metadata["low"], field.metadata["high"]
        assert low <= default <= high, f"{extractor.name}.{field.name}"
        for edge in (low, high):
            try:
                built = type(extractor)(dataclasses.replace(params, **{field.name: type(default)(edge)}))
            except ConfigError:
                continue  # another parameter does not fit it
            if edge == low:  # the high ones may need much memory
                works(built)


def test_a_whole_number_is_not_a_fraction(extractor):
    for field in dataclasses.fields(extractor.params):
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            with pytest.raises(ConfigError, match=rf"{field.name} is .*\.5; allowed: whole numbers from"):
                type(extractor)(dataclasses.replace(extractor.params, **{field.name: field.default + 0.5}))


def test_a_real_file_goes_all_the_way(extractor, one_by_one, tmp_path):
    if isinstance(extractor.window, Joints | Numbers):
        pytest.skip("reads no media: see its own tests")
    rng = np.random.default_rng(0)
    pictures = [numbered(n) for n in range(50)]
    path = write_video(tmp_path / "v.mp4", pictures=pictures, sound=rng.normal(0, 0.1, 96000))
    taken = take(path, extractor, clip(caption="someone counts"), plan="segments:3")
    rows = extractor(taken.windows[:1])
    assert len(taken.windows) == (1 if isinstance(extractor.window, WHOLE) else 3)
    assert np.isfinite(rows).all()
    assert len(Plan("segments", 3).centres(0, 2)) == 3


def test_an_unknown_extractor_lists_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean 'hog'. there are: hog, "):
        extractors.load("hogg")
