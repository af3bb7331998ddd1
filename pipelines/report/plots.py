"""Plots as hand-written SVG: small, sharp at every size, in the page's fonts and colours, equal for equal input.

Colours are CSS classes, so that a plot follows the page into dark mode and onto paper. No information is carried by
colour only: every mark also has a label, a shape or a legend. Users' texts pass through `escape`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from pipelines.report.marks import SIZES, axis, coord, label, line, mark, nice, rect, short, svg, text, ticks, width

SCATTER = 320  #: width and height of a scatter plot: about its pixels where three are side by side
BAR_WIDTH = 340  #: width of a bar panel in user units: about its pixels where three panels are side by side
CURVE_WIDTH, CURVE_HEIGHT = 420, 250  #: size of a panel of curves, without its legend
TREND_WIDTH, TREND_HEIGHT = 170, 92  #: size of a small panel of trends
NORM_COLUMN = 132  #: width of a column of norms
NORM_COLUMNS = 3  #: most columns of an image of norms, so that letters stay large
LEGEND = 330  #: width of the legend of norms, a phone's
JITTER = 12  #: distance between the marks of two modalities
FEW = 12  #: most numbers of a line of which each has a dot
MOST_CLASSES = 30  #: a confusion matrix of more classes shows only the most frequent ones
MOST_WRITTEN = 12  #: a confusion matrix of more classes shows no numbers: its cells are too small


Places = tuple[tuple[float, float], ...]  #: (across, up)


@dataclass(frozen=True)
class Bar:
    """One method in a bar panel, in per cent."""

    name: str
    values: tuple[float, ...]  #: one per seed
    text: str  #: the text of the method's table cell
    tone: str  #: a CSS class: base, m0, m1, ..., or reference


@dataclass(frozen=True)
class Norms:
    """One method in a norm panel: modality -> mean L2 norm, for each side."""

    name: str
    source: dict[str, float]
    target: dict[str, float]
    text: str  #: the coefficient of variation


@dataclass(frozen=True)
class Points:
    """One group of points in a scatter plot."""

    name: str
    colour: int
    shape: int  #: position in `marks.SHAPES`
    xy: NDArray[np.floating]  #: (n, 2)


@dataclass(frozen=True)
class Curve:
    """One curve in a panel: numbers at places of the horizontal axis."""

    name: str
    xy: Places  #: from left to right
    tone: str = ""  #: a CSS class: the colour of the curve, or the dashes of a trend


@dataclass(frozen=True)
class Gain:
    """One method in a plot of gains."""

    name: str
    mean: float
    std: float | None  #: None for a single seed
    ends: tuple[float, float] | None  #: of the interval; None if there is none
    text: str
    tone: str  #: a CSS class with the colour


def bars(bars: Sequence[Bar], alt: str) -> str:
    """Horizontal bars from 0 to 100 per cent: mean, ± one standard deviation, and a dot per seed."""
    step, top, left, right = 48, 0, 2, BAR_WIDTH - 4
    height = top + step * len(bars) + 22
    parts = []

    def x(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), 100.0) / 100

    for tick in (0, 25, 50, 75, 100):
        parts.append(line(x(tick), top, x(tick), height - 18, "grid"))
        anchor = {0: "start", 100: "end"}.get(tick, "middle")
        parts.append(text(x(tick), height - 5, f"{tick} %" if tick == 100 else str(tick), "tick", anchor))
    for place, bar in enumerate(bars):
        y = top + step * place
        parts += _named(y + 14, bar.name, bar.text)
        middle = y + 28
        mean = float(np.mean(bar.values))
        parts.append(rect(left, middle - 7, x(mean) - left, 13, f"bar {bar.tone}"))
        parts += [
            f'<circle class="seed" cx="{coord(x(value))}" cy="{coord(middle + 11)}" r="2"/>' for value in bar.values
        ]
        if len(bar.values) > 1:
            std = float(np.std(bar.values, ddof=1))
            low, high = x(mean - std), x(mean + std)
            parts.append(line(low, middle - 0.5, high, middle - 0.5, "error"))
            parts += [line(end, middle - 4.5, end, middle + 3.5, "error") for end in (low, high)]
    return svg(BAR_WIDTH, height, alt, parts)


def _named(y: float, name: str, value: str) -> list[str]:
    """The line above a bar or a dot: its name at the left, cut to the room that the value at the right leaves."""
    room = BAR_WIDTH - 12 - 1.1 * width(value, SIZES["value"])  # its letters are bold
    return [label(2, y, name, "name", room), text(BAR_WIDTH - 2, y, value, "value", "end")]


def confusion(
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: Sequence[str],
    alt: str,
    across: str = "predicted class",
) -> str:
    """A confusion matrix: shares of each true class (rows) by predicted class (columns), in per cent of the row.

    across: the name of the columns.
    """
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (truth, predicted), 1)
    totals = counts.sum(1)
    shown = np.sort(np.argsort(-totals, kind="stable")[:MOST_CLASSES])
    names = [classes[k] for k in shown]
    shares = 100 * counts[np.ix_(shown, shown)] / np.maximum(totals[shown, None], 1)
    K, cell = len(shown), max(9.0, min(27.0, 240 / len(shown)))
    longest = max(len(short(name)) for name in names)
    left, top = 22 + 6.4 * longest, 26 + 5.2 * longest
    size = K * cell
    parts = [
        text(left, 11, f"{across} →", "tick"),
        f'<text class="tick" transform="translate(10 {coord(top + size)}) rotate(-90)">true →</text>',
        rect(left, top, size, size, "field"),
    ]
    for i, name in enumerate(names):
        at = (i + 0.5) * cell
        parts.append(text(left - 5, top + at + 4, short(name), "tick", "end"))
        parts.append(
            f'<text class="tick" transform="translate({coord(left + at + 3)} {coord(top - 5)}) rotate(-52)">'
            f"{escape(short(name))}</text>"
        )
        for j in np.flatnonzero(shares[i]):
            share = shares[i, j]
            dark = " over" if share > 60 else ""
            x, y = left + j * cell, top + i * cell
            parts.append(
                f'<rect class="heat" x="{coord(x)}" y="{coord(y)}" width="{coord(cell)}" height="{coord(cell)}" '
                f'fill-opacity="{share / 100:.2f}"/>'
            )
            if K <= MOST_WRITTEN:
                parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{share:.0f}", f"cell{dark}", "middle"))
    parts += [rect(left + i * cell, top + i * cell, cell, cell, "diagonal") for i in range(K)]
    return svg(left + size + 5.2 * longest * 0.62 + 6, top + size + 4, alt, parts)


def norms(methods: Sequence[Norms], modalities: Sequence[str], alt: str) -> str:
    """Mean feature norms, which RNA makes more alike, on a logarithmic axis, where equal distances are equal ratios.

    Each method has a column with the source side (filled) and the target side (hollow), and a shape per modality. Many
    methods have several images with the same axis, one below the other where there is no room.

    modalities: those of `norms_legend`, also where no method of this panel has one of them.
    """
    values = [v for m in methods for side in (m.source, m.target) for v in side.values() if v > 0]
    ends = nice(min(values), down=True), nice(max(values), down=False)
    images = []
    for start in range(0, len(methods), NORM_COLUMNS):
        shown = methods[start : start + NORM_COLUMNS]
        names = f" ({', '.join(method.name for method in shown)})" if len(methods) > NORM_COLUMNS else ""
        images.append(_columns(shown, sorted(modalities), ends, min(len(methods), NORM_COLUMNS), alt + names))
    return images[0] if len(images) == 1 else f'<div class="images">{"".join(images)}</div>'


def _columns(
    methods: Sequence[Norms], modalities: Sequence[str], ends: tuple[float, float], room: int, alt: str
) -> str:
    """An image of some columns of norms, with room for so many."""
    (low, high), top, bottom, left, column = ends, 10, 196, 40, NORM_COLUMN
    right = left + column * len(methods)
    parts = []

    def y(value: float) -> float:
        return bottom - (bottom - top) * (math.log(value / low) / math.log(high / low))

    for tick in ticks(low, high):
        parts.append(line(left, y(tick), right, y(tick), "grid"))
        parts.append(text(left - 6, y(tick) + 4, f"{tick:g}", "tick", "end"))
    for place, method in enumerate(methods):
        middle = left + column * (place + 0.5)
        for offset, side, hollow, name in (
            (-0.21, method.source, "", "source"),
            (0.21, method.target, " hollow", "target"),
        ):
            x = middle + offset * column
            positive = {m: v for m, v in side.items() if v > 0}
            if not positive:
                continue
            parts.append(line(x, y(min(positive.values())), x, y(max(positive.values())), "range"))
            for modality, value in positive.items():
                number = modalities.index(modality)
                tip = f"{method.name}, {name}, {modality}: {value:.3g}"
                shift = JITTER * (number - (len(modalities) - 1) / 2)  # so that equal norms do not hide each other
                parts.append(mark(number, x + shift, y(value), hollow, tip))
            parts.append(text(x, bottom + 15, name, "tick", "middle"))
        parts.append(label(middle, bottom + 33, method.name, "name", column - 4, "middle"))
        parts.append(text(middle, bottom + 49, method.text, "tick", "middle"))
    return svg(left + 6 + column * room, bottom + 56, alt, parts)


def norms_legend(modalities: Sequence[str]) -> str:
    """The legend of `norms`: the shape of each modality, and the meaning of filled and hollow."""
    parts, x, y = [], 8.0, 10
    for number, name in enumerate(sorted(modalities)):
        if x > 8 and x + 10 + width(name, SIZES["tick"]) > LEGEND:
            x, y = 8.0, y + 18
        parts += [mark(number, x, y, "", name), label(x + 10, y + 4, name, "tick", LEGEND - 18)]
        x += 26 + width(name, SIZES["tick"])
    parts += [text(2, y + 22, "filled: source side, hollow: target side", "tick")]
    return svg(LEGEND, y + 28, "Legend of the norm plots", parts)


def scatter(groups: Sequence[Points], alt: str) -> str:
    """Points without axes, scaled to their own range and centred, and below them a legend of the groups."""
    xy = np.concatenate([group.xy for group in groups])
    reach = max(float(np.ptp(xy, axis=0).max()), 1e-9)
    low = (xy.min(0) + xy.max(0) - reach) / 2
    parts = [rect(0, 0, SCATTER, SCATTER, "field")]
    for group in groups:
        for x, y in (12 + (SCATTER - 24) * (group.xy - low) / reach).tolist():
            parts.append(mark(group.shape, x, y, " dot", "", colour=group.colour, r=3))
    for place, group in enumerate(groups):
        y = SCATTER + 16 + 18 * place
        parts.append(mark(group.shape, 10, y, "", group.name, colour=group.colour))
        parts.append(label(22, y + 4, group.name, "tick", SCATTER - 24))
    return svg(SCATTER, SCATTER + 10 + 18 * len(groups), alt, parts)


def curves(curves: Sequence[Curve], across: str, alt: str) -> str:
    """Curves on linear axes, with a mark at each number, and below them a legend.

    across: the name of the horizontal axis.
    """
    places, values = ([xy[axis] for curve in curves for xy in curve.xy] for axis in (0, 1))
    left, right, top, bottom = 44, CURVE_WIDTH - 12, 10, CURVE_HEIGHT - 36
    (west, east, x_ticks), (south, north, y_ticks) = axis(places), axis(values)

    def x(place: float) -> float:
        return left + (right - left) * (place - west) / (east - west)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - south) / (north - south)

    parts = []
    for tick in y_ticks:
        parts.append(line(left, y(tick), right, y(tick), "grid"))
        parts.append(text(left - 6, y(tick) + 4, f"{tick:g}", "tick", "end"))
    parts += [text(x(tick), bottom + 15, f"{tick:g}", "tick", "middle") for tick in x_ticks]
    parts.append(text(right, bottom + 31, across, "tick", "end"))
    for number, curve in enumerate(curves):
        corners = " ".join(f"{coord(x(place))},{coord(y(value))}" for place, value in curve.xy)
        tone = curve.tone or f"k{number % 6}"
        parts.append(f'<polyline class="curve {tone}" points="{corners}"/>')
        for place, value in curve.xy:
            tip = f"{curve.name}, {place:g}: {value:.4g}"
            parts.append(mark(number, x(place), y(value), "", tip, tone=tone, r=3.5))
        row = CURVE_HEIGHT + 12 + 18 * number
        parts.append(mark(number, 10, row, "", curve.name, tone=tone))
        parts.append(label(22, row + 4, curve.name, "tick", CURVE_WIDTH - 24))
    return svg(CURVE_WIDTH, CURVE_HEIGHT + 8 + 18 * len(curves), alt, parts)


def trends(title: str, lines: Sequence[Curve], kind: str, alt: str) -> str:
    """A small panel with a line per seed; lines of few numbers have a dot at each. Its ticks are the ends of the axes.

    kind: a CSS class with the colour.
    """
    places, values = ([xy[axis] for line in lines for xy in line.xy] for axis in (0, 1))
    left, right, top, bottom = 2, TREND_WIDTH - 2, 20, TREND_HEIGHT - 14
    west, east, south, north = min(places), max(places), min(values), max(values)

    def at(place: float, value: float) -> tuple[str, str]:
        across = (place - west) / (east - west) if east > west else 1.0
        up = (value - south) / (north - south) if north > south else 0.5
        return coord(left + 4 + (right - left - 8) * across), coord(bottom - 4 - (bottom - top - 8) * up)

    parts = [label(left, 13, title, "name", right - left), rect(left, top, right - left, bottom - top, "field")]
    for curve in lines:
        points = [at(*xy) for xy in curve.xy]
        tip = f"<title>{escape(curve.name)}: {curve.xy[0][1]:.4g} to {curve.xy[-1][1]:.4g}</title>"
        if len(points) > 1:
            corners = " ".join(map(",".join, points))
            parts.append(f'<polyline class="curve thin {kind} {curve.tone}" points="{corners}">{tip}</polyline>')
        if len(points) <= FEW:
            parts += [
                f'<circle class="{kind}" cx="{x}" cy="{y}" r="1.8">'
                f"<title>{escape(curve.name)}, {place:g}: {value:.4g}</title></circle>"
                for (x, y), (place, value) in zip(points, curve.xy, strict=True)
            ]
    reach = f"{south:.3g}" if south == north else f"{south:.3g} to {north:.3g}"
    parts += [text(left, TREND_HEIGHT - 2, reach, "tick"), text(right, TREND_HEIGHT - 2, f"{east:g}", "tick", "end")]
    return svg(TREND_WIDTH, TREND_HEIGHT, alt, parts)


def gains(rows: Sequence[Gain], alt: str) -> str:
    """Differences from another row: a dot at the mean, a thick line of ± one deviation, a thin one of the interval."""
    ends = [end for row in rows for end in (row.ends or ())]
    deviations = [row.mean + sign * (row.std or 0.0) for row in rows for sign in (-1, 1)]
    low, high, ticks = axis([0.0, *ends, *deviations])
    left, right, step = 6, BAR_WIDTH - 8, 46
    bottom = step * len(rows)

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    parts = []
    for tick in ticks:
        parts.append(line(x(tick), 0, x(tick), bottom, "grid" if tick else "zero"))
        parts.append(text(x(tick), bottom + 16, f"{tick:+g}" if tick else "0", "tick", "middle"))
    for place, row in enumerate(rows):
        y = step * place + 30
        parts += _named(y - 14, row.name, row.text)
        if row.ends:
            parts.append(line(x(row.ends[0]), y, x(row.ends[1]), y, "whole"))
            parts += [line(x(end), y - 5, x(end), y + 5, "whole") for end in row.ends]
        if row.std is not None:
            parts.append(rect(x(row.mean - row.std), y - 3, x(row.mean + row.std) - x(row.mean - row.std), 6, row.tone))
        parts.append(mark(0, x(row.mean), y, "", f"{row.name}: {row.text}", tone=row.tone, r=4.5))
    return svg(BAR_WIDTH, bottom + 22, alt, parts)
