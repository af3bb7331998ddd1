"""Names of the registries -> what they mean: documentation, facts and parameters of an entry, for `featcache show`.

    >>> show("net", "adapter").parameters[0].name
    'dim'

The documentation's pages of parameters are made of the same entries.
"""

import importlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from featcache import registry
from featcache.errors import ConfigError
from featcache.parameters import Parameter, parameters
from featcache.wording import first, unknown

if TYPE_CHECKING:
    from pipelines.experiments import Experiment

#: kind -> the registry of its entries, for completion and `featcache list` without an import of torch
FOLDERS = {
    "extractor": "featcache.extractors",
    "benchmark": "featcache.builders",
    "format": "featcache.bridges",
    "net": "heads.nets",
    "method": "heads.methods",
    "task": "pipelines.tasks",
    "experiment": "pipelines.experiments",
}
KINDS = (*FOLDERS, "metric")
SHIPPED = "featcache"  #: origin of entries that are no plug-ins
CARDS = "data_manifests"  #: the package of the benchmarks' cards
#: fields of a RunConfig that each row or shift has for itself, or that are registries of their own
OWN = ("manifest", "method", "net", "feeds", "row", "source", "target", "test", "init_from", "optim_for")


@dataclass(frozen=True, repr=False)
class Entry:
    """An entry of a registry. It prints the text of `featcache show`, and shows itself in a notebook."""

    kind: str
    name: str
    doc: str  #: the documentation of its file
    facts: dict[str, str] = field(default_factory=dict)  #: such as "modality" -> "rgb"
    parameters: Sequence[Parameter] = ()
    set_by: str = ""  #: the words that set a parameter on the command line, such as "--set method.NAME=VALUE"
    card: str = ""  #: the card of a benchmark, as Markdown

    def __str__(self) -> str:
        parts = [f"{self.kind} {self.name}", self.doc.strip()]
        if self.facts:
            width = max(map(len, self.facts))
            parts.append("\n".join(f"{name:{width}}  {value}" for name, value in self.facts.items()))
        if self.parameters:
            parts.append("\n".join([f"parameters ({self.set_by}):", *map(_lines, self.parameters)]))
        return "\n\n".join([*parts, *filter(None, [self.card.strip()])])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return "\n".join(filter(None, [self.markdown(), self.card]))

    @property
    def title(self) -> str:
        """The first paragraph of the documentation as one line."""
        return " ".join(self.doc.strip().split("\n\n")[0].split())

    def markdown(self) -> str:
        """The entry as a section of a Markdown page."""
        rest = self.doc.strip().partition("\n\n")[2]
        facts = [f"- {name}: {escaped(value)}" for name, value in self.facts.items()]
        rows = [
            f"| `{p.name}` | `{p.default}` | {escaped(p.allowed or p.type)} | {escaped(p.meaning)} | {p.source} |"
            for p in self.parameters
        ]
        table = ["| parameter | default | values | meaning | source |", "| --- | --- | --- | --- | --- |", *rows]
        parts = [f"## {self.name}", escaped(self.title), "\n".join(facts)]
        parts += [f"Set by `{self.set_by}`.", "\n".join(table)] if rows else []
        parts += [f"```text\n{rest}\n```"] if rest else []
        return "\n\n".join(filter(None, parts)) + "\n"


def show(kind: str, name: str) -> Entry:
    """Return the entry of that kind and name; ConfigError with the nearest name if there is none.

    kind: one of KINDS, such as "extractor". name: of the kind, as `pipelines.names` lists them.
    """
    makers = {
        "extractor": _extractor,
        "benchmark": _benchmark,
        "format": _format,
        "net": _net,
        "method": _method,
        "task": _task,
        "experiment": _experiment,
        "metric": _metric,
    }
    if kind not in makers:
        raise unknown("kind", kind, makers)
    entry = makers[kind](name)
    file = name.partition("@")[0].partition(":")[0].replace("-", "_")
    origin = registry.origin(FOLDERS[kind], file) if kind in FOLDERS else SHIPPED
    return entry if origin == SHIPPED else replace(entry, facts={"from": origin, **entry.facts})


def names(kind: str) -> list[str]:
    """Return the names of all entries of a kind."""
    if kind == "metric":
        from pipelines import tasks

        return list(tasks.metrics())
    files = registry.names(FOLDERS[kind])
    return [file.replace("_", "-") for file in files] if kind == "extractor" else files


def _lines(parameter: Parameter) -> str:
    allowed = f", {parameter.allowed}" if parameter.allowed else ""
    source = f" [{parameter.source}]" if parameter.source else ""
    head = f"  {parameter.name} = {parameter.default}  ({parameter.type}{allowed})"
    return f"{head}\n      {parameter.meaning}{source}"


def escaped(text: str) -> str:
    """Return plain text as Markdown that shows it unchanged, also in a table."""
    for mark in "\\|<*_[]":
        text = text.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return text


def _doc(module: Any) -> str:
    return inspect.getdoc(module) or ""


def _extractor(name: str) -> Entry:
    from featcache import extractors

    base, view = extractors.split_view(name)
    kind = base.partition(":")[0]
    params = parameters(extractors.params_type(kind))
    module = registry.load(FOLDERS["extractor"], kind.replace("-", "_"), "extractor")
    try:
        made = extractors.load(base)
        made = made.seen(view) if view and hasattr(made, "window") else made  # a model's files have its window
    except ConfigError:  # its window and row depend on parameters that have no default
        if view:
            raise
        made = module.EXTRACTOR
    window, shape, weights = (getattr(made, part, None) for part in ("window", "row_shape", "weights"))
    facts = {
        "modality": getattr(made, "modality", ""),
        "window": _window(window) if window else "",
        "row": " x ".join(map(str, shape)) if shape else "",
        "weights": _weights(weights) if weights else "",
    }
    return Entry("extractor", name, _doc(module), _filled(facts), params, f"--set {base}.NAME=VALUE")


def _window(window: Any) -> str:
    values = [f"{part} {value}" for part in window.__dataclass_fields__ if (value := getattr(window, part))]
    return f"{type(window).__name__}: {', '.join(values)}".rstrip(": ")


def _weights(name: str) -> str:
    from featcache.weights import CATALOGUE
    from featcache.wording import size

    if name not in CATALOGUE:
        return name
    weights = CATALOGUE[name]
    trained = ", ".join(f"{data} ({how})" for data, how in weights.trained_on.items()) or "not known"
    length = f", {size(weights.size)}" if weights.size else ""
    return f"{name} ({weights.licence}{length}); trained on {trained} ({weights.source})"


def _method(name: str) -> Entry:
    module = registry.load("heads.methods", name, "method")
    method = module.METHOD
    facts = {"needs": ", ".join(method.needs), "may use": ", ".join(method.may), "tasks": ", ".join(method.tasks)}
    facts["surrogate"] = method.surrogate
    return Entry("method", name, _doc(module), _filled(facts), parameters(module.Params), "--set method.NAME=VALUE")


def _net(name: str) -> Entry:
    module = registry.load("heads.nets", name, "net")
    facts = {"task": module.NET.task}
    return Entry("net", name, _doc(module), facts, parameters(module.Params), "--set net.NAME=VALUE")


def _benchmark(name: str) -> Entry:
    module = registry.load("featcache.builders", name, "benchmark")
    facts = {"made by": f"featcache manifest build {name} FOLDER"}
    return Entry("benchmark", name, _doc(module), facts, card=card(name))


def card(benchmark: str) -> str:
    """Return the dataset card of a benchmark, data_manifests/BENCHMARK.md; "" if it has none."""
    path = resources.files(CARDS) / f"{benchmark}.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _format(name: str) -> Entry:
    module = registry.load("featcache.bridges", name, "format")
    return Entry("format", name, _doc(module), {"keeps": ", ".join(sorted(module.KEEPS))})


def _task(name: str) -> Entry:
    from pipelines import tasks

    task = tasks.load(name)
    module = importlib.import_module(type(task).__module__)
    return Entry("task", name, _doc(module), {"metrics": ", ".join(task.metrics)})


def _metric(name: str) -> Entry:
    from pipelines import tasks

    metric = tasks.metric(name)
    facts = {"unit": metric.unit, "better": "higher" if metric.higher else "lower"}
    doc = inspect.getdoc(metric.compute) if inspect.isfunction(metric.compute) else ""
    return Entry("metric", name, "\n\n".join(filter(None, [metric.words, doc])), facts)


def _experiment(name: str) -> Entry:
    from pipelines import experiments

    experiment = experiments.load(name)
    shown = [run for run in experiment.runs if run.row]
    by_row: dict[str, dict[str, None]] = {}
    for run in shown:
        by_row.setdefault(run.row, {})[type(run.method).__module__.rpartition(".")[2]] = None
    facts = {
        "manifest": ", ".join(dict.fromkeys(run.manifest for run in shown)),
        "stores": ", ".join(dict.fromkeys(f"{m}={feed.store}" for run in shown for m, feed in run.feeds.items())),
        "task": experiment.task.name,
        "metric": experiment.headline(),
        "runs": f"{len(experiment.runs)}, for {len(by_row)} rows",
        "rows": "; ".join(f"{row} ({', '.join(methods)})" for row, methods in by_row.items()),
        "shifts": ", ".join(dict.fromkeys(c for columns in experiment.columns.values() for c in columns)),
        "note": experiment.note,
    }
    made_by = f"--set NAME=VALUE of featcache train-head {name}"
    return Entry("experiment", name, experiment.doc, _filled(facts), list(_settings(experiment)), made_by)


def _settings(experiment: "Experiment") -> Iterator[Parameter]:
    """Yield the settings that `--set` changes in all rows, with the values that the runs have."""
    from pipelines.config import RunConfig

    for parameter, values in _flat(RunConfig, [run for run in experiment.runs if run.row], ""):
        yield replace(parameter, default=first(dict.fromkeys(map(repr, values)), 3))


def _flat(kind: Any, values: Sequence[Any], prefix: str) -> Iterator[tuple[Parameter, list[Any]]]:
    """Yield each setting of dataclasses, such as optim.lr, and the values that it has in all of them."""
    for parameter in parameters(kind):
        if prefix or parameter.name not in OWN:
            name, parts = prefix + parameter.name, [getattr(value, parameter.name) for value in values]
            if is_dataclass(parts[0]):
                yield from _flat(type(parts[0]), parts, f"{name}.")
            else:
                yield replace(parameter, name=name), parts


def _filled(facts: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}
