"""Stress: a trained run, tested on changed features of its test rows.

    drop=rgb+flow    these modalities are absent, as with absent=mask
    windows=2        at most two of the windows that the test draws: those at the centres of two equal parts of them
    dtype=float16    the features of each window as a store of this type would hold them. float16: the nearest number;
                     int8: x ≈ s q, q a whole number in [-127, 127], s = max |x| / 127 of the window
    noise=0.1        x + 0.1 std ε, with ε ~ N(0, 1) and std that of each entry over the windows of the run's train rows
    none             nothing is changed: the number that the others are compared with

Each setting is measured by itself. A change comes before anything that the run does with features: before the mean over
windows that a feed draws, and before their preparation. Captions never change. ε depends on the seed of the run and on
the modality, so equal rows of two tables have equal noise, and a larger sigma has the same ε.

Predictions come from the weights that a run keeps, which are those of its last kept point. So the numbers of a run that
is selected by another rule can differ from its plain result, but all numbers of one stress table come from the same
weights.

Shapes: B rows, T windows, D entries of a row.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from featcache.errors import ConfigError, FeatcacheError
from featcache.wording import unknown
from heads.batch import Side
from pipelines.config import RunConfig, parse_draw
from pipelines.data.gathering import mean
from pipelines.data.opening import Opened, open_run
from pipelines.data.rows import Rows, load
from pipelines.data.tiers import Wanted, open_features
from pipelines.evaluation.changes import Change, fewer, noisy, rounded, spread, without
from pipelines.evaluation.evaluate import Measured, Trained, described, results_of
from pipelines.evaluation.results import Measurement, Result
from pipelines.tasks import labelled
from pipelines.training.outputs import outputs
from pipelines.training.runs import NotTrainedError

PLAIN = "none"  #: the stress that changes nothing
DTYPES = ("float16", "int8")
ALL = "all"  #: the value of `drop` for every non-empty proper subset of the modalities

_ROWS: dict[str, Rows] = {}  # everything that decides what they are -> the rows that were loaded last
_STDS: dict[str, dict[str, Tensor]] = {}  # fingerprints of stores and rows -> modality -> (D,), shared by all runs


@dataclass(frozen=True)
class Asked:
    """The stresses that a user asks for."""

    drop: tuple[tuple[str, ...], ...] = ()  #: sets of modalities; (ALL,) for all sets
    windows: tuple[tuple[int, int | None], ...] = ()  #: ranges of numbers of windows; None: to all that a run has
    dtypes: tuple[str, ...] = ()
    noise: tuple[float, ...] = ()  #: sigmas


def parse(
    drop: Sequence[str] = (), windows: str | None = None, dtypes: str | None = None, noise: str | None = None
) -> Asked:
    """Read the options of the command line; ConfigError for values that cannot be meant for any run."""
    sets = tuple(tuple(dict.fromkeys(_words("drop", text))) for text in drop)
    if any(ALL in names and len(names) > 1 for names in sets):
        raise ConfigError("--drop all names every set of modalities; leave the other names out")
    named = tuple(dict.fromkeys(_words("dtype", dtypes))) if dtypes is not None else ()
    for name in named:
        if name not in DTYPES:
            raise ConfigError(f"--dtype {name} is not a type that is tried; choose from {', '.join(DTYPES)}")
    ranges = tuple(_range(word) for word in _words("windows", windows)) if windows is not None else ()
    sigmas = tuple(_sigma(word) for word in _words("noise", noise)) if noise is not None else ()
    return Asked(sets, ranges, named, tuple(dict.fromkeys(sigmas)))


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ConfigError(f"--{option} {text!r} has an empty value; separate values by single commas")
    return words


def _range(word: str) -> tuple[int, int | None]:
    """Read "3", "1..3" or "1..T"."""
    found = re.fullmatch(r"([0-9]{1,6})(?:\.\.([0-9]{1,6}|T))?", word)
    low, high = (int(found[1]), found[2] or found[1]) if found else (0, "")
    if low < 1 or (high != "T" and int(high) < low):
        raise ConfigError(f"--windows {word!r} is not a number of windows; write 2, 1..3, or 1..T for all numbers")
    return low, None if high == "T" else int(high)


def _sigma(word: str) -> float:
    try:
        sigma = float(word)
    except ValueError:
        sigma = -1.0
    if not (isfinite(sigma) and sigma > 0):
        raise ConfigError(
            f"--noise {word} must be a number above 0: the share of each entry's standard deviation, for example 0.1"
        )
    return sigma


# -------------------------------------------------------------------------------------------------------------- plans


@dataclass(frozen=True)
class Plan:
    """The stresses of each run, and the runs that a wish does not apply to."""

    stresses: dict[str, tuple[str, ...]]  #: id of a run with any stress -> PLAIN and its stresses
    left_out: tuple[tuple[RunConfig, str], ...]  #: run and reason


def plan(runs: Mapping[Path, Sequence[RunConfig]], asked: Asked, device: str = "cpu") -> Plan:
    """Plan the stresses of runs; ConfigError if a wish applies to none of them, such as an unknown modality.

    runs: folder of stores -> the runs on these stores.
    """
    opened: dict[str, Opened] = {}  # feeds -> manifest and stores
    stresses: dict[str, tuple[str, ...]] = {}
    left_out: list[tuple[RunConfig, str]] = []
    reasons: dict[str, str] = {}  # wish -> reason of the first run that it does not apply to
    met = set()
    for stores, config in ((stores, config) for stores, configs in runs.items() for config in configs):
        content = config.to_json()
        feeds = json.dumps([str(stores), content["manifest"], content["feeds"]])
        try:
            if feeds not in opened:
                opened[feeds] = open_run(config, stores, device)
        except FeatcacheError:
            stresses[config.id] = (PLAIN,)  # its measurement gives the reason
            continue
        found = list(_stresses(asked, config, _windows_drawn(config, opened[feeds])))
        if chosen := dict.fromkeys(stress for _, stress, why in found if not why):
            stresses[config.id] = (PLAIN, *chosen)
        left_out += [(config, f"{wish}: {why}") for wish, _, why in found if why]
        reasons = {wish: why for wish, _, why in found if why} | reasons
        met |= {wish for wish, _, why in found if not why}
    known = {m for configs in runs.values() for config in configs for m in tested(config)}
    for name in (name for names in asked.drop for name in names if name not in known | {ALL}):
        raise unknown("modality", name, sorted(known), "--drop")
    for wish in (wish for wish in reasons if wish not in met):
        raise ConfigError(f"{wish}: {reasons[wish]}")
    return Plan(stresses, tuple(left_out))


def _stresses(asked: Asked, config: RunConfig, T: int) -> Iterator[tuple[str, str, str]]:
    """Yield (wish, stress, ""), or (wish, "", reason) if it does not apply to this run, whose tests draw T windows."""
    modalities = tested(config)
    for names in asked.drop:
        wish = f"--drop {','.join(names)}"
        if why := _cannot_drop(config, names):
            yield wish, "", why
        elif names == (ALL,):
            for count in range(1, len(modalities)):
                yield from ((wish, f"drop={'+'.join(chosen)}", "") for chosen in combinations(modalities, count))
        else:
            yield wish, f"drop={'+'.join(m for m in modalities if m in names)}", ""
    for low, high in asked.windows:
        last = T if high is None else high
        wish = f"--windows {low}" + ("" if low == high else f"..{high or 'T'}")
        if max(low, last) > T:
            yield wish, "", f"tests draw at most {T} windows of a clip; ask for fewer"
        else:
            yield from ((wish, f"windows={n}", "") for n in range(low, last + 1))
    yield from ((f"--dtype {name}", f"dtype={name}", "") for name in asked.dtypes)
    yield from ((f"--noise {sigma:g}", f"noise={sigma:g}", "") for sigma in asked.noise)


def _cannot_drop(config: RunConfig, names: Sequence[str]) -> str:
    """Return the reason why these modalities cannot be absent in a test of the run; "" if they can."""
    modalities = tested(config)
    if config.task.no_drop:
        return config.task.no_drop
    if names == (ALL,):
        return "" if len(modalities) > 1 else f"the only modality, {modalities[0]}, is needed"
    if lacking := [name for name in names if name not in modalities]:
        return f"no modality {lacking[0]!r}; there are: {', '.join(modalities)}"
    if len(names) == len(modalities):
        return "no modality would be left; leave one of these names out"
    return ""


def tested(config: RunConfig) -> tuple[str, ...]:
    """Return the modalities that a run reads of its test clips."""
    return tuple(m for m, feed in config.tested.items() if not feed.captions)


def _windows_drawn(config: RunConfig, opened: Opened) -> int:
    """Return the largest number of windows that a test draws of a modality; a mean draws all windows of the store."""
    return max(parse_draw(config.feeds[m].test)[1] or opened.stores[m].windows for m in tested(config))


# ------------------------------------------------------------------------------------------------------------ measures


def measure(it: Trained, stress: str, experiment: str = "", row: str | None = None) -> list[Result]:
    """Return all metrics of a run's outputs under a stress, or PLAIN; experiment and row as in `evaluate`."""
    config, opened = it.run.config, it.opened
    rows = changed(_test_rows(it), opened, stress)
    try:
        out = outputs(it.method, rows, opened)
    except (FeatcacheError, ValueError, LookupError, RuntimeError) as error:  # of a net that cannot take such features
        if stress == PLAIN:
            raise
        raise ConfigError(f"run {config.id} cannot be tested with {stress}: {error}") from error
    values = config.task.measure(out, it.truth, it.method.net, opened.clusters)
    measurement = Measurement(described(stress, config.task.name), it.files, len(values))
    select = config.select if config.keeps_best else "last"
    results = results_of(it, experiment, row, Measured(values), measurement)
    return [replace(result, stress=stress, select=select) for result in results]


def _test_rows(it: Trained) -> Rows:
    """Load the test rows of a run as they are stored, and in retrieval their captions as the run prepares them."""
    config, opened = it.run.config, it.opened
    rows = stored(opened, "test", labelled(opened.manifest, opened.check_test(), it.truth))
    if rows.rows != it.run.outputs["rows"].tolist():
        raise NotTrainedError(f"run {config.id} has outputs of other test rows than its stores have; train it again")
    if opened.captions:
        captions = opened.captions.load("test", rows.rows, rows.domain)
        rows = replace(rows, captions=replace(captions, table=captions.table.prepared(opened.prepare)))
    return rows


def stored(opened: Opened, role: str, rows: list[int]) -> Rows:
    """Load rows as they are stored, with the windows that tests draw; the windows of a mean are still apart.

    role: the role whose modalities are loaded. The rows that were loaded last are not loaded again.
    """
    names = [store.fingerprint for store in opened.stores.values()]
    wanted = json.dumps([names, opened.config.to_json()["feeds"], opened.domains, role, rows, opened.device])
    if wanted not in _ROWS:
        _ROWS.clear()
        _ROWS[wanted] = _load(opened, role, rows)
    return _ROWS[wanted]


def _load(opened: Opened, role: str, rows: list[int]) -> Rows:
    feeds = {
        m: replace(feed, test="all" if feed.test == "mean" else feed.test)
        for m, feed in opened.config.feeds.items()
        if role in feed.seen_by.split() and not feed.captions
    }
    draws = {m: feed.test for m, feed in feeds.items()}
    features = open_features({m: opened.stores[m] for m in feeds}, [Wanted(len(rows), draws)], opened.device)
    number = {domain: k for k, domain in enumerate(opened.domains)}
    domain = [number.get(opened.manifest.clips[row].domain, -1) for row in rows]
    return load(features, feeds, rows, {}, torch.tensor(domain, device=opened.device), trained=False)


@dataclass(frozen=True)
class _Changed(Rows):
    """Rows whose sweeps yield changed sides. Each sweep begins with a new change, so that its noise is the same."""

    change: Callable[[], Change] = lambda: lambda side: side

    def sweep(self) -> Iterator[Side]:
        """Yield every row once, in order."""
        return map(self.change(), super().sweep())


def changed(rows: Rows, opened: Opened, stress: str) -> Rows:
    """Return rows (`stored`) that are changed in sweeps, and then averaged and prepared as the run does."""
    means = [m for m, feed in opened.config.feeds.items() if feed.test == "mean"]
    begin = _begin(stress, opened)

    def change() -> Change:
        stressed = begin()

        def whole(side: Side) -> Side:
            side = stressed(side)
            x, present = dict(side.x), dict(side.present)
            for m in x:
                if m in means:
                    x[m], present[m] = mean(x[m], present[m])
                if opened.prepare:
                    x[m] = opened.prepare(m, x[m], present[m], side.domain)
            return replace(side, x=x, present=present)

        return whole

    return _Changed(**{field.name: getattr(rows, field.name) for field in fields(Rows)}, change=change)


def _begin(stress: str, opened: Opened) -> Callable[[], Change]:
    """Return the function that begins a sweep: it returns the change of each of its sides."""
    kind, _, value = stress.partition("=")
    if kind == "noise":
        std = train_std(opened)
        return lambda: noisy(float(value), std, opened.config.seed)
    change: Change = {
        PLAIN: lambda side: side,
        "drop": lambda side: without(side, value.split("+")),
        "windows": lambda side: fewer(side, int(value)),
        "dtype": lambda side: rounded(side, value),
    }[kind]
    return lambda: change


def forget() -> None:
    """Free the rows that were loaded last."""
    _ROWS.clear()


def train_std(opened: Opened) -> dict[str, Tensor]:
    """Modality -> standard deviation of each entry over the windows of the run's train rows; 0 of a constant entry."""
    sides = {side: rows for side, rows in opened.side_rows.items() if side in ("source", "target")}
    names = [store.fingerprint for store in opened.stores.values()]
    key = hashlib.sha256(json.dumps([names, sides, opened.config.to_json()["feeds"]]).encode()).hexdigest()
    if key not in _STDS:
        _STDS[key] = spread(side for role, rows in sides.items() for side in _load(opened, role, rows).sweep())
    if lacking := [m for m in tested(opened.config) if m not in _STDS[key]]:
        raise ConfigError(
            f"--noise has no unit for modality {lacking[0]!r} of run {opened.config.id}, because no train row has it"
        )
    return _STDS[key]
