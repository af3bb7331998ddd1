"""The sections of a report about the norms of single clips: by class [RNA, Fig. 5], and in pairs [RNA, Fig. 6]."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.accuracy import coefficient_of_variation
from pipelines.report import page, plots
from pipelines.report.marks import coord, line, mark, nice, rect, short, svg, text, ticks
from pipelines.report.samples import Drawn, Half, Sample

CLASSES = 10  #: number of most and of least common classes, as in RNA's Figure 5
PAIRS = 3  #: number of pairs of modalities
SIZE = 300  #: width and height of the field of a scatter plot
NEAR = 0.05  #: clips within this share of the field's width are near
LEVELS = 5  #: number of levels of density
REACH = 1000  #: ratio of the largest to the smallest norm that a scatter plot shows

Means = dict[str, dict[str, dict[str, float]]]  #: class -> side -> modality -> mean norm


def class_norms(drawn: Drawn) -> str:
    """The mean norms of the most and the least common classes, and the table of their coefficients of variation."""
    parts: list[str] = []
    for column, kind in enumerate(drawn.kinds):
        most, least = common(drawn.samples[0].target, kind)
        means = {sample.method: mean_norms(sample, kind, column) for sample in drawn.samples}
        of = "" if kind == "label" else f" of {kind}"
        if most:
            parts.append(_panels(drawn, means, most, f"the {len(most)} most common classes{of}"))
        if least:
            title = f"the {len(least)} least common classes{of}"
            parts.append(page.details(title[0].upper() + title[1:], _panels(drawn, means, least, title)))
        if most:
            parts.append(_coefficients(drawn.samples, means, kind, [*most, *least]))
    intro = (
        "Mean L2 norms of the features that enter the classifier, by class, for the most common classes of the target "
        f"clips. {drawn.words} The axes are logarithmic. The table has the number of clips and each row's coefficient "
        "of variation (std / mean, ddof 0) over the modalities of a class's mean norms, source / target; 0: all "
        "modalities have the same norm. Labels only group the clips."
    )
    return page.section(f"Feature norms per class{drawn.on}", intro, *parts, reasons=drawn.reasons)


def common(half: Half, kind: str) -> tuple[list[str], list[str]]:
    """The most common classes of the clips, most common first, and the least common ones that are not among them."""
    counts = Counter(name for name in half.labels(kind).tolist() if name)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return names[:CLASSES], names[CLASSES:][-CLASSES:]


def mean_norms(sample: Sample, kind: str, column: int) -> Means:
    """Return the mean norms of each class over the clips that have the modality; classes of either side.

    column: number of the label kind, whose classifier reads the features.
    """
    means: Means = {}
    for side, half in sample.halves.items():
        labels = half.labels(kind)
        for name in sorted(set(labels.tolist()) - {""}):
            for m in sample.spaces:
                chosen = (labels == name) & half.present[m]
                if chosen.any():
                    by_side = means.setdefault(name, {"source": {}, "target": {}})
                    by_side[side][m] = float(half.norms[m][chosen, column].mean())
    return means


def _panels(drawn: Drawn, means: dict[str, Means], names: Sequence[str], title: str) -> str:
    """A legend, and for each drawn row a panel with a column per class."""
    figures, spaces = [], list(dict.fromkeys(name for sample in drawn.samples for name in sample.spaces))
    for method, of in means.items():
        columns = [plots.Norms(name, of[name]["source"], of[name]["target"], "") for name in names if name in of]
        columns = [c for c in columns if any(value > 0 for side in (c.source, c.target) for value in side.values())]
        if columns:
            alt = f"Mean feature norms of {method} on {drawn.shift}, {title}: " + ", ".join(c.name for c in columns)
            figures.append(page.figure(f"{method}, {title}", plots.norms(columns, spaces, alt)))
    return plots.norms_legend(spaces) + page.panels(figures, "wide")


def _coefficients(samples: Sequence[Sample], means: dict[str, Means], kind: str, names: Sequence[str]) -> str:
    """The table of the coefficients of variation per class, and their means over all classes; "" for one modality."""
    if all(len(sample.spaces) < 2 for sample in samples):
        return page.paragraph("The classifier reads one kind of features, so there is no coefficient of variation.")
    counts = [Counter(half.labels(kind).tolist()) for half in samples[0].halves.values()]
    heads = [kind if kind != "label" else "class", "clips, source / target", *(f"CV, {method}" for method in means)]
    body = []
    for name in names:
        cells = [_cv([of.get(name, {}).get(side, {})]) for of in means.values() for side in samples[0].halves]
        body.append(_row(name, [str(count[name]) for count in counts] + cells))
    cells = [_cv(by_side[side] for by_side in of.values()) for of in means.values() for side in samples[0].halves]
    all_classes = _row("mean over all classes", [str(len(count.keys() - {""})) for count in counts] + cells)
    return page.table(heads, body, foot=[all_classes])


def _row(name: str, cells: Sequence[str]) -> tuple[str, list[str]]:
    """A row of the table; cells are pairs of source and target, one after the other."""
    pairs = zip(cells[::2], cells[1::2], strict=True)
    return "", [page.cell(name, head=True), *(page.cell(" / ".join(pair)) for pair in pairs)]


def _cv(classes: Iterable[dict[str, float]]) -> str:
    """The mean over classes of the coefficient of variation over modalities, as text.

    Classes with fewer than two modalities, and those whose norms are all zero, have none; "–" if there is no other.
    """
    usable = [list(norms.values()) for norms in classes if len(norms) > 1 and any(norms.values())]
    return f"{np.mean([coefficient_of_variation(norms) for norms in usable]):.3f}" if usable else "–"


# --------------------------------------------------------------------------------------------------------------- pairs


def norm_pairs(drawn: Drawn) -> str:
    """A scatter plot of each clip's norms, for each label kind, pair of modalities and drawn row."""
    pairs = list(dict.fromkeys(pair for sample in drawn.samples for pair in combinations(sample.spaces, 2)))
    several = len(drawn.kinds) > 1
    parts, reasons = list[str](), list(drawn.reasons)
    for column, kind in enumerate(drawn.kinds):
        for a, b in pairs[:PAIRS]:
            panels, reason = _pair(drawn, a, b, column, f", {kind}" if several else "")
            parts.append(panels)
            reasons.append(reason)
    each = f", and of each label kind ({', '.join(drawn.kinds)}) the part that its classifier reads" if several else ""
    intro = (
        f"A point per clip: the L2 norm of its features in one modality (across) and in another (up){each}. "
        f"{drawn.words} The axes are logarithmic, and equal for all rows of a pair; on the diagonal both modalities "
        f"have the same norm. The fuller the colour, the more clips of the same domain are near, in {LEVELS} steps. "
        f"Clips that lack a modality, and norms below 1/{REACH} of the largest, are left out."
    )
    if len(pairs) > PAIRS:
        intro += f" The first {PAIRS} of {len(pairs)} pairs are drawn."
    if drawn.samples and not pairs:
        reasons.append("The classifier reads one kind of features, so there are no pairs of norms.")
    return page.section(f"Pairs of feature norms{drawn.on}", intro, *parts, reasons=reasons)


def _pair(drawn: Drawn, a: str, b: str, column: int, kind: str) -> tuple[str, str]:
    """The panels of two modalities, one for each drawn row that has both, and "" or the reason why there is none.

    column: number of the label kind; kind: its name after a comma, or "" if there is only one.
    """
    points = {
        sample.method: {side: norms_of(half, a, b, column) for side, half in sample.halves.items()}
        for sample in drawn.samples
        if {a, b} <= set(sample.spaces)
    }
    every = np.concatenate([xy.ravel() for sides in points.values() for xy in sides.values()])
    if not len(every):
        return "", f"No clip has both {a} and {b}{kind}."
    if (ends := _ends(every)) is None:
        return "", f"All norms of {a} and {b}{kind} are zero."
    panels = page.panels(
        page.figure(
            f"{method}: {a} and {b}{kind}",
            densities(sides, (a, b), ends, f"Norms of {method} on {drawn.shift}{kind}"),
        )
        for method, sides in points.items()
    )
    return panels, ""


def norms_of(half: Half, a: str, b: str, column: int) -> NDArray[np.float64]:
    """The norms of the clips that have both modalities (n, 2); column: number of the label kind."""
    both = half.present[a] & half.present[b]
    return np.stack([half.norms[a][both, column], half.norms[b][both, column]], 1).astype(np.float64)


def _ends(norms: NDArray[np.float64]) -> tuple[float, float] | None:
    """The ends of an axis that holds these norms, at most REACH below the largest; None if all are zero."""
    high = float(norms.max(initial=0.0))
    if not high > 0:
        return None
    shown = norms[norms >= high / REACH]
    return nice(float(shown.min()), down=True), nice(high, down=False)


def near(xy: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """The number of other points within a radius of each point (n, 2) -> (n,)."""
    distance = np.linalg.norm(xy[:, None] - xy, axis=2)
    return np.asarray((distance <= radius).sum(1) - 1)


def densities(
    sides: dict[str, NDArray[np.float64]], names: tuple[str, str], ends: tuple[float, float], alt: str
) -> str:
    """A scatter plot of norms (n, 2) on logarithmic axes, source and target with other marks, fuller where dense."""
    (low, high), left, top = ends, 40, 8
    span = math.log(high / low)

    def field(norms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(SIZE * np.log(norms / low) / span)

    parts = [rect(left, top, SIZE, SIZE, "field"), line(left, top + SIZE, left + SIZE, top, "grid")]
    for tick, at in ((tick, float(field(np.array(tick)))) for tick in ticks(low, high)):
        parts += [
            line(left + at, top, left + at, top + SIZE, "grid"),
            line(left, top + SIZE - at, left + SIZE, top + SIZE - at, "grid"),
        ]
        parts.append(text(left + at, top + SIZE + 14, f"{tick:g}", "tick", "middle"))
        parts.append(text(left - 5, top + SIZE - at + 4, f"{tick:g}", "tick", "end"))
    parts.append(text(left + SIZE / 2, top + SIZE + 30, f"norm of {short(names[0])} →", "tick", "middle"))
    where = f"translate(10 {coord(top + SIZE / 2)}) rotate(-90)"
    parts.append(
        f'<text class="tick" transform="{where}" text-anchor="middle">norm of {escape(short(names[1]))} →</text>'
    )
    for k, (side, norms) in enumerate(sides.items()):
        xy = field(norms[(norms >= low).all(1)])
        counts = near(xy, NEAR * SIZE)
        for (x, y), level in zip(xy.tolist(), (LEVELS * counts // (counts.max(initial=0) + 1)).tolist(), strict=True):
            parts.append(mark(k, left + x, top + SIZE - y, f" dot d{level}", "", r=3))
        at = left + 6 + 90 * k
        parts += [mark(k, at, top + SIZE + 44, "", ""), text(at + 10, top + SIZE + 48, f"{side} ({len(xy)})", "tick")]
    return svg(left + SIZE + 8, top + SIZE + 54, f"{alt}: {names[0]} and {names[1]}", parts)
