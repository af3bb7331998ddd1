"""One budget for what a declared size may cost, checked before anything is allocated for it.

A few bytes can declare gigabytes: a picture's header its pixels, a sound's header its rate, a compressed array its
length, a window plan its windows. Readers of media and window plans pass the declared number to `check`; readers of
compressed files pass the bytes that a file would unpack to to `check_growth` or an `Allowance`. Readers of formats
that store their bytes as they are compare the declared size with that of the file instead. Each limit can be raised
by its environment variable:

    FEATCACHE_MAX_PIXELS         pixels of a picture or video frame
    FEATCACHE_MAX_SAMPLE_RATE    samples per second of a sound file, at most
    FEATCACHE_MIN_SAMPLE_RATE    ... and at least
    FEATCACHE_MAX_RESAMPLING     the larger number in the ratio of a sound's rate to the wanted one, as a fraction
    FEATCACHE_MAX_WINDOWS        windows of a clip
    FEATCACHE_MAX_GROWTH         bytes that a file may unpack to, in times its own bytes (plus 64 MiB)
"""

import os
from dataclasses import dataclass, replace

from featcache.errors import ConfigError, FeatcacheError, FormatError

NO_LIMIT = 1e18  #: no limit can be raised to such a number
SMALL = 1 << 26  #: bytes that any file may unpack to


@dataclass(frozen=True)
class Limit:
    """The largest number of one kind."""

    variable: str  #: environment variable that sets another limit
    default: int
    unit: str
    advice: str = "if you trust it,"  #: the other way out

    @property
    def value(self) -> int:
        """The limit; ConfigError if the variable is not a whole number above 0."""
        text = os.environ.get(self.variable, "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
            raise ConfigError(f"{self.variable} is {text[:40]!r}; set it to a whole number above 0, or unset it")
        return int(text)


PIXELS = Limit("FEATCACHE_MAX_PIXELS", 1 << 26, "pixels")  #: 8192 x 8192; twice as many as a picture in 8K
RATE = Limit("FEATCACHE_MAX_SAMPLE_RATE", 384_000, "samples per second")  #: the fastest recorders of sound
SLOW = Limit("FEATCACHE_MIN_SAMPLE_RATE", 50, "samples per second")  #: lower rates hold nothing that can be heard
STEPS = Limit(  #: passes all rates below 131 kHz, and the usual ones above; resampling takes 1 KB a step
    "FEATCACHE_MAX_RESAMPLING", 1 << 17, "steps", "convert it to an ordinary rate such as 48000, or"
)
WINDOWS = Limit(  #: of a short clip; see `check_windows`
    "FEATCACHE_MAX_WINDOWS", 1 << 14, "windows", "use fewer or longer windows, or"
)
DENSE = 100  #: windows per second of a long clip
MOST_WINDOWS = 1 << 20  #: windows of any clip, and of a store unless the variable raises them
GROWTH = Limit("FEATCACHE_MAX_GROWTH", 200, "times")  #: deflate could reach 1000


def check(number: float, limit: Limit, place: str, claim: str = "", error: type[FeatcacheError] = FormatError) -> None:
    """Raise `error` if a declared number is beyond its limit. claim: the number as declared, such as 640 x 480."""
    if number > limit.value:
        shown = f"{number:.0f}" if number < NO_LIMIT else f"{number:.3g}"
        claim = f"{claim} ({shown} {limit.unit})" if claim else f"{shown} {limit.unit}"
        raise error(f"{place} declares {claim}, more than the limit of {limit.value}; {_way_out(limit, number)}")


def check_rate(rate: int, place: str, error: type[FeatcacheError] = FormatError) -> None:
    """Raise `error` if a sound declares too many samples per second, or too few."""
    check(rate, RATE, place, error=error)
    if rate < SLOW.value:
        raise error(
            f"{place} declares {rate} {SLOW.unit}, fewer than the limit of {SLOW.value}; {_way_out(SLOW, rate)}"
        )


def check_pixels(
    width: int, height: int, place: str, error: type[FeatcacheError] = FormatError, depth: int = 4
) -> None:
    """Raise `error` if a picture of this size has too many pixels. depth: bytes that a pixel takes; up to 7 count as 4.

    >>> check_pixels(7680, 4320, "film.mp4")  # 8K
    """
    claim = f"{width} x {height}" + (f" of {depth} bytes" if depth > 7 else "")
    check(width * height * max(depth // 4, 1), PIXELS, place, claim, error)


def check_windows(count: float, seconds: float, place: str) -> None:
    """Raise ConfigError if a clip has too many windows: more than 16384, and more than 100 in each of its seconds."""
    most = max(WINDOWS.default, int(min(MOST_WINDOWS, DENSE * seconds)))
    check(count, replace(WINDOWS, default=most), place, error=ConfigError)


def growth(stored: int) -> int:
    """The bytes that a file, or a part of it, of `stored` bytes may unpack to."""
    return GROWTH.value * stored + SMALL


def check_growth(size: int, stored: int, place: str, error: type[FeatcacheError] = FormatError) -> None:
    """Raise `error` when few stored bytes would unpack to very many."""
    Allowance(stored, place, error).take(size)


class Allowance:
    """The bytes that the parts of one file may still unpack to."""

    def __init__(self, stored: int, place: str, error: type[FeatcacheError] = FormatError) -> None:
        self.left = growth(stored)
        self._stored, self._place, self._error, self._taken = stored, place, error, 0

    def take(self, size: int) -> None:
        """Subtract the bytes of a part, before they are unpacked; an error if more than are left."""
        self._taken += size
        self.left -= size
        if self.left < 0:
            times = 1 << (-(-(self._taken - SMALL) // max(self._stored, 1))).bit_length()  # more parts may follow
            raise self._error(
                f"{self._place} would grow from {self._stored} to {self._taken} bytes, more than {GROWTH.value} times "
                f"plus 64 MiB; {_way_out(GROWTH, times)}"
            )


def _way_out(limit: Limit, number: float) -> str:
    return f"{limit.advice} set {limit.variable}={number:.0f}" if number < NO_LIMIT else "correct it"
