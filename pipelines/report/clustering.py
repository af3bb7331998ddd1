"""The part of a report that shows clusters: what each of them holds, and skeletons of the clips in its middle.

Shapes: n rows, D features, C classes; x is of a store (3, T, V, M): coordinates, frames, joints, bodies. In a strip
they stand in S places, frame after frame.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError, FeatcacheError
from featcache.joints import LAYOUTS, Layout
from heads.skeletons import Chain, skeleton
from pipelines.data.stores import open_manifest, open_store
from pipelines.evaluation.evaluate import Predictions, predictions
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.confusion import confusions
from pipelines.tables.build import first_run
from pipelines.tables.cells import Line, Table
from pipelines.tasks.clustering import branches
from pipelines.training.runs import Run

CLUSTERS = 20  #: of a branch whose clips are shown, the largest ones
CLIPS = 3  #: of such a cluster
PLACES = 6  #: of a strip: as many frames of one body, or half as many of two
MIXTURES = 5  #: that are named
FIT = 0.9  #: share of bodies that fit into their places; others reach beyond, or all would be small
HEIGHT, MARGIN = 200, 14  #: of bodies in a strip, and around them; its coordinates are whole, to keep pages small


BASE = ""  #: the first row uses the target too
LIMITS = ("The number of clusters is the target's true number of classes (oracle K), which is seldom known.",)
COLUMNS = "the cluster of branch B0 that Hungarian matching gives the class (of k-means: of its first start)"


def sections(experiment: Experiment, table: Table, rows: tuple[Result, ...], runs: Path, stores: Path) -> Iterator[str]:
    """Confusions of classes and matched clusters, and the clusters of the best row."""
    yield confusions(experiment, table, runs, stores, "matched cluster", COLUMNS)
    yield clusters(experiment, table.best or table.lines[0], runs, stores)


def clusters(experiment: Experiment, line: Line, runs: Path, stores: Path) -> str:
    """Per shift, the clusters that a row's first run finds."""
    parts = []
    for shift in line.cells:
        parts.append(f"<h3>{escape(shift)}: {escape(line.method)}</h3>")
        try:
            run = Run.open(first_run(experiment, line, shift, runs))
            for branch in branches(run.outputs):
                shown = "".join(_branch(run, stores, branch))
                parts.append(shown if branch == "B0" else page.details(f"The clusters of branch {branch}", shown))
        except (FeatcacheError, OSError) as error:
            parts.append(page.paragraph(f"No clusters of {line.method} on {shift}: {error}."))
    intro = (
        "Clusters of the target's test clips, by the first seed's run, the largest first. A cluster is named after the "
        "class that Hungarian matching pairs it with. That takes the target's labels, as do ✓ and ✗ (a clip of another "
        f"class): they are for reading alone. The {CLIPS} clips are those whose features are nearest to the cluster's "
        f"mean, in {PLACES} frames from left to right, or {PLACES // 2} where there are two bodies. We see them from "
        "the front (or from the sensor, where skeleton.rotate is false): their right side (orange) is on our left, "
        "their left one (blue) on our right. All of a branch are at one scale and on one floor, side by side wherever "
        "they were."
    )
    return page.section("What the clusters hold", intro, *parts)


def _branch(run: Run, stores: Path, branch: str) -> Iterator[str]:
    """How well the branch's clusters fit, what they mix, and what is in each."""
    (task,) = run.facts["spec"]["classes"]
    seen = predictions(run.folder, stores, task, branch)
    by = "its classifier" if f"cluster_{branch}" in run.outputs else "k-means (its first start)"
    share = f"{100 * np.mean(seen.predicted == seen.truth):.1f} % of {len(seen.truth)} clips"
    yield page.paragraph(f"Branch {branch}, by {by}: {share} are in the cluster of their class. {mixtures(seen)}")

    members = [np.flatnonzero(seen.predicted == k) for k in range(len(seen.classes))]
    largest = sorted(range(len(members)), key=lambda k: -len(members[k]))
    f_nD = run.outputs[f"feature_{branch}"][seen.point]
    middle = {k: members[k][nearest(f_nD[members[k]])] for k in largest[:CLUSTERS] if len(members[k])}
    chosen = np.concatenate(list(middle.values()))
    clips = open_manifest(stores, run.config.manifest).clips
    says = {n: f"{seen.classes[seen.truth[n]]} · {clips[run.outputs['rows'][n]].clip_id}" for n in chosen}
    pictures = dict.fromkeys(chosen, "")
    try:
        x_nCTVM = _skeletons(run, stores, branch, run.outputs["rows"][chosen])
        pictures = dict(zip(chosen, strips(x_nCTVM, [f"Skeletons of {says[n]}" for n in chosen]), strict=True))
    except (FeatcacheError, OSError) as error:
        yield page.paragraph(f"No skeletons can be drawn: {error}.")
    for k, of in middle.items():
        figures = [_figure(pictures[n], says[n], right=seen.truth[n] == k) for n in of]
        yield page.figure(contents(seen, k), f'<div class="strip people">{"".join(figures)}</div>')
    rest = [contents(seen, k) for k in largest[CLUSTERS:] if len(members[k])]
    if empty := [seen.classes[k] for k in largest if not len(members[k])]:
        rest.append(f"Empty, {len(empty)} of {len(members)} clusters, paired with {', '.join(empty)}")
    yield page.items(rest) if rest else ""


def _figure(picture: str, text: str, *, right: bool) -> str:
    kind, mark = ("right", "✓") if right else ("wrong", "✗")
    return f'<figure class="{kind}">{picture}<figcaption>{mark} {escape(text)}</figcaption></figure>'


# --------------------------------------------------------------------------------------------------------- in words


def contents(seen: Predictions, k: int) -> str:
    """How many clips the cluster of class k has, how many of them are of the class, and of which there are most."""
    counts_C = np.bincount(seen.truth[seen.predicted == k], minlength=len(seen.classes)).tolist()
    name, n, hits, of = seen.classes[k], sum(counts_C), counts_C[k], np.sum(seen.truth == k)
    text = f"{name}: {n} clip{'s' * (n > 1)}, {hits} ({100 * hits / n:.0f} %) of the class, which has {of}"
    most = max(counts_C)
    return f"{text}; dominated by {seen.classes[counts_C.index(most)]}: {most}" if most > hits else text


def mixtures(seen: Predictions) -> str:
    """The largest parts of classes that lie in the clusters of others."""
    counts_CC = np.zeros((len(seen.classes),) * 2, np.int64)
    np.add.at(counts_CC, (seen.truth, seen.predicted), 1)
    of_C = counts_CC.sum(1)
    np.fill_diagonal(counts_CC, 0)
    largest = np.argsort(-counts_CC, axis=None, kind="stable")[:MIXTURES]
    found = [(c, k) for c, k in zip(*np.unravel_index(largest, counts_CC.shape), strict=True) if counts_CC[c, k]]
    parts = (f"{counts_CC[c, k]} of {of_C[c]} {seen.classes[c]} in that of {seen.classes[k]}" for c, k in found)
    return f"Most often in another cluster: {'; '.join(parts)}." if found else ""


def nearest(f_nD: NDArray[np.floating], count: int = CLIPS) -> NDArray[np.int64]:
    """Places of the rows nearest to the mean of all, nearest first."""
    distance_n = np.linalg.norm(f_nD - f_nD.mean(0), axis=1)
    return np.argsort(distance_n, kind="stable")[:count]


# -------------------------------------------------------------------------------------------------------- skeletons


def _skeletons(run: Run, stores: Path, branch: str, rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """(n, C, T, V, M) that the branch read of these rows; ConfigError where the store has other ones by now."""
    feeds = list(run.config.feeds)
    m = feeds[0] if branch == "B0" else feeds[-1]
    name = run.config.feeds[m].store
    store = open_store(stores / run.config.manifest, name, open_manifest(stores, run.config.manifest))
    if run.facts["read"].get(f"store {m}") != store.fingerprint:
        raise ConfigError(f"store {name!r} has changed since run {run.config.id} was made")
    return store.read(rows)[:, 0].astype(np.float32)


def strips(x_nCTVM: NDArray[np.floating], alts: Sequence[str]) -> list[str]:
    """An image of each clip, all at one scale, with these descriptions."""
    shown = [front(x_CTVM) for x_CTVM in x_nCTVM]
    here = np.concatenate([at_SV2[~_empty(at_SV2)] for at_SV2 in shown])
    reach = np.nanmax(np.abs(here), 1) if len(here) else np.ones((1, 2))
    wide, high = np.maximum(np.quantile(reach, FIT, axis=0), 1e-6)
    return [_strip(at_SV2, HEIGHT / high, wide, alt) for at_SV2, alt in zip(shown, alts, strict=True)]


def front(x_CTVM: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the joints of a strip are, from the front -> (S, V, 2), NaN for what is not there.

    x is to the right, as we see it, of the body's centre joint; y is upwards from the floor, which is where the lowest
    joint is in the median place. In rows y is upwards too, and the right shoulder lies along +x from the left one; of
    joints in the plane x is to the right and y downwards, and joints may be missing: x is then from their middle.
    Frames are the middles of equal stretches of those with somebody in them.
    """
    there_TM = (x_CTVM != 0).max(axis=(0, 2))
    times, bodies = np.flatnonzero(there_TM.max(1)), np.flatnonzero(there_TM.max(0))[:PLACES]
    V = x_CTVM.shape[2]
    at_SV2 = np.full((PLACES, V, 2), np.nan)
    if len(bodies):
        frames = PLACES // len(bodies)
        chosen = np.ix_(times[((np.arange(frames) + 0.5) * len(times) / frames).astype(int)], bodies)
        joints_SVC = x_CTVM.transpose(1, 3, 2, 0)[chosen].reshape(-1, V, len(x_CTVM))
        there_S = there_TM[chosen].reshape(-1)
        if _layout(V).plane:
            shown_SV2 = np.where((joints_SVC != 0).any(2, keepdims=True), joints_SVC[..., :2] * (1, -1), np.nan)[
                there_S
            ]
            shown_SV2[..., 0] -= np.nanmedian(shown_SV2[..., 0], 1, keepdims=True)
        else:
            shown_SV2 = (joints_SVC[..., :2] * (-1, 1))[there_S]
            shown_SV2[..., 0] -= shown_SV2[:, [skeleton(V).centre], 0]
        shown_SV2[..., 1] -= np.median(np.nanmin(shown_SV2[..., 1], 1))
        at_SV2[: len(there_S)][there_S] = shown_SV2
    return at_SV2


def _empty(at_SV2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(S,): places where nobody is."""
    return np.logical_and.reduce(np.isnan(at_SV2[..., 0]), axis=1)


def chains(V: int) -> dict[str, list[Chain]]:
    """Joints that bones connect one after the other, by side of the body: torso, right, left."""
    found: dict[str, list[Chain]] = {"torso": list(skeleton(V).torso), "right": [], "left": []}
    for chain in skeleton(V).limbs:
        found[_layout(V).names[chain[-1]].split()[0]].append(chain)
    return found


def _layout(V: int) -> Layout:
    """Of this number of joints; those of as many differ in a joint of the torso alone."""
    return next(layout for layout in LAYOUTS.values() if len(layout.names) == V)


def _strip(at_SV2: NDArray[np.float64], unit: float, wide: float, alt: str) -> str:
    """An image, `unit` of its coordinates per metre; bodies in it reach `wide` metres to both sides."""
    S, V, _ = at_SV2.shape
    place = 2 * unit * wide + MARGIN
    here_S = np.flatnonzero(~_empty(at_SV2))
    middle_S = (here_S + 0.5) * place
    x_SV = middle_S[:, None] + unit * at_SV2[here_S, :, 0]
    y_SV = MARGIN + HEIGHT - unit * at_SV2[here_S, :, 1]
    points_SV2 = np.rint(np.stack([x_SV, y_SV], 2))
    parts = [f'<path class="bone floor" d="M0 {HEIGHT + MARGIN}H{S * place:.0f}"/>']
    for side, of in chains(V).items():
        lines = (_numbers(points_V2[list(chain)]) for points_V2 in points_SV2 for chain in of)
        parts.append(f'<path class="bone {side}" d="{"".join(f"M{line}" for line in lines if line)}"/>')
    head = _layout(V).names.index("nose" if _layout(V).plane else "head")
    heads = "".join(f"M{_numbers(at_V2[[head]])}h0" for at_V2 in points_SV2 if np.isfinite(at_V2[head, 0]))
    parts.append(f'<path class="bone head" d="{heads}"/>')
    return plots.svg(S * place, HEIGHT + 2 * MARGIN, alt, parts)


def _numbers(points_p2: NDArray[np.float64]) -> str:
    """Coordinates x y x y ..., whole, without points that are not there."""
    return " ".join(f"{number:.0f}" for point in points_p2 if np.isfinite(point[0]) for number in point)
