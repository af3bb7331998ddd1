"""TV-L1 in torch: near OpenCV's, the same in any batch; and extractors that use it."""

import cv2
import numpy as np
import pytest
import torch

from featcache import extractors
from featcache.errors import ConfigError, DeviceError
from featcache.extractors import Extractor, Runtime, hof, i3d_flow, tbn_flow
from featcache.media import flow as media_flow
from featcache.media import read_clip, windows_of
from featcache.media.flow import flows, tvl1_flow
from featcache.media.pictures import made
from featcache.media.source import open_source
from featcache.media.tvl1 import median, resized, tvl1
from featcache.windows import Flow, Plan, described
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors, remade
from tests.helpers.media import clip, take, write_video

BOUND = 20.0


def texture(height, width, seed=0):
    """Smooth random grey with structures of several sizes, as in pictures of the world, full range.

    On a single fine size OpenCV's own flow of a large motion moves by 0.17 pixels on average when its input changes by
    one part in a million, so nothing could agree with it.
    """
    rng, whole = np.random.default_rng(seed), np.zeros((height, width))
    for size in (2, 4, 8, 16):
        rough = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), size)
        whole += rough / rough.std()
    return np.round((whole - whole.min()) / np.ptp(whole) * 255).astype(np.uint8)


def motions(height=128, width=170):
    """Pairs of pictures: a shift, a large shift, a rotation, and a disc that moves over a background at rest."""
    wide = texture(height + 40, width + 40)
    middle = (slice(20, 20 + height), slice(20, 20 + width))

    def moved(matrix):
        size = wide.shape[::-1]
        turned = cv2.warpAffine(wide, np.asarray(matrix, np.float32), size, flags=cv2.INTER_CUBIC)
        return np.ascontiguousarray(turned[middle])

    here = np.ascontiguousarray(wide[middle])
    there, size = [here.copy(), here.copy()], height // 2
    disc = texture(size, size, seed=5)
    down, right = np.mgrid[:size, :size] - size // 2
    inside = down**2 + right**2 < (size // 2 - 1) ** 2
    for picture, top, left in zip(there, (height // 4, height // 4 + 2), (width // 4, width // 4 + 4), strict=True):
        picture[top : top + size, left : left + size][inside] = disc[inside]
    return {
        "shift": (here, moved([[1, 0, 2.3], [0, 1, -1.6]])),
        "large shift": (here, moved([[1, 0, 7.5], [0, 1, 4.2]])),
        "rotation": (here, moved(cv2.getRotationMatrix2D((width / 2 + 20, height / 2 + 20), 3, 1))),
        "disc": tuple(there),
    }


def check_near_opencv(pairs):
    """Mean and 99 % of the distances between the ends of our vectors and OpenCV's, and their eight-bit values.

    Figures are printed: `python -m pytest tests/featcache/test_media_tvl1.py -k agrees -rP`.
    """
    for name, ours in zip(pairs, flows([*pairs.values()], "tvl1", "torch"), strict=True):
        theirs = tvl1_flow(*pairs[name])
        distance = np.hypot(*np.moveaxis(ours - theirs, -1, 0))
        bytes_apart = np.abs(eight_bits(ours) - eight_bits(theirs))
        print(
            f"{name}: mean distance {distance.mean():.4f} pixels, 99 % below {np.percentile(distance, 99):.3f}; "
            f"eight-bit values that differ: {(bytes_apart > 0).mean():.2%}, "
            f"by more than one: {(bytes_apart > 1).mean():.2%}"
        )
        assert distance.mean() <= 0.03, name
        assert np.percentile(distance, 99) <= 0.5, name
        assert (bytes_apart > 0).mean() <= 0.06, name
        assert (bytes_apart > 1).mean() <= 0.01, name


def eight_bits(field):
    return extractors._flow.quantised(field, BOUND).astype(int)


def test_flow_agrees_with_opencv_on_four_motions():
    check_near_opencv(motions())


@pytest.mark.slow
@pytest.mark.realdata
def test_flow_agrees_with_opencv_on_six_real_pairs(realdata):
    pairs = {}
    for name in ("mmaction2_demo.mp4", "v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4"):
        for number in (12, 48):
            decoded = open_source(realdata / "sample_videos" / name).reel.decode([number, number + 1])
            pairs[f"{name} {number}"] = tuple(made(picture, 256, grey=True) for _, picture in decoded)
    check_near_opencv(pairs)


def test_flow_of_four_films_agrees_with_opencv(videos):
    pairs = {}
    for path in sorted(videos.rglob("*.mp4"))[::2]:
        decoded = open_source(path).reel.decode([20, 21])
        pairs[path.stem] = tuple(made(picture, 96, grey=True) for _, picture in decoded)
    assert len(pairs) == 4
    check_near_opencv(pairs)


@pytest.mark.slow
def test_the_flow_of_a_pair_does_not_depend_on_its_batch_or_on_how_often_errors_are_looked_at():
    pairs = [*motions(40, 56).values()]
    pairs += [(pairs[0][0], pairs[0][0]), (np.zeros((40, 56), np.uint8),) * 2]  # these converge at once
    first, second = (torch.from_numpy(np.stack(pictures)) for pictures in zip(*pairs, strict=True))
    together = tvl1(first, second)
    np.testing.assert_allclose(tvl1(first.flip(0), second.flip(0)).flip(0), together, atol=1e-4)
    for k in range(len(pairs)):
        np.testing.assert_allclose(tvl1(first[k : k + 1], second[k : k + 1])[0], together[k], atol=1e-4)
    for look in (7, 10):
        np.testing.assert_array_equal(tvl1(first, second, look), together)
    assert together[:4].abs().amax((1, 2, 3)).min() > 1
    assert together[4:].abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(2, 40, 50), (1, 3, 4), (17, 12, 12)])
def test_the_median_filter_is_that_of_opencv(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = [cv2.medianBlur(plane, 5) for plane in x]
    np.testing.assert_array_equal(median(torch.from_numpy(x)), expected)
    of_few_values = np.random.default_rng(1).integers(0, 3, shape).astype(np.float32)
    np.testing.assert_array_equal(median(torch.from_numpy(of_few_values))[0], cv2.medianBlur(of_few_values[0], 5))


@pytest.mark.parametrize("size", [(31, 47), (16, 90), (64, 64)])
def test_resizing_is_that_of_opencv(size):
    x = np.random.default_rng(0).uniform(0, 255, size).astype(np.float32)
    smaller = cv2.resize(x, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resized(torch.from_numpy(x)[None], smaller.shape, 1 / 0.8)[0], smaller, atol=1e-3)
    ratios = [old / new for old, new in zip(smaller.shape, size, strict=True)]
    back = resized(torch.from_numpy(smaller)[None], size, *ratios)[0]
    np.testing.assert_allclose(back, cv2.resize(smaller, size[::-1], interpolation=cv2.INTER_LINEAR), atol=1e-3)


# ------------------------------------------------------------------------------------------------ pairs of many sizes


def small_pairs():
    return [*motions(24, 32).values(), *motions(24, 40).values()]


def test_pairs_of_several_sizes_come_back_in_their_order():
    pairs = small_pairs()[::3]
    for ours, pair in zip(flows(pairs, "tvl1", "torch"), pairs, strict=True):
        assert ours.shape == (*pair[0].shape, 2)
        assert ours.dtype == np.float32
        assert np.hypot(*np.moveaxis(ours - tvl1_flow(*pair), -1, 0)).mean() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("too many"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")]
)
def test_a_device_with_little_memory_gets_fewer_pairs_at_once(monkeypatch, error):
    sizes, whole = [], flows(small_pairs(), "tvl1", "torch")

    def scarce(first, second):
        sizes.append(len(first))
        if len(first) > most:
            raise error
        return tvl1(first, second)

    monkeypatch.setattr("featcache.media.tvl1.tvl1", scarce)
    most = 1
    np.testing.assert_allclose(flows(small_pairs()[:4], "tvl1", "torch"), whole[:4], atol=1e-4)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    most = 0
    with pytest.raises(DeviceError, match="cpu has too little memory.*end other programs"):
        flows(small_pairs(), "tvl1", "torch")
    monkeypatch.setattr(media_flow, "PIXELS", 2 * 24 * 32)
    most = 9
    sizes.clear()
    flows(small_pairs()[:4], "tvl1", "torch")
    assert sizes == [2, 2]


# ------------------------------------------------------------------------------------------------------------ windows


class Fields(Extractor):
    """The fields of flow."""

    modality = "flow"

    def __init__(self, name, solver, count=6):
        super().__init__(None)
        self.name, self.window = name, Flow(count, side=32, method="tvl1", solver=solver)

    def prepare(self, window):
        return np.stack(window)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A texture that moves two pixels to the right in each of 24 pictures."""
    wide = np.repeat(texture(32, 120)[..., None], 3, axis=2)
    pictures = [np.ascontiguousarray(wide[:, 60 - 2 * k : 104 - 2 * k]) for k in range(24)]
    return write_video(tmp_path_factory.mktemp("tvl1") / "film.mp4", pictures=pictures, options={"crf": "4"})


@pytest.mark.slow
def test_windows_by_torch_are_near_those_by_opencv_and_each_field_is_solved_once(film, monkeypatch):
    batches = []
    monkeypatch.setattr(
        "featcache.media.tvl1.tvl1", lambda first, second: (batches.append(len(first)), tvl1(first, second))[1]
    )
    one, two = Fields("one", "torch"), Fields("two", "torch", count=4)
    found = read_clip(film, clip(), Plan("segments", 4), [one, Fields("opencv", "opencv"), two])
    assert found["one"].windows.shape == (4, 6, 32, 44, 2)
    assert sum(batches) == 23
    assert max(batches) >= media_flow.ON_CPU - 1  # the field by OpenCV counts, too
    assert np.hypot(*np.moveaxis(found["one"].windows - found["opencv"].windows, -1, 0)).mean() < 0.03
    for extractor in (one, two):
        alone = take(film, extractor, plan="segments:4")
        np.testing.assert_allclose(found[extractor.name].windows, alone.windows, atol=1e-4)
        np.testing.assert_array_equal(found[extractor.name].start, alone.start)
    np.testing.assert_array_equal(found["one"].start, found["opencv"].start)


def test_a_clip_of_one_picture_does_not_flow(film):
    found = take(film, Fields("one", "torch"), clip(0.0, 0.03))
    assert not found.windows.any()


def test_a_device_that_fails_stops_the_extraction(film, monkeypatch):
    def failing(first, second):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr("featcache.media.tvl1.tvl1", failing)
    with pytest.raises(DeviceError, match="too little memory"):
        [*windows_of(film, clip(), Plan("segments", 1), [Fields("one", "torch"), Fields("opencv", "opencv")])]


def test_hof_by_torch_is_near_hof_by_opencv(film):
    by = {
        solver: hof.Hof(hof.Params(flow="tvl1", side=32, count=5, solver=solver)).ready(Runtime())
        for solver in ("opencv", "torch")
    }
    rows = [extractor(take(film, extractor).windows) for extractor in by.values()]
    assert np.abs(rows[0]).max() > 1
    np.testing.assert_allclose(rows[0], rows[1], atol=0.05)


# ------------------------------------------------------------------------------------------------------------- recipe

BEFORE = {  #: params and window of the recipes of stores that were made before there were solvers
    "i3d-flow": (
        {"count": 16, "sampling": "dense", "stride": 1, "rate": 0.0, "method": "tvl1", "bound": 20.0},
        {"kind": "flow", "count": 16, "rate": 0.0, "stride": 1, "spread": False, "side": 256, "crop": 224},
    ),
    "tbn-flow": (
        {"stride": 1, "method": "tvl1", "bound": 20.0},
        {"kind": "flow", "count": 5, "rate": 0.0, "stride": 1, "spread": False, "side": 256, "crop": 224},
    ),
    "hof": (
        {"flow": "dis", "count": 7, "rate": 10.0, "side": 96, "grid": 4, "bins": 8, "still": 0.04},
        {"kind": "pictures", "count": 7, "rate": 10.0, "stride": 1, "spread": False, "side": 0, "crop": 0},
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_recipe_without_a_solver_means_opencv(name):
    params, window = BEFORE[name]
    extractor = extractors.load(name)
    view = {"view": "centre"} | ({"method": "tvl1"} if window["kind"] == "flow" else {})
    assert extractor.recipe["params"] == params
    assert extractor.recipe["window"] == window | view
    again = remade(extractor.recipe | {"weights_sha256": "untrained:0"})
    assert again.params == extractor.params
    assert again.params.solver == "opencv"


@pytest.mark.parametrize(("name", "method"), [("i3d-flow", "method"), ("tbn-flow", "method"), ("hof", "flow")])
def test_the_solver_torch_is_in_the_recipe(name, method):
    params = extractors.params_type(name)
    by_torch = extractors.load(name, params(**{method: "tvl1"}, solver="torch"))
    assert by_torch.recipe["params"]["solver"] == "torch"
    if isinstance(by_torch.window, Flow):
        assert described(by_torch.window)["solver"] == "torch"
    assert remade(by_torch.recipe | {"weights_sha256": "untrained:0"}).params == by_torch.params
    with pytest.raises(ConfigError, match=rf"{name}.solver is 'torch'.*{method} is 'dis'"):
        extractors.load(name, params(**{method: "dis"}, solver="torch"))
    with pytest.raises(ConfigError, match=rf"{name}.solver is 'cuda'; choose from opencv, torch"):
        extractors.load(name, params(solver="cuda"))


def test_networks_solve_flow_on_their_own_device_and_hof_on_the_chosen_one():
    made_ = tbn_flow.TbnFlow(tbn_flow.Params(solver="torch")).ready(Runtime("untrained"))
    assert str(made_.device) == "cpu"
    assert i3d_flow.Params().solver == "opencv"
    with pytest.raises(ConfigError, match="no device 'cuda:77'"):
        hof.Hof(hof.Params(flow="tvl1", solver="torch")).ready(Runtime(device="cuda:77"))
    assert hof.Hof(hof.Params()).ready(Runtime(device="cuda:77")).device == "cpu"


def test_a_store_refuses_rows_of_the_other_solver(film, tmp_path):
    from featcache.errors import StoreError
    from featcache.manifest import Clip, Manifest

    manifest = Manifest("m", (Clip("a", "d", "test", film.name),), film.parent)
    settings = ["hof.flow=tvl1", "hof.side=24", "hof.count=3"]
    extract(manifest, load_extractors(["hof"], settings), tmp_path, plan=Plan("segments", 1))
    by_torch = load_extractors(["hof"], [*settings, "hof.solver=torch"])
    with pytest.raises(StoreError, match=r"params\.solver"):
        extract(manifest, by_torch, tmp_path, plan=Plan("segments", 1))
