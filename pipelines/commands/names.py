"""Names of extractors, methods, metrics, ..., each with its origin: the function of `featcache list`."""

from typing import NamedTuple

from featcache import registry
from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines import catalogue

#: kind of names -> the package whose files are its entries
FOLDERS = {f"{kind}s": folder for kind, folder in catalogue.FOLDERS.items()}
KINDS = (*FOLDERS, "metrics")


class Named(NamedTuple):
    """A name, with its origin and a short description."""

    name: str
    origin: str  #: featcache, the file of a plug-in, or an installed package and its version; "" for metrics
    text: str  #: the first paragraph of its file, as one line
    broken: str = ""  #: the reason why a plug-in cannot be imported


def names(kind: str) -> list[Named]:
    """Return the names of a kind, sorted: extractors, benchmarks, formats, nets, methods, tasks, experiments, metrics.

    Plug-ins are imported. Raises ConfigError for another kind.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if kind == "metrics":
        from pipelines import tasks

        return [Named(name, "", metric.title) for name, metric in tasks.metrics().items()]
    found = []
    for file in registry.names(FOLDERS[kind]):
        name, origin = file.replace("_", "-") if kind == "extractors" else file, registry.origin(FOLDERS[kind], file)
        try:
            doc, broken = registry.load(FOLDERS[kind], file, kind).__doc__ or "", ""
        except ConfigError as error:
            doc, broken = "cannot be imported", str(error)
        found.append(Named(name, origin, " ".join(doc.strip().split("\n\n")[0].split()), broken))
    return found
