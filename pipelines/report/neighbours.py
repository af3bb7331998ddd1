"""The section of a report with the nearest source clips of target clips [XMC, Fig. 6 and 8]."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.manifest import Clip, Manifest
from pipelines.report import page
from pipelines.report.frames import Thumbnails
from pipelines.report.samples import Drawn, Floats, Sample

QUERIES = 5  #: number of target clips
NEAREST = 3  #: number of source clips that are shown of each target clip, in each row
FIRST = "rgb"  #: features that are compared, if a run has them; else its first ones


@dataclass(frozen=True)
class Neighbours:
    """The clips of a target and the source clips that are nearest to them in one space of a run."""

    space: str
    queries: tuple[Clip, ...]  #: target clips that have the modality, and features that are not zero
    pool: tuple[Clip, ...]  #: such clips of the source
    nearest: NDArray[np.int64]  #: (queries, k), positions in `pool`, nearest first
    kind: str  #: label kind

    def right(self, query: int) -> list[bool]:
        """True for each neighbour that has the label of the query."""
        wanted = self.queries[query].labels.get(self.kind)
        return [wanted is not None and self.pool[k].labels.get(self.kind) == wanted for k in self.nearest[query]]

    @property
    def share(self) -> float:
        """The share of target clips whose nearest source clip has their label, in per cent."""
        return 100 * float(np.mean([self.right(query)[0] for query in range(len(self.queries))]))


def gallery(drawn: Drawn) -> str:
    """Random target clips, each with its nearest source clips in every drawn row."""
    found = {sample.method: neighbours(sample) for sample in drawn.samples}
    usable = {method: of for method, of in found.items() if of.queries and of.pool}
    reasons = [page.paragraph(reason) for reason in drawn.reasons]
    reasons += [
        page.paragraph(f"No neighbours of {name}: the features of all clips of a domain are zero.")
        for name in found
        if name not in usable
    ]
    parts: list[str] = []
    intro = ""
    if usable:
        spaces = dict.fromkeys(of.space for of in usable.values())
        kind = _kind(next(iter(usable.values())).kind)
        shares = "; ".join(f"{method} {of.share:.1f} %" for method, of in usable.items())
        intro = (
            f"Random target clips, and the source clips whose {' or '.join(spaces)} features have the largest cosine "
            f"with theirs: ✓ of the same {kind}, ✗ of another one. {drawn.words} Target clips whose nearest source "
            f"clip has their {kind}: {shares}. Clips whose features are all zero are left out. Labels of the target "
            "only mark and count the clips."
        )
        *cards, missing = _cards(drawn.samples[0].manifest, usable)
        parts += [page.panels(cards, "wide"), missing]
    return page.section(f"Nearest source clips of target clips{drawn.on}", intro, *parts, *reasons)


def neighbours(sample: Sample) -> Neighbours:
    """The nearest source clips of all target clips, by cosine: of fused features, of rgb, or of the first modality."""
    space = FIRST if FIRST in sample.spaces else sample.spaces[0]
    kind, part = next(iter(sample.parts.items()))
    source, target = sample.source, sample.target
    in_source, in_target = (
        np.flatnonzero(half.present[space] & half.f[space][:, part].any(1)) for half in (source, target)
    )
    cosine = _unit(target.f[space][in_target][:, part]) @ _unit(source.f[space][in_source][:, part]).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :NEAREST]
    pool, queries = ([half.clips[n] for n in rows] for half, rows in ((source, in_source), (target, in_target)))
    return Neighbours(space, tuple(queries), tuple(pool), nearest, kind)


def _unit(f_ND: Floats) -> Floats:
    """Rows of length 1, in double precision."""
    f_ND = f_ND.astype(np.float64)
    return f_ND / np.linalg.norm(f_ND, axis=1, keepdims=True)


def _kind(kind: str) -> str:
    """The label kind as a word: its name, or class if there is only one kind."""
    return "class" if kind == "label" else kind


def _cards(manifest: Manifest, found: dict[str, Neighbours]) -> Iterator[str]:
    """Yield a card per query, and a sentence about missing pictures if there are any."""
    pictures = Thumbnails(manifest)
    known = [{clip.clip_id: k for k, clip in enumerate(of.queries)} for of in found.values()]
    shared = [clip for clip in next(iter(found.values())).queries if all(clip.clip_id in of for of in known)]
    for n in np.random.default_rng(0).permutation(len(shared))[:QUERIES]:
        clip = shared[n]
        shown = [pictures.figure(clip, "target clip", "")]
        for (method, of), place in zip(found.items(), known, strict=True):
            query = place[clip.clip_id]
            for number, (k, right) in enumerate(zip(of.nearest[query], of.right(query), strict=True), 1):
                label = of.pool[k].labels.get(of.kind, of.pool[k].clip_id)
                text = f"{method}, {number} {'✓' if right else '✗'} {label}"
                shown.append(pictures.figure(of.pool[k], text, "right" if right else "wrong"))
        kind = next(iter(found.values())).kind
        caption = f"{clip.labels.get(kind, 'without a label')} ({clip.clip_id})"
        yield page.figure(caption, f'<div class="strip">{"".join(shown)}</div>')
    yield pictures.missing()
