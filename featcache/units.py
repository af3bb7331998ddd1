"""Units in the names of columns of times, such as start_ms: times in seconds are never guessed from another unit."""

import re
import unicodedata
from decimal import Decimal

from featcache.manifest import number

#: unit -> its length in seconds, and the words for it
TIMES: dict[str, tuple[str, str]] = {
    "nanoseconds": ("1e-9", "ns nsec nsecs nano nanos nanosec nanosecs nanosecond nanoseconds"),
    "microseconds": ("1e-6", "us μs usec usecs micro micros microsec microsecs microsecond microseconds"),
    "milliseconds": ("1e-3", "ms msec msecs milli millis millisec millisecs millisecond milliseconds"),
    "centiseconds": ("1e-2", "centi csec csecs centisec centisecs centisecond centiseconds"),
    "deciseconds": ("1e-1", "deci dsec dsecs decisec decisecs decisecond deciseconds"),
    "minutes": ("60", "mins minute minutes"),
    "hours": ("3600", "hr hrs hour hours"),
}
LENGTHS = {word: unit for unit, (_, words) in TIMES.items() for word in words.split()}
#: last words of names that are no unit of time, or may be several
UNCLEAR = (
    *("m", "min", "h", "d", "day", "days", "cs", "ds", "tick", "ticks", "pts", "sample", "samples", "byte", "bytes"),
    *("percent", "pct", "fraction", "ratio", "beat", "beats", "bar", "bars", "index", "idx", "row", "line"),
)
BEFORE = "start|stop|begin|end|onset|offset|time|timestamp|stamp|from|to|position|pos|clip|segment"
GLUED = re.compile(rf"(?:{BEFORE})+({'|'.join([*LENGTHS, 'ticks', 'samples', 'pts', 'min'])})")  # startms


def unit_of(name: str) -> str:
    """Return the unit in a column's name: a unit of TIMES, the word of another one, or "" for seconds, frames and none.

    >>> [unit_of(name) for name in ("start_ms", "stopMsec", "startms", "begin (minutes)", "end_samples")]
    ['milliseconds', 'milliseconds', 'milliseconds', 'minutes', 'samples']
    >>> [unit_of(name) for name in ("start_seconds", "stop_frame", "begin", "start_time")]
    ['', '', '', '']
    """
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).lower()
    words = [GLUED.fullmatch(word) or word for word in re.findall(r"[^\W\d_]+", spaced)]
    plain = [word if isinstance(word, str) else word[1] for word in words]
    units = dict.fromkeys(LENGTHS[word] for word in plain if word in LENGTHS)
    if len(units) == 1:
        return next(iter(units))
    last = plain[-1] if plain else ""
    return " and ".join(units) or (last if last in UNCLEAR else "")


def seconds(cell: str, unit: str) -> str:
    """Return a number of this unit of TIMES as seconds; text that is no number stays as it is.

    >>> seconds("1500", "milliseconds"), seconds("1.1", "minutes"), seconds("", "hours")
    ('1.5', '66', '')
    """
    try:
        return cell if "_" in cell else number(float(Decimal(cell.strip()) * Decimal(TIMES[unit][0])))
    except (ArithmeticError, ValueError):
        return cell
