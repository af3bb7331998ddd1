"""Tables of an experiment's results: the functions of `featcache table`, `choose` and `compare`."""

from collections.abc import Iterable
from pathlib import Path

from featcache.arguments import PathLike, several
from featcache.errors import ArgumentsError, ConfigError
from featcache.files import write_file
from featcache.store.places import local
from featcache.wording import first, nearest
from pipelines import experiments
from pipelines.commands.jobs import Chosen, Seeds, at_hand, job, loaded, shifts_and_columns
from pipelines.data.stores import parts_of
from pipelines.evaluation.engine import RESULTS, STRESS
from pipelines.evaluation.results import Results, read
from pipelines.experiments import Choice, Experiment
from pipelines.settings import Words
from pipelines.tables import choosing, comparing, sides, slices
from pipelines.tables.build import build, norms
from pipelines.tables.choosing import Choices
from pipelines.tables.comparing import Comparison
from pipelines.tables.ensembles import with_ensembles
from pipelines.tables.formats import Shown
from pipelines.tables.stress import stressed

SLICES = ("class", "domain")


def table(
    experiment: Chosen,
    stores: PathLike | None = None,
    runs: PathLike = "runs",
    *,
    method: str | Iterable[str] = (),
    feeds: str | Iterable[str] = (),
    shift: str | Iterable[str] = (),
    net: str = "",
    task: str = "",
    set: Words = (),
    seeds: Seeds | None = None,
    only: str | Iterable[str] = (),
    grid: Words = (),
    metric: str | None = None,
    stress: bool = False,
    by: str | None = None,
    ensemble: bool = False,
) -> Shown:
    """Return the table of an experiment: methods × shifts, mean ± standard deviation over seeds.

    The table prints itself as Markdown and shows itself in a notebook; `table.frame()` has the numbers (shares in per
    cent), `table.text("latex")` and `table.text("csv")` the other formats.

    experiment, stores, runs, method, feeds, shift, net, task, set, seeds, only: as in `pipelines.train`.
    grid: a row for each of these values of a setting, as in `pipelines.sweep`.
    metric: a name of `pipelines.names("metrics")`, `norms` for feature norms or `delta_acc` for RNA's ΔAcc (default:
        that of the experiment). stress: the numbers on changed features (`pipelines.evaluate(..., drop=...)`).
    by: "class" or "domain" for a column per class or domain. ensemble: a column of the seeds' mean probabilities.

    Raises ConfigError if there are no results, for an unknown metric, and for a table that the task does not have;
    ArgumentsError for two tables at once.
    """
    if stress + bool(by) + ensemble + (metric == "norms") > 1:
        raise ArgumentsError("--stress, --by, --ensemble and --metric norms are different tables; name one of them")
    if by is not None and by not in SLICES:
        raise ConfigError(f"no table by {by!r}; choose from {', '.join(SLICES)}")
    choice = Choice.of(method, feeds, shift, net, task)
    made = job(experiment, stores, runs, choice, set=set, seeds=seeds, only=only, grid=grid)
    if stress:
        return stressed(read(made.runs / STRESS, stressed=True), made.experiment, metric)
    rows = read(made.results)
    if by:
        return (slices.by_class if by == "class" else slices.by_domain)(rows, made.experiment, metric)
    if metric == "norms":
        return norms(rows, made.experiment)
    plain = build(rows, made.experiment, metric)
    return with_ensembles(plain, made.experiment, made.stores, made.runs) if ensemble else plain


def results(runs: PathLike = "runs", *, stressed: bool = False) -> Results:
    """Return all results of a folder of runs: `frame()` has a line per run and metric, with the fields of `Result`.

    runs: the folder. stressed: those on changed features (`pipelines.evaluate(..., drop=...)`) instead.
    Raises ConfigError if there are none. Warns if lines of the file are damaged.
    """
    return read(Path(runs) / (STRESS if stressed else RESULTS), stressed=stressed)


def choose(experiment: Chosen, runs: PathLike = "runs", *, metric: str | None = None) -> Choices:
    """Compare the hyper-parameters that validators choose, for each row of the table and each shift.

    experiment, runs: as in `pipelines.train`; the runs must include several settings.
    metric: in per cent, to compare by (default: that of the experiment).
    Raises ConfigError if no row has two settings with results.
    """
    rows, chosen = read(Path(runs) / RESULTS), loaded(at_hand(experiment)[0])[0].recorded
    return choosing.table(rows, choosing.evaluated(chosen, rows, Path(runs)), metric)


def compare(
    *names: Chosen,
    stores: PathLike | None = None,
    runs: PathLike = "runs",
    method: str | Iterable[str] = (),
    feeds: str | Iterable[str] = (),
    shift: str | Iterable[str] = (),
    net: str = "",
    task: str = "",
    set: Words = (),
    seeds: Seeds | None = None,
    grid: Words = (),
    clips: PathLike | None = None,
) -> Comparison:
    """Compare two rows of an experiment, `compare(experiment, a, b)`, or two runs, `compare(a, b)`.

    The comparison prints itself and shows itself in a notebook: the settings and results that differ, McNemar's test,
    and what only one of the two gets right; `frame()` has the clips that only one side gets right.

    names: an experiment and two of its rows, or two runs by their ids in `runs` or by their folders.
    stores, runs, method, feeds, net, task, set, seeds: as in `pipelines.train`. grid: as in `pipelines.sweep`.
    shift: columns of the table to compare on, such as "D1→D2" or "D1->D2"; in a folder of stores also "D1:D2".
    clips: CSV file to write the clips to.
    Raises ConfigError for names that do not exist and for runs that cannot be compared; ArgumentsError for arguments
    that two runs do not have.
    """
    if len(names) == 3:
        pairs, columns = shifts_and_columns(names[0], several(shift))
        of = job(names[0], stores, runs, Choice.of(method, feeds, pairs, net, task), set=set, seeds=seeds, grid=grid)
        home, rows = of.stores, read(of.results)
        two = sides.of_rows(of.experiment, str(names[1]), str(names[2]), rows, of.runs, columns)
    else:
        if len(names) != 2 or not all(isinstance(name, Experiment) or str(name) for name in names):
            raise ArgumentsError("name two runs, or EXPERIMENT and two of its rows; quote names that have blanks")
        if set or seeds is not None or grid or shift or method or feeds or net or task:
            options = "--method, --feeds, --net, --task, --set, --seeds, --grid and --shift"
            raise ArgumentsError(f"{options} belong to rows: featcache compare EXPERIMENT A B")
        two = sides.of_runs(*(_folder(str(name), Path(runs)) for name in names))
        home = local(stores or "stores", parts_of(two.experiment.runs))
    compared = comparing.compare(two, home)
    if clips:
        write_file(Path(clips), comparing.clips_csv(compared).encode(), shared=True)
    return compared


def _folder(name: str, runs: Path) -> Path:
    """Return the folder of a run by its id or path; ConfigError with near names if there is none."""
    for folder in (runs / name, Path(name)):
        if (folder / "config.json").exists():
            return folder
    if name in experiments.names() or name.endswith(".py") or (Path(name) / "manifest.csv").exists():
        raise ConfigError(f"{name} is an experiment: name two of its rows, featcache compare {name} 'ROW' 'ROW'")
    for folder in (runs / name, Path(name)):
        if folder.is_dir():
            raise ConfigError(f"{folder} has no config.json: it is no folder of a run, or the run is damaged")
    ids = sorted(path.parent.name for path in runs.glob("*/config.json"))
    near = nearest(Path(name).name, ids)
    hint = f"did you mean {near}?" if near else f"there are: {first(ids, 3) or 'none'}"
    raise ConfigError(f"no run {name!r} in {runs} (--runs), and no folder of a run of this name; {hint}")
