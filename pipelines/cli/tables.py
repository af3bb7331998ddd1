"""The commands `featcache table` and `featcache choose`."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, Given, echo, experiment_options, grid_option, runs_python


@click.command()
@experiment_options
@grid_option
@click.option(
    "--metric",
    help="A name from `featcache list metrics`, with /LABEL or /SIDE/MODALITY behind it where results have them; or "
    "`norms` for a table of feature norms. `delta_acc` is RNA's ΔAcc, for experiments with several labels.  "
    "[default: METRIC of EXPERIMENT, else the headline metric of its task]",
)
@click.option(
    "--stress",
    is_flag=True,
    help="Print the numbers on changed features (`featcache evaluate --drop`, ...).",
)
@click.option(
    "--by",
    type=click.Choice(["class", "domain"]),
    help="Print a column per class (top1, mean_class or macro_f1), or per tested and source domain, instead of shifts.",
)
@click.option(
    "--ensemble",
    is_flag=True,
    help="Add a column: the metric of the mean class probabilities of a row's seeds (reads runs).",
)
@click.option("--format", type=click.Choice(["markdown", "csv", "latex"]), default="markdown", show_default=True)
def table(given: Given, metric: str | None, stress: bool, by: str | None, ensemble: bool, format: str) -> None:
    """Print the table of EXPERIMENT: methods × shifts.

    Cells are mean ± standard deviation over seeds, in per cent. The last columns are the difference from the first row
    and its 95 % interval; n.d.: not distinguishable. The best number of a column is bold, the second best italic;
    with --grid, taking the best setting is a choice by labels of the test rows (oracle).

    \b
    Examples:
      featcache table kitchens --stores demo/stores --runs demo/runs
      featcache table kitchens --runs demo/runs --metric mean_class --format latex
      featcache table rna_epic100 --metric delta_acc
      featcache table kitchens --runs demo/runs --grid method.lambda_g=0.1,0.3,1
      featcache table kitchens --runs demo/runs --by class --format csv
    """
    from pipelines.commands.table import table as made

    shown = made(**given, metric=metric, stress=stress, by=by, ensemble=ensemble)
    echo(shown.text("markdown" if metric == "norms" else format), nl=not stress)


@click.command()
@click.argument("experiment")
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs.")
@click.option(
    "--metric",
    help="Metric in per cent to compare by, as in `featcache table`.  "
    "[default: METRIC of EXPERIMENT, else the headline metric of its task]",
)
@runs_python
def choose(experiment: str, runs: Path, metric: str | None) -> None:
    """Compare the hyper-parameters that validators choose.

    The runs of EXPERIMENT must include several settings. For each row of the table and each shift, the output lists the
    candidate that each validator chooses, its accuracy, the accuracy lost to the best candidate (oracle), and the rank
    correlation of score and accuracy. The lines "all shifts" do so for one setting on all shifts, by means over the
    shifts. Scores are computed on the train rows of the run's target.

    \b
    Example, after `featcache sweep`, which prints the same for its own settings:
      featcache choose kitchens --runs demo/runs
    """
    from pipelines.commands.table import choose as chosen

    echo(chosen(experiment, runs, metric=metric), nl=False)
