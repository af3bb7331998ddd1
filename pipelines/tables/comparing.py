"""Two rows of a table, or two runs, side by side: settings, results, and the test clips that only one has right.

A is the first and B the second; every difference is B - A.

    compare(sides, stores) -> Comparison                       parts of a heading, a table and sentences
    markdown(comparison), clips_csv(comparison) -> str         the report prints the parts, too
"""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.wording import first
from pipelines import tasks
from pipelines.evaluation.answers import Texts, both_answers
from pipelines.evaluation.results import Result
from pipelines.measures.intervals import Interval, over_clips, over_seeds
from pipelines.measures.paired import mcnemar
from pipelines.settings import flattened
from pipelines.tables import differs
from pipelines.tables.build import _value as printed
from pipelines.tables.build import build
from pipelines.tables.cells import ALIKE, INTERVAL, Cell, Note, ends
from pipelines.tables.formats import pipes, wrapped
from pipelines.tables.outdated import current
from pipelines.tables.sides import MARK, Sides
from pipelines.training.runs import Run

CLIPS = 10  #: clips, or queries, that are listed of each side
CLASSES = 10  #: classes that are listed of each side
VALUES = 3  #: values of a setting that are listed
LEVEL = 0.05  #: the p below which a seed counts
ABSENT = "–"  #: what a side has instead of a setting that it does not have
SHA = 8  #: characters of a fingerprint that are shown
OVER = {  #: what an interval is over -> its explanation
    "clips and seeds": "test clips and seeds",
    "clips": "test clips only, because of a single seed",
    "seeds": "seeds only, of metrics whose results hold no outcomes of single clips",
}

KIND, SHIFT = "answers", "shift"  #: headings of columns that are left out where all their cells are equal

Grid = list[list[str]]  #: cells of a table, headings first
Measured = dict[str, tuple[Result, Result]]  #: seed -> results of A and of B
Numbers = list[tuple[float, float]]  #: number of A and of B, for each seed


@dataclass(frozen=True)
class Part:
    """A part of a comparison; a table without lines is not shown."""

    heading: str
    grid: Grid
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A comparison as text, and the answers that differ."""

    titles: tuple[str, str]  #: of A and B, with the marks of tables
    parts: tuple[Part, ...]
    notes: tuple[Note, ...]  #: those under the table of these two
    lines: Grid  #: of the file of clips


@dataclass(frozen=True)
class Block:
    """The n questions of one kind and shift, with the answers of S pairs of runs, one pair for each seed.

    The first axis of its answers is the side: A, then B.
    """

    kind: str  #: label kind, or direction
    shift: str
    seeds: tuple[str, ...]
    asked: Texts  #: (n,)
    truth: Texts  #: (n,)
    given: Texts  #: (2, S, n)
    right: NDArray[np.bool_]  #: (2, S, n)
    rank: NDArray[np.float64] | None  #: (2, S, n), from 0; None for classes

    @property
    def gain(self) -> NDArray[np.int64]:
        """The number of seeds in which B has a question right, minus that of A (n,)."""
        times_a, times_b = self.right.sum(1)
        return np.asarray(times_b - times_a, np.int64)


def compare(sides: Sides, stores: Path) -> Comparison:
    """Compare two rows or two runs. FeatcacheError if their answers cannot be read or belong to different questions."""
    table = build(sides.results, sides.experiment, explained=False)
    label_free = {line.method: line.label_free for line in table.lines}
    a, b = (t + MARK * (not label_free[name]) for t, name in zip(sides.titles, sides.names, strict=True))
    blocks = _blocks(sides, stores)
    of_classes = [block for block in blocks if block.rank is None]
    details = [_classes(of_classes), _clips(of_classes)] if of_classes else [_moved(blocks)]
    parts = [_settings(sides), _results(sides, table.metric), _tests(blocks, _remarks(sides)), *details]
    return Comparison((a, b), tuple(parts), table.notes, [*_lines(blocks)])


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
    writer.writerow(["kind", "shift", "seed", "clip", "truth", "a", "b", "right"])
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
    described = {path: _as_text(value) for path, value in flattened(run.config.all_settings).items() if path != "row"}
    for feed, recipe in facts.recipes.items():
        described[f"recipe of {feed}"] = recipe[:SHA]
        if content := facts.read.get(f"store {feed}"):
            described[f"content of {feed}"] = content[:SHA]
    described["untrained weights"] = ", ".join(facts.untrained) or "none"
    return described


def _as_text(value: Any) -> str:
    """Return a setting as `--set` takes it.

    >>> [_as_text(value) for value in (None, True, 0.5, [0.3, 0.6], "D1")]
    ['none', 'true', '0.5', '0.3,0.6', 'D1']
    """
    if isinstance(value, list):
        return ",".join(map(str, value)) or "()"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value) or '""'


# ------------------------------------------------------------------------------------------------------------- results


def _results(sides: Sides, headline: str) -> Part:
    """The metrics that differ, the headline first: it for each shift, all as means over the shifts."""
    found: dict[str, dict[str, Result]] = {}  # metric -> run -> result
    for row in current(sides.results, sides.experiment):
        found.setdefault(row.metric, {})[row.run] = row
    ids = {run.config.id for pair in sides.pairs for run in pair.runs}
    shared = [metric for metric, results in found.items() if ids <= results.keys()]
    grid: Grid = [["metric", SHIFT, "A", "B", "B - A", INTERVAL]]
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
    return found.times(100) if found else over_seeds([b - a for a, b in _mean(measured)])


def _as_interval(metric: str, interval: Interval | None) -> str:
    """Return an interval as tables print it; nothing if there is none."""
    if interval is None:
        return ""
    return f"{ends(interval, tasks.metric(metric).digits)}{'' if interval.differs else f' {ALIKE}'}"


# --------------------------------------------------------------------------------------------------------------- clips


def _blocks(sides: Sides, stores: Path) -> list[Block]:
    """Read the answers of all runs, kind by kind and shift by shift; kinds that some run does not have are left out."""
    found: dict[tuple[str, str], list[Any]] = {}  # kind, shift -> (answers of A, answers of B) of each seed
    for pair in sides.pairs:
        for kind, both in both_answers(*pair.runs, stores).items():
            found.setdefault((kind, pair.shift), []).append(both)
    blocks = []
    for kind in dict.fromkeys(kind for kind, _ in found):
        for shift in sides.shifts:
            seeds = tuple(pair.seed for pair in sides.pairs if pair.shift == shift)
            answers = found.get((kind, shift), [])
            if len(answers) == len(seeds):
                blocks.append(_stacked(kind, shift, seeds, answers))
    if not blocks:
        raise ConfigError(f"the runs of {first(sides.titles)} share no label")
    return blocks


def _stacked(kind: str, shift: str, seeds: tuple[str, ...], answers: list[Any]) -> Block:
    """Return the answers of all seeds as arrays."""
    asked, truth = answers[0][0].asked, answers[0][0].truth
    if not all(np.array_equal(a.asked, asked) for a, _ in answers):
        raise ConfigError(f"the seeds of {shift} were tested on different clips, so they cannot be compared")
    sides = list(zip(*answers, strict=True))  # the answers of A, one for each seed, and those of B
    given, right = (np.array([[getattr(of, name) for of in side] for side in sides]) for name in ("given", "right"))
    rank = None if answers[0][0].rank is None else np.array([[of.rank for of in side] for side in sides])
    return Block(kind, shift, seeds, asked, truth, given, right, rank)


def _tests(blocks: Sequence[Block], remarks: Iterable[str]) -> Part:
    """McNemar's test of each kind and shift, and of all shifts together."""
    repeated = any(len(block.seeds) > 1 for block in blocks)
    often = "more often" if repeated else "only"
    grid = [[KIND, SHIFT, "clips", f"{often} A right", f"{often} B right", "p"]]
    if repeated:
        grid[0].append(f"seeds with p < {LEVEL}")
    asked = counted = 0  # questions of several shifts, and of these the different ones
    for kind, of_kind in _by_kind(blocks).items():
        for block in of_kind:
            grid.append([kind, block.shift, *_tested(block.gain), *([_by_seed(block)] * repeated)])
        if len(of_kind) > 1:
            total = Counter[str]()
            for block in of_kind:
                total.update(dict(zip(block.asked.tolist(), block.gain.tolist(), strict=True)))
            grid.append([kind, "all", *_tested(np.array([*total.values()])), *([""] * repeated)])
            asked, counted = asked + sum(len(block.asked) for block in of_kind), counted + len(total)
    right = "the right clip comes first" if blocks[0].rank is not None else "the class is right"
    texts = [
        f"Right: {right}. p: McNemar's exact test, two-sided: the probability of numbers at least as uneven if "
        "neither side were better. It is not corrected for the number of tests."
    ]
    if repeated or counted < asked:
        texts.append(
            "Every clip counts once, for the side that has it right in more of its runs, because the answers of "
            "several seeds to one clip are not independent."
        )
    return Part("McNemar's test", _telling(grid), (*texts, *remarks))


def _telling(grid: Grid) -> Grid:
    """Return a table without its columns KIND and SHIFT where they do not tell lines apart."""
    kept = [
        k for k, (head, *cells) in enumerate(zip(*grid, strict=True)) if head not in (KIND, SHIFT) or len({*cells}) > 1
    ]
    return [[cells[k] for k in kept] for cells in grid]


def _by_kind(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return kind -> its blocks, one for each shift."""
    kinds: dict[str, list[Block]] = {}
    for block in blocks:
        kinds.setdefault(block.kind, []).append(block)
    return kinds


def _tested(gain: NDArray[np.int64]) -> list[str]:
    """Return the number of questions, those that A and that B has right more often, and McNemar's p, as text."""
    only_a, only_b = int((gain < 0).sum()), int((gain > 0).sum())
    p = mcnemar(only_a, only_b)
    return [str(len(gain)), str(only_a), str(only_b), f"{p:.2g}" if p >= 0.0001 else "< 0.0001"]


def _by_seed(block: Block) -> str:
    """Return the number of seeds in which a side is better with p < LEVEL, such as "B 2 of 3"."""
    better = Counter[str]()
    for right_a, right_b in zip(*block.right, strict=True):
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        if mcnemar(only_a, only_b) < LEVEL:
            better["A" if only_a > only_b else "B"] += 1
    return ", ".join(f"{side} {better[side]} of {len(block.seeds)}" for side in "AB" if better[side]) or "none"


def _classes(blocks: Sequence[Block]) -> Part:
    """The classes of which one side has more clips right, those that B wins first."""
    grid, texts = [[KIND, "class", "clips", "A", "B", "B - A"]], []
    for kind, of_kind in _by_kind(blocks).items():
        clips: dict[str, set[str]] = {}
        right: dict[str, list[NDArray[np.floating]]] = {}  # class -> (2, S, clips of the class), for each shift
        for block in of_kind:
            for name in dict.fromkeys(block.truth.tolist()):
                rows = block.truth == name
                clips.setdefault(name, set()).update(block.asked[rows].tolist())
                right.setdefault(name, []).append(100.0 * block.right[:, :, rows].reshape(2, -1))
        shares = {name: np.concatenate(parts, 1).mean(1) for name, parts in right.items()}
        changed = {name: (a, b) for name, (a, b) in shares.items() if a != b}
        order = sorted(changed, key=lambda name: (changed[name][0] - changed[name][1], name))
        shown = order if len(order) <= 2 * CLASSES else [*order[:CLASSES], *order[-CLASSES:]]
        for name in shown:
            a, b = changed[name]
            grid.append([kind, name, str(len(clips[name])), f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}"])
        won = sum(b > a for a, b in changed.values())
        between = f"; {len(order) - len(shown)} between the listed ones" if len(shown) < len(order) else ""
        texts.append(f"{kind}: B is better in {won} of {len(shares)} classes, A in {len(changed) - won}{between}.")
    texts.append("A and B: the clips of the class that are right, in per cent, over all seeds and shifts.")
    return Part("Classes won and lost", _telling(grid), tuple(texts))


def _clips(blocks: Sequence[Block]) -> Part:
    """The clips that one side has right and the other wrong, those of which B has more seeds right first."""
    grid, texts = [[KIND, SHIFT, "clip", "truth", "A", "B"]], []
    often = "and the other side wrong" if all(len(block.seeds) == 1 for block in blocks) else "in more seeds"
    for kind, of_kind in _by_kind(blocks).items():
        for side, sign in (("B", 1), ("A", -1)):
            found = [
                (sign * int(gain), block, k)
                for block in of_kind
                for k, gain in enumerate(block.gain.tolist())
                if sign * gain > 0
            ]
            found.sort(key=lambda each: -each[0])
            for _, block, k in found[:CLIPS]:
                given = [_counted(block.given[s, :, k].tolist()) for s in (0, 1)]
                grid.append([kind, block.shift, block.asked[k], block.truth[k], *given])
            listed = f", of which {CLIPS} are listed" if len(found) > CLIPS else ""
            texts.append(f"{kind}: {side} is right {often} for {len(found)} clips{listed}.")
    texts.append("`featcache compare ... --clips FILE` writes all of them.")
    return Part("Clips that only one side has right", _telling(grid), tuple(texts))


def _counted(given: list[str]) -> str:
    """Return the answers of all seeds, such as "cut" if they are equal, else "cut (2), stir (1)"."""
    counts = Counter(given).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{name} ({count})" for name, count in counts)


def _moved(blocks: Sequence[Block]) -> Part:
    """The queries whose right answer moved most, in ranks that count from 1 and are means over seeds."""
    grid, texts = [[KIND, SHIFT, "query", "right clip", "rank in A", "rank in B", "B - A"]], []
    for kind, of_kind in _by_kind(blocks).items():
        found = []
        for block in of_kind:
            assert block.rank is not None
            for k, (a, b) in enumerate(block.rank.mean(1).T.tolist()):
                if a != b:
                    found.append((b - a, a + 1, b + 1, block, k))
        found.sort(key=lambda each: -abs(each[0]))
        for moved, a, b, block, k in found[: 2 * CLIPS]:
            grid.append([kind, block.shift, block.asked[k], block.truth[k], f"{a:.4g}", f"{b:.4g}", f"{moved:+.4g}"])
        better = sum(moved < 0 for moved, *_ in found)
        texts.append(f"{kind}: {better} queries have a better rank in B, and {len(found) - better} a better one in A.")
    texts.append("Queries have no classes. `featcache compare ... --clips FILE` writes all queries whose rank differs.")
    return Part("Queries whose rank moved most", _telling(grid), tuple(texts))


def _lines(blocks: Sequence[Block]) -> Iterator[list[str]]:
    """Yield a line of the file of clips for each answer that is right on one side only, or whose rank differs."""
    named = {(False, False): "neither", (True, False): "A", (False, True): "B", (True, True): "both"}
    for block in blocks:
        differs = block.right[0] != block.right[1] if block.rank is None else block.rank[0] != block.rank[1]
        for seed, k in np.argwhere(differs).tolist():
            given = (
                block.given[:, seed, k] if block.rank is None else [f"{rank + 1:g}" for rank in block.rank[:, seed, k]]
            )
            a, b = block.right[:, seed, k].tolist()
            yield [block.kind, block.shift, block.seeds[seed], block.asked[k], block.truth[k], *given, named[a, b]]
