"""The arguments that the commands on an experiment share: the experiment, or a part of it, and its folders."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import quote

from featcache import plugins
from featcache.arguments import PathLike, listed, several
from featcache.errors import ArgumentsError, ConfigError
from featcache.remote.urls import parent, shown, url_of
from pipelines import experiments
from pipelines.config import RunConfig
from pipelines.experiments import Choice, Experiment
from pipelines.settings import Words, as_words, name_of

#: an experiment's name, the path of a Python file or of a folder of stores, an experiment, a run, or several runs
Chosen = PathLike | Experiment | RunConfig | Sequence[RunConfig]
Seeds = str | int | Iterable[int]  #: "0..4", 0, or (0, 1, 2)


@dataclass(frozen=True)
class Job:
    """The experiment, or a part of it, and the folders of its stores and runs."""

    experiment: Experiment
    place: PathLike  #: the folder of all stores, or its URL
    runs: Path
    left_out: str = ""  #: the stores, domains and methods that the experiment of a folder of stores leaves out, as text

    @cached_property
    def stores(self) -> Path:
        """The folder of all stores; of a URL, the stores of the runs are fetched when this is first read."""
        from featcache.store.places import local
        from pipelines.data.stores import parts_of

        return local(self.place, parts_of(self.experiment.runs))

    @property
    def results(self) -> Path:
        """The file that `evaluate` appends to and `table` reads."""
        return self.runs / "results.jsonl"


def job(
    experiment: Chosen,
    stores: PathLike | None = None,
    runs: PathLike = "runs",
    choice: Choice | None = None,
    *,
    set: Words = (),
    seeds: Seeds | None = None,
    only: str | Iterable[str] = (),
    grid: Words = (),
) -> Job:
    """Load an experiment and change it as the options of the same names do.

    stores: a folder or a URL; None for the default: `stores`, or the parent of `experiment` if that is a folder of
    stores. choice: of a folder of stores. ConfigError for an unknown experiment, row or setting.
    """
    settings, rows, texts = as_words(set), several(only), as_words(grid)
    numbers, choice = listed(seeds), choice or Choice()
    here, above = at_hand(experiment)
    given, name, home = loaded(here, choice)
    if above:
        name, home = quote(shown(str(experiment))), above
    place, runs = home if stores is None else stores, Path(runs)
    folders = {"stores": (shown(place), shown(home)), "runs": (str(runs), "runs")}
    typed: dict[str, Sequence[object]] = {name: [each] for name, (each, usual) in folders.items() if each != usual}
    typed |= {**choice.words, "set": settings}
    typed |= {"seeds": [numbers] if numbers else [], "only": rows}
    typed["plugins"] = plugins.folders()
    words = [f"--{option} {quote(str(v))}" for option, values in typed.items() for v in values]
    words += [f"--grid {quote(text)}" for text in texts]
    changed = replace(given.changed(settings, numbers, rows), arguments=" ".join([name, *words]), home=shown(home))
    folder = isinstance(here, str | os.PathLike) and experiments.is_folder(os.fspath(here))
    whole = experiments.swept(changed, experiments.parse_grid(texts)) if texts else changed
    return Job(whole, place, runs, given.note if folder else "")


def at_hand(experiment: Chosen) -> tuple[Chosen, Path | None]:
    """Return a local folder for a folder of stores at a URL, without features, and the URL of the folder of all stores.

    Anything else is returned as it is, and None. Below a URL of the folder of all stores, such as a pushed dataset, the
    folder is the only one there. The stores of a whole bucket are fetched at once, because nothing is above it.
    """
    if not isinstance(experiment, str | os.PathLike) or not (url := url_of(experiment)):
        return experiment, None
    from featcache.store.places import local, outline

    folder = outline(url)
    below = [path.parent for path in folder.glob("*/manifest.csv")]
    if len(below) == 1 and not (folder / "manifest.csv").exists():
        return below[0], Path(url)
    if above := parent(url):
        return folder, Path(above)
    if (folder / "manifest.csv").exists():
        folder = local(url)
    return folder, folder.parent


def experiment(
    experiment: Chosen,
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
) -> Experiment:
    """Return an experiment, perhaps changed: `pipelines.train` and the other functions take it in place of a name.

    experiment, method, feeds, shift, net, task, set, seeds, only: as in `pipelines.train`.
    grid: a row for each of these values of a setting, as in `pipelines.sweep`.
    The `runs` of the experiment are its configurations (`RunConfig`).
    Raises ConfigError for an unknown experiment, row or setting.
    """
    choice = Choice.of(method, feeds, shift, net, task)
    chosen = job(experiment, choice=choice, set=set, seeds=seeds, only=only, grid=grid).experiment
    return replace(chosen, arguments=chosen.arguments.strip())


def jobs(
    experiments: Chosen | Sequence[Chosen],
    stores: PathLike | None,
    runs: PathLike,
    choice: Choice,
    *,
    set: Words,
    seeds: Seeds | None,
    only: str | Iterable[str],
) -> list[Job]:
    """Return the job of each experiment, or of the only one; see `job`. Several runs are one experiment."""
    given: list[Chosen] = []
    if isinstance(experiments, str | os.PathLike | Experiment | RunConfig) or not isinstance(experiments, Sequence):
        given.append(experiments)
    else:
        given += [each for each in experiments if not isinstance(each, RunConfig)]
        if configs := [each for each in experiments if isinstance(each, RunConfig)]:
            given.append(configs)
    unique = {each if isinstance(each, str) else id(each): each for each in given}
    return [job(each, stores, runs, choice, set=set, seeds=seeds, only=only) for each in unique.values()]


def shifts_and_columns(experiment: Chosen, texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the shifts "A:B" of a folder of stores, and all other texts, which name columns of a table, "A→B"."""
    words = several(texts)
    if not isinstance(experiment, str | os.PathLike):
        return (), words
    if not url_of(experiment) and not experiments.is_folder(os.fspath(experiment)):
        return (), words
    columns = tuple(text for text in words if "→" in text or "->" in text)
    return tuple(text for text in words if text not in columns), columns


def once(reasons: Iterable[tuple[RunConfig, str]]) -> list[str]:
    """Return a line per different reason, with the number of its runs; ids of runs make no difference."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for run, reason in reasons:
        kind = reason.replace(run.id, "").replace(run.init_from or run.id, "")
        groups.setdefault(kind, []).append((run.id, reason))
    return [
        f"{f'{len(runs)} runs, the first ' if len(runs) > 1 else ''}{runs[0][0]}: {runs[0][1]}"
        for runs in groups.values()
    ]


def loaded(experiment: Chosen, choice: Choice | None = None) -> tuple[Experiment, str, Path]:
    """Return the experiment, its argument on the command line, and the default folder of its stores.

    choice: the methods, feeds, shifts, net and task of a folder of stores; ArgumentsError for another experiment.
    """
    default = Path("stores")
    if choice and choice.words and not isinstance(experiment, str | os.PathLike):
        raise ArgumentsError(f"--{next(iter(choice.words))} is for a folder of stores, not for runs that are given")
    if isinstance(experiment, Experiment):
        return experiment, experiment.arguments or quote(experiment.name), Path(experiment.home or default)
    if isinstance(experiment, str | os.PathLike):
        name = os.fspath(experiment)
        home = Path(name).parent if experiments.is_folder(name) else default
        return experiments.load(name, choice), quote(name), home
    runs = (experiment,) if isinstance(experiment, RunConfig) else experiment
    if not isinstance(runs, tuple | list) or not all(isinstance(run, RunConfig) for run in runs):
        raise ArgumentsError(f"{experiment!r} is no experiment; give a name, a path, an Experiment, or RunConfigs")
    if not runs:
        raise ConfigError("no run is given; give a RunConfig or several, or the name of an experiment")
    named = runs if any(run.row for run in runs) else tuple(replace(run, row=name_of(run.method)) for run in runs)
    return (
        Experiment("runs", "Runs that were given as configurations.", tuple(named), only_python=True),
        "runs",
        default,
    )
