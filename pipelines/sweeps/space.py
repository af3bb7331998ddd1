"""The values that a search draws: intervals of numbers, and choices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featcache.errors import ConfigError
from heads.params import Range, ranges
from pipelines.config import RunConfig
from pipelines.experiments import Experiment, Grid, Setting, has, values_of, with_settings

REACH = 10  #: an unlimited range is the default divided by this number, to the default times this number
INSIDE = 1e-3  #: distance to an end that does not belong to a range, as a share of the range
DIGITS = 3  #: significant digits of numbers that are tried


@dataclass(frozen=True)
class Limits:
    """The numbers from which a search draws the values of a setting."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


Space = Mapping[str, Limits | tuple[str, ...]]  #: name of a setting -> interval, or choices


def parse_ranges(texts: Sequence[str]) -> dict[str, Limits | None]:
    """Return name of a setting -> interval, from texts "NAME=LOW..HIGH", "NAME=LOW..HIGH,log" or "NAME" (None).

    >>> parse_ranges(["method.lambda_g=0.01..10,log", "optim.lr"])
    {'method.lambda_g': Limits(low=0.01, high=10.0, log=True, whole=False), 'optim.lr': None}
    """
    parsed: dict[str, Limits | None] = {}
    for text in texts:
        name, equals, limits = (part.strip() for part in text.partition("="))
        if name in parsed:
            raise ConfigError(f"range {text!r} names {name!r} a second time; give one range")
        bounds, comma, kind = limits.partition(",")
        ends = bounds.split("..")
        try:
            low, high = map(float, ends if equals else ("0", "1"))
        except ValueError:
            low = high = math.nan
        finite = math.isfinite(low) and math.isfinite(high)
        if not (name and finite and low < high) or (comma and kind.strip() != "log"):
            raise ConfigError(f"no range {text!r}; write NAME=LOW..HIGH or NAME=LOW..HIGH,log, with LOW below HIGH")
        if comma and low <= 0:
            raise ConfigError(f"range {text!r} is logarithmic, so its lower end must be above 0")
        parsed[name] = Limits(low, high, bool(comma)) if equals else None
    return parsed


def space(experiment: Experiment, row: str, grid: Grid, given: Mapping[str, Limits | None]) -> Space:
    """Return the settings of a row that a search varies: those of the grid and of the ranges, else what it declares.

    ConfigError for a range of something that is no number, or beyond what the setting may be.
    """
    config = next(run for run in experiment.runs if run.row == row)
    if not grid and not given:
        return declared(config)
    values = values_of(experiment, row)
    found: dict[str, Limits | tuple[str, ...]] = {name: grid[name] for name in grid if has(experiment, row, name)}
    for name, interval in given.items():
        if name in grid:
            raise ConfigError(f"{name!r} has a grid and a range; give one of them")
        if has(experiment, row, name):
            value = values.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"range of {name!r}: it is no number ({name}={value}); give its choices with --grid")
            found[name] = _whole(interval, name, value) if interval else _by_default(config, name, value)
    for name, part in found.items():
        if isinstance(part, tuple):
            with_settings(experiment, [Setting(row, {name: text}) for text in part])
            continue
        for end in (part.low, part.high):  # both may be the same text
            with_settings(experiment, [Setting(row, {name: as_text(end, part)})])
    return found


def declared(config: RunConfig) -> dict[str, Limits]:
    """Return the settings of a run's method that have a range.

    Settings that are off (0) and have no upper limit are left out.
    """
    intervals = {
        f"method.{name}": _interval(getattr(config.method, name), allowed)
        for name, allowed in ranges(config.method).items()
    }
    return {name: interval for name, interval in intervals.items() if interval}


def _by_default(config: RunConfig, name: str, value: float) -> Limits:
    """Return the interval of a number without one: what its `Params` declare, or around its value."""
    part, _, field = name.partition(".")
    allowed = ranges(getattr(config, part)).get(field) if part in ("method", "net") else None
    if interval := _interval(value, allowed or Range(0, math.inf, above=True, below=False)):
        return interval
    raise ConfigError(f"{name}={value} has no upper limit and no size to begin with; give a range, {name}=LOW..HIGH")


def _interval(value: float, allowed: Range) -> Limits | None:
    """Return the interval of a declared range; without an upper limit, from a tenth of the value to ten times of it."""
    whole = isinstance(value, int)
    if math.isfinite(allowed.high) and math.isfinite(allowed.low):
        inside = 1 if whole else INSIDE * (allowed.high - allowed.low)
        low, high = allowed.low + inside * allowed.above, allowed.high - inside * allowed.below
        return Limits(low, high, whole=whole) if low < high else None
    if value <= 0:
        return None
    low, least = value / REACH, allowed.low + allowed.above * (1 if whole else INSIDE * (value - allowed.low))
    low = max(low, least, 1 if whole else 0)
    return Limits(round(low) if whole else low, value * REACH, log=True, whole=whole)


def _whole(interval: Limits, name: str, value: float) -> Limits:
    """Return an interval of whole numbers if the setting is one."""
    if not isinstance(value, int):
        return interval
    if interval.low % 1 or interval.high % 1:
        raise ConfigError(f"range of {name!r}: it is a whole number, so write {name}=LOW..HIGH with whole numbers")
    return Limits(interval.low, interval.high, interval.log, whole=True)


def as_text(value: Any, part: Limits | tuple[str, ...]) -> str:
    """Return a value as the setting is written: numbers with few digits."""
    if isinstance(part, tuple):
        return str(value)
    return str(int(value)) if part.whole else f"{value:.{DIGITS}g}"


def described(space: Space) -> str:
    """Return what a search varies as text.

    >>> described({"method.lambda_g": Limits(0.1, 10, log=True), "net.dropout_at": ("logits", "features")})
    'method.lambda_g from 0.1 to 10 (log), net.dropout_at of logits, features'
    """
    parts = []
    for name, part in space.items():
        if isinstance(part, tuple):
            parts.append(f"{name} of {', '.join(part)}")
        else:
            ends = f"from {as_text(part.low, part)} to {as_text(part.high, part)}"
            parts.append(f"{name} {ends}{' (log)' if part.log else ''}")
    return ", ".join(parts)
