"""The command `featcache train-head`."""

from pathlib import Path

import click

from pipelines.cli._shared import (
    PATH,
    Given,
    Words,
    echo,
    engine_options,
    experiment_options,
    note,
    noting,
    progress_bar,
)

track_option = click.option(
    "--track",
    type=click.Choice(["tensorboard", "trackio", "wandb"]),
    multiple=True,
    help="Record the runs in a tracker while they are trained (pip install 'featcache[tensorboard]', ...); may be "
    "repeated. trackio and wandb write to this machine, unless their environment variables name a server.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Parallel runs.  [default: one per core, or with --engine ray as many as have room]",
)
track_to_option = click.option(
    "--track-to", type=PATH, metavar="FOLDER", help="Folder of trackers.  [default: RUNS-tracked]"
)
batch_option = click.option(
    "--batch",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="auto: runs that differ in seeds, learning rates or weights of losses share passes where a few measured steps "
    "show that this is faster. off: one by one, with equal digits in every call.",
)


@click.command("train-head")
@experiment_options
@workers_option
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@batch_option
@engine_options
@track_option
@track_to_option
def train_head(
    given: Given,
    workers: int | None,
    device: str,
    batch: str,
    engine: str,
    address: str | None,
    gpus: float | None,
    track: Words,
    track_to: Path | None,
) -> None:
    """Train the heads of EXPERIMENT on cached features.

    EXPERIMENT is a name (`featcache list experiments`), a Python file with RUNS, or a folder of stores such as
    stores/kitchens. For a folder, --method, --feeds, --shift, --net and --task choose what is compared with source-only
    and, where the target has labels, with supervised-target; by default RNA, on all stores and on every ordered pair of
    domains. `evaluate`, `table`, `report`, `compare` and `sweep` take the same options.

    Finished runs are kept, also those that were finished before Ctrl-C. What keeps all runs from being trained is an
    error before the first one. Failed runs are listed at the end, a line per reason, and the exit code is 1. Two
    processes with the same command share the work.

    \b
    Examples:
      featcache train-head kitchens --stores demo/stores --runs demo/runs
      featcache train-head stores/mine --method dann,mcd,shot --feeds hog,hof --shift kitchen_a:kitchen_b
      featcache train-head stores/mine --method all --feeds hog --feeds i3d-rgb --net adapter --seeds 0..4
      featcache train-head stores/mine --set method.lambda_g=0.5 --only 'RNA (UDA)'
      featcache train-head stores/mine --track tensorboard --quiet
    """
    from pipelines.commands.train import summarised, train

    options: Given = {"workers": workers, "device": device, "batch": batch, "track": track, "track_to": track_to}
    options |= {"engine": engine, "address": address, "gpus": gpus}
    title = f"train {Path(given['experiment']).stem}"
    with summarised(note) as report, noting() as say, progress_bar(title, "step") as progress:
        outcomes = train(**given, **options, report=report, note=say, progress=progress)
    echo(given["runs"])
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)
