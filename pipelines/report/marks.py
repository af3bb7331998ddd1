"""The elements of plots: SVG images, lines, texts, marks and the ticks of an axis.

Users' texts pass through `escape`.
"""

import math
import unicodedata
from collections.abc import Sequence
from html import escape

SHAPES = ("circle", "square", "diamond", "triangle")
SIZES = {"name": 13, "value": 13, "tick": 11}  #: heights of the letters of a text by its CSS class, as in style.css
NARROW, BROAD = frozenset("fijlrtI.,:;'|!()[]/ "), frozenset("mwMW@%—…†→↔")
TICKS = 4  #: about the number of ticks of a linear axis


def svg(width: float, height: float, alt: str, body: Sequence[str]) -> str:
    """An SVG image with a description for readers who cannot see it."""
    return (
        f'<svg viewBox="0 0 {coord(width)} {coord(height)}" style="max-width:{coord(width)}px" role="img" '
        f'aria-label="{escape(alt)}">{"".join(body)}</svg>'
    )


def mark(
    number: int, x: float, y: float, kind: str, tip: str, *, colour: int | None = None, tone: str = "", r: float = 5.5
) -> str:
    """A mark with the shape and the colour of this number; `tip` appears on hovering.

    colour: the number of another colour. tone: a CSS class with the colour.
    """
    shape, tone = SHAPES[number % len(SHAPES)], tone or f"k{(number if colour is None else colour) % 6}"
    points = {
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
    }
    kind = f'class="mark {tone}{kind}"'
    title = f"<title>{escape(tip)}</title>" if tip else ""
    if shape == "circle":
        return f'<circle {kind} cx="{coord(x)}" cy="{coord(y)}" r="{r}">{title}</circle>'
    corners = " ".join(f"{coord(x + dx * r)},{coord(y + dy * r)}" for dx, dy in points[shape])
    return f'<polygon {kind} points="{corners}">{title}</polygon>'


def nice(value: float, *, down: bool) -> float:
    """The next 1, 2 or 5 times a power of ten below (`down`) or above the value, so that no mark is on the frame."""
    power = 10 ** math.floor(math.log10(value))
    steps = [step * power for step in (0.5, 1, 2, 5, 10, 20)]
    return max(s for s in steps if s < value * 0.97) if down else min(s for s in steps if s > value * 1.03)


def ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten from low to high, thinned out to eight at most."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    inside = [s * 10.0**p for p in powers for s in (1, 2, 5) if low * 0.999 <= s * 10.0**p <= high * 1.001]
    return inside if len(inside) <= 8 else inside[:: math.ceil(len(inside) / 8)]


def axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends of a linear axis that holds these values, and ticks at 1, 2 or 5 times powers of ten."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 1.0
    low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= (high - low) / TICKS)
    first = math.ceil(low / step)
    return low, high, [k * step for k in range(first, math.floor(high / step) + 1)]


def short(name: str) -> str:
    """Return a name cut to 16 characters."""
    return name if len(name) <= 16 else name[:15] + "…"


def coord(value: float) -> str:
    """Return a coordinate with one decimal, or none if it is 0."""
    return f"{value:.1f}".removesuffix(".0")


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A line of a CSS class."""
    return f'<line class="{kind}" x1="{coord(x1)}" y1="{coord(y1)}" x2="{coord(x2)}" y2="{coord(y2)}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A rectangle of a CSS class."""
    return f'<rect class="{kind}" x="{coord(x)}" y="{coord(y)}" width="{coord(width)}" height="{coord(height)}"/>'


def text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    """A text of a CSS class; y is its baseline."""
    return f'<text class="{kind}" x="{coord(x)}" y="{coord(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def label(x: float, y: float, name: str, kind: str, room: float, anchor: str = "start") -> str:
    """A text of a CSS class, cut in its middle to a width; the whole text then appears on hovering."""
    shown = fit(name, room, SIZES[kind])
    title = f"<title>{escape(name)}</title>" if shown != name else ""
    return text(x, y, shown, kind, anchor).replace("</text>", f"{title}</text>")


def fit(name: str, room: float, size: float) -> str:
    """Return a name without letters of its middle, where names of rows are most alike, so that it fits into a width."""
    kept = len(name)
    shown = name
    while kept > 2 and width(shown, size) > room:
        kept -= 1
        shown = f"{name[: (kept + 1) // 2].rstrip()}…{name[len(name) - kept // 2 :].lstrip()}"
    return shown


def width(text: str, size: float) -> float:
    """Return about the width of a text whose letters have this height; rather too much than too little."""
    return size * sum(
        1.0
        if unicodedata.east_asian_width(letter) in "WF" or letter in BROAD
        else 0.42
        if letter in NARROW
        else 0.72
        if letter.isupper()
        else 0.6
        for letter in text
    )
