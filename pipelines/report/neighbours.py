"""The section of a report with the nearest source clips of target clips [XMC, Fig. 6 and 8]."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.manifest import Clip
from pipelines.report import page
from pipelines.report.frames import Card, Thumbnails, cards
from pipelines.report.samples import Drawn, Floats, Half, Sample

QUERIES = 5  #: number of target clips
NEAREST = 3  #: number of source clips that are shown of each target clip, in each row
FIRST = "rgb"  #: modality that is compared, if clips of both domains have it; else the first one that they have


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
    """Random target clips, each with its nearest source clips in every drawn row, for each label kind."""
    heading = f"Nearest source clips of target clips{drawn.on}"
    if not drawn.samples:
        return page.section(heading, "", reasons=drawn.reasons)
    parts, reasons, several = list[str](), list(drawn.reasons), len(drawn.kinds) > 1
    pictures = Thumbnails(drawn.samples[0].manifest)
    for kind in drawn.kinds:
        found = {}
        for sample in drawn.samples:
            try:
                found[sample.method] = neighbours(sample, kind)
            except ConfigError as error:
                reasons.append(f"No neighbours of {sample.method}{f', {kind}' if several else ''}: {error}.")
        if found:
            parts += [f"<h3>{escape(kind)}</h3>"] if several else []
            parts += [page.paragraph(_shares(found)), cards(pictures, _cards(found))]
    intro = ""
    if parts:
        kinds = " or ".join(map(_word, drawn.kinds))
        part = ", in the part that the classifier of the label kind reads" if several else ""
        intro = (
            f"Random target clips, and the source clips whose features have the largest cosine with theirs{part}: ✓ of "
            f"the same {kinds}, ✗ of another one. {drawn.words} Clips whose features are all zero are left out. Labels "
            "of the target only mark and count the clips."
        )
        reasons.append(pictures.missing())
    return page.section(heading, intro, *parts, reasons=reasons)


def neighbours(sample: Sample, kind: str) -> Neighbours:
    """The nearest source clips of all target clips, by cosine of the part that the label kind's classifier reads.

    The features are those of rgb, or of the first modality that clips of both domains have and that are not zero;
    ConfigError with the reasons if there are none.
    """
    part, reasons = sample.parts[kind], list[str]()
    for space in sorted(sample.spaces, key=lambda name: name != FIRST):
        f = {side: half.f[space][:, part] for side, half in sample.halves.items()}
        rows = {side: np.flatnonzero(half.present[space] & f[side].any(1)) for side, half in sample.halves.items()}
        if all(map(len, rows.values())):
            cosine = _unit(f["target"][rows["target"]]) @ _unit(f["source"][rows["source"]]).T
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :NEAREST]
            clips = {side: tuple(half.clips[n] for n in rows[side]) for side, half in sample.halves.items()}
            return Neighbours(space, clips["target"], clips["source"], nearest, kind)
        reasons += [_lack(half, side, space) for side, half in sample.halves.items() if not len(rows[side])]
    raise ConfigError("; ".join(reasons))


def _lack(half: Half, side: str, space: str) -> str:
    """The reason why no clip of a domain can be compared in a space."""
    if half.present[space].any():
        return f"the {space} features of all {side} clips are zero"
    return f"no {side} clip has {space}"


def _shares(found: dict[str, Neighbours]) -> str:
    """The share of target clips whose nearest source clip has their label, and the compared features, of each row."""
    kind = _word(next(iter(found.values())).kind)
    shares = "; ".join(f"{method} {of.share:.1f} % ({of.space} features)" for method, of in found.items())
    return f"Target clips whose nearest source clip has their {kind}: {shares}."


def _unit(f_ND: Floats) -> Floats:
    """Rows of length 1, in double precision."""
    f_ND = f_ND.astype(np.float64)
    return f_ND / np.linalg.norm(f_ND, axis=1, keepdims=True)


def _word(kind: str) -> str:
    """The label kind as a word: its name, or class if there is only one kind."""
    return "class" if kind == "label" else kind


def _cards(found: dict[str, Neighbours]) -> Iterator[Card]:
    """Yield a card per query."""
    known = [{clip.clip_id: k for k, clip in enumerate(of.queries)} for of in found.values()]
    shared = [clip for clip in next(iter(found.values())).queries if all(clip.clip_id in of for of in known)]
    for n in np.random.default_rng(0).permutation(len(shared))[:QUERIES]:
        clip = shared[n]
        shown = [(clip, "target clip", "")]
        for (method, of), place in zip(found.items(), known, strict=True):
            query = place[clip.clip_id]
            for number, (k, right) in enumerate(zip(of.nearest[query], of.right(query), strict=True), 1):
                label = of.pool[k].labels.get(of.kind, of.pool[k].clip_id)
                text = f"{method}, {number} {'✓' if right else '✗'} {label}"
                shown.append((of.pool[k], text, "right" if right else "wrong"))
        kind = next(iter(found.values())).kind
        yield f"{clip.labels.get(kind, 'without a label')} ({clip.clip_id})", shown
