"""The plan of the rendering: two kitchens, eight actions, and one `Shot` per clip, chosen before any painting."""

import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Action:
    """The objects, verbs and tempo of an action."""

    things: tuple[str, ...]  #: objects of the action
    terse: tuple[str, ...]  #: verbs of a terse narration
    doing: tuple[str, ...]  #: verbs of a full sentence
    rate: float  #: strokes per second of an average cook; 0: a single movement


ACTIONS: dict[str, Action] = {
    "cut": Action(
        ("tomato", "cucumber", "carrot", "courgette", "onion", "aubergine"),
        ("cut", "chop", "slice"),
        ("cutting", "slicing", "chopping"),
        3.0,
    ),
    "knead": Action(
        ("dough", "bread dough", "pizza dough"), ("knead", "press"), ("kneading", "working", "folding"), 1.05
    ),
    "open": Action(("drawer", "pot", "jar"), ("open",), ("opening",), 0.0),
    "peel": Action(
        ("carrot", "potato", "cucumber", "apple", "courgette"),
        ("peel", "skin"),
        ("peeling", "taking the skin off"),
        1.7,
    ),
    "pour": Action(("milk", "oil", "water", "juice"), ("pour", "add"), ("pouring", "adding"), 0.0),
    "stir": Action(("soup", "sauce", "porridge", "stew"), ("stir", "mix"), ("stirring", "mixing"), 1.15),
    "wash": Action(
        ("tomato", "potato", "apple", "carrot", "plate"), ("wash", "rinse"), ("washing", "rinsing", "cleaning"), 2.3
    ),
    "whisk": Action(("eggs", "cream", "batter"), ("whisk", "beat"), ("whisking", "beating"), 3.6),
}

WHO = ("Someone", "A person", "The cook", "Somebody in a jumper")
HOW = ("", " slowly", " by hand", " with care", " in the evening light")
THE = ("knead", "pour", "stir", "wash", "whisk")  #: actions with "the" before the thing
WHERE = {
    "cut": ("on a wooden board", "on the cutting board"),
    "knead": ("on the floured table", "with both hands"),
    "open": ("at the old worktop", "in the dim kitchen"),
    "peel": ("over the board", "before dinner"),
    "pour": ("into a bowl", "into a deep dish"),
    "stir": ("in a big pot", "on the stove"),
    "wash": ("under the tap", "in the sink"),
    "whisk": ("in a bowl", "for a cake"),
}


@dataclass(frozen=True)
class Kitchen:
    """A domain: all properties that differ between the kitchens."""

    clips: dict[str, int]  #: number of clips per action
    # pictures
    worktops: tuple[tuple[str, Colour], ...]  #: material and colour
    wall: Colour  #: colour of the tiles behind the worktop
    board: Colour
    sleeves: tuple[Colour, ...]
    skins: tuple[Colour, ...]
    handles: tuple[Colour, ...]  #: colours of the tools' handles
    vessels: tuple[Colour, ...]
    wooden_spoons: bool
    turn: tuple[float, float]  #: rotation of the camera in degrees
    zoom: tuple[float, float]
    tilt: float  #: perspective: narrowing of the far edge as a share of the picture's width
    left_handed: float  #: share of left-handed cooks, whose pictures are mirrored
    shake: float  #: movement of the camera in pixels of the canvas
    arm: tuple[float, float]  #: size of the cook's arms
    light: Colour  #: gain of the three colours, 255 is 1
    window: float  #: strength of the patch of sunlight
    vignette: float
    fall: tuple[float, float]  #: direction of shadows
    noise: float  #: noise of the sensor in grey levels
    crf: int  #: compression of the file (x264)
    blur: float  #: in pixels of the picture
    # movement
    tempo: float
    reach: tuple[float, float]  #: relative amplitude of movements
    # sound
    gain: float  #: in decibels
    treble: float  #: tilt of the spectrum in decibels per octave around 1 kHz
    reverb: float  #: seconds in which the sound of the room falls by 60 dB
    hum: float  #: level of the fridge or extractor hood
    company: tuple[float, float]  #: level in decibels of another person in the same kitchen
    # files
    sizes: tuple[tuple[int, int], ...]
    rates: tuple[Fraction, ...]
    sound_rates: tuple[int, ...]


KITCHENS: dict[str, Kitchen] = {
    "loft": Kitchen(
        clips={"cut": 15, "knead": 10, "open": 15, "peel": 12, "pour": 15, "stir": 15, "wash": 12, "whisk": 10},
        worktops=(("marble", (204, 207, 212)), ("steel", (170, 178, 186)), ("wood", (206, 184, 152))),
        wall=(222, 232, 238),
        board=(232, 214, 180),
        sleeves=((52, 86, 140), (234, 236, 240), (60, 130, 128), (120, 128, 140)),
        skins=((232, 190, 164), (206, 156, 124), (142, 98, 72), (240, 204, 182)),
        handles=((40, 42, 48), (30, 60, 110), (196, 40, 44)),
        vessels=((212, 216, 222), (70, 76, 88), (56, 108, 158)),
        wooden_spoons=False,
        turn=(-10, 10),
        zoom=(0.94, 1.16),
        tilt=0.04,
        left_handed=0.2,
        shake=0.9,
        arm=(0.98, 1.14),
        light=(246, 253, 255),
        window=0.18,
        vignette=0.08,
        fall=(0.5, 0.65),
        noise=1.2,
        crf=23,
        blur=0.0,
        tempo=1.15,
        reach=(0.8, 1.1),
        gain=-3.0,
        treble=0.3,
        reverb=0.8,
        hum=0.004,
        company=(-20.0, 0.0),
        sizes=((320, 240), (384, 216), (352, 288)),
        rates=(Fraction(30), Fraction(30000, 1001), Fraction(25)),
        sound_rates=(48000, 44100),
    ),
    "cottage": Kitchen(
        clips={"cut": 12, "knead": 15, "open": 10, "peel": 15, "pour": 12, "stir": 12, "wash": 10, "whisk": 15},
        worktops=(("wood", (168, 120, 76)), ("wood", (140, 96, 62)), ("tiles", (182, 104, 72))),
        wall=(196, 168, 120),
        board=(112, 70, 42),
        sleeves=((150, 48, 44), (96, 110, 66), (196, 150, 60), (108, 76, 108)),
        skins=((224, 178, 150), (236, 196, 170), (172, 120, 90)),
        handles=((122, 76, 42), (160, 112, 66), (84, 54, 38)),
        vessels=((190, 92, 60), (228, 212, 178), (92, 118, 92)),
        wooden_spoons=True,
        turn=(0, 20),
        zoom=(0.86, 1.02),
        tilt=0.14,
        left_handed=0.5,
        shake=1.9,
        arm=(0.76, 0.92),
        light=(234, 198, 148),
        window=0.34,
        vignette=0.4,
        fall=(-0.9, 0.35),
        noise=3.2,
        crf=26,
        blur=0.7,
        tempo=0.86,
        reach=(0.85, 1.2),
        gain=-10.0,
        treble=-1.5,
        reverb=0.15,
        hum=0.006,
        company=(-20.0, 0.0),
        sizes=((320, 240), (320, 180), (352, 264)),
        rates=(Fraction(24000, 1001), Fraction(25), Fraction(20)),
        sound_rates=(32000, 44100, 22050),
    ),
}


@dataclass(frozen=True)
class Shot:
    """A clip to render: `strokes` per second from `phase` on, or a single movement from `begin` to `end`."""

    clip_id: str
    kitchen: str
    action: str
    thing: str
    split: str
    caption: str
    size: tuple[int, int]
    rate: Fraction  #: pictures per second
    seconds: float
    sound_rate: int
    strokes: float
    phase: float
    begin: float
    end: float
    seed: int

    @property
    def frames(self) -> int:
        """The number of pictures."""
        return round(self.seconds * self.rate)

    def turns(self, t: float) -> float:
        """The number of strokes until the time t, slightly uneven like those of a hand."""
        return float(self._turns(np.asarray(t)))

    def _turns(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.phase + self.strokes * t + 0.06 * np.sin(2.1 * t + 9 * self.phase)

    def beats(self) -> NDArray[np.float64]:
        """The times in seconds at which a stroke lands: `turns` is a whole number."""
        times = np.arange(0, self.seconds, 0.002)
        return times[1:][np.diff(np.floor(self._turns(times))) > 0]

    def done(self, t: float) -> float:
        """The progress of a single movement at the time t: 0 before it, 1 after it, smooth in between."""
        u = min(max((t - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return u * u * (3 - 2 * u)

    def rng(self, use: str) -> np.random.Generator:
        """A random generator that depends only on the seed, this shot and this use."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.clip_id} {use}".encode())])


def shots(seed: int) -> list[Shot]:
    """All shots of the benchmark."""
    return [
        _shot(name, kitchen, action, number, seed)
        for name, kitchen in KITCHENS.items()
        for action in ACTIONS
        for number in range(kitchen.clips[action])
    ]


def _shot(name: str, kitchen: Kitchen, action: str, number: int, seed: int) -> Shot:
    clip_id = f"{name}_{action}_{number:03d}"
    rng = np.random.default_rng([seed, zlib.crc32(clip_id.encode())])
    properties = ACTIONS[action]
    thing = str(rng.choice(properties.things))
    rate = kitchen.rates[rng.integers(len(kitchen.rates))]
    frames = round(rng.uniform(2.0, 2.6) * rate)
    tempo = kitchen.tempo * rng.uniform(0.72, 1.36)
    begin = rng.uniform(0.15, 0.6)
    return Shot(
        clip_id=clip_id,
        kitchen=name,
        action=action,
        thing=thing,
        split="test" if number % 5 in (1, 4) else "train",
        caption=_caption(name, action, thing, rng),
        size=kitchen.sizes[rng.integers(len(kitchen.sizes))],
        rate=rate,
        seconds=float(frames / rate),
        sound_rate=int(rng.choice(kitchen.sound_rates)),
        strokes=properties.rate * tempo,
        phase=rng.uniform(0, 1),
        begin=begin,
        end=begin + rng.uniform(0.7, 1.2) / tempo,
        seed=seed,
    )


def _caption(kitchen: str, action: str, thing: str, rng: np.random.Generator) -> str:
    """A terse narration in the loft ("chop tomato"), a full sentence in the cottage."""
    words = ACTIONS[action]
    if kitchen == "loft":
        return f"{rng.choice(words.terse)} {thing}"
    article = "the" if action in THE else "an" if thing[0] in "aeiou" else "a"
    verb, how = rng.choice(words.doing), rng.choice(HOW)
    return f"{rng.choice(WHO)} is {verb} {article} {thing} {rng.choice(WHERE[action])}{how}."
