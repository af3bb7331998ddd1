"""The three descriptors against definitions: loops, hand-worked pictures, pure tones."""

import cv2
import numpy as np
import pytest

from featcache import extractors
from featcache.errors import ConfigError
from featcache.extractors import hof, hog, logmel
from featcache.media import flow as media_flow


def row_of(extractor, window):
    return extractor(extractor.prepare(window)[None])[0]


# hog


def naive_block(picture, cell, bins):
    """One block of 2 x 2 cells by loops over its pixels, as Dalal and Triggs describe it."""
    x = np.sqrt(picture.astype(float))
    size, _, _ = x.shape
    votes = np.zeros((2, 2, bins))
    for i in range(size):
        for j in range(size):
            # Centred differences; the border mirrors, so there they vanish.
            dx = x[i, j + 1] - x[i, j - 1] if 0 < j < size - 1 else np.zeros(3)
            dy = x[i + 1, j] - x[i - 1, j] if 0 < i < size - 1 else np.zeros(3)
            k = int(np.argmax(dx**2 + dy**2))
            strength = np.hypot(dx[k], dy[k])
            strength *= np.exp(-((i - cell) ** 2 + (j - cell) ** 2) / (2 * (size / 4) ** 2))
            angle = (np.arctan2(dy[k], dx[k]) % np.pi) / np.pi * bins - 0.5
            down, right = (i + 0.5) / cell - 0.5, (j + 0.5) / cell - 0.5
            for a in (0, 1):
                for b in (0, 1):
                    for c in (0, 1):
                        row, column, turn = np.floor(down) + a, np.floor(right) + b, np.floor(angle) + c
                        share = (1 - abs(down - row)) * (1 - abs(right - column)) * (1 - abs(angle - turn))
                        if 0 <= row <= 1 and 0 <= column <= 1:
                            votes[int(row), int(column), int(turn) % bins] += share * strength
    block = votes.transpose(1, 0, 2).ravel()  # OpenCV writes cells column by column
    block = np.minimum(block / (np.linalg.norm(block) + 0.1 * block.size), 0.2)
    return block / (np.linalg.norm(block) + 1e-3)


def stripes(angle, size=48, period=8.0):
    """A wave whose gradient points along `angle` degrees."""
    y, x = np.mgrid[:size, :size]
    turn = np.deg2rad(angle)
    wave = np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period)
    return np.repeat(np.round(127 + 100 * wave)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("picture", [stripes(0), stripes(20), stripes(115), "noise"])
def test_hog_equals_the_definition(picture):
    if isinstance(picture, str):
        picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    row = row_of(hog.Hog(hog.Params(count=1, size=48, cell=24)), [picture])
    np.testing.assert_allclose(row[:36], 6 * naive_block(picture, 24, 9), atol=2e-3)


def test_hog_blocks_have_length_one_before_scaling():
    rng = np.random.default_rng(0)
    extractor = hog.Hog(hog.Params())
    row = row_of(extractor, [rng.integers(0, 256, (120, 120, 3), dtype=np.uint8)] * 3)
    blocks = row[: extractor.blocks * 36].reshape(extractor.blocks, 36)
    np.testing.assert_allclose(np.linalg.norm(blocks, axis=1), 6, rtol=0.01)  # sqrt(4 * 9)


def test_hog_gradients_do_not_see_a_gain_of_light_but_colours_do():
    """Twice the light is sqrt(2) times the gradient everywhere, which a block's norm takes out."""
    picture = np.round(stripes(30, 120) * 0.5).astype(np.uint8)
    extractor = hog.Hog(hog.Params(count=1))
    dark, light = row_of(extractor, [picture]), row_of(extractor, [picture * 2])
    cut = extractor.blocks * 36
    np.testing.assert_allclose(dark[:cut], light[:cut], atol=0.05)
    means, stds = slice(cut, cut + 48), slice(cut + 48, None)
    np.testing.assert_allclose(light[means] + 1, 2 * (dark[means] + 1), atol=1e-5)
    np.testing.assert_allclose(light[stds], 2 * dark[stds], atol=1e-5)


def test_hog_colours_of_a_hand_made_picture():
    picture = np.zeros((120, 120, 3), np.uint8)
    picture[:30, 30:60] = (255, 0, 51)  # one cell of the grid, the second of the first row
    picture[90:, :15] = 255  # the left half of the last row's first cell
    extractor = hog.Hog(hog.Params(count=1))
    colours = row_of(extractor, [picture])[extractor.blocks * 36 :]
    mean, std = colours[:48].reshape(4, 4, 3), colours[48:].reshape(4, 4, 3)
    np.testing.assert_allclose(mean[0, 1], [1, -1, -0.6], atol=1e-5)
    np.testing.assert_allclose(mean[3, 0], 0, atol=1e-5)
    np.testing.assert_allclose(std[3, 0], 1, atol=1e-5)
    np.testing.assert_allclose(mean[2, 2], -1)
    assert np.count_nonzero(std > 1e-5) == 3


def test_hog_is_the_mean_over_the_window():
    extractor, single = hog.Hog(hog.Params(count=2)), hog.Hog(hog.Params(count=1))
    a, b = stripes(10, 120), stripes(70, 120)
    np.testing.assert_allclose(row_of(extractor, [a, b]), (row_of(single, [a]) + row_of(single, [b])) / 2, atol=1e-5)


# hof


def naive_histograms(flow, params):
    """The definition, pixel by pixel."""
    H, W, _ = flow.shape
    G, B = params.grid, params.bins
    rows = np.zeros((G * G, B + 4))
    count = np.zeros(G * G)
    for i in range(H):
        for j in range(W):
            cell = (i * G // H) * G + j * G // W
            count[cell] += 1
            u, v = flow[i, j].astype(float)
            speed = np.hypot(u, v)
            at = (np.arctan2(v, u) % (2 * np.pi)) / (2 * np.pi) * B
            low, share = int(at), at - int(at)
            weight = np.log1p(speed / params.still)
            rows[cell, low % B] += (1 - share) * weight
            rows[cell, (low + 1) % B] += share * weight
            kind = sum(speed >= params.still * k for k in (1, 4, 16))
            rows[cell, B + kind] += 1
    return rows / count[:, None]


def test_hof_histograms_equal_the_definition():
    params = hof.Params(grid=3, bins=8)
    flow = np.random.default_rng(0).normal(0, 0.2, (25, 34, 2)).astype(np.float32)
    np.testing.assert_allclose(hof.histograms(flow, params), naive_histograms(flow, params), atol=2e-4)


def test_hof_of_one_direction_by_hand():
    """All pixels move down at 0.4 shorter sides per second: ten times `still`."""
    params = hof.Params()
    flow = np.zeros((96, 128, 2), np.float32)
    flow[..., 1] = 0.4
    rows = hof.histograms(flow, params)
    np.testing.assert_allclose(rows[:, 2], np.log(11), atol=1e-3)  # a quarter turn of 8: the third direction
    np.testing.assert_allclose(rows[:, [0, 1, 3, 4, 5, 6, 7]], 0, atol=2e-3)
    np.testing.assert_array_equal(rows[:, 8:], [[0, 0, 1, 0]] * 16)


def panning(step, height=96, width=128, count=7):
    """Pictures of a smooth texture that moves `step` pixels to the right from each to the next."""
    rough = np.random.default_rng(1).normal(size=(96, 400))
    smooth = cv2.GaussianBlur(rough, (0, 0), 3)
    grey = np.round((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    views = [grey[:, 200 - step * k : 328 - step * k] for k in range(count)]
    return [np.repeat(cv2.resize(view, (width, height))[..., None], 3, axis=2) for view in views]


def test_hof_does_not_depend_on_the_size_of_the_video():
    extractor = extractors.load("hof")
    small, large = row_of(extractor, panning(3)), row_of(extractor, panning(3, 240, 320))
    assert np.linalg.norm(small - large) < 0.1 * np.linalg.norm(small)


def test_hof_counts_speed_per_second_not_per_frame():
    """Half as many pictures per second, each moved twice as far, is the same motion."""
    quick, slow = hof.Hof(hof.Params(rate=20.0)), hof.Hof(hof.Params(rate=10.0))
    a, b = row_of(quick, panning(2)), row_of(slow, panning(4))
    assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a)


def test_hof_keeps_the_halves_of_a_window_apart():
    moving, still = panning(3), panning(0)
    row = row_of(extractors.load("hof"), [*still[:3], still[0], *moving[1:4]])
    first, second = row.reshape(2, 16, 12)
    np.testing.assert_allclose(first[:, 8], 1, atol=1e-3)  # all still
    assert second[:, 8].mean() < 0.2
    assert second[:, 0].mean() > 10 * max(second[:, 4].mean(), 1e-6)  # to the right, not to the left


def test_hof_flows_are_of_the_named_method(monkeypatch):
    used = []
    monkeypatch.setitem(media_flow.METHODS, "tvl1", lambda a, b: used.append(1) or np.zeros((*a.shape, 2), np.float32))
    row_of(hof.Hof(hof.Params(flow="tvl1", count=3)), panning(1, count=3))
    assert len(used) == 2


# logmel


def sine(hertz, amplitude=0.5, rate=16000, seconds=1.28):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def means_stds(row):
    parts = row.reshape(4, 2, 64)
    return parts[:, 0], parts[:, 1]


@pytest.mark.parametrize("hertz", [150, 440, 1000, 2500, 6000])
def test_a_tone_lands_in_its_band(hertz):
    extractor = extractors.load("logmel")
    p = extractor.params
    mel = 2595 * np.log10(1 + np.array([p.low, p.high, hertz]) / 700)
    corners = np.linspace(mel[0], mel[1], p.bands + 2)
    nearest = np.abs(corners[1:-1] - mel[2]).argmin()
    means, stds = means_stds(row_of(extractor, sine(hertz)))
    assert set(means.argmax(axis=1)) <= {nearest}
    assert stds[:, nearest].max() < 0.02  # and stays there


@pytest.mark.parametrize("g", [0.5, 0.1, 3.0])
def test_gain_adds_twice_its_logarithm(g):
    sound = np.random.default_rng(0).normal(0, 0.1, 20480).astype(np.float32)
    extractor = extractors.load("logmel")
    before, after = row_of(extractor, sound), row_of(extractor, (g * sound).astype(np.float32))
    means, stds = (a - b for a, b in zip(means_stds(after), means_stds(before), strict=True))
    np.testing.assert_allclose(means, 2 * np.log(g) / logmel.SCALE, atol=1e-4)
    np.testing.assert_allclose(stds, 0, atol=1e-4)


def test_a_sine_has_a_quarter_of_its_squared_amplitude_in_its_bin():
    """1000 Hz is a bin and all but the top of a triangle, so the loudest band is near A^2 / 4."""
    means, _ = means_stds(row_of(extractors.load("logmel"), sine(1000, amplitude=0.5)))
    power = np.exp(means.max() * logmel.SCALE - logmel.OFFSET)
    assert 0.5**2 / 4 * 0.5 < power < 0.5**2 / 4 * 3  # neighbours of the bin add to the band


def test_logmel_equals_a_naive_spectrogram():
    sound = np.random.default_rng(1).normal(0, 0.1, 20480).astype(np.float32)
    extractor = extractors.load("logmel")
    p = extractor.params
    filters = logmel.mel_filters(p, extractor.fft)
    n = np.arange(400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    frames = []
    for begin in range(0, 20480 - 400 + 1, 160):
        spectrum = np.abs(np.fft.fft(sound[begin : begin + 400] * hann, extractor.fft)[: extractor.fft // 2 + 1]) ** 2
        frames.append(np.log(np.maximum(spectrum / hann.sum() ** 2 @ filters, p.floor)))
    frames = np.array(frames)
    means, stds = means_stds(row_of(extractor, sound))
    for part, mean, std in zip(np.array_split(frames, 4), means, stds, strict=True):
        np.testing.assert_allclose(mean, (part.mean(0) + 10) / 4, atol=1e-3)
        np.testing.assert_allclose(std, part.std(0) / 4, atol=1e-3)


def test_mel_triangles_by_hand():
    """Every triangle is 1 at its middle and 0 at its neighbours' middles; each of them holds a bin."""
    p = logmel.Params()
    filters = logmel.mel_filters(p, 1024)
    assert filters.shape == (513, 64)
    assert (filters.max(axis=0) > 0).all()
    assert filters.max() <= 1
    low, high = 2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 7600 / 700)
    middles = 700 * (10 ** (np.linspace(low, high, 66)[1:-1] / 2595) - 1)
    bins = np.arange(513) * 16000 / 1024
    inside = (bins > middles[0]) & (bins < middles[-1])
    np.testing.assert_allclose(filters[inside].sum(axis=1), 1, atol=1e-5)  # between middles they add up to one
    np.testing.assert_allclose((filters * bins[:, None]).sum(0)[20:] / filters.sum(0)[20:], middles[20:], rtol=0.02)


def test_silence_is_the_floor():
    means, stds = means_stds(row_of(extractors.load("logmel"), np.zeros(20480, np.float32)))
    np.testing.assert_allclose(means, (np.log(1e-8) + 10) / 4, rtol=1e-5)
    np.testing.assert_allclose(stds, 0, atol=1e-6)


# parameters


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: hof.Hof(hof.Params(flow="raft")), "hof.flow is 'raft'; choose from dis, tvl1"),
        (lambda: hof.Hof(hof.Params(count=4)), "hof.count is 4; it must be odd"),
        (lambda: hog.Hog(hog.Params(size=100)), "hog.size is 100; it must be a multiple of hog.cell, 24"),
        (lambda: logmel.LogMel(logmel.Params(high=9000.0)), "high is 9000; allowed: above logmel.low, 60, to half"),
        (lambda: hof.Hof(hof.Params(side=4)), "hof.side is 4; allowed: whole numbers from 12 to 1024"),
        (lambda: hof.Hof(hof.Params(side=12, grid=13)), "hof.grid is 13; allowed: 1 to 12"),
        (lambda: hog.Hog(hog.Params(bins=0)), "hog.bins is 0; allowed: whole numbers from 1 to 180"),
        (lambda: logmel.LogMel(logmel.Params(frame=1e-3, rate=1000)), "logmel.high is 7600; allowed: above"),
        (lambda: logmel.LogMel(logmel.Params(frame=1e-3, rate=1000, high=500.0)), "frame is 0.001; allowed: from 2"),
        (lambda: logmel.LogMel(logmel.Params(hop=1e-4, rate=4000, high=2000.0)), "hop is 0.0001; allowed: from 1 sa"),
        (lambda: logmel.LogMel(logmel.Params(seconds=0.01)), "seconds is 0.01; allowed: from logmel.frame, 0.025"),
        (lambda: logmel.LogMel(logmel.Params(parts=500)), "parts is 500; allowed: 1 to 126"),
        (lambda: logmel.LogMel(logmel.Params(bands=512)), "bands is 512, too many from 60 to 7600 Hz"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
