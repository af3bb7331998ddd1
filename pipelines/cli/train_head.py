"""The command `featcache train-head`."""

import time
from collections import Counter
from typing import TYPE_CHECKING

import click

from pipelines.cli._shared import CORES, Job, experiment_options, note, once, progress_bar

if TYPE_CHECKING:
    from pipelines.training.engine import Outcome


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
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Parallel runs.  [default: one per core]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@batch_option
def train_head(job: Job, workers: int, device: str, batch: str) -> None:
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
    """
    from pipelines.data.ahead import check_ahead, check_writable

    check_ahead(job.experiment.runs, job.stores, device)
    check_writable(job.runs)
    if job.left_out:
        note(job.left_out)
    outcomes = train(job, workers, device, batch)
    click.echo(job.runs)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)


def train(job: Job, workers: int, device: str, batch: str) -> "list[Outcome]":
    """Train the runs of a job with a progress bar; print collapsed runs at once, and a summary also after Ctrl-C."""
    from pipelines.training.engine import run_all
    from pipelines.training.outputs import remedy

    began, outcomes, busy, collapsed = time.monotonic(), list["Outcome"](), False, set[str]()
    planned = set[tuple[str, int, bool]]()

    def ended(outcome: "Outcome", done: int, total: int) -> None:
        nonlocal busy
        progress(done, total)
        if outcome.status != "busy":
            outcomes.append(outcome)
        elif not busy:
            busy = True
            note(f"{outcome.note} (it is left for the end, like others that are being trained)")
        if (plan := outcome.plan) and (kind := (plan.row, plan.runs, plan.together)) not in planned:
            planned.add(kind)
            note(str(plan))
        row = outcome.config.row_shown or outcome.config.id
        if outcome.collapse and row not in collapsed:
            collapsed.add(row)
            note(f"COLLAPSED: {row} ({outcome.config.id}): {outcome.collapse}; {remedy(outcome.config)}")

    try:
        with progress_bar(f"train {job.experiment.name}", "run") as progress:
            progress(0, len({run.id for run in job.experiment.runs}))
            run_all(
                job.experiment.runs, job.stores, job.runs, workers=workers, device=device, batch=batch, report=ended
            )
    except KeyboardInterrupt:
        _print(outcomes, time.monotonic() - began)
        raise
    _print(outcomes, time.monotonic() - began)
    return outcomes


def _print(outcomes: "list[Outcome]", seconds: float) -> None:
    """Print the number of runs by status, the tier of their features, warnings, collapsed runs and notes."""
    counts = Counter(outcome.status for outcome in outcomes)
    note(f"{', '.join(f'{n} {status}' for status, n in counts.items()) or '0 trained'} in {seconds:.1f} s")
    for tier, reason in {outcome.tier: outcome.tier_why for outcome in reversed(outcomes) if outcome.tier}.items():
        note(f"features: {tier}, {reason}")
    for warning, count in Counter(text for outcome in outcomes for text in outcome.warnings).items():
        note(f"Warning in {count} of {len(outcomes)} runs: {warning}")
    if collapsed := Counter(run.config.row_shown or run.config.id for run in outcomes if run.collapse):
        rows = ", ".join(f"{row} {count}" for row, count in collapsed.items())
        note(f"{collapsed.total()} of {len(outcomes)} runs collapsed: {rows}")
    for line in once((outcome.config, outcome.note) for outcome in outcomes if outcome.note):
        note(line)
