"""The things in the demo kitchens: hands, tools, vessels and food, each a function that paints one sprite.

Everything is painted from above and upright: tools and arms point up, away from the cook. The pivot is the grip of a
tool, the middle of the palm of an arm, and the middle of everything else.
"""

from itertools import pairwise

import numpy as np

from featcache.kitchens.paint import Colour, Easel, Image, Sprite, clouds, rounded, without, wood

STEEL = (205, 210, 216)
IRON = (74, 76, 82)


def _dark(colour: Colour, factor: float) -> Colour:
    return np.asarray(colour) * factor


def arm(skin: Colour, sleeve: Colour, *, open_hand: bool = False) -> Sprite:
    """A right forearm from above; a closed hand holds something, an open hand presses."""
    e = Easel(150, 440)
    e.solid(e.limb((75, 112), (77, 240), 17, 25), skin, rounding=20)
    if open_hand:
        fingers = [
            ((56, 66), (46, 30), 8.5),
            ((68, 60), (63, 17), 9),
            ((82, 60), (84, 16), 9),
            ((94, 66), (101, 26), 8.5),
        ]
        for start, stop, radius in fingers:
            e.solid(e.limb(start, stop, radius, radius - 1.5), skin, rounding=8)
        e.solid(e.ellipse((75, 80), (29, 33)), skin, rounding=22)
        e.solid(e.limb((56, 92), (34, 66), 10, 8), skin, rounding=9)
    else:
        e.solid(e.ellipse((75, 80), (29, 31)), skin, rounding=22)
        for x, y in ((53, 64), (67, 56), (82, 56), (96, 64)):
            e.solid(e.limb((x, y + 14), (x, y), 8.5, 8), skin, rounding=8)
        e.solid(e.limb((54, 92), (66, 66), 9, 7.5), _dark(skin, 1.04), rounding=8)
    cloth = e.limb((77, 205), (80, 460), 30, 40)
    e.solid(cloth, sleeve, rounding=30, gloss=0)
    for y in (232, 262, 305, 360):  # folds
        e.flat(e.curve([(52, y), (70, y + 9), (100, y - 3)], 3), _dark(sleeve, 0.55), 0.35)
    e.solid(e.limb((50, 204), (105, 203), 8), _dark(sleeve, 0.92), rounding=7, gloss=0)
    return e.sprite((75, 78))


def knife(handle: Colour) -> Sprite:
    """A cook's knife, edge to the left."""
    e = Easel(50, 230)
    e.flat(e.polygon([(17, 140), (14, 60), (20, 22), (31, 6), (31, 140)]), STEEL)
    e.flat(e.polygon([(22, 140), (21, 60), (25, 28), (31, 8), (31, 140)]), (168, 174, 182))
    e.flat(e.curve([(16, 138), (14, 60), (20, 22), (30, 7)], 1.2), (250, 252, 255))
    e.solid(e.limb((26, 142), (26, 218), 8, 9), handle, rounding=7)
    for y in (158, 182, 206):
        e.solid(e.ellipse((26, y), (2.6, 2.6)), STEEL, rounding=3)
    return e.sprite((26, 182), soft=4)


def spoon(colour: Colour) -> Sprite:
    """A long cooking spoon; the bowl is at the top."""
    e = Easel(50, 220)
    e.solid(e.limb((25, 50), (25, 212), 4.5, 6), colour, rounding=5)
    e.solid(e.ellipse((25, 30), (16, 24)), colour, rounding=10)
    e.solid(e.ellipse((25, 29), (10, 17)), _dark(colour, 0.82), rounding=16, gloss=0)
    return e.sprite((25, 170), soft=4)


def whisk(handle: Colour) -> Sprite:
    """A balloon whisk; the wires are at the top."""
    e = Easel(70, 220)
    turn = np.linspace(0, np.pi, 30)
    for width in (27, 19, 11, 3, -5, -13, -21):
        wire = np.column_stack(
            [35 + width * np.sin(turn), 112 - 104 * (1 - np.cos(turn)) / 2 * (1 + 0.04 * np.sin(turn))]
        )
        e.flat(e.curve(wire, 2.1), (120, 124, 132)).flat(e.curve(wire - (0.6, 0), 1.0), (236, 240, 246))
    e.solid(e.limb((35, 110), (35, 122), 7), STEEL, rounding=6, gloss=0.5)
    e.solid(e.limb((35, 124), (35, 210), 8, 9), handle, rounding=8)
    return e.sprite((35, 172), shadow=0.3, soft=4)


def peeler(handle: Colour) -> Sprite:
    """A Y-shaped peeler; the blade is at the top."""
    e = Easel(60, 120)
    for x in (12, 48):
        e.solid(e.limb((30, 60), (x, 22), 5, 4), STEEL, rounding=4, gloss=0.4)
    e.solid(e.limb((10, 18), (50, 18), 4.5), (186, 192, 200), rounding=4, gloss=0.5)
    e.solid(e.limb((30, 62), (30, 112), 8, 10), handle, rounding=8)
    return e.sprite((30, 92), soft=4)


def jug(colour: Colour, liquid: Colour) -> Sprite:
    """A jug from the side with its spout to the left; the pivot is its handle."""
    e = Easel(150, 150)
    ring = without(e.ellipse((112, 72), (26, 36)), e.ellipse((112, 72), (15, 24)))
    e.solid(ring, _dark(colour, 0.95), rounding=6)
    body = [
        (4, 10),
        (24, 12),
        (60, 16),
        (98, 10),
        (102, 18),
        (94, 40),
        (110, 84),
        (104, 140),
        (66, 142),
        (28, 140),
        (20, 86),
        (34, 44),
    ]
    e.solid(e.polygon(rounded(body)), colour, rounding=26, gloss=0.4)
    e.flat(e.polygon(rounded([(12, 13), (60, 19), (96, 14), (92, 24), (60, 27), (26, 22)])), _dark(colour, 0.45))
    e.flat(e.polygon(rounded([(24, 18), (60, 21), (90, 18), (84, 25), (60, 27), (32, 23)])), liquid)
    for y in (100, 110):
        e.flat(
            e.curve([(26, y - 4), (44, y + 1), (64, y + 3), (84, y + 1), (104, y - 4)], 2.5), _dark(colour, 0.6), 0.7
        )
    return e.sprite((112, 72))


def bottle(colour: Colour, label: Colour) -> Sprite:
    """A bottle from the side with its neck up and to the left; the pivot is its body."""
    e = Easel(110, 210)
    e.solid(e.limb((40, 12), (44, 70), 9, 11), colour, rounding=9, gloss=0.5)
    e.solid(e.limb((50, 92), (56, 178), 28), colour, rounding=24, gloss=0.6)
    e.solid(e.polygon([(24, 112), (80, 108), (83, 158), (28, 162)]), label, rounding=10, gloss=0)
    e.flat(e.curve([(36, 122), (68, 120)], 4), _dark(label, 0.45)).flat(
        e.curve([(37, 133), (60, 131)], 2.5), _dark(label, 0.5)
    )
    e.solid(e.limb((39, 8), (40, 16), 10.5), _dark(label, 0.8), rounding=6)
    return e.sprite((58, 140))


def pot(colour: Colour, radius: float, *, handles: bool = True) -> Sprite:
    """An open pot from above; its content is another sprite."""
    r, c = radius, radius + 34
    e = Easel(2 * c, 2 * c)
    if handles:
        for side in (-1, 1):
            grip = without(e.ellipse((c + side * r, c), (26, 30)), e.ellipse((c + side * r, c), (15, 19)))
            e.solid(grip, _dark(colour, 0.8), rounding=6)
    e.solid(e.ellipse((c, c), (r, r)), colour, rounding=7, gloss=0.5)
    e.flat(e.ellipse((c, c), (r - 7, r - 7)), _dark(colour, 0.34))
    e.flat(e.ellipse((c + 3, c + 5), (r - 11, r - 11)), _dark(colour, 0.6))
    return e.sprite((c, c), shadow=0.55, soft=9)


def lid(colour: Colour, radius: float, knob: Colour) -> Sprite:
    """A lid with a knob, from above."""
    c = radius + 4
    e = Easel(2 * c, 2 * c)
    e.solid(e.ellipse((c, c), (radius, radius)), colour, rounding=radius * 0.8, gloss=0.35)
    ring = without(e.ellipse((c, c), (radius * 0.82,) * 2), e.ellipse((c, c), (radius * 0.79,) * 2))
    e.flat(ring, _dark(colour, 0.6), 0.7)
    e.solid(e.ellipse((c, c), (radius * 0.17 + 5,) * 2), knob, rounding=9, gloss=0.4)
    return e.sprite((c, c), soft=7)


def content(colour: Colour, radius: float, rng: np.random.Generator, bits: Colour | None = None) -> Sprite:
    """The surface of a soup or batter: swirls, and bits that float in it."""
    c = radius + 2
    e = Easel(2 * c, 2 * c)
    e.flat(e.ellipse((c, c), (radius, radius)), colour)
    for turns in rng.uniform(0, 2 * np.pi, 4):
        a = np.linspace(0, 3.6, 30)
        r = radius * (0.16 + 0.2 * a)
        spiral = np.column_stack([c + r * np.cos(a + turns), c + r * np.sin(a + turns)])[r < radius * 0.9]
        e.flat(e.curve(spiral, radius / 12), np.minimum(np.asarray(colour) * 1.22 + 12, 255), 0.5)
    if bits is not None:
        for _ in range(12):
            turn, out = rng.uniform(0, 2 * np.pi), radius * 0.88 * np.sqrt(rng.uniform(0.02, 0.8))
            at = (c + out * np.cos(turn), c + out * np.sin(turn))
            e.solid(e.ellipse(at, (rng.uniform(4, 8), rng.uniform(3, 6)), rng.uniform(0, 180)), bits, rounding=4)
    return e.sprite((c, c), shadow=0.0)


def board(width: float, height: float, colour: Colour, rng: np.random.Generator) -> Sprite:
    """A cutting board with a hole for hanging."""
    e = Easel(width, height)
    texture = wood(e.shape, colour, rng, plank=0)
    shape = without(e.box((2, 2), (width - 2, height - 2), 14), e.ellipse((width - 20, 20), (7, 7)))
    e.solid(shape, texture, rounding=5, gloss=0.1)
    return e.sprite((width / 2, height / 2), shadow=0.5, soft=7)


#: name -> colour of the skin, colour of a cut face, half length, half thickness
FOOD: dict[str, tuple[Colour, Colour, float, float]] = {
    "tomato": ((206, 46, 32), (232, 104, 78), 38, 36),
    "onion": ((196, 140, 92), (244, 234, 214), 38, 33),
    "potato": ((188, 150, 96), (240, 224, 160), 48, 31),
    "apple": ((150, 178, 52), (246, 240, 206), 36, 35),
    "carrot": ((236, 122, 30), (250, 158, 66), 92, 17),
    "cucumber": ((62, 122, 48), (196, 222, 150), 100, 20),
    "courgette": ((84, 134, 60), (224, 230, 176), 88, 22),
    "aubergine": ((78, 40, 82), (232, 222, 186), 82, 28),
}


def food(name: str, rng: np.random.Generator, *, peeled: bool = False) -> Sprite:
    """A vegetable lying along x."""
    skin, flesh, long, thick = FOOD[name]
    colour = np.asarray(flesh if peeled else skin) * rng.uniform(0.92, 1.06)
    e = Easel(2 * long + 24, 2 * thick + 24)
    cx, cy = long + 12, thick + 12
    taper = 0.45 if name == "carrot" else 0.92
    if long > 60:
        body = e.limb((cx - long + thick, cy), (cx + long - thick * taper, cy), thick, thick * taper)
    else:
        body = e.ellipse((cx, cy), (long, thick))
    mottled = np.clip(colour * (1 + 0.05 * clouds(e.shape, (14, 9), rng))[..., None], 0, 255).astype(np.uint8)
    e.solid(body, mottled, rounding=thick * 0.95, gloss=0.1 if peeled else 0.32)
    if name in ("tomato", "apple", "aubergine"):
        root = (cx - long + 10, cy) if name == "aubergine" else (cx, cy)
        for a in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 6):
            tip = (root[0] + 13 * np.cos(a), root[1] + 13 * np.sin(a))
            e.solid(e.limb(root, tip, 4, 1.5), (74, 120, 46), rounding=4, gloss=0)
    elif name == "carrot":
        for dy in (-9, -2, 6):
            e.solid(e.limb((cx - long + 8, cy), (cx - long - 10, cy + dy), 4, 3), (88, 140, 50), rounding=3, gloss=0)
    elif long > 60:
        for y in (cy - 0.45 * thick, cy, cy + 0.45 * thick):
            line = [(cx - long * 0.8, y), (cx + long * 0.8, y)]
            e.flat(e.curve(line, 1.6), np.minimum(colour * 1.35, 255), 0.35)
    return e.sprite((cx, cy), soft=6)


def slice_of(name: str) -> Sprite:
    """A single cut slice."""
    skin, flesh, _, thick = FOOD[name]
    r = max(thick * 0.92, 15)
    e = Easel(2 * r + 4, 2 * r + 4)
    c = r + 2
    e.solid(e.ellipse((c, c), (r * 0.86, r)), skin, rounding=4)
    e.flat(e.ellipse((c, c), (r * 0.76, r * 0.9)), flesh)
    for a in np.arange(6) * np.pi / 3:
        at = (c + r * 0.42 * np.cos(a), c + r * 0.5 * np.sin(a))
        e.flat(e.ellipse(at, (r * 0.16, r * 0.11), np.degrees(a)), _dark(flesh, 0.86))
    return e.sprite((c, c), soft=3)


def peel_strip(name: str, rng: np.random.Generator) -> Sprite:
    """A curled strip of peel."""
    e = Easel(70, 50)
    x = np.linspace(8, 62, 24)
    bend = 25 + rng.uniform(6, 14) * np.sin(x / rng.uniform(9, 14) + rng.uniform(0, 6))
    e.solid(e.curve(np.column_stack([x, bend]), 8), FOOD[name][0], rounding=4, gloss=0.1)
    return e.sprite((35, 25), soft=3)


def dough(colour: Colour, rng: np.random.Generator) -> Sprite:
    """A floury lump of dough."""
    e = Easel(210, 190)
    a = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    r = 1 + 0.05 * np.sin(2 * a + rng.uniform(0, 6)) + 0.035 * np.sin(3 * a + rng.uniform(0, 6))
    body = e.polygon(np.column_stack([105 + 92 * r * np.cos(a), 95 + 76 * r * np.sin(a)]))
    floury = np.clip(np.asarray(colour) * (1 + 0.05 * clouds(e.shape, (22, 16), rng))[..., None], 0, 255).astype(
        np.uint8
    )
    e.solid(body, floury, rounding=58, gloss=0.04)
    for _ in range(3):
        x, y = rng.uniform(55, 150), rng.uniform(55, 130)
        fold = [(x - 22, y + 4), (x, y - 4), (x + 22, y + 3)]
        e.flat(e.curve(fold, 3), _dark(colour, 0.72), 0.5)
    return e.sprite((105, 95), soft=8)


def mug(colour: Colour, inside: Colour) -> Sprite:
    """A mug or bowl from above, with a handle."""
    e = Easel(110, 84)
    grip = without(e.ellipse((76, 42), (24, 15)), e.ellipse((76, 42), (15, 7)))
    e.solid(grip, colour, rounding=5)
    e.solid(e.ellipse((42, 42), (36, 36)), colour, rounding=6, gloss=0.4)
    e.flat(e.ellipse((42, 42), (30, 30)), _dark(colour, 0.5)).flat(e.ellipse((43, 44), (27, 27)), inside)
    return e.sprite((42, 42), soft=7)


def plate(colour: Colour, radius: float = 66) -> Sprite:
    """A plate with a rim."""
    c = radius + 4
    e = Easel(2 * c, 2 * c)
    e.solid(e.ellipse((c, c), (radius, radius)), colour, rounding=7, gloss=0.3)
    e.flat(e.ellipse((c, c), (radius * 0.7, radius * 0.7)), _dark(colour, 0.86))
    e.flat(e.ellipse((c + 1, c + 2), (radius * 0.67, radius * 0.67)), _dark(colour, 0.95))
    return e.sprite((c, c), soft=6)


def towel(colour: Colour, stripe: Colour) -> Sprite:
    """A folded tea towel."""
    e = Easel(120, 170)
    e.solid(e.box((6, 6), (114, 164), 8), colour, rounding=8, gloss=0)
    for x in (24, 34, 88, 98):
        e.flat(e.curve([(x, 8), (x, 162)], 5), stripe, 0.85)
    e.flat(e.curve([(60, 8), (62, 162)], 2), _dark(colour, 0.7), 0.6)
    return e.sprite((60, 85), shadow=0.35, soft=5)


def basin(width: float, height: float) -> Sprite:
    """A sunken steel sink with its drain."""
    e = Easel(width, height)
    e.solid(e.box((1, 1), (width - 1, height - 1), 24), STEEL, rounding=5, gloss=0.3)
    hollow = e.box((12, 12), (width - 12, height - 12), 20)
    y, x = np.mgrid[0 : e.shape[0], 0 : e.shape[1]] / np.array(e.shape).reshape(2, 1, 1)
    fill = (0.5 + 0.28 * x + 0.22 * y)[..., None] * np.array([172, 180, 188])  # the near walls are in shadow
    e.flat(hollow, fill.astype(np.uint8))
    e.solid(e.ellipse((width / 2, height * 0.62), (17, 17)), (150, 154, 160), rounding=5)
    e.flat(e.ellipse((width / 2, height * 0.62), (11, 11)), IRON)
    return e.sprite((width / 2, height / 2), shadow=0.2)


def tap(colour: Colour) -> Sprite:
    """A tap from above: base at the top, spout towards the cook; the pivot is the outlet."""
    e = Easel(110, 150)
    e.solid(e.ellipse((55, 26), (22, 22)), colour, rounding=12, gloss=0.6)
    e.solid(e.limb((55, 26), (55, 132), 11, 8.5), colour, rounding=9, gloss=0.6)
    e.solid(e.limb((55, 20), (92, 10), 6, 5), colour, rounding=5, gloss=0.6)
    return e.sprite((55, 134), soft=6)


def drawer(width: float, depth: float, front: Colour, rng: np.random.Generator) -> Sprite:
    """A drawer with its cutlery; the pivot is the middle of its front edge."""
    e = Easel(width, depth + 34)
    e.solid(e.box((4, 0), (width - 4, depth + 10), 4), (206, 176, 130), rounding=5, gloss=0)
    e.flat(e.box((14, 6), (width - 14, depth), 4), (126, 100, 70))
    cells = np.linspace(18, width - 18, 5)
    for left, right in pairwise(cells):
        e.flat(e.box((left + 3, 10), (right - 3, depth - 4), 3), (152, 124, 88))
        for x in np.linspace(left + 14, right - 14, 3) + rng.uniform(-2, 2, 3):
            e.solid(e.limb((x + rng.uniform(-3, 3), 18), (x, depth - 26), 3), STEEL, rounding=3, gloss=0.5)
            e.solid(e.ellipse((x, depth - 24), (6, 12)), STEEL, rounding=6, gloss=0.5)
    e.solid(e.box((0, depth), (width, depth + 24), 5), front, rounding=7)
    e.solid(e.limb((width / 2 - 34, depth + 25), (width / 2 + 34, depth + 25), 5), STEEL, rounding=5, gloss=0.5)
    return e.sprite((width / 2, depth + 25), soft=8)


def steam(radius: int) -> Image:
    """A faint round cloud of light to add."""
    y, x = np.mgrid[-radius:radius, -radius:radius] / radius
    return np.repeat((np.exp(-3.5 * (x**2 + y**2)) * 46 * (x**2 + y**2 < 1))[..., None], 3, 2).astype(np.uint8)
