"""The section of a report with maps of the feature spaces of both domains [XMC, Fig. 5 and 7; MTRAN, Fig. 4]."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from pipelines.evaluation.embeddings import budget, perplexity, tsne
from pipelines.report import page, plots
from pipelines.report.marks import SHAPES
from pipelines.report.samples import Drawn, Floats, Sample
from pipelines.report.steps import steps

PLACED = 100  #: most clips of a domain on a map; each is a point for every modality
POINTS = 1800  #: most points on all maps of a section together
CLASSES = 12  #: number of classes that are shown, the most frequent ones
COLOURS = 6  #: colours of marks before they repeat with another shape


@dataclass(frozen=True)
class Space:
    """The features of one modality of one domain: one of the four spaces of two modalities and two domains.

    They are whole features, with the parts that the classifiers of all label kinds read.
    """

    side: str
    domains: str
    modality: str
    labels: dict[str, NDArray[np.str_]]  #: label kind -> (n,)
    f: Floats  #: (n, D)


def maps(drawn: Drawn) -> str:
    """The maps by t-SNE of each drawn row, coloured by domain, by modality and by class."""
    parts, reasons, sizes = list[str](), list(drawn.reasons), set()
    spaces = sum(
        len(sample.halves) * len(sample.spaces) * (1 + bool(sample.source.projected)) for sample in drawn.samples
    )
    most = budget(spaces, most=PLACED, total=POINTS)
    before = len({sample.adapted for sample in drawn.samples}) > 1
    for sample in steps(drawn.samples):
        when = ""
        if before and (sample.adapted or sample is drawn.samples[0]):
            when = "After adaptation: " if sample.adapted else "Before adaptation: "
        for title, together in groups(sample, most):
            sizes.add(sum(len(space.f) for space in together))
            try:
                panels = _panels(sample, together, drawn, title)
            except ConfigError as error:
                reasons.append(f"No map of {sample.method}: {error}.")
            else:
                parts.append(f"<h3>{escape(when + sample.method)}</h3>{panels}")
    used = ", ".join(f"{perplexity(n):.3g} for {n} points" for n in sorted(sizes))
    heads = any(sample.source.projected for sample in drawn.samples)
    kinds = f", the parts of all label kinds ({', '.join(drawn.kinds)}) together" if len(drawn.kinds) > 1 else ""
    intro = (
        f"The features that are classified{kinds}{', and those after the projection head h' * heads}, placed by t-SNE "
        "on cosine distances: one point per clip and modality, all modalities and both domains on one map. "
        f"{drawn.words} At most {most} of these clips per domain are placed. "
        f"Perplexity: {used}; seed {drawn.seed}. Near points are similar; sizes of groups and distances between groups "
        "mean little, and another seed or perplexity gives another map. Labels are used for colour only."
    )
    return page.section(f"Feature spaces{drawn.on}", intro, *parts, reasons=reasons)


def groups(sample: Sample, most: int = PLACED) -> list[tuple[str, list[Space]]]:
    """(title, spaces that share a map): all of them, or those of each modality where modalities differ in size.

    The spaces after a projection head follow, titled "after h".
    """
    found = []
    for title, is_projected in (("", False), ("after h, ", True)):
        spaces = []
        for name in sample.spaces:
            for side, half in sample.halves.items():
                if (f := half.projected if is_projected else half.f).keys() & {name}:
                    placed = np.flatnonzero(half.present[name])
                    placed = np.sort(np.random.default_rng(0).permutation(placed)[:most])
                    labels = {kind: half.labels(kind)[placed] for kind in sample.parts}
                    spaces.append(Space(side, ", ".join(half.domains), name, labels, f[name][placed]))
        if len({space.f.shape[1] for space in spaces}) == 1:
            found.append((title, spaces))
        elif spaces:
            found += [(title, [space for space in spaces if space.modality == name]) for name in sample.spaces]
    return found


def _panels(sample: Sample, spaces: Sequence[Space], drawn: Drawn, prefix: str) -> str:
    """The same map three times, with other colours; ConfigError if there are too few points, or no distances."""
    sizes = np.cumsum([len(space.f) for space in spaces])
    placed = np.split(tsne(np.concatenate([space.f for space in spaces]), seed=drawn.seed), sizes[:-1])
    figures = []
    for title, points in _coloured(spaces, placed):
        title = prefix + title
        alt = f"t-SNE of the features of {sample.method} on {drawn.shift}, {title}: "
        figures.append(page.figure(title, plots.scatter(points, alt + "; ".join(group.name for group in points))))
    return page.panels(figures, "halves" if len(figures) % 3 == 1 else "thirds")  # no figure alone in the last line


def _coloured(
    spaces: Sequence[Space], placed: Sequence[NDArray[np.float64]]
) -> Iterator[tuple[str, list[plots.Points]]]:
    """Yield (title, groups of points): by domain, by modality if there are several, and by each label kind."""
    sides = list(dict.fromkeys(space.side for space in spaces))
    names = {space.side: f"{space.domains} ({space.side})" for space in spaces}
    yield (
        "by domain",
        [
            plots.Points(
                names[side], k, k, np.concatenate([xy for s, xy in zip(spaces, placed, strict=True) if s.side == side])
            )
            for k, side in enumerate(sides)
        ],
    )
    modalities = list(dict.fromkeys(space.modality for space in spaces))
    if len(modalities) > 1:
        yield (
            "by modality",
            [
                plots.Points(
                    m, k, k, np.concatenate([xy for s, xy in zip(spaces, placed, strict=True) if s.modality == m])
                )
                for k, m in enumerate(modalities)
            ],
        )
    for kind in spaces[0].labels:
        yield from _by_class(np.concatenate([space.labels[kind] for space in spaces]), np.concatenate(placed), kind)


def _by_class(
    classes: NDArray[np.str_], xy: NDArray[np.float64], kind: str
) -> Iterator[tuple[str, list[plots.Points]]]:
    """Yield (title, groups of points) of the most frequent classes of a label kind, if any point has a class."""
    counts = Counter(name for name in classes.tolist() if name)
    shown = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:CLASSES])
    title = f"by {kind}" if kind != "label" else "by class"
    if len(shown) < len(counts):
        title += f", the {len(shown)} most frequent of {len(counts)}"
    if shown:
        yield (
            title,
            [
                plots.Points(name, k % COLOURS, (k // COLOURS + k) % len(SHAPES), xy[classes == name])
                for k, name in enumerate(shown)
            ],
        )
