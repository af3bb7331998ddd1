"""The section of a report with the test clips that a row gets wrong: picture, truth and prediction."""

from collections.abc import Sequence
from pathlib import Path

from featcache.errors import FeatcacheError
from featcache.manifest import Manifest
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.report.frames import Thumbnails
from pipelines.report.steps import steps
from pipelines.tables.clips import Block, counted

LISTED = 200  #: most clips in the table, those that are wrong in most seeds
PICTURES = 40  #: clips of the table that have a picture, the first ones: each has to be decoded


def wrong(experiment: Experiment, stores: Path, titles: tuple[str, str], blocks: Sequence[Block]) -> str:
    """The clips that the second row gets wrong in at least one seed, with the predictions of both rows.

    titles: the names of the rows; both are the same if the table has only one.
    """
    a, b = titles
    found = [
        (int((~block.right[1, :, k]).sum()), block, k)
        for block in blocks
        if block.rank is None
        for k in range(len(block.asked))
        if not block.right[1, :, k].all()
    ]
    if not found:
        return ""
    found.sort(key=lambda each: (-each[0], each[1].kind, each[1].shift, each[1].asked[each[2]]))
    listed, (pictures, reason) = found[:LISTED], _pictures(experiment, stores)
    kinds = len({block.kind for block in blocks}) > 1
    heads = ["picture", "clip", *["answers"] * kinds, "shift", "truth", b, *[a] * (a != b), f"seeds wrong: {b}"]
    body = []
    for place, (times, block, k) in enumerate(steps(listed)):
        shown = pictures.image(pictures.clips[block.clip[k]]) if pictures and place < PICTURES else ""
        given = [counted(block.given[side, :, k].tolist()) for side in (1, 0)[: 1 + (a != b)]]
        texts = [*[block.kind] * kinds, block.shift, block.truth[k], *given, f"{times} of {len(block.seeds)}"]
        body.append(("", [f"<td>{shown}</td>", page.cell(block.asked[k], head=True), *map(page.cell, texts)]))
    if not any("<img" in cells[0] for _, cells in body):
        heads, body = heads[1:], [(kind, cells[1:]) for kind, cells in body]
    asked = sum(len(block.asked) for block in blocks)
    intro = (
        f"{len(found)} of {asked} answers of {b} are wrong in at least one seed"
        f"{f'; those that are wrong in most seeds are listed, {LISTED} of them' if len(found) > LISTED else ''}. "
        "Predictions are classes, with the number of seeds where seeds differ. "
        f"At most {PICTURES} clips have a picture. `featcache evaluate --predictions FILE` writes all predictions."
    )
    more = [pictures.missing() if pictures else reason]
    return page.section(f"Clips that {b} gets wrong", intro, page.table(heads, body, "words"), reasons=more)


def _pictures(experiment: Experiment, stores: Path) -> tuple[Thumbnails | None, str]:
    """Return the pictures of the experiment's clips, or the reason why there are none."""
    names = list(dict.fromkeys(run.manifest for run in experiment.runs))
    if len(names) > 1:
        return None, f"No pictures: the runs have several manifests ({', '.join(names)})."
    try:
        return Thumbnails(Manifest.read(stores / names[0] / "manifest.csv")), ""
    except (FeatcacheError, OSError) as error:
        return None, f"No pictures: {error}."
