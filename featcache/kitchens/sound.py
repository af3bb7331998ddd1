"""The sound of the demo kitchens, synthesised from the beats that move the hands."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import butter, fftconvolve, sosfilt

from featcache.kitchens.plan import ACTIONS, KITCHENS, Kitchen, Shot

Wave = NDArray[np.float64]


class Room:
    """Building blocks of the sounds of a shot, all of its length and sampling rate."""

    def __init__(self, shot: Shot) -> None:
        self.shot, self.rate, self.rng = shot, shot.sound_rate, shot.rng("sound")
        self.t: Wave = np.arange(round(shot.seconds * shot.sound_rate)) / shot.sound_rate

    def noise(self, low: float, high: float) -> Wave:
        """Noise between two frequencies in Hz, with unit variance."""
        return self.band(self.rng.standard_normal(len(self.t)), low, high)

    def band(self, wave: Wave, low: float, high: float) -> Wave:
        """The part of a sound between two frequencies in Hz, scaled to unit variance."""
        edges = [low, min(high, 0.47 * self.rate)]
        out: Wave = sosfilt(butter(2, edges, "bandpass", fs=self.rate, output="sos"), wave)
        return out / (out.std() + 1e-9)

    def strike(self, at: float, tones: dict[float, float], level: float, click: float = 0.0) -> Wave:
        """A struck body: tones (Hz -> seconds in which the tone falls to 1/e) and a click of noise."""
        first = max(round(at * self.rate), 0)
        last = min(first + round(7 * max(tones.values()) * self.rate), len(self.t))
        u = np.clip(self.t[first:last] - at, 0, None)
        out = np.zeros_like(self.t)
        for tone, decay in tones.items():
            if tone < 0.45 * self.rate:
                out[first:last] += level * np.exp(-u / decay) * np.sin(2 * np.pi * tone * u)
        if click:
            out[first:last] += level * click * np.exp(-u / 0.006) * self.rng.standard_normal(len(u))
        return out

    def swell(self, at: float, width: float) -> Wave:
        """A smooth bump around the time `at`."""
        u = np.clip((self.t - at) / width, -1, 1)
        return 0.5 + 0.5 * np.cos(np.pi * u)

    def level(self) -> float:
        """Draw the strength of a stroke."""
        return float(self.rng.uniform(0.6, 1.2))

    def blips(self, per_second: float, low: float, high: float) -> Wave:
        """Bubbles: short rising tones at random times."""
        out = np.zeros_like(self.t)
        for at in self.rng.uniform(0, self.shot.seconds, self.rng.poisson(per_second * self.shot.seconds)):
            first = round(at * self.rate)
            part = out[first : first + round(0.12 * self.rate)]
            u, tone = np.arange(len(part)) / self.rate, self.rng.uniform(low, high)
            part += self.level() * np.exp(-u / 0.02) * np.sin(2 * np.pi * tone * u * (1 + 4 * u))
        return out

    def moving(self) -> Wave:
        """An envelope that is 1 during a single movement, and 0 before and after."""
        edge = 0.06
        return np.clip((self.t - self.shot.begin) / edge, 0, 1) * np.clip((self.shot.end - self.t) / edge, 0, 1)


def _cut(room: Room) -> Wave:
    body = room.rng.uniform(190, 330)
    tones = {body: 0.03, body * 2.7: 0.018, body * 5.1: 0.009}
    crunch = room.noise(1200, 5000) * sum(room.swell(beat - 0.05, 0.06) for beat in room.shot.beats())
    return sum(room.strike(beat, tones, 0.5 * room.level(), 0.8) for beat in room.shot.beats()) + 0.03 * crunch


def _knead(room: Room) -> Wave:
    out = 0.05 * room.noise(150, 900) * (0.2 + sum(room.swell(beat + 0.1, 0.3) for beat in room.shot.beats()))
    for beat in room.shot.beats():
        out = out + room.strike(beat, {room.rng.uniform(65, 95): 0.09, 140: 0.05}, 0.45 * room.level(), 0.1)
    return out


def _open(room: Room) -> Wave:
    shot, rng = room.shot, room.rng
    if shot.thing == "drawer":
        roll = room.noise(90, 700) * room.moving() * (0.8 + 0.4 * np.sin(2 * np.pi * 23 * room.t))
        stop = room.strike(shot.end - 0.05, {130: 0.05, 420: 0.03}, 0.5, 0.5)
        rattle = sum(room.strike(shot.end + d, {rng.uniform(2500, 6000): 0.04}, 0.12, 0.2) for d in (0, 0.03, 0.07))
        return 0.22 * roll + stop + rattle
    if shot.thing == "pot":
        tones = rng.uniform(0.95, 1.05) * np.array([840, 1730, 2980, 4410])
        ring = dict(zip(tones.tolist(), (0.5, 0.35, 0.2, 0.1), strict=True))
        put = room.strike(shot.end, ring, 0.22, 0.3) if shot.end < shot.seconds else 0.0
        return room.strike(shot.begin, ring, 0.3, 0.5) + put + 0.05 * room.blips(14, 200, 600)
    creak = room.noise(600, 2600) * room.moving() * (np.sin(2 * np.pi * (18 + 14 * room.t) * room.t) > 0.3)
    return 0.12 * creak + room.strike(shot.begin + 0.6 * (shot.end - shot.begin), {310: 0.03, 760: 0.02}, 0.6, 0.4)


def _peel(room: Room) -> Wave:
    scrape = sum(room.level() * room.swell(beat + 0.1, 0.13) for beat in room.shot.beats())
    return 0.2 * room.noise(2200, 7500) * scrape + 0.05 * room.noise(500, 1500) * scrape


def _pour(room: Room) -> Wave:
    start = room.shot.begin + 0.4 * (room.shot.end - room.shot.begin)
    on = np.clip((room.t - start) / 0.15, 0, 1)
    pitch = 380 * 2 ** (1.3 * np.clip(room.t - start, 0, None) / 2)  # the resonance of the vessel rises as it fills
    wobble = 0.4 * np.cumsum(room.noise(4, 30)) / np.sqrt(room.rate)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / room.rate + wobble) * (0.6 + 0.4 * room.noise(6, 40).clip(-1, 1))
    return on * (0.09 * room.noise(500, 4200) + 0.1 * tone + 0.16 * room.blips(26, 350, 1300))


def _stir(room: Room) -> Wave:
    turning = 0.5 + 0.5 * np.sin(2 * np.pi * room.shot.strokes * room.t + 6.3 * room.shot.phase)
    out = 0.05 * room.noise(500, 2200) * turning + 0.22 * room.blips(22, 140, 460) + 0.02 * room.noise(3000, 9000)
    for beat in room.shot.beats():
        if room.rng.random() < 0.6:
            out = out + room.strike(beat, {1150: 0.05, 2600: 0.03}, 0.16 * room.level(), 0.2)
    return out


def _wash(room: Room) -> Wave:
    splash = 1 + 0.35 * np.sin(2 * np.pi * room.shot.strokes * room.t) + 0.25 * room.noise(2, 12)
    return 0.13 * room.noise(400, 9000) * splash + 0.08 * room.noise(180, 1200) + 0.1 * room.blips(20, 500, 1800)


def _whisk(room: Room) -> Wave:
    swing = np.abs(np.sin(np.pi * (room.shot.strokes * room.t + room.shot.phase))) ** 3
    out = 0.08 * room.noise(900, 5200) * swing
    ring = room.rng.uniform(2300, 3200)
    for beat in room.shot.beats():
        out = out + room.strike(
            beat + room.rng.normal(0, 0.01), {ring: 0.05, ring * 1.71: 0.03}, 0.2 * room.level(), 0.3
        )
    return out


SOUND: dict[str, Callable[[Room], Wave]] = {
    "cut": _cut,
    "knead": _knead,
    "open": _open,
    "peel": _peel,
    "pour": _pour,
    "stir": _stir,
    "wash": _wash,
    "whisk": _whisk,
}


def sound(shot: Shot) -> NDArray[np.float32]:
    """The sound of a clip at the microphone, mono, in [-1, 1]."""
    room, kitchen = Room(shot), KITCHENS[shot.kitchen]
    wave = SOUND[shot.action](room) + _chance(room) + _company(room, kitchen)
    wave = _colour(_reverberate(wave, room, kitchen.reverb), room, kitchen.treble)
    wave = 10 ** ((kitchen.gain + room.rng.uniform(-4, 4)) / 20) * wave + _background(room, kitchen)
    return np.tanh(wave).astype(np.float32)


def _chance(room: Room) -> Wave:
    """Occasional clinks of things elsewhere in the room."""
    out = np.zeros_like(room.t)
    for at in room.rng.uniform(0, room.shot.seconds, room.rng.poisson(0.7)):
        tone = room.rng.uniform(300, 4000)
        out += room.strike(at, {tone: 0.05, tone * 2.3: 0.03}, 0.16 * room.level(), 0.2)
    return out


def _company(room: Room, kitchen: Kitchen) -> Wave:
    """Another person's action in the same kitchen, with another tempo and mostly farther from the microphone."""
    action = str(room.rng.choice(sorted(ACTIONS)))
    properties, tempo = ACTIONS[action], kitchen.tempo * room.rng.uniform(0.7, 1.3)
    other = replace(
        room.shot,
        clip_id=room.shot.clip_id + " company",
        action=action,
        thing=properties.things[room.rng.integers(len(properties.things))],
        strokes=properties.rate * tempo,
        phase=room.rng.uniform(0, 1),
    )
    return 10 ** (room.rng.uniform(*kitchen.company) / 20) * SOUND[action](Room(other))


def _reverberate(wave: Wave, room: Room, seconds: float) -> Wave:
    """Add a tail of noise that falls by 60 dB in `seconds` to the direct sound."""
    t = np.arange(round(seconds * room.rate)) / room.rate
    tail = room.rng.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    tail *= 0.7 / np.sqrt((tail**2).sum())
    wet: Wave = fftconvolve(wave, tail)[: len(wave)]
    return wave + wet


def _colour(wave: Wave, room: Room, treble: float) -> Wave:
    """Tilt the spectrum by `treble` decibels per octave around 1 kHz, up to four octaves."""
    size = next_fast_len(len(wave), real=True)
    octaves = np.log2(np.maximum(rfftfreq(size, 1 / room.rate), 1) / 1000).clip(-4, 4)
    out: Wave = irfft(rfft(wave, size) * 10 ** (treble * octaves / 20), size)[: len(wave)]
    return out


def _background(room: Room, kitchen: Kitchen) -> Wave:
    """The mains hum of a fridge and the rush of air."""
    mains = sum(np.sin(2 * np.pi * 50 * k * room.t + k) / k for k in (1, 2, 3, 4, 6))
    return (
        kitchen.hum * room.rng.uniform(0.6, 1.5) * (mains + 0.6 * room.noise(60, 1500) + 0.2 * room.noise(500, 12000))
    )
