"""The command `featcache sweep`."""

from pathlib import Path

import click

from featcache.wording import first
from pipelines.cli._shared import Given, Words, echo, engine_options, experiment_options, note, noting, progress_bar
from pipelines.cli.train_head import batch_option, track_option, track_to_option, workers_option


@click.command()
@experiment_options
@click.option(
    "--grid",
    multiple=True,
    metavar="NAME=VALUES",
    help="Try these values of a setting, such as method.lambda_g=0.1,0.3,1; may be repeated. In a search, these "
    "are its choices.",
)
@click.option(
    "--search",
    metavar="random:N|tpe:N",
    help="Instead of a whole grid, try N settings of each row that Optuna proposes (pip install 'featcache[sweep]').",
)
@click.option(
    "--range",
    multiple=True,
    metavar="NAME=LOW..HIGH[,log]",
    help="Search a number in this range; without =, in the range that it declares or from a tenth to ten times of it; "
    "may be repeated.  [default without --grid: the declared ranges of the row's method]",
)
@click.option(
    "--by",
    metavar="VALIDATOR",
    help="Rank the trials of a search by this validator, or by oracle, which reads labels of the test rows.  "
    "[default: infomax, where the runs can use it]",
)
@workers_option
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@batch_option
@engine_options
@track_option
@track_to_option
def sweep(
    given: Given,
    search: str | None,
    range: Words,
    by: str | None,
    workers: int | None,
    device: str,
    batch: str,
    engine: str,
    address: str | None,
    gpus: float | None,
    track: Words,
    track_to: Path | None,
) -> None:
    """Train and evaluate EXPERIMENT with several values of its settings, and compare them.

    The command prints its plan, trains the runs that are not finished, evaluates them, and prints the table of all
    settings and, as `featcache choose` does, the setting that each validator chooses without labels of the target. A
    row gets the settings that it has; a row without any of them is trained once. The runs are those of `train-head
    --set`, so `table` and `report` (with the same --grid) and `choose` read them. The same command resumes.

    \b
    Examples:
      featcache sweep kitchens --grid method.lambda_g=0.1,0.3,1 --grid optim.lr=0.01,0.03 --seeds 0..4
      featcache sweep stores/mine --only 'RNA (UDA)' --search tpe:40 --range method.lambda_g=0.01..10,log --by infomax
    """
    from featcache.progress import Bars
    from pipelines.commands.jobs import once
    from pipelines.commands.sweep import sweep as run
    from pipelines.tables.formats import pipes

    options: Given = {"search": search, "range": range, "by": by, "track": track, "track_to": track_to}
    options |= {"workers": workers, "device": device, "batch": batch}
    options |= {"engine": engine, "address": address, "gpus": gpus}
    with noting() as say:
        made = run(**given, **options, note=say, progress=Bars(progress_bar))
    if made.trials:
        echo(pipes(made.trials.cells))
        echo("\n".join([*made.trials.chosen, ""]))
    lost = [(each.case.config, each.note) for each in made.evaluated if each.status == "failed"]
    if lost:
        note(f"{len(lost)} of {len(made.evaluated)} runs have no result:\n  " + first(once(lost), between="\n  "))
    if made.table:
        echo(made.table)
    if made.choices:
        echo(made.choices, nl=False)
    elif made.no_choices:
        note(made.no_choices)
    if not made.whole:
        raise SystemExit(1)
    if not search:
        note(f"`featcache report {made.experiment.arguments}` draws a curve over each number")
