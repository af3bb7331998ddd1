"""The section on heads that are tested on changed features."""

from pathlib import Path

from pipelines.evaluation import results
from pipelines.evaluation.engine import STRESS
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.tables.stress import grid_of, stressed


def stress(experiment: Experiment, runs: Path) -> list[str]:
    """The table of `featcache table --stress`; nothing if the experiment has no such results."""
    if not (runs / STRESS).is_file():
        return []
    rows = [row for row in results.read(runs / STRESS, stressed=True) if row.run in experiment.by_id]
    if not rows:
        return []
    table = stressed(rows, experiment)
    notes = (note.text for note in table.notes if note not in table.plain.notes)
    intro = "The trained heads, tested on changed features of the same clips; means over shifts."
    return [page.section("Changed features", intro, page.grid(grid_of(table)), page.items(notes))]
