"""The eight actions of the demo kitchens: the things on the worktop, and the movements of hands and tools.

Every action is a function that paints its sprites once and returns `draw(canvas, t)`, which puts them at their places
at the time t. The canvas shows the worktop from above; the cook stands at its lower edge.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from featcache.kitchens import props
from featcache.kitchens.paint import SIZE, Canvas, Image, Point, Sprite, marble, steel, tiles, wood
from featcache.kitchens.plan import KITCHENS, Colour, Shot

Draw = Callable[[Canvas, float], None]
MATERIALS = {"marble": marble, "steel": steel, "tiles": tiles, "wood": wood}
WALL = 136  #: height of the wall at the upper edge of the canvas
SHOULDERS = {"right": (530.0, 790.0), "left": (270.0, 790.0)}
SOUPS: dict[str, tuple[Colour, Colour]] = {
    "soup": ((214, 136, 48), (108, 142, 58)),
    "sauce": ((176, 46, 30), (210, 96, 60)),
    "porridge": ((222, 204, 168), (170, 128, 84)),
    "stew": ((128, 76, 42), (214, 122, 48)),
}
LIQUIDS: dict[str, Colour] = {
    "milk": (246, 244, 236),
    "oil": (214, 180, 52),
    "water": (190, 214, 226),
    "juice": (240, 140, 34),
}
BATTERS: dict[str, Colour] = {"eggs": (246, 196, 70), "cream": (248, 242, 226), "batter": (236, 214, 160)}


class Stage:
    """The worktop and the cook; actions put their things on `floor` and move hands with `hand`."""

    def __init__(self, shot: Shot) -> None:
        self.shot, self.kitchen = shot, KITCHENS[shot.kitchen]
        self.rng = rng = shot.rng("stage")
        self.skin, self.sleeve = self.pick(self.kitchen.skins), self.pick(self.kitchen.sleeves)
        self.arms: dict[str, Sprite] = {}
        self.size = rng.uniform(*self.kitchen.arm)
        self.reach = rng.uniform(*self.kitchen.reach)
        self.handle, self.vessel = self.pick(self.kitchen.handles), self.pick(self.kitchen.vessels)
        self.at = (400 + rng.uniform(-60, 60), 306 + rng.uniform(-36, 38))  #: place of the action
        self.floor = Canvas(self._worktop(), self.kitchen.fall)
        self._clutter()

    def pick(self, choices: tuple[Colour, ...]) -> Colour:
        """Draw one of these colours, slightly changed."""
        colour = choices[self.rng.integers(len(choices))]
        red, green, blue = np.clip(np.asarray(colour) * self.rng.uniform(0.9, 1.08), 0, 255).astype(int)
        return int(red), int(green), int(blue)

    def hand(self, canvas: Canvas, side: str, at: Point, lift: float = 14, turn: float = 0) -> None:
        """Put a hand at a point; its arm points to the shoulder, so that it swings like a real arm."""
        if side not in self.arms:
            opened = side == "left" or self.shot.action in ("knead", "wash")
            arm = props.arm(self.skin, self.sleeve, open_hand=opened)
            self.arms[side] = arm.mirrored() if side == "left" else arm
        dx, dy = SHOULDERS[side][0] - at[0], SHOULDERS[side][1] - at[1]
        canvas.put(self.arms[side], at, angle=float(np.degrees(np.arctan2(-dx, dy))) + turn, scale=self.size, lift=lift)

    def _worktop(self) -> Image:
        material, colour = self.kitchen.worktops[self.rng.integers(len(self.kitchen.worktops))]
        image = MATERIALS[material](SIZE[::-1], self.pick((colour,)), self.rng)
        image[:WALL] = tiles((WALL, SIZE[0]), self.pick((self.kitchen.wall,)), self.rng, side=37)
        for y, factor in ((WALL, 0.55), (WALL + 1, 0.6), (WALL - 1, 0.8)):  # the joint between wall and worktop
            image[y] = image[y] * factor
        return image

    def _clutter(self) -> None:
        """Put a few unrelated things around the place of the action."""
        r = self.rng
        drink = LIQUIDS["milk"] if r.random() < 0.5 else (92, 56, 34)
        things: list[Callable[[], Sprite]] = [
            lambda: props.mug(self.pick(self.kitchen.vessels), drink),
            lambda: props.plate((236, 232, 224)),
            lambda: props.towel((232, 228, 220), self.pick(self.kitchen.sleeves)),
            lambda: props.food(str(r.choice(list(props.FOOD))), r),
            lambda: props.spoon((176, 128, 78) if self.kitchen.wooden_spoons else props.STEEL),
            lambda: props.pot(self.pick(self.kitchen.vessels), 52),
            lambda: props.knife(self.handle),
        ]
        places = [(176, 210), (628, 206), (164, 390), (646, 390), (290, 178), (520, 176)]
        for place in r.permutation(len(places))[: r.integers(2, 5)]:
            x, y = places[place]
            at = (x + r.uniform(-26, 26), y + r.uniform(-22, 22))
            self.floor.put(things[r.integers(len(things))](), at, angle=r.uniform(0, 360), scale=r.uniform(0.8, 1.0))


def _away(base: Point, target: Point, length: float) -> Point:
    """The point at the distance `length` from base towards target."""
    d = np.hypot(target[0] - base[0], target[1] - base[1])
    return base[0] + (target[0] - base[0]) * length / d, base[1] + (target[1] - base[1]) * length / d


def _held(canvas: Canvas, stage: Stage, tool: Sprite, tip: Point, length: float, lift: float = 12) -> None:
    """Put a tool with its end at `tip`; the hand holds it `length` behind, towards the right shoulder."""
    grip = _away(tip, SHOULDERS["right"], length * stage.size)
    angle = float(np.degrees(np.arctan2(tip[0] - grip[0], grip[1] - tip[1])))
    canvas.put(tool, grip, angle=angle, scale=stage.size, lift=lift)
    stage.hand(canvas, "right", grip, lift=lift + 6)


def cut(stage: Stage) -> Draw:
    """A knife falls at every beat and moves along the food; slices stay behind."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    stage.floor.put(props.board(330, 200, stage.kitchen.board, rng), (x, y), angle=rng.uniform(-6, 6), lift=5)
    food, piece, knife = props.food(shot.thing, rng), props.slice_of(shot.thing), props.knife(stage.handle)
    long = props.FOOD[shot.thing][2]
    start, step = x + long * rng.uniform(0.5, 0.8), rng.uniform(5, 9)
    fallen = [(rng.uniform(6, 30), rng.uniform(-14, 14), rng.uniform(-25, 25)) for _ in range(40)]

    def draw(canvas: Canvas, t: float) -> None:
        turns = shot.turns(t)
        edge = start - step * np.floor(turns)
        canvas.put(food.columns(0, round(food.pivot[0] + edge - x)), (x, y), lift=8)
        for k, (dx, dy, angle) in enumerate(fallen[: int(turns)]):
            canvas.put(piece, (start - step * k + 14 + dx, y + dy), angle=angle, lift=3)
        up = np.sin(np.pi * (turns % 1)) ** 0.7 * stage.reach  # the knife rests on the board at whole turns
        stage.hand(canvas, "left", (max(edge - 62, x - long - 10), y + 30), turn=18)
        grip = (edge + 12 + 10 * up, y + 118 - 26 * up)
        canvas.put(knife, grip, angle=-4 + 9 * up, scale=stage.size * (1 + 0.07 * up), lift=4 + 26 * up)
        stage.hand(canvas, "right", grip, lift=10 + 26 * up)

    return draw


def pour(stage: Stage) -> Draw:
    """A jug or bottle is tipped over a bowl, which fills."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    colour = LIQUIDS[shot.thing]
    x -= 40
    stage.floor.put(props.pot(stage.vessel, 74, handles=False), (x, y), lift=12)
    liquid = props.content(colour, 62, rng)
    is_jug = rng.random() < 0.5
    vessel = props.jug(stage.pick(stage.kitchen.vessels), colour) if is_jug else props.bottle(colour, (236, 230, 214))
    spout = np.array([-104.0, -60.0]) if is_jug else np.array([-18.0, -128.0])
    rest, tipped = (8.0, -58.0) if is_jug else (12.0, -98.0)
    fullness = rng.uniform(0.3, 0.5)

    def draw(canvas: Canvas, t: float) -> None:
        done = shot.done(t)
        level = fullness + (0.95 - fullness) * max(t - shot.begin - 0.35, 0) / max(shot.seconds - shot.begin, 1)
        canvas.put(liquid, (x, y), scale=min(level, 1.0), angle=40 * t, lift=0)
        angle = rest + (tipped - rest) * done + 2.5 * np.sin(7 * t)
        turn = np.radians(angle)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        grip = np.array([x + 168 - 34 * done, y + 60 - 70 * done])
        mouth = grip + rotation @ spout * stage.size
        if done > 0.6:
            _stream(canvas, mouth, (x, y), colour, t)
        canvas.put(vessel, (grip[0], grip[1]), angle=float(angle), scale=stage.size, lift=40)
        stage.hand(canvas, "right", (grip[0], grip[1]), lift=44)

    return draw


def _stream(canvas: Canvas, start: NDArray[np.float64], stop: Point, colour: Colour, t: float) -> None:
    """A falling jet that swells and thins, with a splash where it lands."""
    s = np.linspace(0, 1, 14)
    x = start[0] + (stop[0] - start[0]) * s
    y = start[1] + (stop[1] - start[1]) * s**1.4 - 9 * np.sin(np.pi * s)
    points = np.round(np.column_stack([x, y]) * 16).astype(np.int32)
    width = 9 + round(2 * np.sin(31 * t))
    cv2.polylines(canvas.image, [points], False, [round(c * 0.82) for c in colour], width, cv2.LINE_AA, 4)
    cv2.polylines(canvas.image, [points - 24], False, [min(c + 30, 255) for c in colour], width // 3, cv2.LINE_AA, 4)
    for k in range(3):
        radius = round(16 * (8 + 16 * ((3.1 * t + k / 3) % 1)))
        at = [round(v * 16) for v in stop]
        cv2.circle(canvas.image, at, radius, [min(c + 24, 255) for c in colour], 1, cv2.LINE_AA, 4)


def stir(stage: Stage) -> Draw:
    """A spoon moves in circles in a pot on the stove; steam rises."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    colour, bits = SOUPS[shot.thing]
    hob = [(x + 118 * np.cos(a), y + 118 * np.sin(a)) for a in np.linspace(0, 6.3, 60)]
    cv2.fillPoly(stage.floor.image, [np.round(hob).astype(np.int32)], (38, 38, 42), cv2.LINE_AA)
    cv2.circle(stage.floor.image, (round(x), round(y)), 108, (196, 70, 36), 3, cv2.LINE_AA)
    stage.floor.put(props.pot(stage.vessel, 98), (x, y), lift=16)
    soup = props.content(colour, 86, rng, bits)
    spoon = props.spoon((182, 134, 84) if stage.kitchen.wooden_spoons else props.STEEL)
    radius = 42 * stage.reach
    clouds, drift = props.steam(58), rng.uniform(0, 1, 3)

    def draw(canvas: Canvas, t: float) -> None:
        angle = 2 * np.pi * shot.turns(t)
        canvas.put(soup, (x, y), angle=float(np.degrees(angle)) * 0.35, lift=0)
        tip = (x + radius * np.cos(angle), y + radius * 0.8 * np.sin(angle))
        _held(canvas, stage, spoon, tip, 138)
        for phase in drift:
            rise = (phase + 0.45 * t) % 1
            canvas.glow(
                (clouds * (np.sin(np.pi * rise) * 0.8)).astype(np.uint8), (x + 90 * (phase - 0.5), y - 150 * rise)
            )

    return draw


def whisk(stage: Stage) -> Draw:
    """A whisk beats quickly in a bowl that the other hand holds."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    stage.floor.put(props.pot(stage.vessel, 92, handles=False), (x, y), lift=16)
    batter, tool = props.content(BATTERS[shot.thing], 79, rng), props.whisk(stage.handle)
    radius, flat = 24 * stage.reach, rng.uniform(0.35, 0.9)

    def draw(canvas: Canvas, t: float) -> None:
        angle = 2 * np.pi * shot.turns(t)
        canvas.put(batter, (x, y), angle=float(np.degrees(angle)) * 0.15, lift=0)
        stage.hand(canvas, "left", (x - 98, y + 34), turn=14)
        tip = (x + 6 + radius * np.cos(angle), y - 22 + radius * flat * np.sin(angle))
        _held(canvas, stage, tool, tip, 150)

    return draw


def wash(stage: Stage) -> Draw:
    """Two hands rub something under running water."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    stage.floor.put(props.basin(340, 270), (x, y + 10), lift=0)
    stage.floor.put(props.tap(stage.pick(((206, 210, 216), (190, 160, 96)))), (x, y - 46), lift=22)
    item = props.plate((238, 234, 226), 62) if shot.thing == "plate" else props.food(shot.thing, rng)
    water = _water(rng)

    def draw(canvas: Canvas, t: float) -> None:
        swing = np.sin(2 * np.pi * shot.turns(t)) * 15 * stage.reach
        sway = 5 * np.sin(5.3 * t + shot.phase)
        for k in range(3):  # ripples
            ring = (1.7 * t + k / 3) % 1
            at = (round((x + sway) * 16), round((y + 62) * 16))
            axes = (round((30 + 90 * ring) * 16), round((22 + 62 * ring) * 16))
            if ring < 0.8:
                arc = (60 * k, 60 * k + 130)
                cv2.ellipse(canvas.image, at, axes, 0, *arc, (200 + 20 * k, 214, 222), 1, cv2.LINE_AA, 4)
        canvas.put(item, (x + sway, y + 52), angle=float(3 * swing + 40 * t), lift=16)
        stage.hand(canvas, "left", (x - 44 + swing * 0.7 + sway, y + 62 - swing), turn=24)
        shift = round(900 * t) % 120
        canvas.glow(water[120 - shift : 240 - shift], (x, y + 6))
        stage.hand(canvas, "right", (x + 42 - swing * 0.7 + sway, y + 58 + swing), turn=-24)

    return draw


def _water(rng: np.random.Generator) -> Image:
    """A strip of falling water that repeats every 120 rows; it is added to the picture as light."""
    coarse = np.tile(rng.uniform(0, 1, (12, 34)).astype(np.float32), (3, 1))
    streaks = cv2.resize(coarse, (34, 360), interpolation=cv2.INTER_CUBIC)
    profile = np.sqrt(np.clip(1 - np.linspace(-1, 1, 34) ** 2, 0, 1))
    return np.repeat((np.clip(streaks, 0, 1) * profile * 120)[..., None], 3, 2).astype(np.uint8)


def peel(stage: Stage) -> Draw:
    """A peeler is pulled quickly along the food towards the cook, and moves back slowly; strips collect."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    if rng.random() < 0.7:
        stage.floor.put(props.board(330, 200, stage.kitchen.board, rng), (x, y), angle=rng.uniform(-6, 6), lift=5)
    slope = rng.uniform(28, 56)
    whole, bare = (props.food(shot.thing, shot.rng("food"), peeled=peeled) for peeled in (False, True))
    tool, strips = props.peeler(stage.handle), [props.peel_strip(shot.thing, rng) for _ in range(3)]
    heap = [(x + 60 + rng.uniform(-60, 66), y + 34 + rng.uniform(-40, 40), rng.uniform(0, 360)) for _ in range(30)]
    long = min(props.FOOD[shot.thing][2], 70) * stage.reach
    along = np.array([np.cos(np.radians(slope)), np.sin(np.radians(slope))])

    def draw(canvas: Canvas, t: float) -> None:
        turns = shot.turns(t)
        for k, (sx, sy, angle) in enumerate(heap[: 4 + int(turns)]):
            canvas.put(strips[k % 3], (sx, sy), angle=angle, lift=2)
        nod = 3 * np.sin(2 * np.pi * turns)
        canvas.put(whole, (x, y + nod), angle=slope, lift=26)
        share = min(0.2 + 0.12 * turns, 0.95)
        cut_at = round(whole.rgba.shape[1] * (1 - share))
        canvas.put(bare.columns(cut_at, bare.rgba.shape[1]), (x, y + nod), angle=slope, lift=0)
        stage.hand(canvas, "left", (x - long * along[0] - 18, y - long * along[1] + 24), turn=30, lift=30)
        phase = turns % 1
        pull = phase / 0.35 if phase < 0.35 else 1 - (phase - 0.35) / 0.65  # 0 far, 1 near
        at = np.array([x, y]) + along * long * (1.5 * (pull * pull * (3 - 2 * pull)) - 0.6)
        _held(canvas, stage, tool, (at[0], at[1]), 76, lift=34)

    return draw


def knead(stage: Stage) -> Draw:
    """Both hands push into the dough and pull back; the dough gives way and turns a little."""
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    for _ in range(26):  # flour
        at, r = (x + rng.normal(0, 120), y + rng.normal(10, 66)), rng.uniform(2, 13)
        stage.floor.glow((props.steam(round(r * 1.6)) * 1.4).astype(np.uint8), at)
    lump = props.dough(stage.pick(((236, 214, 170), (226, 200, 152), (240, 226, 196))), rng)
    size = rng.uniform(0.85, 1.1)

    def draw(canvas: Canvas, t: float) -> None:
        turns = shot.turns(t)
        push = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
        scale = (size * (1 + 0.10 * push), size * (1.04 - 0.17 * push * stage.reach))
        canvas.put(lump, (x, y - 12 * push), angle=24 * float(np.floor(turns)) + 24 * float(push), scale=scale, lift=12)
        lead = 52 * stage.reach * push
        for side, sign in (("left", -1), ("right", 1)):
            stage.hand(canvas, side, (x + sign * (40 - 8 * push), y + 62 - lead), turn=-sign * 14, lift=16 - 8 * push)

    return draw


def open_(stage: Stage) -> Draw:
    """A drawer is pulled out, a lid taken off a pot, or a jar turned open."""
    return {"drawer": _open_drawer, "pot": _open_pot, "jar": _open_jar}[stage.shot.thing](stage)


def _open_drawer(stage: Stage) -> Draw:
    shot, rng, x = stage.shot, stage.rng, stage.at[0]
    edge = 256 + int(rng.integers(20))
    floor = stage.floor.image
    front = stage.pick(stage.kitchen.vessels)
    floor[edge:] = np.asarray(wood(floor[edge:].shape[:2], (92, 74, 60), rng), np.float32) * 0.7
    floor[edge : edge + 12] = floor[edge - 12 : edge] * 0.72  # the front edge of the worktop
    floor[edge + 12 : edge + 20] = floor[edge + 12 : edge + 20] * 0.5
    box = props.drawer(280, 190, front, rng)
    depth = rng.uniform(130, 180)

    def draw(canvas: Canvas, t: float) -> None:
        at = (x, edge + 36 + depth * shot.done(t))
        canvas.put(box, at, lift=10, below=edge + 12)
        stage.hand(canvas, "right", (x + 10, at[1] + 10 + 40 * max(shot.begin - t, 0)), lift=16)

    return draw


def _open_pot(stage: Stage) -> Draw:
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    stage.floor.put(props.pot(stage.vessel, 98), (x, y), lift=16)
    colour, bits = SOUPS[str(rng.choice(list(SOUPS)))]
    stage.floor.put(props.content(colour, 86, rng, bits), (x, y), lift=0)
    cover = props.lid(stage.pick(stage.kitchen.vessels), 98, stage.handle)
    clouds, drift = props.steam(64), rng.uniform(0, 1, 4)
    aside = rng.uniform(120, 190)

    def draw(canvas: Canvas, t: float) -> None:
        done = shot.done(t)
        for phase in drift:
            rise = (phase + 0.6 * t) % 1
            strength = done * np.sin(np.pi * rise)
            canvas.glow((clouds * strength).astype(np.uint8), (x + 100 * (phase - 0.5), y - 130 * rise))
        at = (x + aside * done, y + 20 * done - 46 * np.sin(np.pi * done))
        canvas.put(cover, at, angle=30 * done, scale=1 + 0.1 * np.sin(np.pi * done), lift=4 + 50 * np.sin(np.pi * done))
        stage.hand(canvas, "right", at, lift=14 + 50 * np.sin(np.pi * done))

    return draw


def _open_jar(stage: Stage) -> Draw:
    shot, rng, (x, y) = stage.shot, stage.rng, stage.at
    stage.floor.put(props.pot(stage.pick(((190, 210, 206), (206, 196, 170))), 62, handles=False), (x, y), lift=24)
    stage.floor.put(props.content(BATTERS[str(rng.choice(list(BATTERS)))], 51, rng), (x, y), lift=0)
    cover = props.lid(stage.pick(((196, 160, 70), (190, 52, 44), (90, 96, 104))), 64, stage.handle)

    def draw(canvas: Canvas, t: float) -> None:
        done = shot.done(t)
        stage.hand(canvas, "left", (x - 66, y + 34), turn=34)
        twist, away = min(done / 0.6, 1.0), max(done - 0.6, 0.0) / 0.4
        at = (x + 120 * away, y + 50 * away)
        canvas.put(cover, at, angle=-110 * twist, lift=4 + 30 * away)
        stage.hand(canvas, "right", at, turn=34 - 70 * twist, lift=20 + 30 * away)

    return draw


DRAW: dict[str, Callable[[Stage], Draw]] = {
    "cut": cut,
    "knead": knead,
    "open": open_,
    "peel": peel,
    "pour": pour,
    "stir": stir,
    "wash": wash,
    "whisk": whisk,
}
