"""A search for the setting of a row that a validator scores best, with Optuna (the extra `[sweep]`).

    featcache sweep kitchens --only 'RNA (UDA)' --search tpe:40 --by infomax

A trial is a setting: its runs on all shifts and seeds are ordinary runs, and its score is the mean of their scores. A
trial whose mean over the seeds so far is worse than the median of the complete trials at that seed is pruned. Trials
are proposed and trained in generations, so that their runs can share processes.

Nothing but the runs is stored. The sampler has a fixed seed, and a generation has a fixed size, so the same command
proposes the same settings again after a kill, and finds their finished runs.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.experiments import Experiment, Setting, check_names, has, short_names, with_settings
from pipelines.measures.validators import ORACLE, VALIDATORS
from pipelines.sweeps.space import Limits, Space, as_text, declared

try:
    import optuna
except ImportError:
    raise ConfigError("--search needs Optuna; install it with: pip install 'featcache[sweep]'") from None

SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
#: validators, the default first if the runs can use it: a head that gives all rows one class is its worst case
PREFERRED = ("infomax", "bnm", "source_val", "dev", "snd", "entropy")
SEED = 0  #: of the samplers
GENERATION = 8  #: trials that are proposed and trained together; another number would propose other settings
BEFORE_PRUNING = 5  #: complete trials before the first one is pruned
COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))

#: runs -> the score of each run that a row shows, by its id, or the reason why it has none
Score = Callable[[Sequence[RunConfig]], dict[str, float | str]]


@dataclass(frozen=True)
class Trial:
    """A setting that a search has tried."""

    setting: Setting
    state: optuna.trial.TrialState  #: COMPLETE | PRUNED | FAIL
    runs: int  #: the runs that have a score
    score: float = math.nan  #: mean over these runs
    reason: str = ""  #: of a failed trial
    means: tuple[float, ...] = ()  #: mean of the scores so far, after each step


# --------------------------------------------------------------------------------------------------------------- words


def parse_search(text: str) -> tuple[str, int]:
    """Return the sampler and the number of trials: "tpe:40" -> ("tpe", 40)."""
    name, _, count = text.partition(":")
    if name not in SAMPLERS:
        raise ConfigError(f"{unknown('search', name, SAMPLERS)}; write SEARCH:TRIALS, for example tpe:40")
    if not count.isdecimal() or not 0 < int(count) <= 10_000:
        raise ConfigError(f"search {text!r} must have from 1 to 10,000 trials, for example {name}:40")
    return name, int(count)


def rule(experiment: Experiment, by: str | None) -> str:
    """Return the rule that ranks the trials: a validator, or oracle. The default is one that a row's runs can use."""
    able = {name for run in experiment.runs if run.row for name in run.validators}
    if by is None:
        if found := next((name for name in PREFERRED if name in able), ""):
            return found
        raise ConfigError("no run has rows for a validator; add a target, or held-out rows: --set holdout=0.1")
    if by not in (*VALIDATORS, ORACLE):
        reads = f"; {by} reads labels of the test rows: a search by these is --by {ORACLE}"
        metric = by.partition("/")[0] in tasks.metrics()
        raise ConfigError(f"{unknown('validator', by, [*VALIDATORS, ORACLE])}{reads if metric else ''}")
    if by != ORACLE and by not in able:
        choices = ", ".join(name for name in (*VALIDATORS, ORACLE) if name in able or name == ORACLE)
        needs = " and ".join(VALIDATORS[by].needs)
        raise ConfigError(f"no run can be scored by {by!r}, which needs {needs}; there are: {choices}")
    return by


def searched(experiment: Experiment, by: str, names: Sequence[str]) -> list[str]:
    """The rows that a search by this rule tries settings of: those that have one of the names and the rule's rows."""
    check_names(experiment, names)
    first = {run.row: run for run in reversed(experiment.runs) if run.row}
    rows = [
        row
        for row in experiment.rows
        if (by == ORACLE or by in first[row].validators)
        and (any(has(experiment, row, name) for name in names) if names else declared(first[row]))
    ]
    if not rows:
        what = f"has one of the settings {', '.join(names)}" if names else "has a range in its method"
        raise ConfigError(f"no row that can be scored by {by!r} {what}; name settings with --range or --grid")
    chosen = next((run for run in experiment.runs if run.row in rows and run.select == ORACLE), None)
    if chosen and by != ORACLE:
        raise ConfigError(f"row {chosen.row!r} has select=oracle, by labels of the test rows; search --by oracle")
    return rows


# -------------------------------------------------------------------------------------------------------------- search


def search(
    experiment: Experiment, row: str, space: Space, how: tuple[str, int], score: Score, *, higher: bool
) -> Iterator[list[Trial]]:
    """Yield the trials of a row, a generation at a time.

    how: sampler and number of trials. higher: true if a higher score is better.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the plan and the table report the trials
    sampler, trials = how
    study = optuna.create_study(
        direction="maximize" if higher else "minimize",
        sampler=SAMPLERS[sampler](seed=SEED),
    )
    complete: list[Trial] = []
    distributions = {name: _distribution(part) for name, part in space.items()}
    for first in range(0, trials, GENERATION):
        asked = [study.ask(distributions) for _ in range(min(GENERATION, trials - first))]
        settings = [Setting(row, {name: as_text(each.params[name], space[name]) for name in space}) for each in asked]
        tried = _generation(experiment, settings, score, partial(_worse, complete, higher=higher))
        complete += [trial for trial in tried if trial.state == COMPLETE]
        for each, trial in zip(asked, tried, strict=True):
            for step, mean in enumerate(trial.means):
                each.report(mean, step)  # `tpe` ranks pruned trials by their last mean
            study.tell(each, trial.score if trial.state == COMPLETE else None, state=trial.state)
        yield tried


def _generation(
    experiment: Experiment, settings: list[Setting], score: Score, worse: Callable[[float, int], bool]
) -> list[Trial]:
    """Return the trials of these settings, trained together step by step: a step is a seed, or a shift of one seed.

    worse: (mean so far, step) -> True if a trial is to be pruned.
    """
    tried: dict[int, Experiment] = {}
    ended: dict[int, Trial] = {}
    for k, setting in enumerate(settings):
        try:
            tried[k] = with_settings(experiment, [setting])
        except ConfigError as error:
            ended[k] = Trial(setting, FAIL, 0, reason=str(error))
    steps, scores = {k: _steps(each) for k, each in tried.items()}, {k: list[float]() for k in tried}
    means = {k: list[float]() for k in tried}
    for step in range(max(map(len, steps.values()), default=0)):
        going = [k for k in tried if k not in ended]
        runs = {run.id: run for k in going for shown in steps[k][step] for run in reversed(tried[k].chain(shown))}
        found = score(list(runs.values())) if runs else {}
        for k in going:
            values = [found[run.id] for run in steps[k][step]]
            scores[k] += [value for value in values if not isinstance(value, str)]
            if reasons := [value for value in values if isinstance(value, str)]:
                ended[k] = Trial(settings[k], FAIL, len(scores[k]), reason=reasons[0])
                continue
            mean = sum(scores[k]) / len(scores[k])
            means[k].append(mean)
            if (last := step + 1 == len(steps[k])) or worse(mean, step):
                state = COMPLETE if last else PRUNED
                ended[k] = Trial(settings[k], state, len(scores[k]), mean, means=tuple(means[k]))
    return [ended[k] for k in range(len(settings))]


def _worse(complete: Sequence[Trial], mean: float, step: int, *, higher: bool) -> bool:
    """Return whether a mean is worse than the median of the complete trials after the same step.

    Optuna's `MedianPruner` takes the best mean of a trial's steps so far, so a lucky first seed would protect it.
    """
    if len(complete) < BEFORE_PRUNING:
        return False
    median = statistics.median(trial.means[step] for trial in complete)
    return mean < median if higher else mean > median


def _steps(tried: Experiment) -> list[list[RunConfig]]:
    """Return the runs of a row, by seed, or one by one if they have a single seed."""
    shown = [run for run in tried.runs if run.row]
    seeds = dict.fromkeys(run.seed for run in shown)
    if len(seeds) == 1:
        return [[run] for run in shown]
    return [[run for run in shown if run.seed == seed] for seed in seeds]


def _distribution(part: Limits | tuple[str, ...]) -> optuna.distributions.BaseDistribution:
    """Return what Optuna draws a value from."""
    if isinstance(part, tuple):
        return optuna.distributions.CategoricalDistribution(part)
    if part.whole:
        return optuna.distributions.IntDistribution(int(part.low), int(part.high), log=part.log)
    return optuna.distributions.FloatDistribution(part.low, part.high, log=part.log)


def best(trials: Sequence[Trial], *, higher: bool) -> list[Trial]:
    """Return different complete trials, the best first; a setting that was tried again counts once."""
    different = {trial.setting.changes: trial for trial in reversed(trials) if trial.state == COMPLETE}
    return sorted(different.values(), key=lambda trial: trial.score, reverse=higher)


# --------------------------------------------------------------------------------------------------------------- table


def lines(trials: Sequence[Trial], *, higher: bool) -> list[list[str]]:
    """Return the cells of a search's table: complete trials, the best first, then the pruned and the failed ones."""
    others = [trial for state in (PRUNED, FAIL) for trial in trials if trial.state == state]
    words = {COMPLETE: "complete", PRUNED: "pruned", FAIL: "failed"}
    return [
        [trial.setting.row, spelled(trial.setting), _number(trial.score), words[trial.state], str(trial.runs)]
        for trial in (*best(trials, higher=higher), *others)
    ]


def spelled(setting: Setting) -> str:
    """Return the values of a setting as text: "lambda_g = 0.3, lr = 0.01"."""
    short = short_names(setting.values)
    return ", ".join(f"{short[name]} = {value}" for name, value in setting.values.items())


def _number(score: float) -> str:
    return "–" if math.isnan(score) else f"{score:.4g}"
