"""Optical flow: a known shift comes back, on any number of threads."""

import threading

import cv2
import numpy as np
import pytest

from featcache.media.flow import METHODS, dis_flow


def texture(height, width, seed=0):
    """Smooth random grey, full range."""
    rough = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(rough, (0, 0), 2)
    return np.round((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def moved(right, down, height=96, width=128):
    """Two views of one texture; what is seen moves `right` and `down` pixels from the first to the second."""
    t = texture(height + 40, width + 40)
    return (
        t[20 : 20 + height, 20 : 20 + width].copy(),
        t[20 - down : 20 - down + height, 20 - right : 20 - right + width].copy(),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("right", "down"), [(5, 2), (-3, 0), (0, -4)])
def test_a_shift_comes_back_in_pixels_right_and_down(method, right, down):
    flow = METHODS[method](*moved(right, down, 64, 64))
    assert flow.shape == (64, 64, 2)
    assert flow.dtype == np.float32
    inner = flow[8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [right, down], atol=0.1)
    assert np.abs(inner - [right, down]).mean() < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_what_stands_still_does_not_flow(method):
    a, _ = moved(0, 0, 32, 48)
    np.testing.assert_allclose(METHODS[method](a, a), 0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_flow_is_the_same_on_any_number_of_threads(method):
    a, b = moved(4, 1, 120, 160) if method == "dis" else moved(4, 1, 40, 40)
    before = cv2.getNumThreads()
    try:
        flows = []
        for threads in (1, 2, 3, 8):
            cv2.setNumThreads(threads)
            flows.append(METHODS[method](a, b))
    finally:
        cv2.setNumThreads(before)
    for flow in flows[1:]:
        np.testing.assert_array_equal(flow, flows[0])


def test_flow_is_the_same_from_two_threads_at_once():
    pairs = [moved(right, 1) for right in (-4, -2, 0, 2, 4)] * 2
    alone = [dis_flow(*pair) for pair in pairs]
    together = [None] * len(pairs)

    def work(first):
        for k in range(first, len(pairs), 2):
            together[k] = dis_flow(*pairs[k])

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(together, alone)
