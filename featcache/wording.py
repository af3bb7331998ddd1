"""Phrases that messages share: a name that does not exist, the first ones of many, a size."""

import difflib
from collections.abc import Iterable

from featcache.errors import ConfigError, FeatcacheError


def nearest(value: str, choices: Iterable[str]) -> str:
    """The choice that is spelled most like the value, upper and lower case alike; "" where none is like it.

    >>> nearest("Hogg", ["hof", "hog"]), nearest("i3d", ["hof", "hog"])
    ('hog', '')
    """
    lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(value.lower(), lower, n=1)
    return lower[near[0]] if near else ""


def unknown(
    what: str, value: str, choices: Iterable[str], where: str = "", error: type[FeatcacheError] = ConfigError
) -> FeatcacheError:
    """`no WHAT 'value' in WHERE`, the nearest choice if one is near, and all of them, that one first.

    They are quoted where one has a comma in it.
    """
    choices = list(choices)
    near = nearest(value, choices)
    ordered = dict.fromkeys([near, *choices] if near else choices)
    names = map(repr, ordered) if any("," in choice for choice in choices) else ordered
    hint = f"did you mean {near!r}? " if near else ""
    place = f" in {where}" if where else ""
    return error(f"no {what} {value!r}{place}; {hint}there are: {', '.join(names) or 'none'}")


def first(words: Iterable[str], most: int = 10, between: str = ", ") -> str:
    """The words, of many the first ones and how many more.

    >>> first(["a", "b"]), first([str(k) for k in range(2000)], 2)
    ('a, b', '0, 1, … and 1,998 more')
    """
    words = list(words)
    more = [f"… and {len(words) - most:,} more"] if len(words) > most else []
    return between.join([*words[:most], *more])


def quoted(words: Iterable[str], most: int = 3) -> str:
    """The first words in quotes and how many more, for ids of which two or three are enough to know the kind.

    >>> quoted(["a", "b", "c", "d"])
    "'a', 'b', 'c', … and 1 more"
    """
    return first(map(repr, words), most)


def size(count: int) -> str:
    """Bytes for people, in powers of 1000 as disks and downloads are sold.

    >>> size(999), size(1536), size(50_883_138)
    ('999 B', '1.5 kB', '50.9 MB')
    """
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {'kMGT'[power - 1]}B" if power else f"{count} B"
