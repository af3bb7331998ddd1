"""The commands `featcache table` and `featcache choose`."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, Job, experiment_options, grid_option


@click.command()
@experiment_options
@grid_option
@click.option(
    "--metric",
    help="A name from `featcache list metrics`, with /LABEL or /SIDE/MODALITY behind it where results have them; or "
    "`norms` for a table of feature norms. `delta_acc` is RNA's ΔAcc, for experiments with several labels.  "
    "[default: METRIC of EXPERIMENT, else the headline metric of its task]",
)
@click.option("--format", type=click.Choice(["markdown", "csv", "latex"]), default="markdown", show_default=True)
def table(job: Job, metric: str | None, format: str) -> None:
    """Print the table of EXPERIMENT: methods × shifts.

    Cells are mean ± standard deviation over seeds, in per cent.

    \b
    Examples:
      featcache table kitchens --stores demo/stores --runs demo/runs
      featcache table kitchens --runs demo/runs --metric mean_class --format latex
      featcache table rna_epic100 --metric delta_acc
      featcache table kitchens --runs demo/runs --grid method.lambda_g=0.1,0.3,1
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
@click.option(
    "--metric",
    help="Metric in per cent to compare by, as in `featcache table`.  "
    "[default: METRIC of EXPERIMENT, else the headline metric of its task]",
)
def choose(experiment: str, runs: Path, metric: str | None) -> None:
    """Compare the hyper-parameters that validators choose.

    The runs of EXPERIMENT must include several settings. For each row of the table and each shift, the output lists the
    candidate that each validator chooses, its accuracy, the accuracy lost to the best candidate (oracle), and the rank
    correlation of score and accuracy. The lines "all shifts" do so for one setting on all shifts, by means over the
    shifts. Scores are computed on the train rows of the run's target.

    \b
    Example, after `featcache sweep kitchens --grid method.lambda_g=0.1,0.3,1`, which prints the same of its settings:
      featcache choose kitchens --runs demo/runs
    """
    from pipelines import experiments
    from pipelines.evaluation import results
    from pipelines.tables import choosing

    rows = results.read(runs / "results.jsonl")
    click.echo(choosing.table(rows, choosing.evaluated(experiments.load(experiment), rows, runs), metric), nl=False)
