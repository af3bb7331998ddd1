"""The two sides of a comparison: two rows of an experiment, or two runs, as pairs of runs with the same test clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from featcache.errors import ConfigError
from featcache.wording import first, unknown
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.data.lacking import nothing_to_compare
from pipelines.evaluation.answers import check_same_questions
from pipelines.evaluation.results import Result, Results, damage, read
from pipelines.experiments import Experiment
from pipelines.tables.build import planned_runs
from pipelines.training.runs import NotTrainedError, Run, read_config

MARK = " †"  #: what tables print after the name of a row, and users copy


@dataclass(frozen=True)
class Pair:
    """A run of each side with the same test clips: of one shift, and of one seed if the sides are rows."""

    shift: str
    seed: str
    runs: tuple[Run, Run]


@dataclass(frozen=True)
class Sides:
    """Two rows of a table, A and B, the pairs of their runs, and their results."""

    titles: tuple[str, str]  #: names of the rows, or the ids of two runs
    names: tuple[str, str]  #: of the rows in a table of `experiment`
    experiment: Experiment  #: of these two rows only, A first
    pairs: tuple[Pair, ...]
    results: Results

    @property
    def shifts(self) -> tuple[str, ...]:
        """The shifts of the pairs, in the order of the table."""
        return tuple(dict.fromkeys(pair.shift for pair in self.pairs))

    @property
    def repeated(self) -> bool:
        """True if a shift has several pairs, one for each seed."""
        return len(self.pairs) > len(self.shifts)


def of_rows(
    experiment: Experiment, a: str, b: str, rows: Sequence[Result], runs: Path, shifts: Sequence[str] = ()
) -> Sides:
    """Return two rows of an experiment, with a pair for each shift and seed where both have a result.

    shifts: the columns to compare, "D1→D2" or "D1->D2"; () is all. ConfigError for unknown names, for the same row
    twice, for rows without a pair, and for runs that are missing, damaged, or not comparable.
    """
    names = two_rows(experiment, a, b)
    two = _restricted(_only(experiment, names), shifts)
    planned, measured = planned_runs(two), {row.run for row in rows if not nothing_to_compare(row.limits)}
    pairs = []
    for shift in dict.fromkeys(shift for _, shift in planned):
        of_a, of_b = (planned.get((name, shift), {}) for name in names)
        for seed in (seed for seed in of_a if seed in of_b):
            if {of_a[seed], of_b[seed]} <= measured:
                pairs.append(Pair(shift, str(seed), (Run.open(runs / of_a[seed]), Run.open(runs / of_b[seed]))))
    if not pairs:
        shown = [row for row in rows if row.run in two.by_id]
        if reasons := dict.fromkeys(filter(None, (nothing_to_compare(row.limits) for row in shown))):
            raise ConfigError(f"{names[0]!r} and {names[1]!r} cannot be compared: {first(reasons, between='; ')}")
        raise ConfigError(
            f"{names[0]!r} and {names[1]!r} have no results of the same shift and seed; to make them: {two.command}"
        )
    return Sides(names, names, two, tuple(pairs), _checked(pairs, two, rows))


def of_runs(a: Path, b: Path) -> Sides:
    """Return two runs by their folders, with the results next to these.

    ConfigError for a run that is missing, damaged, not evaluated or not comparable with the other one.
    """
    runs = Run.open(a), Run.open(b)
    check_same_questions(*runs)  # before results are read, because the reason is a better one
    named = [replace(run.config, row=name) for run, name in zip(runs, "AB", strict=True)]
    stages = [stage for run in runs for stage in _starts(run)]
    two = Experiment(f"{named[0].id} and {named[1].id}", "", (*stages, *named))
    shift = "; ".join(dict.fromkeys(column for run in named for column in two.columns[run.id]))
    pair = Pair(shift, " and ".join(dict.fromkeys(str(run.seed) for run in named)), runs)
    files = [read(folder / "results.jsonl") for folder in dict.fromkeys(run.folder.parent for run in runs)]
    rows = Results(row for file in files for row in file)
    rows.damaged = "; ".join(filter(None, (file.damaged for file in files)))
    names = named[0].row_shown, named[1].row_shown  # "A (oracle)"
    titles = _titled(runs[0].config), _titled(runs[1].config)
    return Sides(titles, names, two, (pair,), _checked([pair], two, rows))


def _titled(config: RunConfig) -> str:
    """Return the id of a run with its table row, and a mark if its outputs are chosen by labels of the test rows."""
    return replace(config, row=f"{config.id} ({config.row})" if config.row else config.id).row_shown


def two_rows(experiment: Experiment, a: str, b: str) -> tuple[str, str]:
    """Return the names of two rows as tables show them; ConfigError for an unknown one, and for the same one twice."""
    names = _shown(experiment, a), _shown(experiment, b)
    if names[0] == names[1]:
        raise ConfigError(f"row {names[0]!r} is compared with itself; name two different rows")
    return names


def _shown(experiment: Experiment, name: str) -> str:
    """Return the name of a row as tables show it; ConfigError if no run makes the row."""
    shown, plain = experiment.rows_shown, name.removesuffix(MARK)
    for row, its_name in shown.items():
        if plain in (row, its_name):
            return row
    if plain in experiment.quoted:
        raise ConfigError(f"row {plain!r} is quoted from the paper, and no run makes it; there are: {first(shown)}")
    raise unknown("row", name, shown, experiment.name)


def _only(experiment: Experiment, names: tuple[str, str]) -> Experiment:
    """Return the experiment with two rows, A first, and the runs that these start from, which no row shows."""
    shown = [run for name in names for run in experiment.runs if run.row and run.row_shown == name]
    stages = {stage.id: replace(stage, row="") for run in shown for stage in experiment.chain(run)[1:]}
    metric, rows = experiment.metric, dict.fromkeys(run.row for run in shown)
    only = "" if experiment.swept else "".join(f" --only {quote(row)}" for row in rows)
    return replace(
        experiment,
        arguments=f"{experiment.arguments or experiment.name}{only}",
        runs=(*stages.values(), *shown),
        published=None,
        quoted=(),
        metric="" if metric and tasks.metric(metric).is_gain else metric,
    )


def _restricted(two: Experiment, shifts: Sequence[str]) -> Experiment:
    """Return the experiment with the runs of some shifts only; ConfigError for one that it does not have."""
    chosen = {shift.replace("->", "→") for shift in shifts}
    columns = dict.fromkeys(column for shown in two.columns.values() for column in shown)
    for shift in chosen:
        if shift not in columns:
            raise unknown("shift", shift, columns)
    runs = tuple(run for run in two.runs if not run.row or not chosen or chosen & set(two.columns[run.id]))
    return replace(two, runs=runs)


def _starts(run: Run) -> Iterator[RunConfig]:
    """Yield the runs that a run starts from, nearest first, up to one that is not in the same folder."""
    config = run.config
    while config.init_from:
        try:
            config = replace(read_config(run.folder.parent / config.init_from), row="")
        except NotTrainedError:
            return
        yield config


def _checked(pairs: Sequence[Pair], two: Experiment, rows: Sequence[Result]) -> Results:
    """Return the results of the two rows, without those of runs that were trained again later.

    ConfigError if the runs of a pair cannot be compared, or if one of them has no result.
    """
    facts = {run.config.id: run for pair in pairs for run in pair.runs}
    kept = Results(
        row
        for row in rows
        if row.run in two.by_id and (row.run not in facts or not row.read or row.read == facts[row.run].facts.read)
    )
    kept.damaged = damage(rows)
    measured, before = {row.run for row in kept}, {row.run for row in rows}
    for pair in pairs:
        check_same_questions(*pair.runs)
        for run in pair.runs:
            if run.config.id not in measured:
                why = "was trained again after it was evaluated" if run.config.id in before else "is not evaluated"
                raise NotTrainedError(f"run {run.config.id} {why}; run `featcache evaluate` for its experiment")
    return kept
