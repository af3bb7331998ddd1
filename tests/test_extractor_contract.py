"""What every file of featcache/extractors promises; a new one is tested by being there."""

import dataclasses
import json
import threading

import numpy as np
import pytest

from featcache import extractors
from featcache.errors import ConfigError
from featcache.extractors import Caption, Pictures, Sound
from featcache.windows import Plan
from tests._media import clip, numbered, take, write_video
from tests.conftest import ROOT

NAMES = extractors.names()


def raw_window(window, seed):
    """A window as a decoder would hand it over: moving texture, noise over a tone, or a sentence."""
    rng = np.random.default_rng(seed)
    if isinstance(window, Pictures):
        texture = rng.integers(0, 256, (9, 14 + window.count, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        return [np.ascontiguousarray(texture[:, 3 * k : 3 * k + 96]) for k in range(window.count)]
    if isinstance(window, Sound):
        times = np.arange(round(window.seconds * window.rate)) / window.rate
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * times) + rng.normal(0, 0.05, len(times))
        return sound.astype(np.float32)
    return f"someone cuts the {rng.choice(['bread', 'carrot', 'onion'])} number {seed}"


@pytest.fixture(scope="module", params=NAMES)
def extractor(request):
    return extractors.load(request.param)


@pytest.fixture(scope="module")
def prepared(extractor):
    return np.stack([extractor.prepare(raw_window(extractor.window, seed)) for seed in range(7)])


def test_the_file_name_is_the_name(extractor):
    assert extractor.name in NAMES
    assert (ROOT / "featcache" / "extractors" / f"{extractor.name}.py").exists()
    assert extractor.modality in ("rgb", "flow", "audio", "text", "skeleton")
    assert isinstance(extractor.window, Pictures | Sound | Caption)


def test_rows_are_finite_float32_of_the_promised_shape(extractor, prepared):
    rows = extractor(prepared)
    assert rows.shape == (7, *extractor.row_shape)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_rows_are_of_order_one_and_tell_windows_apart(extractor, prepared):
    """Heads train on rows as they are."""
    rows = extractor(prepared)
    assert 0.01 < np.abs(rows).mean() < 5
    assert np.abs(rows).max() < 50
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_rows_do_not_depend_on_the_batch(extractor, prepared):
    together = extractor(prepared)
    alone = np.concatenate([extractor(prepared[k : k + 1]) for k in range(7)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(extractor(prepared[::-1]), together[::-1])


def test_the_same_window_gives_the_same_row_again(extractor):
    window = raw_window(extractor.window, 3)
    first, second = extractor.prepare(window), extractor.prepare(raw_window(extractor.window, 3))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(extractor(first[None]), extractor(second[None]))


def test_an_extractor_does_not_change_its_window(extractor):
    window, untouched = raw_window(extractor.window, 4), raw_window(extractor.window, 4)
    extractor(extractor.prepare(window)[None])
    np.testing.assert_array_equal(window, untouched)


def test_prepare_is_reentrant(extractor, prepared):
    found = [None] * 7

    def work(first):
        for k in range(first, 7, 2):
            found[k] = extractor.prepare(raw_window(extractor.window, k))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, prepared)


def test_prepared_windows_stack_whatever_the_size_of_the_pictures(extractor):
    if not isinstance(extractor.window, Pictures):
        pytest.skip("not an extractor of pictures")
    sizes = [(48, 64), (64, 48), (240, 320), (1, 1), (13, 200)]
    windows = [extractor.prepare([numbered(255, 4 * w, 2 * h)] * extractor.window.count) for h, w in sizes]
    assert np.isfinite(extractor(np.stack(windows))).all()


def test_silence_and_black_are_finite(extractor):
    if isinstance(extractor.window, Caption):
        pytest.skip("an empty caption is absent")
    if isinstance(extractor.window, Pictures):
        window = [np.zeros((48, 64, 3), np.uint8)] * extractor.window.count
    else:
        window = np.zeros(round(extractor.window.seconds * extractor.window.rate), np.float32)
    assert np.isfinite(extractor(extractor.prepare(window)[None])).all()


def test_the_recipe_is_json_and_names_every_parameter(extractor):
    recipe = json.loads(json.dumps(extractor.recipe))
    assert recipe["extractor"] == extractor.name
    assert set(recipe["params"]) == {field.name for field in dataclasses.fields(extractor.params)}
    assert recipe["window"]["kind"] in ("pictures", "sound", "caption")


def test_parameters_are_frozen_and_documented(extractor):
    params = type(extractor.params)
    assert params.__dataclass_params__.frozen
    lines = (ROOT / "featcache" / "extractors" / f"{extractor.name}.py").read_text().splitlines()
    for field in dataclasses.fields(params):
        line = next(line for line in lines if line.strip().startswith(f"{field.name}:"))
        assert "#: " in line, f"{extractor.name}.Params.{field.name} has no #: comment"


WRONG = (0, -1, float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("value", WRONG)
def test_a_number_is_refused_by_name_or_works(extractor, value):
    """Nothing else: no crash, no warning, no row that is not finite."""
    params = extractor.params
    for field in dataclasses.fields(params):
        if not isinstance(getattr(params, field.name), int | float):
            continue
        wrong = dataclasses.replace(params, **{field.name: value})
        try:
            built = type(extractor)(wrong)
        except ConfigError as error:
            assert f"{extractor.name}.{field.name} is {value:g}; allowed: " in str(error)
            continue
        row = built(built.prepare(raw_window(built.window, 0))[None])
        assert row.shape == (1, *built.row_shape)
        assert np.isfinite(row).all()


def test_every_number_has_bounds_and_works_at_them_or_is_refused(extractor):
    params = extractor.params
    for field in dataclasses.fields(params):
        default = getattr(params, field.name)
        if not isinstance(default, int | float):
            continue
        low, high = field.metadata["low"], field.metadata["high"]
        assert low <= default <= high, f"{extractor.name}.{field.name}"
        for edge in (low, high):
            try:
                built = type(extractor)(dataclasses.replace(params, **{field.name: type(default)(edge)}))
            except ConfigError:
                continue  # another parameter does not fit it
            if edge == low:  # the high ones may need much memory
                row = built(built.prepare(raw_window(built.window, 0))[None])
                assert row.shape == (1, *built.row_shape)
                assert np.isfinite(row).all()


def test_a_whole_number_is_not_a_fraction(extractor):
    for field in dataclasses.fields(extractor.params):
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            with pytest.raises(ConfigError, match=rf"{field.name} is .*\.5; allowed: whole numbers from"):
                type(extractor)(dataclasses.replace(extractor.params, **{field.name: field.default + 0.5}))


def test_a_real_file_goes_all_the_way(extractor, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [numbered(n) for n in range(50)]
    path = write_video(tmp_path / "v.mp4", pictures=pictures, sound=rng.normal(0, 0.1, 96000))
    taken = take(path, extractor, clip(caption="someone counts"), plan="segments:3")
    rows = extractor(taken.windows)
    assert len(rows) == (1 if isinstance(extractor.window, Caption) else 3)
    assert np.isfinite(rows).all()
    assert len(Plan("segments", 3).centres(0, 2)) == 3


def test_an_unknown_extractor_lists_the_known_ones():
    with pytest.raises(ConfigError, match=", ".join(extractors.names())):
        extractors.load("hogg")
