"""Does a row differ from the one that it is compared with? Results -> the interval of each row, and its notes."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from featcache.wording import first
from pipelines import tasks
from pipelines.evaluation.results import Result
from pipelines.measures.intervals import Interval, over_clips, over_seeds
from pipelines.measures.outcomes import Outcomes, decode, together
from pipelines.tables.cells import ALIKE, Cell, Line, Note, Table
from pipelines.tables.notes import RunIds

TOLERANCE = 1e-6  #: outcomes whose share of right answers is further from the result's value are not its own


def outcomes(results: Iterable[Result], metrics: Collection[str]) -> dict[str, Outcomes]:
    """Return run -> the outcomes of its test clips, of the runs that have them, summed over these metrics."""
    found: dict[str, list[Outcomes]] = {}
    for row in results:
        try:
            clips = decode(row.clips) if row.clips else None
        except ValueError:
            continue
        if clips and len(clips.right) == row.n and abs(clips.value - row.value) < TOLERANCE:
            found.setdefault(row.run, []).append(clips)
    return {
        run: together(each)
        for run, each in found.items()
        if len(each) == len(metrics) and len({(own.clips, len(own.right)) for own in each}) == 1
    }


def with_intervals(
    lines: Sequence[Line], over: Mapping[str, str], planned: RunIds, clips: Mapping[str, Outcomes], metric: str
) -> list[Line]:
    """Return the lines, each with the interval of its difference from another row, if enough is known of both.

    over: row -> the row that it is compared with; itself for a baseline. planned: the runs of the cells. clips: run ->
    its outcomes. The difference is the line's gain, or its mean if all its numbers are differences (ΔAcc).
    """
    runs_of: dict[str, dict[str, dict[int, str]]] = {line.method: {} for line in lines}
    for (method, shift), seeds in planned.items():
        runs_of[method][shift] = seeds

    def interval(line: Line) -> Interval | None:
        cell, own, other = _difference(line), runs_of[line.method], runs_of[over[line.method]]
        if own is other or not cell.complete:
            return None
        known = all(run in clips for by_seed in own.values() for run in by_seed.values())
        found = over_clips(_known(own, clips), _known(other, clips)) if known else None
        return found.times(100) if found else over_seeds(list(cell.values.values()), tasks.metric(metric).widest)

    return [replace(line, interval=interval(line)) for line in lines]


def _difference(line: Line) -> Cell:
    """Return the difference of a line from another row: by seed, the mean over shifts."""
    return line.gain if line.gain.seeds else line.mean


def _known(runs: Mapping[str, Mapping[int, str]], clips: Mapping[str, Outcomes]) -> dict[str, dict[int, Outcomes]]:
    """Return shift -> seed -> the outcomes of a row's runs that have them."""
    return {
        shift: {seed: clips[run] for seed, run in by_seed.items() if run in clips} for shift, by_seed in runs.items()
    }


def notes(table: Table, over: Mapping[str, str], clips: Mapping[str, Outcomes], *, others: bool) -> Iterator[Note]:
    """Yield the notes that explain the intervals and the marks of a table, if it has any.

    over: row -> the row that it is compared with. clips: run -> its outcomes in the table's metric. others: True if
    results of the same runs have outcomes, in this metric or another.
    """
    rows: dict[str, list[str]] = {}
    for line in table.lines:
        if over[line.method] != line.method and _difference(line).complete:
            rows.setdefault(line.interval.over if line.interval else "", []).append(line.method)
    unknown = "not all of the results have outcomes of the same clips"
    if not clips:
        unknown = "this metric is not a share of right clips" if others else "the results have no outcomes of clips"
    reasons = {
        "clips": "Only the chance of clips, because of a single seed",
        "seeds": f"Only the chance of seeds, because {unknown}",
        "": f"No interval, because of a single seed, and {unknown}",
    }
    named = {kind: f": {first(of_kind, between='; ')}" * (len(rows) > 1) for kind, of_kind in rows.items()}
    texts = [f"{reason}{named[kind]}" for kind, reason in reasons.items() if kind in rows]
    if covered := rows.keys() - {""}:
        bases = list(dict.fromkeys(over.values()))
        base = bases[0] if len(bases) == 1 else "the baseline"
        paired, chance = "shift, seed and clip", "test clips and of seeds"
        if covered == {"seeds"}:
            paired, chance = "shift and seed", "seeds"
        elif covered == {"clips"}:
            chance = "test clips"
        texts.insert(
            0,
            f"95 % interval: of the difference from {base}, paired by {paired}. It covers the chance of {chance}, not "
            f"of other shifts, and is not corrected for the number of rows. {ALIKE}: not distinguishable, 0 is in the "
            "interval",
        )
    if texts:
        yield Note(f"{'. '.join(texts)}.")
    if table.marks:
        yield Note(
            "Marked in each column, among the rows that use no labels of the test domain: the best number (bold) and "
            "the second best (italic or underlined)."
        )
