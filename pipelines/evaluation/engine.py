"""Evaluation of many runs on this machine, in one process or in several.

Runs that are tested on the same rows share the data: stores are opened once, and test rows are loaded and pooled once,
in each process. A run is measured again only if its results are out of date (`Measurement`).
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from featcache.errors import FeatcacheError, NoEntryError
from featcache.parallel import advised, in_parallel
from featcache.wording import shortened
from pipelines.config import RunConfig
from pipelines.data.lacking import LeftOut, nothing_to_compare
from pipelines.data.opening import Opened, open_run
from pipelines.data.rows import Rows
from pipelines.evaluation import results, stress
from pipelines.evaluation.evaluate import KINDS, Trained, described, limits_of_labels, measure, trained
from pipelines.evaluation.results import Earlier, Line, Result
from pipelines.training.outputs import collapse
from pipelines.training.runs import NotTrainedError, changes, digest, explained, fingerprints, is_run, read_config

RESULTS = "results.jsonl"  #: name of the file of results in a folder of runs
STRESS = "stress.jsonl"  #: the same of results on changed features: earlier versions would take its lines for results
RUNS_PER_PROCESS = 16  #: runs for which starting another process takes less time than it saves


@dataclass(frozen=True)
class Case:
    """A run to evaluate, and the experiment that its results name; they have the table row of the configuration."""

    config: RunConfig
    experiment: str = ""


@dataclass(frozen=True, repr=False)
class Outcome:
    """The outcome of one run."""

    case: Case
    status: str  #: measured | kept (its results were up to date) | failed
    note: str = ""  #: the reason for its failure
    untrained: bool = False  #: True if it failed because it has to be trained, or trained again
    without: str = ""  #: the reason why it has no A-distances, or none of a stress, if they are wanted
    collapse: str = ""  #: description of its collapse, if its features vanished or all its predictions are one class
    unlabelled: str = ""  #: sentence about its test clips if none has a label, so that nothing is compared with labels

    def __repr__(self) -> str:
        words = filter(None, [self.case.config.row_shown, self.note, self.without])
        return shortened(f"Outcome({self.status}, {self.case.config.id}, {'; '.join(words)})")


Report = Callable[[Outcome, int, int], None]  #: called after each run with (outcome, runs done, all runs)


def evaluate_all(
    cases: Iterable[Case],
    stores: Path,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    again: bool = False,
    a_distance: bool = False,
    stresses: Mapping[str, Sequence[str]] | None = None,
    report: Report | None = None,
) -> list[Outcome]:
    """Evaluate runs and append their results to RUNS/results.jsonl; a run that fails does not stop the others.

    again: measure also runs whose results are up to date. a_distance: measure A-distances, too. stresses: run id -> its
    stresses (`stress.plan`), which are measured instead and appended to RUNS/stress.jsonl; a run without any is left
    out. Results of a run are appended as soon as it is measured. Returns one outcome per different run.
    """
    wanted = {case.config.id: case for case in cases if stresses is None or stresses.get(case.config.id)}
    outcomes: dict[str, Outcome] = {}

    def done(outcome: Outcome) -> None:
        outcomes[outcome.case.config.id] = outcome
        if report:
            report(outcome, len(outcomes), len(wanted))

    path, kinds = runs / (RESULTS if stresses is None else STRESS), ("test", "a_distance")[: 1 + a_distance]
    planned = [_Job(case, kinds if stresses is None else tuple(stresses[run])) for run, case in wanted.items()]
    jobs, place = deque(_sorted(planned)), _Place(stores, runs, device)
    _OPENED.clear()
    try:
        if not again:
            jobs = _without_kept(jobs, place, path, done)
        place = replace(place, workers=min(workers, ceil(len(jobs) / RUNS_PER_PROCESS)))
        with closing(in_parallel(partial(_one, place=place), jobs, place.workers)) as ended:
            for _, (outcome, measured) in ended:
                results.append(path, measured)
                done(outcome)
    except BrokenProcessPool as error:
        reason = advised(error, "run the same command again to evaluate the rest")
        for case in [case for run, case in wanted.items() if run not in outcomes]:
            done(Outcome(case, "failed", reason))
    finally:
        _OPENED.clear()
        _LAST.clear()
        stress.forget()
    return [outcomes[run] for run in wanted]


def cases_of(runs: Path) -> tuple[list[Case], list[str]]:
    """Return a case for every run in a folder of runs, and an error for every run whose configuration is not readable.

    It is damaged, or names a plug-in that is not there. A run has the experiment and the table row of its last result.
    Without a result it has the row that it was trained for, and no experiment.
    """
    earlier = results.earlier(runs / RESULTS)
    cases, errors = [], []
    for folder in sorted(path for path in runs.iterdir() if is_run(path)) if runs.is_dir() else ():
        try:
            config = read_config(folder)
        except (NotTrainedError, NoEntryError) as error:
            errors.append(str(error))
            continue
        last = earlier[config.id].last if config.id in earlier else None
        cases.append(Case(replace(config, row=last.row), last.experiment) if last else Case(config))
    return cases, errors


@dataclass(frozen=True)
class _Place:
    """The folders and the device of all jobs, and the number of processes that share the memory."""

    stores: Path
    runs: Path
    device: str
    workers: int = 1


@dataclass(frozen=True)
class _Job:
    """A run, and the kinds of measurement that are left to do."""

    case: Case
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class SharedData(Opened):
    """The data of a run; copies of it for other runs that are tested on the same rows share what has been loaded."""

    kept: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False, compare=False)

    def test(self, *domains: str) -> Rows:
        """Load test rows, as `Opened.test` does, for the first run that needs them."""
        return self._once("test", domains or (self.config.test,), super().test)

    def train_rows(self, role: str, *domains: str) -> list[int]:
        """Return train rows, as `Opened.train_rows` does."""
        return self._once("train", (role, *domains), super().train_rows)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The clips that `absent` leaves out."""
        loaded: tuple[LeftOut, ...] = self._once("left out", (), lambda: super(SharedData, self).left_out)
        return loaded

    @property
    def sides(self) -> dict[str, Rows]:
        """The sides of the run; each seed holds out other rows."""
        if self.config.holdout:
            return super().sides
        loaded: dict[str, Rows] = self._once("sides", (), lambda: super(SharedData, self).sides)
        return loaded

    def _once(self, name: str, arguments: tuple[str, ...], compute: Callable[..., Any]) -> Any:
        key = (name, self.config.absent, *arguments)
        if key not in self.kept:
            self.kept[key] = compute(*arguments)
        return self.kept[key]


_OPENED: list[SharedData] = []  #: the data that this process has opened last
_LAST: list[Trained] = []  #: the run that this process has measured last


def _open_shared(config: RunConfig, stores: Path, device: str, workers: int = 1) -> Opened:
    """Open the data of a run, or as much of it as it shares with the run before."""
    last = _OPENED.pop() if _OPENED else None  # only one is kept, so that memory does not grow with the number of runs
    if last and _data_settings(last.config) == _data_settings(config):
        shared = last
    elif last and last.prepare is None and _store_settings(last.config) == _store_settings(config):
        config.task.check_manifest(config, last.manifest)
        shared = replace(last, config=config, kept={})
    else:
        opened = open_run(config, stores, device, workers=workers)
        shared = SharedData(**{each.name: getattr(opened, each.name) for each in fields(opened)})
    _OPENED.append(shared)
    return replace(shared, config=config)


def _store_settings(config: RunConfig) -> list[Any]:
    """Return the settings that runs on the same stores have in common."""
    content = config.to_json()
    return [config.task.name, *(content.get(name) for name in ("manifest", "feeds", "absent", "preparation"))]


def _data_settings(config: RunConfig) -> list[Any]:
    """Return the settings that runs with the same test data have in common."""
    content = config.to_json()
    names = ("source", "target", "test", "train_split", "test_split")
    return [*_store_settings(config), *(content[name] for name in names)]


def _sorted(jobs: list[_Job]) -> list[_Job]:
    """Sort jobs so that runs with the same data are neighbours, and among them those with the same net and method."""

    def settings(job: _Job) -> tuple[str, str]:
        content = job.case.config.to_json()
        return json.dumps(_data_settings(job.case.config)), json.dumps([content["net"], content["method"]])

    return sorted(jobs, key=settings)


def _without_kept(jobs: Iterable[_Job], place: _Place, path: Path, done: Callable[[Outcome], None]) -> deque[_Job]:
    """Return the jobs that have measurements left to do, with these; `done` is called for the others.

    Results that are up to date, but name another experiment or table row, are written again with the new names.
    """
    earlier, left, names = results.earlier(path), deque[_Job](), dict[str, tuple[str, str]]()
    for job in jobs:
        run, (case, kinds) = job.case.config.id, (job.case, job.kinds)
        lines = _up_to_date(job, place, earlier[run]) if run in earlier else {}
        if lines and (earlier[run].last.experiment, earlier[run].last.row) != (
            case.experiment,
            case.config.row,
        ):
            names[run] = case.experiment, case.config.row
        if remaining := tuple(kind for kind in kinds if kind not in lines):
            left.append(_Job(case, remaining))
        else:
            line = lines[kinds[0]]
            dead, unlabelled = collapse(line.collapsed, line.one_class), nothing_to_compare(line.limits)
            done(Outcome(case, "kept", collapse=dead, unlabelled=unlabelled))
    if names:
        results.append(path, results.renamed(path, names))
    return left


def _up_to_date(job: _Job, place: _Place, earlier: Earlier) -> dict[str, Line]:
    """Return kind -> one of its lines, for the kinds of measurement whose results are whole and up to date."""
    config = job.case.config
    if not (files := digest(place.runs / config.id)):
        return {}
    lines = {kind: earlier.whole(described(kind, config.task.name), files) for kind in job.kinds}
    found = {kind: line for kind, line in lines.items() if line}
    try:
        now = fingerprints(_open_shared(config, place.stores, place.device), place.runs) if found else {}
    except Exception:
        return {}  # the measurement gives the reason
    return {kind: line for kind, line in found.items() if not changes(line.read, now)}


def _one(job: _Job, place: _Place) -> tuple[Outcome, list[Result]]:
    """Measure one run, in one thread: runs are measured in parallel, and sums of several threads differ in digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(job, place)
    except Exception as error:
        note = explained(error, place.runs / job.case.config.id)
        return Outcome(job.case, "failed", note, isinstance(error, NotTrainedError)), []
    finally:
        torch.set_num_threads(threads)


def _measured(job: _Job, place: _Place) -> tuple[Outcome, list[Result]]:
    case, without, found = job.case, "", list[Result]()
    opening = partial(_open_shared, workers=place.workers)
    run = trained(place.runs / case.config.id, place.stores, place.device, opening, _LAST.pop() if _LAST else None)
    unlabelled = nothing_to_compare(limits_of_labels(run))
    for kind in job.kinds if not unlabelled else [kind for kind in job.kinds if kind in KINDS]:
        try:
            found += (measure if kind in KINDS else stress.measure)(run, kind, case.experiment, case.config.row)
        except FeatcacheError as error:
            if kind in ("test", stress.PLAIN):
                raise
            without += f"{'; ' if without else ''}{error}"
    _LAST.append(run)
    facts = run.run.facts
    dead = collapse(facts.collapsed, found[0].one_class if found else facts.one_class)
    return Outcome(case, "measured", without=without, collapse=dead, unlabelled=unlabelled), found
