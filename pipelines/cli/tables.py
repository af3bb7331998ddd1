"""The commands `table` and `choose`."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, Job, experiment_options


@click.command()
@experiment_options
@click.option(
    "--metric",
    help="top1, t2v/R@1, v2t/MedR, nmi/B0, validator/snd, ...; norms: feature norms.  [default: the experiment's]",
)
@click.option("--format", type=click.Choice(["markdown", "csv", "latex"]), default="markdown", show_default=True)
def table(job: Job, metric: str | None, format: str) -> None:
    """Print the table of EXPERIMENT: methods × shifts, mean ± standard deviation over seeds, in per cent.

    \b
    Examples:
      featcache table kitchens --stores demo/stores --runs demo/runs
      featcache table kitchens --runs demo/runs --metric mean_class --format latex
    """
    from pipelines.evaluation import results
    from pipelines.tables import build as tables

    rows = results.read(job.results)
    if metric == "norms":
        click.echo(tables.norms_table(rows, job.experiment))
    else:
        click.echo(tables.render(rows, job.experiment, metric, format))


@click.command()
@click.argument("experiment")
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs.")
@click.option("--metric", help="Accuracy to compare by.  [default: that of the experiment's table]")
def choose(experiment: str, runs: Path, metric: str | None) -> None:
    """Say which hyper-parameters each validator would choose, among runs of EXPERIMENT with several settings.

    Prints, per row and shift, the candidate that each validator takes, its accuracy, what the best one (oracle) has
    more, and the rank correlation of score and accuracy. Scores are of the runs' own target train rows.

    \b
    Example, after train-head and evaluate with --set method.lambda_g=0.1, then with 0.3, then with 1:
      featcache choose kitchens --runs demo/runs
    """
    from pipelines import experiments
    from pipelines.evaluation import results
    from pipelines.tables import choosing

    rows = results.read(runs / "results.jsonl")
    click.echo(choosing.table(rows, choosing.evaluated(experiments.load(experiment), rows, runs), metric), nl=False)
