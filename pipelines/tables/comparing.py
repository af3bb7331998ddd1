"""Two rows of a table, or two runs, side by side: settings, results, and the test clips that only one gets right.

A is the first and B the second; every difference is B - A.

    compare(sides, stores) -> Comparison                       parts of a heading, a table and sentences
    markdown(comparison), clips_csv(comparison) -> str         the report prints the parts, too
"""

import csv
import io
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.wording import first
from pipelines import tasks
from pipelines.evaluation.results import Result
from pipelines.measures.intervals import Interval, over_clips, over_seeds
from pipelines.settings import as_text, flattened
from pipelines.tables import differs
from pipelines.tables.build import build, printed
from pipelines.tables.cells import ALIKE, INTERVAL, Cell, ends
from pipelines.tables.clips import Block, Cells, Part, blocks_of, classes, lines, moved, one_sided, tested
from pipelines.tables.formats import Note, html, pipes, wrapped
from pipelines.tables.outdated import current
from pipelines.tables.sides import MARK, Sides
from pipelines.training.runs import Run

if TYPE_CHECKING:
    import pandas as pd

CLIPS = ("kind", "shift", "seed", "clip", "truth", "a", "b", "right")  #: columns of the file of clips
VALUES = 3  #: values of a setting that are listed
ABSENT = "–"  #: what a side has instead of a setting that it does not have
SHA = 8  #: characters of a fingerprint that are shown
OVER = {  #: what an interval is over -> its explanation
    "clips and seeds": "test clips and seeds",
    "clips": "test clips only, because of a single seed",
    "seeds": "seeds only, of metrics whose results hold no outcomes of single clips",
}

Measured = dict[str, tuple[Result, Result]]  #: seed -> results of A and of B
Numbers = list[tuple[float, float]]  #: number of A and of B, for each seed


@dataclass(frozen=True, repr=False)
class Comparison:
    """A comparison as text, and the answers that differ. It prints itself, and shows itself in a notebook."""

    titles: tuple[str, str]  #: of A and B, with the marks of tables
    parts: tuple[Part, ...]
    notes: tuple[Note, ...]  #: those under the table of these two
    lines: Cells  #: of the file of clips
    blocks: tuple[Block, ...]  #: all answers of both

    def frame(self) -> "pd.DataFrame":
        """Return the answers that differ: a line for each question and seed, with the columns of `--clips`."""
        import pandas as pd

        return pd.DataFrame(self.lines, columns=list(CLIPS))

    def __str__(self) -> str:
        return markdown(self)

    def __repr__(self) -> str:
        return f"Comparison(A: {self.titles[0]}, B: {self.titles[1]}, {len(self.lines)} answers that differ)"

    def _repr_markdown_(self) -> str:
        return markdown(self)

    def _repr_html_(self) -> str:
        a, b = map(escape, self.titles)
        notes = [(part.heading, part.grid, list(map(Note, part.texts))) for part in self.parts]
        parts = [f"<h4>{escape(heading)}</h4>\n{html(grid, below)}" for heading, grid, below in notes]
        return f"<p>A: {a}<br>B: {b}</p>\n" + "".join([*parts, f"<h4>Notes</h4>\n{html([], self.notes)}"])


def compare(sides: Sides, stores: Path) -> Comparison:
    """Compare two rows or two runs. FeatcacheError if their answers cannot be read or belong to different questions."""
    table = build(sides.results, sides.experiment, explained=False)
    label_free = {line.method: line.label_free for line in table.lines}
    a, b = (t + MARK * (not label_free[name]) for t, name in zip(sides.titles, sides.names, strict=True))
    blocks = blocks_of(sides, stores)
    of_classes = [block for block in blocks if block.rank is None]
    details = [classes(of_classes), one_sided(of_classes)] if of_classes else [moved(blocks)]
    parts = [_settings(sides), _results(sides, table.metric), tested(blocks, _remarks(sides)), *details]
    return Comparison((a, b), tuple(parts), table.notes, [*lines(blocks)], tuple(blocks))


def markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown that also lines up in a terminal."""
    a, b = comparison.titles
    texts = [f"A: {a}\nB: {b}"]
    for part in comparison.parts:
        grid = [pipes(part.grid)] * (len(part.grid) > 1)
        below = "\n".join(wrapped(Note(text)) for text in part.texts)
        texts.append("\n".join([f"## {part.heading}\n", *grid, below]).rstrip())
    texts.append("## Notes\n\n" + "\n".join(map(wrapped, comparison.notes)))
    return "\n\n".join(texts) + "\n"


def clips_csv(comparison: Comparison) -> str:
    """Return the answers that differ as CSV, one line for each question and seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CLIPS)
    writer.writerows(comparison.lines)
    return out.getvalue()


def _remarks(sides: Sides) -> Iterator[str]:
    """Yield sentences on the point, and on the clusters, that single clips are read from."""
    if any(run.config.select == "mean" for pair in sides.pairs for run in pair.runs):
        yield "Single clips: at the last of the kept outputs. The results are means over the kept outputs."
    task, metrics = sides.experiment.task, {row.metric for row in sides.results}
    if task.stand_in and task.headline(()) not in metrics:
        yield "Single clips: in the clusters of the first start of k-means. The results are means over the starts."


# ------------------------------------------------------------------------------------------------------------ settings


def _settings(sides: Sides) -> Part:
    """The settings of the runs, and the facts about their features, that differ between the sides."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}  # setting -> values of A, values of B
    for pair in sides.pairs:
        a, b = (_described(run) for run in pair.runs)
        for name in (name for name in a | b if a.get(name) != b.get(name)):
            for values, settings in zip(found.setdefault(name, ({}, {})), (a, b), strict=True):
                values[settings.get(name, ABSENT)] = None
    grid = [["setting", "A", "B"], *([name, *(first(v, VALUES, " / ") for v in ab)] for name, ab in found.items())]
    texts = [] if found else ["All settings and features are the same."]
    if any(ABSENT in cells for cells in grid):
        texts.append(f"{ABSENT}: this side has no such setting.")
    return Part("Settings that differ", grid, tuple(texts))


def _described(run: Run) -> dict[str, str]:
    """Return the settings of a run and the facts about its features as text. The tier of features changes nothing."""
    facts = run.facts
    described = {path: as_text(value) for path, value in flattened(run.config.all_settings).items() if path != "row"}
    for feed, recipe in facts.recipes.items():
        described[f"recipe of {feed}"] = recipe[:SHA]
        if content := facts.read.get(f"store {feed}"):
            described[f"content of {feed}"] = content[:SHA]
    described["untrained weights"] = ", ".join(facts.untrained) or "none"
    return described


# ------------------------------------------------------------------------------------------------------------- results


def _results(sides: Sides, headline: str) -> Part:
    """The metrics that differ, the headline first: it for each shift, all as means over the shifts."""
    found: dict[str, dict[str, Result]] = {}  # metric -> run -> result
    for row in current(sides.results, sides.experiment):
        found.setdefault(row.metric, {})[row.run] = row
    ids = {run.config.id for pair in sides.pairs for run in pair.runs}
    shared = [metric for metric, results in found.items() if ids <= results.keys()]
    grid: Cells = [["metric", "shift", "A", "B", "B - A", INTERVAL]]
    equal, over = [], dict[str, None]()
    for metric in sorted(shared, key=lambda metric: metric != headline):
        measured: dict[str, Measured] = {shift: {} for shift in sides.shifts}
        for pair in sides.pairs:
            a, b = (found[metric][run.config.id] for run in pair.runs)
            measured[pair.shift][pair.seed] = a, b
        if all(a.value == b.value for of_shift in measured.values() for a, b in of_shift.values()):
            equal.append(metric)
            continue
        parts = {shift: {shift: of_shift} for shift, of_shift in measured.items()}
        if len(measured) > 1 and (of_all := _of_all_shifts(measured)):
            parts = {**(parts if metric == headline else {}), "mean": of_all}
        for where, of_part in parts.items():
            numbers, interval = _mean(of_part), _interval(metric, of_part)
            grid.append([metric, where, *_cells(metric, numbers), _as_interval(metric, interval)])
            over |= {interval.over: None} if interval else {}
    texts = [f"{INTERVAL}: of B - A, over {'; over '.join(OVER[name] for name in over)}."] if over else []
    if any(ALIKE in line[-1] for line in grid):
        texts.append(f"{ALIKE}: A and B are not distinguishable, because 0 is in the interval.")
    texts += [f"Equal: {', '.join(equal)}."] if equal else []
    if lone := sorted({metric for metric, results in found.items() if ids & results.keys()} - {*shared}):
        texts.append(f"Not measured for all of these runs: {first(lone)}.")
    return Part("Results that differ", grid, tuple(texts))


def _of_all_shifts(measured: Mapping[str, Measured]) -> dict[str, Measured]:
    """Return the results of the seeds that all shifts have; {} if there is none."""
    shared = set.intersection(*({*of_shift} for of_shift in measured.values()))
    kept = {shift: {seed: both for seed, both in of.items() if seed in shared} for shift, of in measured.items()}
    return kept if shared else {}


def _mean(measured: Mapping[str, Measured]) -> Numbers:
    """Return the means over shifts of A and B, as tables print them, for each seed; all shifts have the same seeds."""
    seeds = next(iter(measured.values()))
    of_seeds = [[of_shift[seed] for of_shift in measured.values()] for seed in seeds]
    return [
        (statistics.fmean(printed(a) for a, _ in of_seed), statistics.fmean(printed(b) for _, b in of_seed))
        for of_seed in of_seeds
    ]


def _cells(metric: str, numbers: Numbers) -> list[str]:
    """Return A, B and B - A as text, with the standard deviations over seeds if there are several."""
    digits = tasks.metric(metric).digits
    columns = [a for a, _ in numbers], [b for _, b in numbers], [b - a for a, b in numbers]
    cells = [Cell(dict(enumerate(column)), tuple(range(len(column)))) for column in columns]
    return [cell.text(digits, sign) for cell, sign in zip(cells, ("", "", "+"), strict=True)]


def _interval(metric: str, measured: Mapping[str, Measured]) -> Interval | None:
    """Return the interval of B - A over clips, or over seeds if results have no outcomes of clips."""
    clips = differs.outcomes([row for of in measured.values() for both in of.values() for row in both], [metric])
    number = {seed: k for k, seed in enumerate(next(iter(measured.values())))}
    a, b = (
        {
            shift: {number[seed]: clips[both[k].run] for seed, both in of.items() if both[k].run in clips}
            for shift, of in measured.items()
        }
        for k in (0, 1)
    )
    found = over_clips(b, a) if all(len(side[shift]) == len(number) for side in (a, b) for shift in side) else None
    return found.times(100) if found else over_seeds([b - a for a, b in _mean(measured)], tasks.metric(metric).widest)


def _as_interval(metric: str, interval: Interval | None) -> str:
    """Return an interval as tables print it; nothing if there is none."""
    if interval is None:
        return ""
    return f"{ends(interval, tasks.metric(metric).digits)}{'' if interval.differs else f' {ALIKE}'}"
