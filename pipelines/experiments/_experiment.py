"""An experiment: the runs of a table, its rows and columns, and published numbers."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from shlex import quote
from typing import Any

from featcache.errors import ConfigError
from featcache.wording import first, shortened, unknown
from pipelines import tasks
from pipelines.config import RunConfig, override
from pipelines.experiments._data import BEHIND, Data
from pipelines.settings import as_text, flattened

Published = dict[str, dict[str, float | dict[str, float]]]  #: row -> "D1→D2" or "mean" -> number, or metric -> number


SHOWN = 8  #: names that `repr` lists
MOST_SEEDS = 10_000  #: in a list of seeds


@dataclass(frozen=True)
class Setting:
    """A setting of a sweep: the values that a row of the table gets."""

    row: str  #: the row without these values; results of the runs are recorded under it
    values: dict[str, str] = field(default_factory=dict)  #: "method.lambda_g" -> "0.3"

    @property
    def changes(self) -> tuple[str, ...]:
        """The values as "a.b=value"."""
        return tuple(f"{name}={value}" for name, value in self.values.items())

    @property
    def options(self) -> str:
        """The values and the row as options of a command."""
        return " ".join([f"--only {quote(self.row)}", *(f"--set {quote(change)}" for change in self.changes)])


@dataclass(frozen=True)
class Change:
    """A setting that has got another value in a row of the table."""

    name: str  #: "method.lambda_g"
    row: str
    old: str  #: as text; "–" if the row did not have the setting
    new: str


@dataclass(frozen=True, repr=False)
class Experiment:
    """The runs of a table, in the order of its rows."""

    name: str
    doc: str
    runs: tuple[RunConfig, ...]
    published: Published | None = None  #: numbers of the headline metric, or by metric; shares in per cent
    quoted: tuple[str, ...] = ()  #: rows of `published` that no run makes; a table of all rows quotes them
    note: str = ""  #: remark for readers of the numbers, printed under the table in bold
    arguments: str = ""  #: its arguments on the command line, options included; "": its name
    only_python: bool = False  #: True for runs that were given as configurations: no command can name them
    home: str = ""  #: the default folder of all stores, for an experiment of a folder of stores
    earlier_ids: frozenset[str] = frozenset()  #: ids of the runs before `changed`
    settings: tuple[str, ...] = ()  #: settings "a.b=value" that `changed` has applied
    changes: tuple["Change", ...] = ()  #: their effect on each row
    metric: str = ""  #: metric of its table, that of its published numbers; "": the headline of its task
    data: Data | None = None  #: data behind its domains, besides those of the manifests that we build (`_data.BEHIND`)
    unchanged: "Experiment | None" = field(default=None, repr=False)  #: the experiment before `changed`; None: itself
    swept: dict[str, Setting] = field(default_factory=dict)  #: row of a sweep -> its setting (_sweep.py)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the table's rows, in order."""
        return tuple(dict.fromkeys(run.row for run in self.runs if run.row))

    @property
    def rows_shown(self) -> dict[str, str]:
        """Row as tables show it, such as "RNA (oracle)" -> its name."""
        return {run.row_shown: run.row for run in self.runs if run.row}

    @property
    def whole(self) -> "Experiment":
        """The experiment with all its rows, as before `changed`: published gains are over rows of it."""
        return self.unchanged or self

    @property
    def task(self) -> tasks.Task:
        """The task of the rows' runs."""
        return next((run for run in self.runs if run.row), self.runs[0]).task

    def headline(self, measured: Collection[str] = ()) -> str:
        """The metric of its table, and of published numbers that name none. measured: metrics of its results."""
        return self.metric or self.task.headline(measured)

    @property
    def command(self) -> str:
        """The commands, or functions, that make all results from the stores, keeping finished runs."""
        between = " and " if self.only_python else " && "
        return self.training if self.swept else f"{self.training}{between}{self.call('evaluate')}"

    @property
    def training(self) -> str:
        """The command that trains its runs, or the function."""
        return self.call("sweep" if self.swept else "train-head")

    def call(self, command: str, options: str = "") -> str:
        """Return a command on this experiment, or the function of the command if no command can name its runs."""
        if not self.only_python:
            return " ".join(filter(None, ["featcache", command, self.arguments or self.name, options]))
        return f"pipelines.{command.removesuffix('-head')}(...){f' with {options}' if options else ''}"

    @property
    def recorded(self) -> "Experiment":
        """The experiment with the rows that results are recorded under: those of a sweep without their settings."""
        rows = {row: setting.row for row, setting in self.swept.items()}
        return replace(self, runs=tuple(replace(run, row=rows.get(run.row, run.row)) for run in self.runs), swept={})

    @cached_property
    def by_id(self) -> dict[str, RunConfig]:
        """The runs by their ids."""
        return {run.id: run for run in self.runs}

    def __repr__(self) -> str:
        shown = [run for run in self.runs if run.row]
        seeds = first([str(seed) for seed in dict.fromkeys(run.seed for run in shown)], SHOWN)
        shifts = dict.fromkeys(column for run in shown for column in self.columns[run.id])
        head = f"Experiment {self.name!r}: {len(self.runs)} {self.task.name} runs, seeds {seeds}, on {first(shifts, 4)}"
        return f"{shortened(head)}\n{shortened(f'rows: {first(self.rows, SHOWN)}')}"

    def chain(self, run: RunConfig) -> list[RunConfig]:
        """The run and, within the experiment, the runs that it starts from (`init_from`), nearest first."""
        chain = [run]
        while first := self.by_id.get(chain[-1].init_from or ""):
            chain.append(first)
        return chain

    @cached_property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Id of a run that a row shows -> the columns of the table that show it, such as "D1→D2".

        A run that learns from the labels of its test domain has no shift: every column that ends in that domain shows
        it. A run without a source (source-free adaptation) has the source of the run that it starts from.
        """
        shift_of: dict[str, str] = {}  # id of a run -> its shift
        shifts: dict[str, str] = {}  # column -> tested domain
        for run in self.runs:
            if run.row:
                source = next((stage.source for stage in self.chain(run) if stage.source), ())
                shift_of[run.id] = f"{_together(source)}→{run.test}"
                if source != (run.test,):
                    shifts[shift_of[run.id]] = run.test

        def columns(shift: str, test: str) -> tuple[str, ...]:
            into = tuple(column for column, tested in shifts.items() if tested == test)
            return (shift,) if shift in shifts else into or (shift,)

        return {run: columns(shift, self.by_id[run].test) for run, shift in shift_of.items()}

    def data_behind(self, run: RunConfig) -> dict[str, tuple[str, ...] | None]:
        """The run's test domain and target -> names of the data that hold its clips with their labels; None: not known.

        `data` extends what is known of the manifests that we build.
        """
        known = {**BEHIND.get(run.manifest, {}), **(self.data or {})}
        return {domain: known.get(domain) for domain in (run.test, run.target or run.test)}

    def published_numbers(self, row: str, metric: str, headline: bool) -> dict[str, float]:
        """Column -> published number of a row in this metric; plain numbers are of the headline metric.

        Falls back to the task's stand-in, as our own results do, where a row has no number of the metric itself.
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
        """The experiment with settings "a.b=value", with other seeds ("0,1,2" or "0..2"), or with only some rows.

        A run that others start from is changed with them. It is shown as a row only if `only` names it; otherwise
        settings of the method do not change it, because they are meant for the rows. A row that the settings make
        another row, such as one with another method, gets them into its name.
        Raises ConfigError for an unknown row, seeds that are not whole numbers, and invalid settings.
        """
        for row in only:
            if row not in self.rows:
                raise unknown("row", row, self.rows)
        runs: dict[tuple[str, str], RunConfig] = {}  # equal runs once
        naming, changes = _naming(self.runs) if settings else set(), dict[Change, None]()

        def renew(run: RunConfig, seed: int | None) -> str:
            first = self.by_id.get(run.init_from or "")
            start = renew(first, seed) if first else run.init_from
            row = run.row if run.row in (only or self.rows) else ""
            applied = [setting for setting in settings if row or not setting.startswith("method")]
            moved = replace(run, row=row, init_from=start, seed=run.seed if seed is None else seed)
            try:
                new = override(moved, *applied) if applied else moved
            except ConfigError as error:
                others = [] if only else [other for other in self.runs if other.row not in ("", run.row)]
                choose = "; name the rows to change with --only" if any(_accepts(o, settings) for o in others) else ""
                raise ConfigError(f"row {row!r}: {error}{choose}" if row else str(error)) from None
            if row and applied:
                if new.row == row and (renaming := _renaming(moved, new, applied, naming)):
                    new = replace(new, row=", ".join([row, *renaming]))
                changes.update(dict.fromkeys(_changes(moved, new, applied)))
            runs[new.id, new.row] = new
            return new.id

        for run in self.runs:
            if not only or run.row in only:
                for seed in [None] if seeds is None else _seeds(seeds):
                    renew(run, seed)
        return replace(
            self,
            runs=tuple(runs.values()),
            quoted=() if only else self.quoted,
            earlier_ids=self.earlier_ids | self.by_id.keys(),
            settings=(*self.settings, *settings),
            changes=(*self.changes, *changes),
            unchanged=self.whole,
        )


def _accepts(run: RunConfig, settings: Sequence[str]) -> bool:
    """True if the settings give a valid run."""
    try:
        override(run, *settings)
    except ConfigError:
        return False
    return True


def _naming(runs: Sequence[RunConfig]) -> set[str]:
    """Return the settings of method, net and feeds, such as "method.entropy", in which rows of one method differ."""
    if len({run.row for run in runs if run.row}) < 2:
        return set()
    values: dict[tuple[str, ...], dict[str, set[str]]] = {}  # method, net, path -> row -> values
    for run in runs:
        content = run.all_settings
        kinds = content["method"]["name"], content["net"]["name"]
        for path, value in _parts(content).items() if run.row else ():
            values.setdefault((*kinds, path), {}).setdefault(run.row, set()).add(str(value))
    return {path for (*_, path), by_row in values.items() if len({frozenset(each) for each in by_row.values()}) > 1}


def _parts(content: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that may name its row, by path."""
    parts = {"method": content["method"], "net": content["net"]}
    parts |= {f"feeds.{modality}": feed for modality, feed in content["feeds"].items()}
    return {f"{part}.{name}": value for part, settings in parts.items() for name, value in settings.items()}


def _renaming(old: RunConfig, new: RunConfig, settings: Sequence[str], naming: set[str]) -> list[str]:
    """Return those of the applied settings that make the run of a row something that the row's name does not mean.

    They give it another method or net, give or take a side, give it another start, or change a setting in which rows of
    its method differ, as `method.entropy` of CDAN and CDAN+E, or whose value its name has, as the store in "DANN, hog".
    A number counts if its name has it ("T = 0.9"), or if it is or becomes 0, as the weight of a loss that is left out:
    other numbers are hyper-parameters, which `choose` compares under the row's name.
    """
    before, after = _parts(old.all_settings), _parts(new.all_settings)
    renamed = {side for side in ("source", "target") if bool(getattr(old, side)) != bool(getattr(new, side))}
    renamed |= {"init_from"} if old.init_from != new.init_from else set()
    renamed |= {part for part in ("method", "net") if before[f"{part}.name"] != after[f"{part}.name"]}
    for path in before.keys() & after.keys():
        was, value = before[path], after[path]
        if was == value:
            continue
        if isinstance(was, int | float) and not isinstance(was, bool):
            named = path in naming and re.search(rf"(?<![\d.]){was:g}(?![\d.])", old.row)
            differs = (path in naming or path.startswith("method.lambda")) and bool(was) != bool(value)
        else:
            text = was if isinstance(was, str) else ""
            named = text != "" and re.search(rf"(?<![\w-]){re.escape(text)}(?![\w-])", old.row)
            differs = path in naming
        if named or differs:
            renamed.add(path)
    paths = {setting: f"{setting.partition('=')[0].strip()}." for setting in settings}
    return [setting for setting, path in paths.items() if any(_either_begins(path, f"{part}.") for part in renamed)]


def _changes(old: RunConfig, new: RunConfig, settings: Sequence[str]) -> Iterator[Change]:
    """Yield the effect of each setting on the run of a row."""
    before, after = (flattened(run.all_settings) for run in (old, new))
    for path in dict.fromkeys(setting.partition("=")[0].strip() for setting in settings):
        yield Change(path, new.row, _value(before, path), _value(after, path))


def _value(settings: dict[str, Any], path: str) -> str:
    """Return the value of a setting as text; of a method or net its name, and a dash for one that is not there.

    >>> settings = {"batch": [32, 32], "target": None, "net.name": "adapter"}
    >>> [_value(settings, path) for path in ("batch", "target", "net", "net.layers")]
    ['32,32', 'none', 'adapter', '–']
    """
    name = path if path in settings else f"{path}.name"
    return as_text(settings[name]) if name in settings else "–"


def _either_begins(one: str, other: str) -> bool:
    """True if one path is a part of the other, as `method.` and `method.entropy.`."""
    return one.startswith(other) or other.startswith(one)


def _together(source: Sequence[str]) -> str:
    """The name of several source domains; of more than three the first and the last.

    >>> _together(["D1", "D2"]), _together(["S00", "S01", "S02", "S03", "S04"])
    ('D1+D2', 'S00..S04')
    """
    return "+".join(source) if len(source) <= 3 else f"{source[0]}..{source[-1]}"


def _seeds(text: str) -> list[int]:
    """Return the seeds of a list, in which a range includes both ends.

    >>> _seeds("7,0..3")
    [7, 0, 1, 2, 3]
    """
    error = ConfigError(f"seeds {text!r} are not whole numbers separated by commas, such as 0,1,2 or 0..4")
    seeds: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last if dots else first)
        except ValueError:
            raise error from None
        if not low <= high < low + MOST_SEEDS:
            raise ConfigError(f"seeds {text!r}: {part.strip()} must count up, by at most {MOST_SEEDS:,} seeds")
        seeds += range(low, high + 1)
    return seeds
