"""The options of `featcache evaluate` that change the features of test clips."""

from collections.abc import Callable

import click


def stress_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options drop, windows, dtype and noise to a command."""
    options = [
        click.option(
            "--drop",
            multiple=True,
            metavar="all|MODALITY,...",
            help="Test without these modalities; all: without each set of modalities that leaves at least one. May be "
            "repeated.",
        ),
        click.option(
            "--windows",
            metavar="1..T|N,...",
            help="Test with at most these numbers of windows of each clip; T: all that a run draws.",
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
