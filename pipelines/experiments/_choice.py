"""The choice of a user on a folder of stores: words of methods, feeds and shifts -> rows, stores and domains."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from featcache.errors import ConfigError, WordError
from featcache.wording import unknown

ALL = "all"
ARROWS = ("->", "→", ":")  #: between the source and the target of a shift

Shift = tuple[tuple[str, ...], str]  #: sources and target


@dataclass(frozen=True)
class Choice:
    """The parts of a folder's experiment that are chosen; an empty part is as in its default experiment."""

    methods: tuple[str, ...] = ()  #: methods or rows, several with commas between them, or "all"
    feeds: tuple[str, ...] = ()  #: each the stores of one row, with commas between them; several are compared
    shifts: tuple[str, ...] = ()  #: "A:B", "A+B:C", or "all"
    net: str = ""
    task: str = ""

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """Option of the command line -> its values, without options that are not used."""
        given = {"method": self.methods, "feeds": self.feeds, "shift": self.shifts, "net": self.net, "task": self.task}
        return {name: (value,) if isinstance(value, str) else tuple(value) for name, value in given.items() if value}


def split(texts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the words of texts with commas between them; a text that is a name, though it has a comma, is one word.

    >>> split(["dann, mcd", "nearest mean, by domain"], ["nearest mean, by domain"])
    ['dann', 'mcd', 'nearest mean, by domain']
    """
    lower = {name.lower() for name in names}
    parts = [part.strip() for text in texts for part in ([text] if text.lower() in lower else text.split(","))]
    if not all(parts):
        raise WordError(f"{next(iter(texts))!r} has an empty word; separate words by single commas")
    return list(dict.fromkeys(parts))


def stores_of(text: str, usable: Iterable[str], reasons: dict[str, str], modalities: dict[str, str]) -> tuple[str, ...]:
    """Return the stores that the words of a text name, each by its own name or by a modality that it alone has.

    reasons: name -> the reason why a store cannot be used. modalities: name of a usable store -> its modality.
    """
    found = []
    for word in split([text], []):
        of_modality = [name for name, modality in modalities.items() if modality == word]
        if word in usable:
            found.append(word)
        elif word in reasons:
            raise ConfigError(f"store {word!r} cannot be used, because {reasons[word]}")
        elif len(of_modality) == 1:
            found += of_modality
        else:
            raise unknown("feed", word, usable, error=WordError)
    return tuple(dict.fromkeys(found))


def shifts_of(texts: Sequence[str], domains: Sequence[str]) -> tuple[Shift, ...]:
    """Return the shifts that texts such as "A:B" name; () for all. A source may be several domains, "A+B:C".

    Names of domains may contain colons, so every place of a colon or arrow is tried.
    """
    return () if ALL in texts else tuple(dict.fromkeys(_shift(text, domains) for text in texts))


def _shift(text: str, domains: Sequence[str]) -> Shift:
    parts = list(_parts(text))
    if not parts:
        raise WordError(f"no shift {text!r}; write SOURCE:TARGET, such as {':'.join([*domains, 'A', 'B'][:2])}, or all")
    for source, target in parts:
        sources = (source,) if source in domains else tuple(source.split("+"))
        if target in domains and all(each in domains for each in sources):
            if target in sources or len(set(sources)) < len(sources):
                raise WordError(f"shift {text!r} names a domain twice; choose two of {', '.join(domains)}")
            return sources, target
    source, target = parts[0]
    wrong = next((each for each in (*source.split("+"), target) if each not in domains), text)
    raise unknown("domain", wrong, domains, f"shift {text!r}", WordError)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the texts before and after each colon or arrow."""
    for arrow in ARROWS:
        for place in (k for k in range(len(text)) if text.startswith(arrow, k)):
            source, target = text[:place].strip(), text[place + len(arrow) :].strip()
            if source and target:
                yield source, target
