"""The sections of a retrieval report: frames, queries with their answers, and a map of clips and captions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch

from featcache.errors import FeatcacheError
from heads.methods import Method
from heads.nets import Retrieval
from pipelines.evaluation.answers import manifests
from pipelines.evaluation.embeddings import budget, kept_pairs, pairs, tsne
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.ranks import ranks
from pipelines.report import page, plots
from pipelines.report.classification import LIMITS
from pipelines.report.frames import Card, Thumbnails, cards, frames
from pipelines.report.samples import rows_drawn
from pipelines.report.steps import steps
from pipelines.tables.build import first_run
from pipelines.tables.cells import Line, Table
from pipelines.training.runs import Run

__all__ = ["LIMITS", "answers", "sections"]

QUERIES = 8  #: queries of a shift; half of them are answered correctly if there are enough
CLIPS = 5  #: clips shown as the answer to a query
TRIED = 1000  #: number of captions from which the queries are chosen
PAIRS, LEAST = 150, 25  #: most and least pairs per domain in a t-SNE plot; each pair is two points
POINTS = 3000  #: most points in all of these plots together, where that leaves LEAST pairs


def sections(
    experiment: Experiment,
    table: Table,
    rows: tuple[Result, ...],
    runs: Path,
    stores: Path,
    shifts: tuple[str, ...] = (),
) -> Iterator[str]:
    """Yield the frames of the classes, queries with their answers, and the embeddings of both domains.

    shifts: those of the queries and embeddings; () is all of them.
    """
    yield frames(experiment, stores)
    yield gallery(experiment, table.best or table.lines[0], shifts or table.shifts, runs, stores)
    yield joint_space(experiment, rows_drawn(table), shifts or table.shifts, runs, stores)


@dataclass(frozen=True)
class Answer:
    """The answer of a run to a query: the clips that are most similar to a caption of a test clip."""

    caption: int  #: row of the caption in the manifest of captions
    rank: float  #: rank of the caption's own clip, from 0
    rows: tuple[int, ...]  #: rows of the answer in the manifest of clips, most similar first
    own: int  #: row of the caption's own clip


def answers(run: Run, *, count: int = QUERIES, clips: int = CLIPS, seed: int = 0) -> list[Answer]:
    """Return the answers to random test captions, at the last kept point.

    For half of the captions their own clip comes first, and for the other half it does not, if there are enough.
    """
    net, kept = run.method().net, run.outputs
    assert isinstance(net, Retrieval)
    text, visual, clip = kept["text"][-1], kept["visual"][-1], kept["clip"]
    tried = np.random.default_rng(seed).permutation(len(text))[:TRIED]
    with torch.no_grad():
        t2v, _ = ranks(text[tried], visual, clip[tried], net.similarity)
        right, wrong = np.flatnonzero(t2v == 0), np.flatnonzero(t2v > 0)
        chosen_right = right[: max(count // 2, count - len(wrong))]
        chosen = [*chosen_right, *wrong[: count - len(chosen_right)]]
        xi = net.similarity(torch.from_numpy(text[tried[chosen]]), torch.from_numpy(visual))
    order = xi.sort(dim=1, descending=True, stable=True).indices[:, :clips].numpy()
    rows = kept["rows"]
    return [
        Answer(int(kept["captions"][tried[k]]), float(t2v[k]), tuple(rows[best].tolist()), int(rows[clip[tried[k]]]))
        for k, best in zip(chosen, order, strict=True)
    ]


def gallery(experiment: Experiment, line: Line, shifts: Sequence[str], runs: Path, stores: Path) -> str:
    """Queries and the answers of a row's first run, for each of the shifts."""
    parts, reasons = list[str](), list[str]()
    for shift in steps(shifts):
        try:
            run = Run.open(first_run(experiment, line, shift, runs))
            pictures, entries = _answers(run, stores)
            drawn = cards(pictures, entries)
        except (FeatcacheError, OSError) as error:
            reasons.append(f"No queries of {line.method} on {shift}: {error}.")
            continue
        missing = page.paragraph(pictures.missing())
        parts.append(f"<h3>{escape(shift)}: {escape(line.method)}</h3>{drawn}{missing}" if drawn else "")
    intro = (
        "Random captions of test clips as queries. For half of them the caption's own clip comes first, for the others "
        f"it does not, if there are enough of both. Each query shows the first {CLIPS} clips that the run of the first "
        "seed finds: ✓ the caption's own clip, ✗ another clip."
    )
    return page.section("Example queries", intro, *parts, reasons=reasons)


def _answers(run: Run, stores: Path) -> tuple[Thumbnails, list[Card]]:
    """Return the pictures of the run's clips, and a card per query."""
    clips, captions = manifests(run, stores)
    first_captions: dict[int, str] = {}  # clip -> caption
    for caption, place in zip(run.outputs["captions"].tolist(), run.outputs["clip"].tolist(), strict=True):
        first_captions.setdefault(int(run.outputs["rows"][place]), captions.clips[caption].caption)
    entries = list[Card]()
    for answer in answers(run):
        figures = []
        for number, row in enumerate(answer.rows, 1):
            right = row == answer.own
            text = f"{number} {'✓' if right else '✗'} {first_captions.get(row) or clips.clips[row].clip_id}"
            figures.append((clips.clips[row], text, "right" if right else "wrong"))
        own = "its clip comes first" if answer.rank == 0 else f"its clip has rank {answer.rank + 1:g}"
        query = f"“{captions.clips[answer.caption].caption}”: {own} of {len(run.outputs['rows'])}"
        entries.append((query, figures))
    return Thumbnails(clips), entries


def joint_space(experiment: Experiment, lines: Sequence[Line], shifts: Sequence[str], runs: Path, stores: Path) -> str:
    """A map by t-SNE of clips and captions of both domains, for each of the shifts, with a panel per row."""
    parts, reasons, methods = list[str](), list[str](), dict[str, tuple[Run, Method]]()
    most = max(LEAST, budget(4 * len(shifts) * len(lines), most=PAIRS, total=POINTS))
    for shift in steps(shifts):
        figures = []
        for line in steps(lines):
            try:
                run = Run.open(first_run(experiment, line, shift, runs))
                methods[line.method] = run, run.method(like=methods.get(line.method))
                drawn = _placed(*methods[line.method], stores, shift, most)
                figures.append(page.figure(line.method, drawn))
            except (FeatcacheError, OSError) as error:
                reasons.append(f"No embeddings of {line.method} on {shift}: {error}.")
        parts.append(f"<h3>{escape(shift)}</h3>{page.panels(figures)}" if figures else "")
    intro = (
        f"Embeddings of up to {most} test clips of each domain and one caption of each clip, placed by t-SNE on "
        "cosine distances. Near points are similar; distances between groups have no meaning. Captions of the target "
        "were not used in training."
    )
    return page.section("Embeddings of clips and captions", intro, *parts, reasons=reasons)


def _placed(run: Run, method: Method, stores: Path, shift: str, most: int) -> str:
    """A scatter plot of so many pairs of the run's source and of its test domain."""
    opened = run.opened(stores)
    domains = {"source": run.config.source, "target": (run.config.test,)}
    x, groups = [], []
    for colour, (side, names) in enumerate(domains.items()):
        if names:
            embedded = pairs(method, opened, *names, most=most) if side == "source" else kept_pairs(run)
            chosen = np.random.default_rng(run.config.seed).permutation(len(embedded.visual))[:most]
            for shape, (kind, rows) in enumerate({"clips": embedded.visual, "captions": embedded.text}.items()):
                x.append(rows[chosen])
                groups.append((f"{', '.join(names)} ({side}), {kind}", colour, shape))
    placed = np.split(tsne(np.concatenate(x), seed=run.config.seed), np.cumsum([len(part) for part in x])[:-1])
    points = [plots.Points(*group, part) for group, part in zip(groups, placed, strict=True)]
    return plots.scatter(points, f"t-SNE of clips and captions, {shift}: " + "; ".join(name for name, _, _ in groups))
