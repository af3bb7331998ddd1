"""Phrases that messages share: an unknown name, the first of many words, a size in bytes, text that is visible."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

from featcache.errors import ConfigError, FeatcacheError

INVISIBLE = ("Cc", "Cf")  #: categories of characters that print nothing
#: characters of other categories that print nothing: fillers, a joiner, a blank pattern, variation selectors
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(map(chr, range(0xFE00, 0xFE10)))

#: categories of characters that control a terminal, have no width or change the direction of a line, of bytes that
#: are not UTF-8, and of line ends
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
ODD = re.compile("[^ -~]")  #: characters that may have such a category


def nearest(value: str, choices: Iterable[str]) -> str:
    """The choice that is spelled most like the value, ignoring case; "" when no choice is close.

    >>> nearest("Hogg", ["hof", "hog"]), nearest("i3d", ["hof", "hog"])
    ('hog', '')
    """
    lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(value.lower(), lower, n=1)
    return lower[near[0]] if near else ""


def unknown(
    noun: str, value: str, choices: Iterable[str], where: str = "", error: type[FeatcacheError] = ConfigError
) -> FeatcacheError:
    """Make the error `no NOUN 'value' in WHERE; did you mean 'near'? there are: near, others`.

    The nearest choice comes first. All choices are quoted when one contains a comma.
    """
    choices = list(choices)
    near = nearest(value, choices)
    ordered = dict.fromkeys([near, *choices] if near else choices)
    names = map(repr, ordered) if any("," in choice for choice in choices) else ordered
    hint = f"did you mean {near!r}? " if near else ""
    place = f" in {where}" if where else ""
    return error(f"no {noun} {value!r}{place}; {hint}there are: {', '.join(names) or 'none'}")


def first(words: Iterable[str], most: int = 10, between: str = ", ") -> str:
    """Join the words; when there are more than `most`, join the first ones and add the number of the others.

    >>> first(["a", "b"]), first([str(k) for k in range(2000)], 2)
    ('a, b', '0, 1, … and 1,998 more')
    """
    words = list(words)
    more = [f"… and {len(words) - most:,} more"] if len(words) > most else []
    return between.join([*words[:most], *more])


def per_kind(messages: Iterable[tuple[str, str]], most: int = 10) -> list[str]:
    """Return the first messages of each kind, and the number of the others with their last. messages: (kind, message).

    >>> per_kind([("gone", "a is gone"), ("late", "b is late"), ("gone", "c is gone"), ("gone", "d is gone")], 1)
    ['a is gone', '… and 2 more like it, the last one: d is gone', 'b is late']
    """
    kinds: dict[str, list[str]] = {}
    for kind, message in messages:
        kinds.setdefault(kind, []).append(message)
    lines = []
    for alike_ones in kinds.values():
        lines += alike_ones[:most]
        if (more := len(alike_ones) - most) > 0:
            lines.append(f"… and {more:,} more like it, the last one: {alike_ones[-1]}")
    return lines


def kind_of(message: str, *names: str) -> str:
    """Return a message without names, numbers and what follows a semicolon, so that messages of a kind are equal.

    >>> kind_of("a1.mp4 ends at 3.5; did you mean 'a2.mp4'?", "a1.mp4") == kind_of("b ends at 12", "b")
    True
    """
    for name in names:
        message = message.replace(name, "")
    return re.sub(r"\d+(\.\d+)?", "", message.partition(";")[0])


def amount(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> amount(1, "clip"), amount(2000, "clip")
    ('1 clip', '2,000 clips')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quoted(words: Iterable[str], most: int = 3) -> str:
    """Join the first words in quotes and add the number of the others; for ids, where a few examples are enough.

    >>> quoted(["a", "b", "c", "d"])
    "'a', 'b', 'c', … and 1 more"
    """
    return first(map(repr, words), most)


def shortened(text: str, most: int = 160) -> str:
    """Return a text in one line of at most so many characters.

    >>> shortened("a  list of names", 12)
    'a list of …'
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 2].rstrip()} …"


def visible(text: str, keep: str = "") -> str:
    r"""Return a text with escapes for characters that control a terminal, are not seen or change a line's direction.

    Names in files may have any characters. keep: those that stay as they are.

    >>> print(visible("a\x1b[31m.mp4\n"))
    a\x1b[31m.mp4\n
    """

    def shown(match: re.Match[str]) -> str:
        c = match[0]
        return repr(c)[1:-1] if unicodedata.category(c) in UNSEEN and c not in keep else c

    return ODD.sub(shown, text)


def size(count: int) -> str:
    """Format a number of bytes in powers of 1000, as disks and downloads are measured.

    >>> size(999), size(1536), size(50_883_138), size(999_999)
    ('999 B', '1.5 kB', '50.9 MB', '1.0 MB')
    """
    if count < 1000:
        return f"{count} B"
    power = next((power for power in (1, 2, 3) if round(count / 1000**power, 1) < 1000), 4)
    return f"{count / 1000**power:.1f} {'kMGT'[power - 1]}B"


def first_line(error: BaseException) -> str:
    r"""Return the first line of a message that is not blank, or else the name of the error's type.

    >>> first_line(ValueError(" of two\nlines")), first_line(ValueError())
    ('of two', 'ValueError')
    """
    return next((line.strip()[:300] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def alike(name: str) -> str:
    r"""Return a form that names share when they differ only in case, blanks, invisible characters or Unicode form.

    >>> alike("Cut\u00a0onion ") == alike("cut onion"), alike("caf\u00e9") == alike("cafe\u0301")
    (True, True)
    >>> alike(" \u200b")
    ''
    """
    text = unicodedata.normalize("NFKC", name)
    return unicodedata.normalize("NFKC", "".join(filter(_prints, text)).casefold())


def _prints(c: str) -> bool:
    return not (c.isspace() or unicodedata.category(c) in INVISIBLE or c in FILLERS)


def exactly(names: Iterable[str]) -> list[str]:
    r"""Return the names in quotes, so that they look different: as ASCII if they would not otherwise.

    >>> exactly(["Cut", "cut "]), exactly(["cut", "cut\u200b"])
    (["'Cut'", "'cut '"], ["'cut'", "'cut\\u200b'"])
    """
    return [
        repr(name)
        if unicodedata.is_normalized("NFC", name) and all(c == " " or _prints(c) for c in name)
        else ascii(name)
        for name in names
    ]
