"""The command `featcache train-head`."""

import time
from collections import Counter

import click

from pipelines.cli._shared import CORES, Job, experiment_options, note, progress_bar


@click.command("train-head")
@experiment_options
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Parallel runs.  [default: one per core]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
def train_head(job: Job, workers: int, device: str) -> None:
    """Train the heads of EXPERIMENT on cached features.

    EXPERIMENT is a name (`featcache list experiments`), a Python file with RUNS, or a folder of stores such as
    stores/kitchens. For a folder, a default experiment on every ordered pair of its domains is run. Finished runs are
    kept. Failed runs are listed at the end, and the exit code is 1.

    \b
    Examples:
      featcache train-head kitchens --stores demo/stores --runs demo/runs
      featcache train-head stores/mine --seeds 0,1,2,3,4 --set method.lambda_g=0.5 --only 'RNA (UDA)'
    """
    from pipelines.training.engine import Outcome, run_all
    from pipelines.training.outputs import remedy

    began, collapsed = time.monotonic(), Counter[str]()  # rows -> collapsed runs
    with progress_bar(f"train {job.experiment.name}", "run") as progress:

        def ended(outcome: Outcome, done: int, total: int) -> None:
            progress(done, total)
            if outcome.collapse:
                row = outcome.config.row_shown or outcome.config.id
                collapsed[row] += 1
                if collapsed[row] == 1:
                    note(f"COLLAPSED: {row} ({outcome.config.id}): {outcome.collapse}; {remedy(outcome.config)}")

        progress(0, len({run.id for run in job.experiment.runs}))
        outcomes = run_all(job.experiment.runs, job.stores, job.runs, workers=workers, device=device, report=ended)
    counts = Counter(outcome.status for outcome in outcomes)
    note(f"{', '.join(f'{n} {status}' for status, n in counts.items())} in {time.monotonic() - began:.1f} s")
    for tier, reason in {outcome.tier: outcome.tier_why for outcome in reversed(outcomes) if outcome.tier}.items():
        note(f"features: {tier}, {reason}")
    for warning, count in Counter(text for outcome in outcomes for text in outcome.warnings).items():
        note(f"Warning in {count} of {len(outcomes)} runs: {warning}")
    if collapsed:
        rows = ", ".join(f"{row} {count}" for row, count in collapsed.items())
        note(f"{sum(collapsed.values())} of {len(outcomes)} runs collapsed: {rows}")
    for outcome in outcomes:
        if outcome.note:
            note(f"{outcome.config.id}: {outcome.note}")
    click.echo(job.runs)
    if counts["failed"]:
        raise SystemExit(1)
