"""Names of extractors, methods, metrics, ..., each with its origin: the function of `featcache list`."""

from typing import NamedTuple

from featcache import registry
from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines import catalogue

KINDS = tuple(f"{kind}s" for kind in catalogue.KINDS)


class Named(NamedTuple):
    """A name, with its origin and a short description."""

    name: str
    origin: str  #: featcache, the file of a plug-in, or an installed package and its version; "" for metrics
    text: str  #: the first paragraph of its file, as one line
    broken: str = ""  #: the reason why a plug-in cannot be imported


def names(kind: str) -> list[Named]:
    """Return the names of a kind, sorted. Plug-ins are imported.

    kind: extractors, benchmarks, formats, nets, methods, tasks, experiments or metrics.
    Raises ConfigError for another kind.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if kind == "metrics":
        from pipelines import tasks

        return [Named(name, "", metric.title) for name, metric in tasks.metrics().items()]
    found, folder = [], catalogue.FOLDERS[kind.removesuffix("s")]
    for name in catalogue.names(kind.removesuffix("s")):
        file = name.replace("-", "_") if kind == "extractors" else name
        origin = registry.origin(folder, file)
        try:
            doc, broken = registry.load(folder, file, kind).__doc__ or "", ""
        except ConfigError as error:
            doc, broken = "cannot be imported", str(error)
        found.append(Named(name, origin, " ".join(doc.strip().split("\n\n")[0].split()), broken))
    return found
