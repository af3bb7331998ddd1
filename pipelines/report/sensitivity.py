"""The section of a report with curves over a hyper-parameter, from the rows of a table [MTRAN, Fig. 5; XMC, Table 6].

Rows named "NAME = NUMBER" or "PREFIX, NAME = NUMBER" of one prefix and name make a sweep. A row that differs from them
in nothing else than the swept setting, such as the row PREFIX itself, belongs to the sweep, too.

The rows of `featcache sweep` (`Experiment.swept`) make a sweep per number. Where several settings are swept, the others
have the values that are nearest to those of the experiment.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipelines import tasks
from pipelines.experiments import Experiment, short_names
from pipelines.report import page
from pipelines.report.marks import axis, label, line, mark, rect, svg, text
from pipelines.tables.cells import Cell, Line, Table

NAMED = re.compile(
    r"(?:(?P<prefix>.+), )?(?P<name>[^,=]*[^,=\s])\s*=\s*(?P<number>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
)
UNNAMED = "the number of the row that is not named by it"
OWN = "the number that the experiment has without the sweep"
OTHERS = (
    "Where several settings were swept, a curve shows one of them: the others have the values, named in its title, "
    "that are nearest to those of the experiment."
)
WIDE = 10  #: ratio of the largest number to the smallest, all above 0, from which the axis is logarithmic
WIDTH, HEIGHT = 330, 190  #: size of the field of a curve


@dataclass(frozen=True)
class Sweep:
    """The rows of a table that differ in one number."""

    prefix: str
    name: str
    lines: dict[float, Line]  #: number -> row, numbers ascending
    default: float | None  #: the number of the row that is not named by it, or of the experiment, if it is among them

    @property
    def title(self) -> str:
        """The name of the number, after the prefix if there is one."""
        return f"{self.prefix}: {self.name}" if self.prefix else self.name


@dataclass(frozen=True)
class Spot:
    """A point of a curve."""

    number: float
    mean: float | None  #: None: not measured
    std: float | None  #: None: one seed
    published: float | None
    text: str  #: the table's cell


def sensitivity(experiment: Experiment, table: Table) -> Iterator[str]:
    """Yield the section, if the table has a sweep: a panel per sweep of the mean over shifts, and of each shift."""
    metric = tasks.metric(table.metric)
    parts = []
    for sweep in sweeps(experiment, table):
        panels = {shift: {n: of.cells[shift] for n, of in sweep.lines.items()} for shift in table.shifts}
        if len(table.shifts) > 1:
            panels = {"mean over shifts": {n: of.mean for n, of in sweep.lines.items()}} | panels
        figures = []
        for shift, cells in panels.items():
            if points := spots(cells, table.digits):
                alt = f"{metric.words} of {sweep.title}, {shift}: " + "; ".join(
                    f"{p.number:g}: {p.text}" for p in points
                )
                figures.append(page.figure(f"{sweep.title}, {shift}", curve(points, sweep, alt)))
        parts += [page.panels(figures, "thirds")] if figures else []
    if parts:
        intro = (
            f"{metric.words[0].upper()}{metric.words[1:]}{table.sign and ' in per cent'} of the rows whose names have "
            "a number. Circle: mean over seeds; line: ± one sample standard deviation. Diamond: published number. "
            f"Dashed: {OWN if experiment.swept else UNNAMED}. The axis upwards does not begin at 0."
        )
        if len({name for setting in experiment.swept.values() for name in setting.values}) > 1:
            intro += f" {OTHERS}"
        yield page.section("Sensitivity", intro, *parts)


def sweeps(experiment: Experiment, table: Table) -> list[Sweep]:
    """The sweeps of a table: at least two rows with different numbers each, quoted ones included."""
    groups: dict[tuple[str, str], dict[float, Line]] = {}
    for row in table.all_lines:
        if (named := NAMED.fullmatch(row.method)) and experiment.rows_shown.get(row.method) not in experiment.swept:
            numbers = groups.setdefault((named["prefix"] or "", named["name"]), {})
            numbers.setdefault(float(named["number"]), row)
    found = []
    for (prefix, name), numbers in groups.items():
        if len(numbers) > 1:
            default = _default(experiment, table, numbers)
            rows = numbers | ({default[0]: default[1]} if default else {})
            found.append(Sweep(prefix, name, dict(sorted(rows.items())), default[0] if default else None))
    return [*found, *_of_settings(experiment, table)]


def _of_settings(experiment: Experiment, table: Table) -> Iterator[Sweep]:
    """Yield the sweeps of `Experiment.swept`: for each row, one per number that it has several values of."""
    by_row: dict[str, dict[str, dict[str, Any]]] = {}  # row -> line of the table -> name of a setting -> value
    lines = {line.method: line for line in table.lines}
    for method in lines:
        if setting := experiment.swept.get(experiment.rows_shown[method]):
            has = _settings(experiment, lines[method])
            values = {name: has.get(name, text) for name, text in setting.values.items()}
            by_row.setdefault(setting.row, {})[method] = values
    short = short_names(name for values in by_row.values() for each in values.values() for name in each)
    for row, of_lines in by_row.items():
        own = next((dict(_flat(run.all_settings)) for run in experiment.whole.runs if run.row == row), {})
        names = next(iter(of_lines.values()))
        fixed = {name: _nearest([values[name] for values in of_lines.values()], own.get(name)) for name in names}
        for name in names:
            others = {other: value for other, value in fixed.items() if other != name}
            numbers = {
                float(values[name]): lines[method]
                for method, values in of_lines.items()
                if _is_number(values[name]) and all(values[other] == value for other, value in others.items())
            }
            if len(numbers) > 1:
                prefix = ", ".join([row, *(f"{short[other]} = {_spelled(value)}" for other, value in others.items())])
                default = own.get(name) if own.get(name) in numbers else None
                yield Sweep(prefix, short[name], dict(sorted(numbers.items())), default)


def _nearest(values: Sequence[Any], own: Any) -> Any:
    """Return the value that is nearest to the experiment's own, by ratio if all are above 0; of texts, equal or first.

    >>> _nearest([0.1, 1.0, 10.0], 0.5), _nearest(["logits", "features"], "features"), _nearest([3, 4], None)
    (1.0, 'features', 3)
    """
    if own in values or not all(map(_is_number, [own, *values])):
        return own if own in values else values[0]
    by_ratio = min(own, *values) > 0
    return min(values, key=lambda value: abs(math.log(value / own)) if by_ratio else abs(value - own))


def _spelled(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else str(value)


def _default(experiment: Experiment, table: Table, numbers: dict[float, Line]) -> tuple[float, Line] | None:
    """Return the number and the row that differs from the rows of a sweep in nothing but the swept settings.

    The swept settings are those that have the number of its name in each row. None if no row fits, or several do.
    """
    settings = {number: _settings(experiment, row) for number, row in numbers.items() if not row.quoted}
    if not settings:
        return None
    swept = set.intersection(*({path for path, value in of.items() if _is(value, n)} for n, of in settings.items()))

    def rest(of: dict[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in of.items() if path not in swept}

    fixed = next(iter(settings.values()))
    if not swept or any(rest(of) != rest(fixed) for of in settings.values()):
        return None
    found = []
    for row in (row for row in table.lines if row not in numbers.values()):
        own = _settings(experiment, row)
        value = own.get(min(swept))
        if rest(own) == rest(fixed) and all(_is(own.get(path), value) for path in swept):
            found.append((float(own[min(swept)]), row))
    return found[0] if len(found) == 1 else None


def _settings(experiment: Experiment, row: Line) -> dict[str, Any]:
    """Return path -> setting of a row's first run, without its seed and the run that it starts from."""
    run = next(run for run in experiment.runs if run.row_shown == row.method)
    return {path: value for path, value in _flat(run.all_settings) if path not in ("row", "seed", "init_from")}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of a JSON document; lists are values, as text."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flat(part, f"{path}.{name}" if path else name)
    else:
        yield path, value if isinstance(value, str | int | float | None) else str(value)


def _is(value: Any, number: Any) -> bool:
    """True if a setting is this number."""
    return _is_number(value) and bool(value == number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spots(cells: dict[float, Cell], digits: int) -> list[Spot]:
    """The points of a curve, without numbers that have neither a result nor a published number."""
    points = []
    for n, cell in cells.items():
        if cell.values:
            points.append(Spot(n, cell.mean, cell.std, cell.published, cell.text(digits)))
        elif cell.published is not None:
            points.append(Spot(n, None, None, cell.published, cell.text(digits)))
    return points


# --------------------------------------------------------------------------------------------------------------- plot


def across(numbers: Sequence[float]) -> dict[float, float]:
    """Number -> its place from 0 to 1, on a linear axis, or on a logarithmic one if the numbers differ widely."""
    wide = min(numbers) > 0 and max(numbers) / min(numbers) >= WIDE
    at = {number: math.log(number) if wide else number for number in numbers}
    low, reach = min(at.values()), (max(at.values()) - min(at.values())) or 1.0
    return {number: (place - low) / reach for number, place in at.items()}


def curve(points: Sequence[Spot], sweep: Sweep, alt: str) -> str:
    """The mean and one standard deviation at each number, joined by a line, and the published numbers."""
    values = [p.mean + k * (p.std or 0) for p in points if p.mean is not None for k in (-1, 1)]
    values += [p.published for p in points if p.published is not None]
    low, high, ticks = axis(values)
    left, top, places = 44, 8, across([p.number for p in points])

    def x(number: float) -> float:
        return left + 16 + (WIDTH - 32) * places[number]

    def y(value: float) -> float:
        return top + HEIGHT * (high - value) / (high - low)

    parts = [rect(left, top, WIDTH, HEIGHT, "field")]
    for tick in ticks:
        parts += [
            line(left, y(tick), left + WIDTH, y(tick), "grid"),
            text(left - 5, y(tick) + 4, f"{tick:g}", "tick", "end"),
        ]
    if sweep.default in places:
        parts.append(line(x(sweep.default), top, x(sweep.default), top + HEIGHT, "default"))
    for p in points:
        parts.append(text(x(p.number), top + HEIGHT + 14, f"{p.number:g}", "tick", "middle"))
    parts.append(label(left + WIDTH / 2, top + HEIGHT + 31, sweep.name, "name", WIDTH, "middle"))
    measured = [(p.number, p.mean, p.std) for p in points if p.mean is not None]
    for (n, mean, _), (after, following, _) in pairwise(measured):
        parts.append(line(x(n), y(mean), x(after), y(following), "curve"))
    for n, mean, std in measured:
        if std is not None:
            parts.append(line(x(n), y(mean - std), x(n), y(mean + std), "error"))
        parts.append(mark(0, x(n), y(mean), "", f"{n:g}: {mean:.4g}"))
    for p in points:
        if p.published is not None:
            parts.append(
                mark(2, x(p.number), y(p.published), " hollow", f"{p.number:g}: published {p.published}", colour=1)
            )
    return svg(left + WIDTH + 6, top + HEIGHT + 38, alt, parts)
