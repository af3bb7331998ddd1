"""The command that says what each validator would have chosen."""

from pathlib import Path

import click

from pipelines._commands import PATH


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
    from pipelines import choosing, experiments, results

    rows = results.read(runs / "results.jsonl")
    click.echo(choosing.table(rows, choosing.evaluated(experiments.load(experiment), rows, runs), metric), nl=False)
