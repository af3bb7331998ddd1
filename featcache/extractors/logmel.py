"""Sound: mean and standard deviation of the log-mel spectrogram over the parts of a window.

    S    power spectrum of Hann windows of `frame` seconds every `hop` seconds, scaled so that a sine of amplitude A
         has power A^2 / 4 in its bin whatever the length of the window
    M    `bands` triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700) between `low` and `high` Hz, each of
         height 1, applied to S
    L    log(max(M, floor)), natural logarithm

A row holds, for each of `parts` equal stretches of time, (mean(L) + 10) / 4 and std(L) / 4 per band: order 1 between
silence and full scale. Multiplying the sound by g adds 2 log(g) / 4 to each mean that the floor does not hold.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.extractors import Extractor, Sound

OFFSET, SCALE = 10.0, 4.0  #: of the logarithms in a row


@dataclass(frozen=True)
class Params:
    """What a row is made of."""

    rate: int = 16000  #: samples per second
    seconds: float = 1.28  #: length of a window
    frame: float = 0.025  #: length of a spectrum in seconds
    hop: float = 0.010  #: seconds between two spectra
    bands: int = 64  #: mel bands
    low: float = 60.0  #: lower end of the lowest band in Hz
    high: float = 7600.0  #: upper end of the highest band in Hz
    parts: int = 4  #: stretches of time that are described one by one
    floor: float = 1e-8  #: least power of a band: 80 dB below a power of 1


class LogMel(Extractor):
    """Log-mel statistics of a stretch of sound."""

    name: ClassVar[str] = "logmel"
    modality: ClassVar[str] = "audio"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        if not 0 <= params.low < params.high <= params.rate / 2:
            raise ConfigError(
                f"logmel: bands need 0 <= low < high <= rate / 2, not {params.low:g}, {params.high:g}, {params.rate}"
            )
        self.window = Sound(params.rate, params.seconds)
        self.row_shape = (2 * params.parts * params.bands,)
        self.frame = round(params.frame * params.rate)
        self.hop = round(params.hop * params.rate)
        self.fft = 2 ** (2 * self.frame - 1).bit_length()  # zero-padded, so that the lowest triangles hold a bin
        self.hann = np.hanning(self.frame + 1)[:-1].astype(np.float32)
        self.filters = mel_filters(params, self.fft)

    def prepare(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples themselves, (samples,)."""
        return window

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """(n, samples) -> (n, dims), one by one: the last bits of a matrix product depend on the size of the matrix."""
        return np.stack([self._row(window) for window in windows])

    def _row(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        frames = np.lib.stride_tricks.sliding_window_view(sound, self.frame)[:: self.hop] * self.hann
        spectrum = np.fft.rfft(frames, self.fft, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2) / self.hann.sum() ** 2
        log_mel = np.log(np.maximum(power @ self.filters, self.params.floor))
        parts = np.array_split(log_mel, self.params.parts)
        row = [[(part.mean(axis=0) + OFFSET) / SCALE, part.std(axis=0) / SCALE] for part in parts]
        return np.asarray(row, np.float32).ravel()


def mel_filters(params: Params, fft: int) -> NDArray[np.float32]:
    """Triangles (fft // 2 + 1, bands) on the bins of an FFT; each rises from the middle of the one before it."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (params.low, params.high))
    corners = 700 * (10 ** (np.linspace(low, high, params.bands + 2) / 2595) - 1)
    f = np.fft.rfftfreq(fft, 1 / params.rate)[:, None]
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    return np.clip(np.minimum((f - left) / (middle - left), (right - f) / (right - middle)), 0, None).astype(np.float32)


EXTRACTOR = LogMel
