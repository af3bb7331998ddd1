"""The command `featcache train-head`."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli._shared import CORES, Job, experiment_options, is_quiet, note, once
from pipelines.cli._watching import tracking_options, training_bar

if TYPE_CHECKING:
    from pipelines.tracking import Tracking
    from pipelines.training.engine import Outcome
    from pipelines.training.watching import News


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
@tracking_options
def train_head(job: Job, workers: int, device: str, batch: str, tracking: "Tracking") -> None:
    """Train the heads of EXPERIMENT on cached features.

    EXPERIMENT is a name (`featcache list experiments`), a Python file with RUNS, or a folder of stores such as
    stores/kitchens. For a folder, a default experiment on every ordered pair of its domains is run. Finished runs are
    kept, also those that were finished before Ctrl-C. What keeps all runs from being trained is an error before the
    first one. Failed runs are listed at the end, a line per reason, and the exit code is 1. Two processes with the same
    command share the work.

    \b
    Examples:
      featcache train-head kitchens --stores demo/stores --runs demo/runs
      featcache train-head stores/mine --seeds 0..4 --set method.lambda_g=0.5 --only 'RNA (UDA)'
      featcache train-head stores/mine --track tensorboard --quiet
    """
    from pipelines.data.ahead import check_ahead, check_writable

    check_ahead(job.experiment.runs, job.stores, device)
    check_writable(job.runs)
    outcomes = train(job, workers, device, batch, tracking)
    click.echo(job.runs)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)


def train(job: Job, workers: int, device: str, batch: str, tracking: "Tracking") -> "list[Outcome]":
    """Train the runs of a job with a progress bar; note remarks on a run at once, and a summary also after Ctrl-C.

    With --quiet all remarks come at the end.
    """
    from pipelines.training.engine import run_all

    began, outcomes, noted, later = time.monotonic(), list["Outcome"](), set[str](), list[str]()
    say = later.append if is_quiet() else note

    def hear(news: "News") -> None:
        bar.hear(news)
        tracking.hear(news)

    def ended(outcome: "Outcome", done: int, total: int) -> None:
        bar.ended(outcome, done, total)
        tracking.ended(outcome, done, total)
        if outcome.status != "busy":
            outcomes.append(outcome)
        for kind, text in _remarks(outcome):
            if kind not in noted:
                noted.add(kind)
                say(text)

    options: dict[str, Any] = {"workers": workers, "device": device, "batch": batch, "logs": bool(tracking)}
    try:
        with training_bar(f"train {job.experiment.name}", job.experiment.runs) as bar:
            run_all(job.experiment.runs, job.stores, job.runs, report=ended, hear=hear, **options)
    except KeyboardInterrupt:
        _print(later, outcomes, time.monotonic() - began)
        raise
    _print(later, outcomes, time.monotonic() - began)
    return outcomes


def _remarks(outcome: "Outcome") -> Iterator[tuple[str, str]]:
    """Yield remarks on a run that has just ended, each with its kind: one of a kind is enough."""
    from pipelines.training.outputs import remedy

    row = outcome.config.row_shown or outcome.config.id
    if outcome.status == "busy":
        yield "busy", f"{outcome.note} (it is left for the end, like others that are being trained)"
    if plan := outcome.plan:
        yield f"plan {plan.row} {plan.runs} {plan.together}", str(plan)
    if outcome.collapse:
        text = f"COLLAPSED: {row} ({outcome.config.id}): {outcome.collapse}; {remedy(outcome.config)}"
        yield f"collapsed {row}", text


def _print(remarks: list[str], outcomes: "list[Outcome]", seconds: float) -> None:
    """Print remarks, the number of runs by status, the tier of their features, warnings, collapsed runs and notes."""
    for remark in remarks:
        note(remark)
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
