"""An experiment: the runs of a table, its rows and columns, and what was published."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines import tasks
from pipelines.config import RunConfig, override

Published = dict[str, dict[str, float | dict[str, float]]]  #: row -> "D1→D2" or "mean" -> number, or metric -> number


@dataclass(frozen=True)
class Experiment:
    """A table to be: its runs, in the order of its rows."""

    name: str
    doc: str
    runs: tuple[RunConfig, ...]
    published: Published | None = None  #: accuracies in per cent
    note: str = ""  #: what a reader of the numbers has to know: printed under the table, in bold
    typed: str = ""  #: what stands for it on the command line, options included; "": its name
    known: frozenset[str] = frozenset()  #: ids of the runs it had before `changed`

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the table's rows, in order."""
        return tuple(dict.fromkeys(run.row for run in self.runs if run.row))

    @property
    def task(self) -> tasks.Task:
        """The task of its rows."""
        return next((run.task for run in self.runs if run.row), None) or tasks.load("classification")

    @property
    def command(self) -> str:
        """The commands that make all results from the stores; runs that exist are kept."""
        name = self.typed or self.name
        return f"featcache train-head {name} && featcache evaluate {name}"

    @cached_property
    def by_id(self) -> dict[str, RunConfig]:
        """The runs by their ids."""
        return {run.id: run for run in self.runs}

    def chain(self, run: RunConfig) -> list[RunConfig]:
        """The run, the one it starts from (`init_from`), the one that starts from, ..., as far as they are known."""
        chain = [run]
        while first := self.by_id.get(chain[-1].init_from or ""):
            chain.append(first)
        return chain

    @cached_property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Id of a run that a row shows -> the table's columns it stands in, such as "D1→D2".

        A run that learns from its test domain's own labels has no shift of its own: it stands in every column that
        ends in that domain. A run without a source (source-free adaptation) has the source of the run it starts from.
        """
        own: dict[str, str] = {}
        shifts: dict[str, str] = {}  # column -> tested domain
        for run in self.runs:
            if run.row:
                source = next((stage.source for stage in self.chain(run) if stage.source), ())
                own[run.id] = f"{_together(source)}→{run.test}"
                if source != (run.test,):
                    shifts[own[run.id]] = run.test

        def columns(shift: str, test: str) -> tuple[str, ...]:
            into = tuple(column for column, tested in shifts.items() if tested == test)
            return (shift,) if shift in shifts else into or (shift,)

        return {run: columns(shift, self.by_id[run].test) for run, shift in own.items()}

    def theirs(self, row: str, metric: str, headline: bool) -> dict[str, float]:
        """Column -> what was published of a row in this metric; plain numbers are of the headline metric.

        As of our own runs, where there is no number by a classifier of clusters it is that by k-means.
        """
        numbers = dict[str, float]()
        for column, number in (self.published or {}).get(row, {}).items():
            if isinstance(number, dict):
                for name in (metric, metric + self.task.stand_in):
                    if name in number:
                        numbers.setdefault(column, number[name])
            elif headline:
                numbers[column] = number
        return numbers

    def changed(self, settings: Sequence[str] = (), seeds: str | None = None, only: Sequence[str] = ()) -> "Experiment":
        """The experiment with `a.b=value` settings, with these seeds ("0,1,2") instead of its own, or only these rows.

        A run that others start from moves with them, but is no row of the table unless asked for; settings of the
        method leave it alone then, as they mean the rows'.
        Raises ConfigError for a row that is not there, seeds that are no whole numbers, and bad settings.
        """
        for row in only:
            if row not in self.rows:
                raise unknown("row", row, self.rows)
        runs: dict[tuple[str, str], RunConfig] = {}  # of equal ones, one

        def renew(run: RunConfig, seed: int | None) -> str:
            first = self.by_id.get(run.init_from or "")
            start = renew(first, seed) if first else run.init_from
            row = run.row if run.row in (only or self.rows) else ""
            mine = [setting for setting in settings if row or not setting.startswith("method")]
            moved = replace(run, row=row, init_from=start, seed=run.seed if seed is None else seed)
            try:
                new = override(moved, *mine) if mine else moved
            except ConfigError as error:
                choose = "" if only or len(self.rows) < 2 else "; --only changes the rows that it names alone"
                raise ConfigError(f"row {row!r}: {error}{choose}" if row else str(error)) from None
            runs[new.id, new.row] = new
            return new.id

        for run in self.runs:
            if not only or run.row in only:
                for seed in [None] if seeds is None else _seeds(seeds):
                    renew(run, seed)
        return replace(self, runs=tuple(runs.values()), known=self.known | self.by_id.keys())


def _together(source: Sequence[str]) -> str:
    """Domains that teach together; of many the first and the last.

    >>> _together(["D1", "D2"]), _together(["S00", "S01", "S02", "S03", "S04"])
    ('D1+D2', 'S00..S04')
    """
    return "+".join(source) if len(source) <= 3 else f"{source[0]}..{source[-1]}"


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ConfigError(f"seeds {text!r} are not whole numbers separated by commas, such as 0,1,2") from None
