"""The parts of a report that show retrieval: what queries find, and where clips and captions of both domains lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch

from featcache.endings import ARRAY
from featcache.errors import ConfigError, FeatcacheError
from featcache.manifest import Manifest
from heads.nets import Retrieval
from pipelines.config import OWN
from pipelines.data.opening import open_run
from pipelines.data.stores import open_manifest
from pipelines.evaluation.embeddings import pairs, tsne
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.ranks import ranks
from pipelines.report import page, plots
from pipelines.report.classification import BASE, LIMITS
from pipelines.report.frames import frames, thumbnail
from pipelines.tables.build import first_run
from pipelines.tables.cells import Line, Table
from pipelines.training.runs import Run

__all__ = ["BASE", "LIMITS", "answers", "sections"]

QUERIES = 8  #: of a shift, half of them right where there are so many
FOUND = 5  #: clips of a query
TRIED = 1000  #: captions that the queries are drawn from
PAIRS = 150  #: of a domain, in the picture by t-SNE; each is two points


def sections(experiment: Experiment, table: Table, rows: tuple[Result, ...], runs: Path, stores: Path) -> Iterator[str]:
    """Frames of the classes, queries with their answers, and the embeddings of both domains."""
    base, best = table.lines[0], table.best or table.lines[0]
    yield frames(experiment, stores)
    yield gallery(experiment, best, runs, stores)
    yield joint_space(experiment, [base] if base is best else [base, best], runs, stores)


@dataclass(frozen=True)
class Answer:
    """What a run says to one caption of its test clips."""

    caption: int  #: row of the manifest of captions
    rank: float  #: of its clip, from 0
    found: tuple[int, ...]  #: rows of the clips' manifest, best first
    own: int  #: the one that it is a caption of


def answers(run: Run, *, count: int = QUERIES, found: int = FOUND, seed: int = 0) -> list[Answer]:
    """Answers to test captions drawn by a seed, at the last kept point: half found at once, half not, if possible."""
    net, kept = run.method().net, run.outputs
    assert isinstance(net, Retrieval)
    text, visual, clip = kept["text"][-1], kept["visual"][-1], kept["clip"]
    tried = np.random.default_rng(seed).permutation(len(text))[:TRIED]
    with torch.no_grad():
        t2v, _ = ranks(text[tried], visual, clip[tried], net.similarity)
        right, wrong = np.flatnonzero(t2v == 0), np.flatnonzero(t2v > 0)
        at_once = right[: max(count // 2, count - len(wrong))]
        chosen = [*at_once, *wrong[: count - len(at_once)]]
        xi = net.similarity(torch.from_numpy(text[tried[chosen]]), torch.from_numpy(visual))
    order = xi.sort(dim=1, descending=True, stable=True).indices[:, :found].numpy()
    rows = kept["rows"]
    return [
        Answer(int(kept["captions"][tried[k]]), float(t2v[k]), tuple(rows[best].tolist()), int(rows[clip[tried[k]]]))
        for k, best in zip(chosen, order, strict=True)
    ]


def gallery(experiment: Experiment, line: Line, runs: Path, stores: Path) -> str:
    """Per shift, queries and the first clips that a row's first run finds."""
    parts: list[str] = []
    for shift in line.cells:
        parts.append(f"<h3>{escape(shift)}: {escape(line.method)}</h3>")
        try:
            parts += _answers(Run.open(first_run(experiment, line, shift, runs)), stores)
        except (FeatcacheError, OSError) as error:
            parts.append(page.paragraph(f"No queries of {line.method} on {shift}: {error}."))
    intro = (
        "Captions of test clips as queries, drawn by a seed: half of those whose clip comes first, half of the others, "
        f"where there are as many. First {FOUND} clips by the first seed's run: ✓ the caption's own clip, ✗ another."
    )
    return page.section("What queries find", intro, *parts)


def _answers(run: Run, stores: Path) -> Iterator[str]:
    """A card per query; pictures where the media are at hand, and a sentence where they are not."""
    clips, captions = _manifests(run, stores)
    words: dict[int, str] = {}  # of each clip its first caption
    for caption, place in zip(run.outputs["captions"].tolist(), run.outputs["clip"].tolist(), strict=True):
        words.setdefault(int(run.outputs["rows"][place]), captions.clips[caption].caption)
    reasons: dict[int, str] = {}
    pictures: dict[int, str] = {}
    for answer in answers(run):
        figures = []
        for number, row in enumerate(answer.found, 1):
            clip, right = clips.clips[row], row == answer.own
            if row not in pictures and row not in reasons:
                try:
                    pictures[row] = thumbnail(clips, clip, f"A picture of clip {clip.clip_id}")
                except (FeatcacheError, OSError) as error:
                    reasons[row] = str(error)
            text = f"{number} {'✓' if right else '✗'} {words.get(row) or clip.clip_id}"
            figures.append(
                f'<figure class="{"right" if right else "wrong"}">{pictures.get(row, "")}'
                f"<figcaption>{escape(text)}</figcaption></figure>"
            )
        own = "its clip comes first" if answer.rank == 0 else f"its clip has rank {answer.rank + 1:g}"
        query = f"“{captions.clips[answer.caption].caption}”: {own} of {len(run.outputs['rows'])}"
        yield page.figure(query, f'<div class="strip">{"".join(figures)}</div>')
    if reasons and all(Path(clips.clips[row].source).suffix.lower() in ARRAY for row in reasons):
        yield page.paragraph("No pictures: the sources are no media.")
    elif reasons:
        first = next(iter(reasons.values()))
        yield page.paragraph(
            f"Pictures not at hand: {len(reasons)} of {len(reasons) + len(pictures)}. The first: {first}"
        )


def _manifests(run: Run, stores: Path) -> tuple[Manifest, Manifest]:
    """Of the clips and of the captions, as they were when the run was made; ConfigError for others."""
    named = next(run.config.feeds[m].captions for m in run.config.captions)
    clips = open_manifest(stores, run.config.manifest)
    captions = clips if named == OWN else open_manifest(stores, named)
    for what, manifest in (("manifest", clips), ("captions", captions)):
        if run.facts["read"].get(what) != manifest.sha256:
            raise ConfigError(f"manifest {manifest.name!r} has changed since run {run.config.id} was made")
    return clips, captions


def joint_space(experiment: Experiment, lines: Sequence[Line], runs: Path, stores: Path) -> str:
    """Per shift, t-SNE of pairs of both domains, a panel per row."""
    parts = []
    for shift in lines[0].cells:
        figures, reasons = [], []
        for line in lines:
            try:
                figures.append(
                    page.figure(line.method, _placed(first_run(experiment, line, shift, runs), stores, shift))
                )
            except (FeatcacheError, OSError) as error:
                reasons.append(page.paragraph(f"Nothing of {line.method} on {shift}: {error}."))
        parts += [f"<h3>{escape(shift)}</h3>", page.panels(figures), *reasons]
    intro = (
        f"Embeddings of up to {PAIRS} test clips of each domain and of a caption of each, placed by t-SNE on cosines. "
        "Near points are alike; distances between groups mean nothing. Captions of the target were not trained on."
    )
    return page.section("Where clips and captions lie", intro, *parts)


def _placed(folder: Path, stores: Path, shift: str) -> str:
    run = Run.open(folder)
    opened, method = open_run(run.config, stores), run.method()
    domains = {"source": run.config.source, "target": (run.config.test,)}
    x, groups = [], []
    for colour, (side, of) in enumerate(domains.items()):
        if of:
            found = pairs(method, opened, *of)
            chosen = np.random.default_rng(run.config.seed).permutation(len(found.visual))[:PAIRS]
            for shape, (kind, rows) in enumerate({"clips": found.visual, "captions": found.text}.items()):
                x.append(rows[chosen])
                groups.append((f"{', '.join(of)} ({side}), {kind}", colour, shape))
    placed = np.split(tsne(np.concatenate(x), seed=run.config.seed), np.cumsum([len(part) for part in x])[:-1])
    points = [plots.Points(*group, part) for group, part in zip(groups, placed, strict=True)]
    return plots.scatter(points, f"t-SNE of clips and captions, {shift}: " + "; ".join(name for name, _, _ in groups))
