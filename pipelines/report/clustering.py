"""The sections of a clustering report: confusion matrices, and clusters with skeletons of their most central clips.

Shapes: n rows, D features, C classes. A store's row x is (3, T, V, M): coordinates, frames, joints, bodies. A strip
shows bodies of several frames side by side, in S places.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError
from featcache.joints import LAYOUTS, Layout
from heads.skeletons import Chain, skeleton
from pipelines.data.stores import open_manifest, open_store
from pipelines.evaluation.evaluate import Predictions, predictions
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import marks, page
from pipelines.report.confusion import confusions
from pipelines.report.steps import steps
from pipelines.tables.build import first_run
from pipelines.tables.cells import Line, Table
from pipelines.tasks.clustering import branches
from pipelines.training.runs import NotTrainedError, Run

CLUSTERS = 20  #: number of clusters per branch whose clips are shown, the largest ones
CLIPS = 3  #: number of clips shown of a cluster
PLACES = 6  #: places in a strip: 6 frames of one body, or 3 of two bodies
MIXTURES = 5  #: number of pairs of classes that are listed as mixed
FIT = 0.9  #: share of bodies that fit into their places; with 1, a single large movement would make all bodies small
HEIGHT, MARGIN = 200, 14  #: height of bodies in a strip, and the margin around them; whole numbers keep pages small


LIMITS = ("The number of clusters is the target's true number of classes (oracle K), which is seldom known.",)
COLUMNS = "cluster of branch B0 that Hungarian matching pairs with the class (for k-means, clusters of its first start)"


def sections(
    experiment: Experiment,
    table: Table,
    rows: tuple[Result, ...],
    runs: Path,
    stores: Path,
    shifts: tuple[str, ...] = (),
) -> Iterator[str]:
    """Yield the confusion matrices of classes and matched clusters, and the clusters of the best row.

    shifts: those of the clusters; () is all of them.
    """
    yield confusions(experiment, table, runs, stores, "matched cluster", COLUMNS)
    yield clusters(experiment, table.best or table.lines[0], shifts or table.shifts, runs, stores)


def clusters(experiment: Experiment, line: Line, shifts: Sequence[str], runs: Path, stores: Path) -> str:
    """The clusters of a row's first run, for each of the shifts."""
    parts, reasons = list[str](), list[str]()
    for shift in steps(shifts):
        try:
            run = Run.open(first_run(experiment, line, shift, runs))
            drawn = {branch: "".join(_branch(run, stores, branch)) for branch in branches(run.outputs)}
        except (FeatcacheError, OSError) as error:
            reasons.append(f"No clusters of {line.method} on {shift}: {error}.")
            continue
        parts.append(f"<h3>{escape(shift)}: {escape(line.method)}</h3>")
        for branch, shown in drawn.items():
            parts.append(shown if branch == "B0" else page.details(f"The clusters of branch {branch}", shown))
    intro = (
        "Clusters of the target's test clips, from the run of the first seed, largest first. A cluster has the name of "
        "the class that Hungarian matching pairs it with. The names, ✓ (a clip of that class) and ✗ (a clip of another "
        "class) use the target's labels and only help to read the clusters. Each cluster shows the "
        f"{CLIPS} clips whose features are nearest to its mean, in {PLACES} frames from left to right, or "
        f"{PLACES // 2} if there are two bodies. Bodies are drawn from the front (from the sensor if skeleton.rotate "
        "is false), so their right side (orange) is on the left and their left side (blue) on the right. All bodies of "
        "a branch have the same scale and floor; their distance from each other is not shown."
    )
    return page.section("Clusters", intro, *parts, reasons=reasons)


def _branch(run: Run, stores: Path, branch: str) -> Iterator[str]:
    """Yield the accuracy of the branch's clusters, their mixtures, and the contents of each cluster."""
    (label,) = run.facts.spec.classes
    assigned = predictions(run.folder, stores, label, branch)
    by = "its classifier" if f"cluster_{branch}" in run.outputs else "k-means (its first start)"
    share = f"{100 * np.mean(assigned.predicted == assigned.truth):.1f} % of {len(assigned.truth)} clips"
    yield page.paragraph(f"Branch {branch}, by {by}: {share} are in the cluster of their class. {mixtures(assigned)}")

    members = [np.flatnonzero(assigned.predicted == k) for k in range(len(assigned.classes))]
    largest = sorted(range(len(members)), key=lambda k: -len(members[k]))
    f_nD = run.outputs[f"feature_{branch}"][assigned.point]
    middle = {k: members[k][nearest(f_nD[members[k]])] for k in largest[:CLUSTERS] if len(members[k])}
    chosen = np.concatenate(list(middle.values()))
    clips = open_manifest(stores, run.config.manifest).clips
    texts = {n: f"{assigned.classes[assigned.truth[n]]} · {clips[run.outputs['rows'][n]].clip_id}" for n in chosen}
    pictures = dict.fromkeys(chosen, "")
    try:
        x_nCTVM = _skeletons(run, stores, branch, run.outputs["rows"][chosen])
        pictures = dict(zip(chosen, strips(x_nCTVM, [f"Skeletons of {texts[n]}" for n in chosen]), strict=True))
    except (FeatcacheError, OSError) as error:
        yield page.paragraph(f"No skeletons can be drawn: {error}.")
    for k, rows in middle.items():
        figures = [_figure(pictures[n], texts[n], right=assigned.truth[n] == k) for n in rows]
        yield page.figure(contents(assigned, k), f'<div class="strip people">{"".join(figures)}</div>')
    rest = [contents(assigned, k) for k in largest[CLUSTERS:] if len(members[k])]
    if empty := [assigned.classes[k] for k in largest if not len(members[k])]:
        rest.append(f"Empty: {len(empty)} of {len(members)} clusters, paired with {', '.join(empty)}")
    yield page.items(rest) if rest else ""


def _figure(picture: str, text: str, *, right: bool) -> str:
    """A clip with its class and id, marked as a clip of the cluster's class or of another."""
    kind, mark = ("right", "✓") if right else ("wrong", "✗")
    return f'<figure class="{kind}">{picture}<figcaption>{mark} {escape(text)}</figcaption></figure>'


# ------------------------------------------------------------------------------------------------------------- texts


def contents(assigned: Predictions, k: int) -> str:
    """The contents of the cluster of class k: its clips, those of class k, and another class if that has more clips."""
    classes = assigned.classes
    counts_C = np.bincount(assigned.truth[assigned.predicted == k], minlength=len(classes)).tolist()
    n, hits, total = sum(counts_C), counts_C[k], np.sum(assigned.truth == k)
    text = f"{classes[k]}: {n} clip{'s' * (n > 1)}, {hits} ({100 * hits / n:.0f} %) of the class, which has {total}"
    most = max(counts_C)
    return f"{text}; dominated by {classes[counts_C.index(most)]}: {most}" if most > hits else text


def mixtures(assigned: Predictions) -> str:
    """The pairs of classes with the most clips of the first class in the cluster of the second."""
    classes = assigned.classes
    counts_CC = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts_CC, (assigned.truth, assigned.predicted), 1)
    total_C = counts_CC.sum(1)
    np.fill_diagonal(counts_CC, 0)
    largest = np.argsort(-counts_CC, axis=None, kind="stable")[:MIXTURES]
    pairs = [(c, k) for c, k in zip(*np.unravel_index(largest, counts_CC.shape), strict=True) if counts_CC[c, k]]
    parts = (f"{counts_CC[c, k]} of {total_C[c]} {classes[c]} in the cluster of {classes[k]}" for c, k in pairs)
    return f"Most frequent errors: {'; '.join(parts)}." if pairs else ""


def nearest(f_nD: NDArray[np.floating], count: int = CLIPS) -> NDArray[np.int64]:
    """Return the positions of the rows nearest to the mean of all rows, nearest first."""
    distance_n = np.linalg.norm(f_nD - f_nD.mean(0), axis=1)
    return np.argsort(distance_n, kind="stable")[:count]


# -------------------------------------------------------------------------------------------------------- skeletons


def _skeletons(run: Run, stores: Path, branch: str, rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Read the skeletons (n, C, T, V, M) of rows, as the branch read them; NotTrainedError if the store has changed."""
    feeds = list(run.config.feeds)
    m = feeds[0] if branch == "B0" else feeds[-1]
    name = run.config.feeds[m].store
    store = open_store(stores / run.config.manifest, name, open_manifest(stores, run.config.manifest))
    if run.facts.read.get(f"store {m}") != store.fingerprint:
        raise NotTrainedError(f"store {name!r} has changed since run {run.config.id} was made; train it again")
    return store.read(rows)[:, 0].astype(np.float32)


def strips(x_nCTVM: NDArray[np.floating], alts: Sequence[str]) -> list[str]:
    """Return an image of each clip, all at the same scale, with these descriptions."""
    strips_nSV2 = [front(x_CTVM) for x_CTVM in x_nCTVM]
    bodies_bV2 = np.concatenate([at_SV2[~_empty(at_SV2)] for at_SV2 in strips_nSV2])
    reach_b2 = np.nanmax(np.abs(bodies_bV2), 1) if len(bodies_bV2) else np.ones((1, 2))
    wide, high = np.maximum(np.quantile(reach_b2, FIT, axis=0), 1e-6)
    return [_strip(at_SV2, HEIGHT / high, wide, alt) for at_SV2, alt in zip(strips_nSV2, alts, strict=True)]


def front(x_CTVM: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the positions of the joints of a strip, seen from the front -> (S, V, 2), NaN for missing joints.

    x is the distance to the right of the body's centre joint, as the viewer sees it. y is the height above the floor,
    the median over places of the height of the lowest joint. In rows of 3-D joints, y is upwards too, and the right
    shoulder is in direction +x from the left one. In rows of 2-D joints, x is to the right and y downwards, and joints
    may be missing; x is then measured from the median of the joints present. The frames that contain a body are split
    into equal parts, and the middle frame of each part is shown.
    """
    present_TM = (x_CTVM != 0).max(axis=(0, 2))
    times, bodies = np.flatnonzero(present_TM.max(1)), np.flatnonzero(present_TM.max(0))[:PLACES]
    V = x_CTVM.shape[2]
    at_SV2 = np.full((PLACES, V, 2), np.nan)
    if len(bodies):
        frames = PLACES // len(bodies)
        chosen = np.ix_(times[((np.arange(frames) + 0.5) * len(times) / frames).astype(int)], bodies)
        joints_SVC = x_CTVM.transpose(1, 3, 2, 0)[chosen].reshape(-1, V, len(x_CTVM))
        present_S = present_TM[chosen].reshape(-1)
        if _layout(V).plane:
            shown_SV2 = np.where((joints_SVC != 0).any(2, keepdims=True), joints_SVC[..., :2] * (1, -1), np.nan)
            shown_SV2 = shown_SV2[present_S]
            shown_SV2[..., 0] -= np.nanmedian(shown_SV2[..., 0], 1, keepdims=True)
        else:
            shown_SV2 = (joints_SVC[..., :2] * (-1, 1))[present_S]
            shown_SV2[..., 0] -= shown_SV2[:, [skeleton(V).centre], 0]
        shown_SV2[..., 1] -= np.median(np.nanmin(shown_SV2[..., 1], 1))
        at_SV2[: len(present_S)][present_S] = shown_SV2
    return at_SV2


def _empty(at_SV2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (S,): True for the places without a body."""
    return np.logical_and.reduce(np.isnan(at_SV2[..., 0]), axis=1)


def chains(V: int) -> dict[str, list[Chain]]:
    """Return chains of joints connected by bones, by side of the body: torso, right, left."""
    by_side: dict[str, list[Chain]] = {"torso": list(skeleton(V).torso), "right": [], "left": []}
    for chain in skeleton(V).limbs:
        by_side[_layout(V).names[chain[-1]].split()[0]].append(chain)
    return by_side


def _layout(V: int) -> Layout:
    """Return a layout with V joints; layouts with the same number differ only in a joint of the torso."""
    return next(layout for layout in LAYOUTS.values() if len(layout.names) == V)


def _strip(at_SV2: NDArray[np.float64], unit: float, wide: float, alt: str) -> str:
    """Return an image with `unit` of its coordinates per metre, and places for bodies `wide` metres to each side."""
    S, V, _ = at_SV2.shape
    place = 2 * unit * wide + MARGIN
    here_S = np.flatnonzero(~_empty(at_SV2))
    middle_S = (here_S + 0.5) * place
    x_SV = middle_S[:, None] + unit * at_SV2[here_S, :, 0]
    y_SV = MARGIN + HEIGHT - unit * at_SV2[here_S, :, 1]
    points_SV2 = np.rint(np.stack([x_SV, y_SV], 2))
    parts = [f'<path class="bone floor" d="M0 {HEIGHT + MARGIN}H{S * place:.0f}"/>']
    for side, bones in chains(V).items():
        lines = (_numbers(points_V2[list(chain)]) for points_V2 in points_SV2 for chain in bones)
        parts.append(f'<path class="bone {side}" d="{"".join(f"M{line}" for line in lines if line)}"/>')
    head = _layout(V).names.index("nose" if _layout(V).plane else "head")
    heads = "".join(f"M{_numbers(at_V2[[head]])}h0" for at_V2 in points_SV2 if np.isfinite(at_V2[head, 0]))
    parts.append(f'<path class="bone head" d="{heads}"/>')
    return marks.svg(S * place, HEIGHT + 2 * MARGIN, alt, parts)


def _numbers(points_p2: NDArray[np.float64]) -> str:
    """Return whole coordinates as text, x y x y ..., without missing points."""
    return " ".join(f"{number:.0f}" for point in points_p2 if np.isfinite(point[0]) for number in point)
