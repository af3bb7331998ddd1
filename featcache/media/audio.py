"""Sound of a file at any rate, on the clock of its pictures.

Channels are averaged to mono. Gaps between packets are silent, and so is the time before the first sample of a sound
track that starts after the pictures, and the time after its end.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from fractions import Fraction
from math import ceil, floor, gcd

import av
import numpy as np
from numpy.typing import NDArray

from featcache.budget import STEPS, check
from featcache.errors import MediaError
from featcache.media.container import AudioTrack, Scan
from featcache.media.packets import opened, replay

#: Seconds decoded before the first sample of a window: codecs need the sound before it (Opus 0.08 s).
PREROLL = 0.3
#: Seconds of sound, at most, that overlapping windows decode and hold together.
TOGETHER = 60
#: Seconds by which a packet may miss the end of the one before it without a gap: containers round to milliseconds.
JITTER = 0.005

#: Full scale of integer samples.
_FULL = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31, np.dtype(np.int64): 2.0**63}


def read(
    scan: Scan, track: AudioTrack, starts: Sequence[float], seconds: float, rate: int
) -> Iterator[NDArray[np.float32]]:
    """Yield one mono window per ascending start: samples at (round(start * rate) + k) / rate, float32 in [-1, 1].

    A window has round(seconds * rate) samples. Input and output are cut on one grid that starts at t = 0, so that a
    sample does not depend on the place where decoding began. Windows that overlap are decoded together, unless the
    container rounds times.
    """
    from scipy.signal import resample_poly  # half a second of CPU that only sound should cost

    count = round(seconds * rate)
    up, down = rate // gcd(rate, track.rate), track.rate // gcd(rate, track.rate)
    check(max(up, down), STEPS, f"{scan.path}: its sound", f"a rate of {track.rate}, to resample to {rate}", MediaError)
    reach = ceil(10 * max(up, down) / down) + 1  # half of resample_poly's filter, in output samples
    firsts = [round(start * rate) for start in starts]
    blocks = [floor((first - reach) / up) for first in firsts]  # the grids meet every `up` output, `down` input samples
    spans = [
        (block * down, ceil((first + count + reach) * down / up)) for block, first in zip(blocks, firsts, strict=True)
    ]
    for first, block, sound in zip(firsts, blocks, _cuts(scan, track, spans), strict=True):
        resampled = resample_poly(sound, up, down) if up != down else sound
        skip = first - block * up
        yield np.ascontiguousarray(resampled[skip : skip + count], np.float32)


def _cuts(scan: Scan, track: AudioTrack, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[np.float32]]:
    """Yield the sound of each span [start, stop) of samples at the source's own rate; spans ascend.

    Where the container rounds times (Matroska, FLV and ASF to milliseconds), the place of the samples depends on the
    packet at which decoding begins. Each span is then decoded by itself, so that it never depends on the other spans.
    """
    whole = track.from_start or scan.joined  # decoding always begins at the first packet
    alone = not whole and (Fraction(1, track.rate) / track.time_base).denominator > 1
    with opened(scan.path) as container:
        begin = end = 0
        sound = np.zeros(0, np.float32)
        for number, (start, stop) in enumerate(spans):
            if number == 0 or alone or start < begin or stop > end:
                begin, end = start, stop
                for next_start, next_stop in spans[number + 1 :]:
                    if alone or next_start > end or next_stop > begin + TOGETHER * track.rate:
                        break
                    end = max(end, next_stop)
                # a seek may end elsewhere in a reader that has read before
                with opened(scan.path) if whole or alone else nullcontext(container) as entered:
                    sound = _decode(entered, scan, track, begin, end)
            yield sound[start - begin : stop - begin]


def _decode(
    container: av.container.InputContainer, scan: Scan, track: AudioTrack, start: int, stop: int
) -> NDArray[np.float32]:
    """Decode the samples [start, stop) of the source, counted at its own rate from t = 0; zeros where it has none."""
    sound = np.zeros(stop - start, np.float32)
    enter = max(start / track.rate - PREROLL, track.start)
    tick = floor((track.origin + Fraction(enter)) / track.time_base)
    number = max(int(np.searchsorted(track.ticks, tick, side="right")) - 1, 0)
    after: int | None = None  # position of the sample after the last decoded one
    for frame in _frames(container, scan, track, number, start):
        if frame.sample_rate != track.rate:
            raise MediaError(
                f"{scan.path}: its sound changes from {track.rate} to {frame.sample_rate} Hz; re-encode it"
            )
        position = after or 0
        if frame.pts is not None:
            position = round((frame.pts * track.time_base - track.origin) * track.rate)
            if after is not None and abs(position - after) <= JITTER * track.rate:
                position = after
        after = position + frame.samples
        if position >= stop:
            break
        begin, end = max(position, start), min(after, stop)
        if begin < end:
            sound[begin - start : end - start] = _mono(frame)[begin - position : end - position]
    return sound


def _frames(
    container: av.container.InputContainer, scan: Scan, track: AudioTrack, number: int, start: int
) -> Iterator[av.AudioFrame]:
    """Decode the frames from a packet on. Errors before the sample `start` are no damage: decoding began there."""
    stream = next(s for s in container.streams.audio if s.index == track.stream)
    number, seek = (0, None) if track.from_start or scan.joined else (number, int(track.ticks[number]))
    for place, packet in replay(container, scan.path, stream, track.marks, number, seek):
        try:
            yield from stream.codec_context.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            if (track.ticks[place] * track.time_base - track.origin) * track.rate >= start:
                raise


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """Return the mean of the channels, (samples,) float32, for any sample format."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    return (samples.mean(axis=0, dtype=np.float64) / _FULL.get(samples.dtype, 1.0)).astype(np.float32)
