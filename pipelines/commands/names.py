"""Names of extractors, methods, metrics, ..., each with its origin: the function of `featcache list`."""

from typing import TYPE_CHECKING, NamedTuple

from featcache import registry
from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines import catalogue
from pipelines.tables.formats import Note, html

if TYPE_CHECKING:
    import pandas as pd

KINDS = tuple(f"{kind}s" for kind in catalogue.KINDS)


class Named(NamedTuple):
    """A name, with its origin and a short description."""

    name: str
    origin: str  #: featcache, the file of a plug-in, or an installed package and its version; "" for metrics
    text: str  #: the first paragraph of its file, as one line
    broken: str = ""  #: the reason why a plug-in cannot be imported

    def __str__(self) -> str:
        """Return the line of `featcache list`."""
        return f"{self.name:15} {self.origin:10} {self.text}" if self.origin else f"{self.name:23} {self.text}"


class Names(list[Named]):
    """The names of a kind. They print the lines of `featcache list`, and show themselves in a notebook."""

    def frame(self) -> "pd.DataFrame":
        """Return a line per name, with the fields of `Named` as columns."""
        import pandas as pd

        return pd.DataFrame(list(self), columns=list(Named._fields), dtype=str)

    def __repr__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        head = ["name", "from", "description"] if any(each.origin for each in self) else ["name", "description"]
        lines = [[part for part in (each.name, each.origin, each.text) if part or each.origin] for each in self]
        return html([head, *lines], [Note(each.broken) for each in self if each.broken], words=True)


def names(kind: str) -> Names:
    """Return the names of a kind, sorted. Plug-ins are imported.

    kind: extractors, benchmarks, formats, nets, methods, tasks, experiments or metrics.
    Raises ConfigError for another kind.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if kind == "metrics":
        from pipelines import tasks

        return Names(Named(name, "", metric.title) for name, metric in tasks.metrics().items())
    found, folder = Names(), catalogue.FOLDERS[kind.removesuffix("s")]
    for name in catalogue.names(kind.removesuffix("s")):
        file = name.replace("-", "_") if kind == "extractors" else name
        origin = registry.origin(folder, file)
        try:
            doc, broken = registry.load(folder, file, kind).__doc__ or "", ""
        except ConfigError as error:
            doc, broken = "cannot be imported", str(error)
        found.append(Named(name, origin, " ".join(doc.strip().split("\n\n")[0].split()), broken))
    return found
