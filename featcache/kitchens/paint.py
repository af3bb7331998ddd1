"""Painting for the demo benchmark: materials, shaded solids and sprites, with only NumPy and OpenCV.

A *sprite* is painted once per clip, at twice its size, and then moved over the picture in every frame. This is why a
frame costs only about two milliseconds. Colours are RGB, 0 to 255. Lengths are pixels of the canvas (see SIZE).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

SIZE = (800, 600)  #: width and height of the canvas, the plane of the worktop in front of the camera
FINE = 2  #: factor by which sprites are painted larger before they are reduced
LIGHT = (-0.45, -0.6, 0.66)  #: unit vector towards the light: from above, the upper left, out of the picture

Point = tuple[float, float]
Colour = ArrayLike  #: red, green and blue, 0 to 255
Image = NDArray[np.uint8]
Field = NDArray[np.float32]


def clouds(shape: tuple[int, int], cell: Point, rng: np.random.Generator) -> Field:
    """Smooth noise of about unit variance; `cell` is the size (x, y) of its blobs."""
    height, width = shape
    coarse = rng.standard_normal((int(height / cell[1]) + 3, int(width / cell[0]) + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _tinted(tone: Field, colour: Colour) -> Image:
    """Multiply a grey field around 1 by a colour."""
    return np.clip(tone[..., None] * np.asarray(colour, np.float32), 0, 255).astype(np.uint8)


def wood(shape: tuple[int, int], colour: Colour, rng: np.random.Generator, plank: int = 96) -> Image:
    """Grained planks along x; `plank` is their width, 0 for a single piece."""
    height = shape[0]
    y = np.arange(height, dtype=np.float32)[:, None]
    bend = clouds(shape, (160, 60), rng)
    tone = 1 + 0.05 * np.sin(y / 3.1 + 5 * bend) + 0.045 * clouds(shape, (90, 1.5), rng) + 0.05 * bend
    if plank:
        shades = rng.uniform(0.86, 1.08, height // plank + 2)
        offset = int(rng.integers(plank))
        row = (np.arange(height) + offset) // plank
        tone *= shades[row].astype(np.float32)[:, None]
        tone[(np.arange(height) + offset) % plank < 2] *= 0.62
    return _tinted(tone.astype(np.float32), colour)


def steel(shape: tuple[int, int], colour: Colour, rng: np.random.Generator) -> Image:
    """Steel brushed along x."""
    tone = 1 + 0.035 * clouds(shape, (120, 1), rng) + 0.06 * clouds(shape, (300, 200), rng)
    return _tinted(tone, colour)


def marble(shape: tuple[int, int], colour: Colour, rng: np.random.Generator) -> Image:
    """Pale stone with soft clouds and a few veins."""
    warp = clouds(shape, (70, 70), rng) + 0.5 * clouds(shape, (25, 25), rng)
    x, y = np.meshgrid(np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32))
    vein = np.exp(-np.abs(np.sin((x * 0.7 + y) / 95 + 0.9 * warp)) * 22)
    tone = 1 + 0.025 * clouds(shape, (60, 60), rng) - 0.16 * vein.astype(np.float32)
    return _tinted(tone.astype(np.float32), colour)


def tiles(shape: tuple[int, int], colour: Colour, rng: np.random.Generator, side: int = 80) -> Image:
    """Square glazed tiles with bevelled edges and grout."""
    height, width = shape
    offset = rng.integers(side, size=2)
    y, x = np.arange(height) + offset[0], np.arange(width) + offset[1]
    shades = rng.uniform(0.86, 1.06, (height // side + 2, width // side + 2)).astype(np.float32)
    tone = shades[(y // side)[:, None], (x // side)[None]] + 0.03 * clouds(shape, (18, 18), rng)
    edge = np.minimum(np.minimum(y % side, side - 1 - y % side)[:, None], np.minimum(x % side, side - 1 - x % side))
    tone *= np.where(edge < 2, 0.72, np.where(edge < 5, 1.06, 1.0)).astype(np.float32)
    return _tinted(tone, colour)


def rounded(points: ArrayLike, times: int = 3) -> NDArray[np.float64]:
    """A smooth outline: a closed polygon whose corners are cut off `times` times (Chaikin)."""
    outline = np.asarray(points, float)
    for _ in range(times):
        ahead = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * ahead, 0.25 * outline + 0.75 * ahead], axis=1).reshape(-1, 2)
    return outline


@dataclass(frozen=True)
class Sprite:
    """A picture that can be put anywhere on a canvas.

    `rgba` (h, w, 4) is premultiplied, `shade` (h, w) is the light that passes its shadow; both are uint8. `pivot` is
    the point that `put` places.
    """

    rgba: Image
    shade: Image
    pivot: Point

    def columns(self, start: int, stop: int) -> "Sprite":
        """Cut out these columns, without moving the pivot."""
        start, stop = max(start, 0), max(stop, start + 1)
        return Sprite(self.rgba[:, start:stop], self.shade[:, start:stop], (self.pivot[0] - start, self.pivot[1]))

    def mirrored(self) -> "Sprite":
        """Exchange left and right."""
        rgba, shade = np.ascontiguousarray(self.rgba[:, ::-1]), np.ascontiguousarray(self.shade[:, ::-1])
        return Sprite(rgba, shade, (self.rgba.shape[1] - self.pivot[0], self.pivot[1]))


@dataclass
class Canvas:
    """A picture that is being painted, with the direction of its shadows and the part that the camera sees."""

    image: Image
    fall: Point = (0.5, 0.6)  #: offset of a shadow per unit of height
    visible: tuple[int, int, int, int] = (0, 0, *SIZE)  #: left, top, right, bottom; nothing is painted outside

    def put(
        self,
        sprite: Sprite,
        at: Point,
        *,
        angle: float = 0.0,
        scale: float | Point = 1.0,
        lift: float = 6.0,
        below: float = 0.0,
    ) -> None:
        """Put the sprite's pivot at a point, rotated by `angle` degrees clockwise and `lift` pixels above the worktop.

        Nothing is painted above the line y = `below`.
        """
        sx, sy = scale if isinstance(scale, tuple) else (scale, scale)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turn = np.array([[cos * sx, -sin * sy], [sin * sx, cos * sy]])
        shadow_at = (at[0] + lift * self.fall[0], at[1] + lift * self.fall[1])
        if lift > 0 and (warped := self._warp(sprite.shade, sprite.pivot, turn, shadow_at, below, cv2.INTER_NEAREST)):
            box, shade = warped
            cv2.multiply(box, cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB), box, 1 / 255)
        if warped := self._warp(sprite.rgba, sprite.pivot, turn, at, below, cv2.INTER_LINEAR):
            box, rgba = warped
            veil = cv2.bitwise_not(cv2.extractChannel(rgba, 3))
            cv2.multiply(box, cv2.cvtColor(veil, cv2.COLOR_GRAY2RGB), box, 1 / 255)
            cv2.add(box, cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), box)

    def _warp(
        self, layer: Image, pivot: Point, turn: NDArray[np.float64], at: Point, below: float, method: int
    ) -> tuple[Image, Image] | None:
        """The box of the image that the rotated layer covers, and the layer warped into it; None if outside."""
        height, width = layer.shape[:2]
        (xx, xy), (yx, yy) = turn.tolist()  # plain numbers: NumPy would take longer than warping a small sprite
        shift_x, shift_y = at[0] - xx * pivot[0] - xy * pivot[1], at[1] - yx * pivot[0] - yy * pivot[1]
        x0, x1 = shift_x + min(xx, 0) * width + min(xy, 0) * height, shift_x + max(xx, 0) * width + max(xy, 0) * height
        y0, y1 = shift_y + min(yx, 0) * width + min(yy, 0) * height, shift_y + max(yx, 0) * width + max(yy, 0) * height
        left, top = max(math.floor(x0), self.visible[0]), max(math.floor(y0), self.visible[1], int(below))
        right, bottom = min(math.ceil(x1) + 1, self.visible[2]), min(math.ceil(y1) + 1, self.visible[3])
        if left >= right or top >= bottom:
            return None
        matrix = np.array([[xx, xy, shift_x - left], [yx, yy, shift_y - top]])
        border = 255 if layer.ndim == 2 else 0  # outside, a shade lets all light through and a picture is transparent
        warped = cv2.warpAffine(layer, matrix, (right - left, bottom - top), flags=method, borderValue=(border,) * 4)
        return self.image[top:bottom, left:right], np.asarray(warped, np.uint8)

    def glow(self, layer: Image, at: Point) -> None:
        """Add light (uint8, any size) centred at a point: steam, highlights, water."""
        height, width = layer.shape[:2]
        x, y = round(at[0] - width / 2), round(at[1] - height / 2)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, SIZE[0]), min(y + height, SIZE[1])
        if x0 < x1 and y0 < y1:
            box = self.image[y0:y1, x0:x1]
            cv2.add(box, layer[y0 - y : y1 - y, x0 - x : x1 - x], box)


class Easel:
    """A transparent sheet on which one sprite is painted, layer over layer."""

    def __init__(self, width: float, height: float) -> None:
        self.shape = (round(height * FINE), round(width * FINE))
        self.rgba = np.zeros((*self.shape, 4), np.uint8)  # premultiplied

    def _mask(self) -> Image:
        return np.zeros(self.shape, np.uint8)

    def ellipse(self, at: Point, axes: Point, angle: float = 0.0) -> Image:
        """The mask of a filled ellipse with these half axes."""
        mask = self._mask()
        centre, half = ((round(v * FINE * 16) for v in pair) for pair in (at, axes))
        cv2.ellipse(mask, tuple(centre), tuple(half), angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
        return mask

    def limb(self, start: Point, stop: Point, radius: float, end_radius: float | None = None) -> Image:
        """The mask of a rod with round ends, which may taper."""
        r0, r1 = radius, radius if end_radius is None else end_radius
        a, b = np.asarray(start, float), np.asarray(stop, float)
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
        side = np.array([-along[1], along[0]])
        mask = self.polygon([a + side * r0, b + side * r1, b - side * r1, a - side * r0])
        for at, r in ((a, r0), (b, r1)):
            cv2.circle(mask, [round(v * FINE * 16) for v in at], round(r * FINE * 16), 255, -1, cv2.LINE_AA, 4)
        return mask

    def polygon(self, points: ArrayLike) -> Image:
        """The mask of a filled polygon."""
        mask = self._mask()
        corners = np.round(np.asarray(points, float) * FINE * 16).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
        return mask

    def box(self, start: Point, stop: Point, corner: float = 6.0) -> Image:
        """The mask of an upright rectangle with rounded corners."""
        (left, top), (right, bottom) = (start[0] + corner, start[1] + corner), (stop[0] - corner, stop[1] - corner)
        quarter = np.linspace(0, np.pi / 2, 7)
        centres = ((right, bottom), (left, bottom), (left, top), (right, top))
        turns = [(x, y, quarter + k * np.pi / 2) for k, (x, y) in enumerate(centres)]
        return self.polygon([(x + corner * np.cos(a), y + corner * np.sin(a)) for x, y, turn in turns for a in turn])

    def curve(self, points: ArrayLike, thickness: float) -> Image:
        """The mask of a line through these points."""
        mask = self._mask()
        corners = np.round(np.asarray(points, float) * FINE * 16).astype(np.int32)
        cv2.polylines(mask, [corners], False, 255, max(1, round(thickness * FINE)), cv2.LINE_AA, 4)
        return mask

    def flat(self, mask: Image, colour: Colour, opacity: float = 1.0) -> "Easel":
        """Paint a mask in one colour, or with one colour per pixel of the sheet."""
        box, hue = _box(mask), np.clip(colour, 0, 255).astype(np.uint8)
        return self._over(mask, box, np.broadcast_to(hue, (*self.shape, 3))[box], opacity)

    def solid(self, mask: Image, colour: Colour, *, rounding: float = 12, gloss: float = 0.15) -> "Easel":
        """Paint a mask as a body whose edge rises over `rounding` pixels, lit from LIGHT."""
        box = _box(mask)
        part = cv2.copyMakeBorder(mask[box], *(4,) * 4, cv2.BORDER_CONSTANT)
        depth = rounding * FINE
        inside = np.minimum(cv2.distanceTransform((part > 127).astype(np.uint8), cv2.DIST_L2, 3) / depth, 1)
        height = cv2.GaussianBlur(np.sqrt(1 - (1 - inside) ** 2) * depth * 0.8, (0, 0), 1.2 + depth / 14)
        slope_x, slope_y = (cv2.Sobel(height, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
        facing = (-slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]) / np.sqrt(1 + slope_x**2 + slope_y**2)
        facing = np.clip(facing, 0, 1)[4:-4, 4:-4]
        tone, shine = 0.42 + 0.86 * facing, gloss * 255 * facing**26
        hue = np.broadcast_to(np.asarray(colour, np.float32), (*self.shape, 3))[box]
        lit = np.minimum(hue * tone[..., None] + shine[..., None], 255).astype(np.uint8)
        return self._over(mask, box, lit, 1.0)

    def _over(self, mask: Image, box: tuple[slice, slice], colour: Image, opacity: float) -> "Easel":
        alpha = mask[box] * np.float32(opacity / 255)
        opaque = cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2RGBA)
        self.rgba[box] = cv2.blendLinear(np.ascontiguousarray(self.rgba[box]), opaque, 1 - alpha, alpha)
        return self

    def sprite(self, pivot: Point, shadow: float = 0.45, soft: float = 5.0) -> Sprite:
        """Make the finished sprite: reduced to its size, with a soft shadow of strength `shadow`."""
        margin = round(2.5 * soft)
        size = (self.shape[1] // FINE, self.shape[0] // FINE)
        reduced = cv2.resize(self.rgba, size, interpolation=cv2.INTER_AREA)
        small = np.asarray(cv2.copyMakeBorder(reduced, *(margin,) * 4, cv2.BORDER_CONSTANT), np.uint8)
        shade = 255 - shadow * cv2.GaussianBlur(small[..., 3].astype(np.float32), (0, 0), soft)
        return Sprite(small, np.round(shade).astype(np.uint8), (pivot[0] + margin, pivot[1] + margin))


def without(mask: Image, hole: Image) -> Image:
    """Cut a hole into a mask."""
    return np.asarray(cv2.subtract(mask, hole), np.uint8)


def _box(mask: Image) -> tuple[slice, slice]:
    """The rows and columns of the smallest box around the covered part of a mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return slice(y, y + height), slice(x, x + width)
