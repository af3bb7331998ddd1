"""The section of a report with the test clips, or the queries, that a row gets wrong: picture, truth and answer."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from textwrap import shorten

from featcache.errors import FeatcacheError
from featcache.manifest import Manifest
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.report.frames import Thumbnails
from pipelines.report.steps import steps
from pipelines.tables.clips import LETTERS, Block, counted

HEADING = "Wrong answers of {}"
LISTED = 200  #: most rows of the table, the worst answers
PICTURES = 40  #: rows of the table that have a picture, the first ones: each has to be decoded
CLASSES = (
    "Answers are classes, with the number of seeds where seeds differ. `featcache evaluate --predictions FILE` writes "
    "all predictions."
)
RANKS = (
    "A query is wrong if its right answer does not come first; equal answers share their mean rank, so none of them "
    "comes first. t2v finds the clip of a caption, v2t a caption of a clip. Ranks count from 1, and are means over "
    "seeds. The queries of each direction and shift take turns, because they have different numbers of candidates."
)


def wrong(experiment: Experiment, stores: Path, titles: tuple[str, str], blocks: Sequence[Block]) -> str:
    """The clips or queries that the second row gets wrong in at least one seed, with the answers of both rows.

    titles: the names of the rows; both are the same if the table has only one.
    """
    a, b = titles
    found = _worst_first(blocks)
    if not found:
        return ""
    listed, (pictures, reason) = found[:LISTED], _pictures(experiment, stores)
    kinds, ranked = len({block.kind for block in blocks}) > 1, blocks[0].rank is not None
    heads = ["picture", *(["query", "right answer"] if ranked else ["clip", "truth"]), *["answers"] * kinds, "shift"]
    for row in (b, a)[: 1 + (a != b)]:
        heads += [f"first answer, {row}", f"rank, {row}"] if ranked else [row]
    heads.append("seeds wrong")
    body = []
    for place, (block, k) in enumerate(steps(listed)):
        shown = pictures.image(pictures.clips[block.clip[k]]) if pictures and place < PICTURES else ""
        times = f"{int((~block.right[1, :, k]).sum())} of {len(block.seeds)}"
        given = [text for side in (1, 0)[: 1 + (a != b)] for text in _given(block, side, k)]
        texts = [_short(block, block.truth[k]), *[block.kind] * kinds, block.shift, *given, times]
        query = shorten(block.words[k], LETTERS, placeholder="…") or block.asked[k]
        body.append(("", [f"<td>{shown}</td>", page.cell(query, head=True), *map(page.cell, texts)]))
    if not any("<img" in cells[0] for _, cells in body):
        heads, body = heads[1:], [(kind, cells[1:]) for kind, cells in body]
    asked = sum(len(block.asked) for block in blocks)
    worst = "with the worst ranks" if ranked else "that are wrong in most seeds"
    chosen = f"; those {worst} are listed, {LISTED} of them" if len(found) > LISTED else ""
    intro = (
        f"{len(found)} of {asked} answers of {b} are wrong in at least one seed{chosen}. "
        f"{RANKS if ranked else CLASSES} At most {PICTURES} have a picture."
    )
    more = [pictures.missing() if pictures else reason]
    return page.section(HEADING.format(b), intro, page.table(heads, body, "words"), reasons=more)


def _worst_first(blocks: Sequence[Block]) -> list[tuple[Block, int]]:
    """The answers that the second row gets wrong in at least one seed: block, and row of it.

    Ranks of different candidates are not comparable: the worst answers of all blocks come first, then the next ones.
    """
    of_blocks = [
        sorted(((block, k) for k in range(len(block.asked)) if not block.right[1, :, k].all()), key=_order)
        for block in blocks
    ]
    if blocks and blocks[0].rank is not None:
        return [answer for turn in zip_longest(*of_blocks) for answer in turn if answer]
    return sorted(chain.from_iterable(of_blocks), key=_order)


def _order(found: tuple[Block, int]) -> tuple[float | str, ...]:
    """The order of wrong answers: by the mean rank of the right answer, or by the number of seeds, the worst first."""
    block, k = found
    worse = float((~block.right[1, :, k]).sum() if block.rank is None else block.rank[1, :, k].mean())
    return -worse, block.kind, block.shift, block.asked[k]


def _given(block: Block, side: int, k: int) -> list[str]:
    """The answer of a row: the class; or what comes first, and the mean rank of the right answer."""
    given = counted([_short(block, text) for text in block.given[side, :, k].tolist()])
    return [given] if block.rank is None else [given, f"{block.rank[side, :, k].mean() + 1:.4g}"]


def _short(block: Block, answer: str) -> str:
    """A class as it is; a caption with at most LETTERS letters."""
    return answer if block.rank is None else shorten(answer, LETTERS, placeholder="…")


def _pictures(experiment: Experiment, stores: Path) -> tuple[Thumbnails | None, str]:
    """Return the pictures of the experiment's clips, or the reason why there are none."""
    names = list(dict.fromkeys(run.manifest for run in experiment.runs))
    if len(names) > 1:
        return None, f"No pictures: the runs have several manifests ({', '.join(names)})."
    try:
        return Thumbnails(Manifest.read(stores / names[0] / "manifest.csv")), ""
    except (FeatcacheError, OSError) as error:
        return None, f"No pictures: {error}."
