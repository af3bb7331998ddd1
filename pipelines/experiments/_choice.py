"""The choice of a user on a folder of stores: words of methods, feeds and shifts -> rows, stores and domains."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from featcache.arguments import several
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

    @classmethod
    def of(
        cls, method: str | Iterable[str], feeds: str | Iterable[str], shift: str | Iterable[str], net: str, task: str
    ) -> "Choice":
        """Return the choice by the arguments that the functions on an experiment share."""
        return cls(several(method), several(feeds), several(shift), net, task)

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """Option of the command line -> its values, without options that are not used."""
        given = {"method": self.methods, "feeds": self.feeds, "shift": self.shifts, "net": self.net, "task": self.task}
        return {name: (value,) if isinstance(value, str) else tuple(value) for name, value in given.items() if value}


def split(texts: Iterable[str], names: Iterable[str], option: str) -> list[str]:
    """Return the words of texts with commas between them; a text that is a name, though it has a comma, is one word.

    option: the option that the texts are given for, for errors.

    >>> split(["dann, mcd", "nearest mean, by domain"], ["nearest mean, by domain"], "method")
    ['dann', 'mcd', 'nearest mean, by domain']
    """
    lower = {name.lower() for name in names}
    words = list[str]()
    for text in texts:
        parts = [part.strip() for part in ([text] if text.lower() in lower else text.split(","))]
        if not all(parts):
            raise WordError(f"--{option} {text!r} has an empty word; separate words by single commas")
        words += parts
    return list(dict.fromkeys(words))


def stores_of(
    text: str, every: Iterable[str], reasons: Mapping[str, str], modalities: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the stores that the words of a text name, each by its own name or by a modality that no other store has.

    every: the stores that the word `all` names. reasons: name -> the reason why a store cannot be used. modalities:
    name of a usable store -> its modality.
    """
    found = []
    for word in split([text], [], "feeds"):
        of_modality = [name for name, modality in modalities.items() if modality == word]
        if word in modalities:
            found.append(word)
        elif word == ALL:
            found += every
        elif word in reasons:
            raise ConfigError(f"store {word!r} cannot be used, because {reasons[word]}")
        elif len(of_modality) == 1:
            found += of_modality
        else:
            raise unknown("feed", word, modalities, error=WordError)
    return tuple(dict.fromkeys(found))


def shifts_of(texts: Sequence[str], domains: Sequence[str]) -> tuple[Shift, ...]:
    """Return the shifts that texts such as "A:B" name; none for "all". A source may be several domains, "A+B:C".

    Names of domains may contain colons, so every place of a colon or arrow is tried.
    """
    return tuple(dict.fromkeys(_shift(text, domains) for text in texts if text != ALL))


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
