"""The command `report`."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, Job, experiment_options


@click.command()
@experiment_options
@click.option("--out", type=PATH, help="Where to write it.  [default: RUNS/EXPERIMENT.html]")
def report(job: Job, out: Path | None) -> None:
    """Write one self-contained HTML page about EXPERIMENT: tables, plots, frames, and how everything was made.

    \b
    Example:
      featcache report kitchens --stores demo/stores --runs demo/runs
    """
    from pipelines.evaluation import results
    from pipelines.report import write as page

    out = out or job.runs / f"{job.experiment.name}.html"
    page.write(job.experiment, results.read(job.results), job.runs, job.stores, out)
    click.echo(out)
