"""TBN's audio stream [Kazakos et al. 2019]: BN-Inception over the log-spectrogram of 1.279 s of sound.

24 kHz mono; Hann windows of 10 ms every 5 ms, a Fourier transform of 511 samples, log(|S|^2 + 1e-6): 256 frequencies
at 256 moments, not normalised. Sound is zero beyond the window; the first and last moment lie on its edges.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.extractors._frozen import Frozen
from featcache.windows import Sound

RATE, SECONDS = 24_000, 1.279
FRAME, HOP, FFT = 240, 120, 511  #: lengths in samples


@dataclass(frozen=True)
class Params:
    """The parameters: none."""


class TbnAudio(Frozen):
    """An extractor of the sound around a moment."""

    name: str = "tbn-audio"
    modality: str = "audio"
    sizes = (8, 64)
    layout: ClassVar[str] = "tbn-audio"
    weights: str = "tbn-epic-100"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.window = Sound(RATE, SECONDS, around=True)
        self.row_shape = (1024,)

    def build(self) -> nn.Module:
        """BN-Inception with one channel."""
        from featcache.backbones.bninception import BNInception

        return BNInception(1)

    def prepare(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples themselves, (30696,)."""
        return window

    def transform(self, windows: Tensor) -> Tensor:
        """(n, 30696) -> (n, 1, 256, 256): frequency, time."""
        return spectrogram(windows)[:, None]


def spectrogram(sound: Tensor) -> Tensor:
    """(n, samples) at 24 kHz -> log power (n, 256, 1 + samples // 120), natural logarithm."""
    hann = torch.hann_window(FRAME, device=sound.device)
    S = torch.stft(sound, FFT, HOP, FRAME, hann, center=True, pad_mode="constant", return_complex=True)
    return torch.log(S.real**2 + S.imag**2 + 1e-6)


EXTRACTOR = TbnAudio
