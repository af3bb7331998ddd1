"""Everything that needs both features and heads: commands, the training loop, evaluation, tables.

Each command on experiments and runs is a function here, with the same words, such as `pipelines.train("kitchens",
"demo/stores", "demo/runs")`. Tables, results and runs are objects that print themselves and show themselves in a
notebook. Mistakes are errors of the type `featcache.FeatcacheError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.catalogue import show as show
    from pipelines.commands.evaluate import evaluate as evaluate
    from pipelines.commands.jobs import experiment as experiment
    from pipelines.commands.names import names as names
    from pipelines.commands.report import write_report as write_report
    from pipelines.commands.search import search as search
    from pipelines.commands.sweep import sweep as sweep
    from pipelines.commands.table import choose as choose
    from pipelines.commands.table import compare as compare
    from pipelines.commands.table import results as results
    from pipelines.commands.table import table as table
    from pipelines.commands.train import train as train
    from pipelines.config import Feed as Feed
    from pipelines.config import Optim as Optim
    from pipelines.config import Preparation as Preparation
    from pipelines.config import RunConfig as RunConfig
    from pipelines.experiments import Experiment as Experiment
    from pipelines.exporting.export import export_head as export_head
    from pipelines.predicting.predict import predict as predict
    from pipelines.training.runs import Run as Run

#: public name -> the module that it is imported from when it is used
_HOME = {
    "Experiment": "pipelines.experiments",
    "Feed": "pipelines.config",
    "Optim": "pipelines.config",
    "Preparation": "pipelines.config",
    "Run": "pipelines.training.runs",
    "RunConfig": "pipelines.config",
    "choose": "pipelines.commands.table",
    "compare": "pipelines.commands.table",
    "evaluate": "pipelines.commands.evaluate",
    "experiment": "pipelines.commands.jobs",
    "export_head": "pipelines.exporting.export",
    "names": "pipelines.commands.names",
    "predict": "pipelines.predicting.predict",
    "results": "pipelines.commands.table",
    "search": "pipelines.commands.search",
    "show": "pipelines.catalogue",
    "sweep": "pipelines.commands.sweep",
    "table": "pipelines.commands.table",
    "train": "pipelines.commands.train",
    "write_report": "pipelines.commands.report",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used."""
    if name not in _HOME:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
