"""Sound: mean and standard deviation of the log-mel spectrogram over the parts of a window.

    S    power spectrum of Hann windows of `frame` seconds every `hop` seconds, scaled so that a sine of amplitude A
         has power A^2 / 4 in its bin for any length of the window
    M    `bands` triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700) between `low` and `high` Hz, each of
         height 1, applied to S
    L    log(max(M, floor)), natural logarithm

A row holds, for each of `parts` equal stretches of time, (mean(L) + 10) / 4 and std(L) / 4 per band: order 1 between
silence and full scale. Multiplying the sound by g adds 2 log(g) / 4 to each mean above the floor.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from featcache.errors import ConfigError
from featcache.extractors import Extractor, bounded
from featcache.windows import Sound

OFFSET, SCALE = 10.0, 4.0  #: offset and scale of the logarithms in a row


@dataclass(frozen=True)
class Params:
    """The sound of a window, its spectra, and the bands and parts of a row."""

    rate: int = bounded(16000, 1000, 192_000)  #: samples per second
    seconds: float = bounded(1.28, 0.001, 600)  #: length of a window
    frame: float = bounded(0.025, 0.001, 1)  #: length of a spectrum in seconds
    hop: float = bounded(0.010, 0.0001, 10)  #: seconds between two spectra
    bands: int = bounded(64, 1, 512)  #: mel bands
    low: float = bounded(60.0, 0, 96_000)  #: lower end of the lowest band in Hz
    high: float = bounded(7600.0, 1, 96_000)  #: upper end of the highest band in Hz
    parts: int = bounded(4, 1, 1000)  #: stretches of time with their own statistics
    floor: float = bounded(1e-8, 1e-20, 1)  #: least power of a band: 80 dB below a power of 1


class LogMel(Extractor):
    """An extractor of log-mel statistics of a stretch of sound."""

    name: str = "logmel"
    modality: str = "audio"
    version: ClassVar[int] = 2

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.window = Sound(params.rate, params.seconds)
        self.row_shape = (2 * params.parts * params.bands,)
        self.frame = round(params.frame * params.rate)
        self.hop = round(params.hop * params.rate)
        self._check_times()
        self.fft = 2 ** (2 * self.frame - 1).bit_length()  # zero-padded, so that the lowest triangles contain a bin
        self.hann = np.hanning(self.frame + 1)[:-1].astype(np.float32)
        filters = mel_filters(params, self.fft)
        if not filters.any(axis=0).all():
            raise ConfigError(
                f"logmel.bands is {params.bands}, too many from {params.low:g} to {params.high:g} Hz: some would lie "
                f"between two frequencies of the spectrum, {params.rate / self.fft:g} Hz apart; use fewer or increase "
                f"logmel.frame, {params.frame:g}"
            )
        # Sparse: a bin lies in two triangles only, and the BLAS threads of a dense product would slow down decoding.
        self.filters = sparse.csr_array(filters.T)

    def _check_times(self) -> None:
        p = self.params
        if not p.low < p.high <= p.rate / 2:
            raise ConfigError(
                f"logmel.high is {p.high:g}; allowed: above logmel.low, {p.low:g}, "
                f"to half of logmel.rate, {p.rate / 2:g}"
            )
        for name, samples, least in (("frame", self.frame, 2), ("hop", self.hop, 1)):
            if samples < least:
                seconds = getattr(p, name)
                raise ConfigError(
                    f"logmel.{name} is {seconds:g}; allowed: from {least} samples, {least / p.rate:g} s, on"
                )
        if round(p.seconds * p.rate) < self.frame:
            raise ConfigError(f"logmel.seconds is {p.seconds:g}; allowed: from logmel.frame, {p.frame:g}, on")
        spectra = 1 + (round(p.seconds * p.rate) - self.frame) // self.hop
        if p.parts > spectra:
            raise ConfigError(
                f"logmel.parts is {p.parts}; allowed: 1 to {spectra}, the number of spectra in logmel.seconds, "
                f"{p.seconds:g}, at logmel.hop, {p.hop:g}"
            )

    def prepare(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples themselves, (samples,)."""
        return window

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """(n, samples) -> (n, dims), one window at a time."""
        return np.stack([self._row(window) for window in windows])

    def _row(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        frames = np.lib.stride_tricks.sliding_window_view(sound, self.frame)[:: self.hop] * self.hann
        spectrum = np.fft.rfft(frames, self.fft, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2) / self.hann.sum() ** 2
        log_mel = np.log(np.maximum((self.filters @ power.T).T, self.params.floor))
        parts = np.array_split(log_mel, self.params.parts)
        row = [[(part.mean(axis=0) + OFFSET) / SCALE, part.std(axis=0) / SCALE] for part in parts]
        return np.asarray(row, np.float32).ravel()


def mel_filters(params: Params, fft: int) -> NDArray[np.float32]:
    """Return triangles (fft // 2 + 1, bands) over the bins of an FFT; each rises from the middle of the last one."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (params.low, params.high))
    corners = 700 * (10 ** (np.linspace(low, high, params.bands + 2) / 2595) - 1)
    f = np.fft.rfftfreq(fft, 1 / params.rate)[:, None]
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    with np.errstate(divide="ignore", invalid="ignore"):  # the caller refuses bands of no width
        triangles = np.minimum((f - left) / (middle - left), (right - f) / (right - middle))
    return np.nan_to_num(np.clip(triangles, 0, None)).astype(np.float32)


EXTRACTOR = LogMel
