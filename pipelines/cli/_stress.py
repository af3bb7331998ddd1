"""The options of `featcache evaluate` that change the features of test clips, and the tests that they ask for."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from featcache.errors import FeatcacheError
from featcache.wording import first
from pipelines.cli._shared import Job, note, once, progress_bar

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.evaluation.stress import Asked


def stress_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options drop, windows, dtype and noise to a command."""
    options = [
        click.option(
            "--drop",
            multiple=True,
            metavar="all|MODALITY,...",
            help="Test without these modalities; `all`: without every set of modalities that leaves one. May be "
            "repeated.",
        ),
        click.option(
            "--windows", metavar="1..T|N,...", help="Test with so many windows of each clip; T: all that a run draws."
        ),
        click.option(
            "--dtype", metavar="float16,int8", help="Test with features that are rounded as a store of this type does."
        ),
        click.option(
            "--noise", metavar="SIGMA,...", help="Test with Gaussian noise, in standard deviations of each entry."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def stress(job: Job, shown: "list[RunConfig]", asked: "Asked", device: str) -> None:
    """Test these runs as asked, and append the results; an error names the runs that cannot be tested."""
    from pipelines.evaluation import results
    from pipelines.evaluation.evaluate import trained
    from pipelines.evaluation.stress import measure, plan

    planned = plan(shown, asked, job.stores, device)
    failed: list[tuple[RunConfig, FeatcacheError]] = []
    tested = [config for config in shown if planned.stresses[config.id]]
    with progress_bar(f"stress {job.experiment.name}", "run") as progress:
        for number, config in enumerate(tested, 1):
            try:
                it = trained(job.runs / config.id, job.stores, device)
                measured = measure(it, planned.stresses[config.id], job.experiment.name, config.row)
                results.append(job.stress, measured)
            except FeatcacheError as error:
                failed.append((config, error))
            progress(number, len(tested))
    if len(failed) < len(tested):
        click.echo(job.stress)
    if planned.left_out:
        note(f"{len(planned.left_out)} tests are left out:\n  " + first(once(planned.left_out), between="\n  "))
    if failed:
        raise job.failure(failed, len(tested))
