"""The command `featcache list`."""

from itertools import groupby

import click

from pipelines.cli._shared import echo, note
from pipelines.commands.names import KINDS


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option(
    "--figures",
    is_flag=True,
    help="With `experiments`: list every table and figure of the five papers, with the commands that make it, or the "
    "reason why there are none.",
)
def list_names(kind: str, figures: bool) -> None:
    """List the names of one KIND, each with its origin and a short description. See `featcache show` for details.

    The origin is featcache itself, the file of a plug-in, or an installed package and its version. Plug-ins are
    imported; the exit code is 1 if one cannot be.

    \b
    Examples:
      featcache list methods
      featcache list metrics
      featcache list experiments --figures
    """
    if figures:
        _list_figures(kind)
        return
    from pipelines.commands.names import names

    listed = names(kind)
    for each in listed:
        echo(str(each))
    if kind == "metrics":
        note("In results, /LABEL or /SIDE/MODALITY follows a name where there are several, such as top1/verb.")
    for each in listed:
        if each.broken:
            note(each.broken)
    if any(each.broken for each in listed):
        raise SystemExit(1)


def _list_figures(kind: str) -> None:
    """Print the tables and figures of the papers."""
    from pipelines import experiments

    if kind != "experiments":
        raise click.UsageError(f"--figures belongs to experiments, not to {kind}: featcache list experiments --figures")
    for paper, items in groupby(experiments.figures(), key=lambda figure: figure.paper):
        echo(f"{paper} [{experiments.PAPERS[paper]}]")
        for figure in items:
            echo(f"  {figure.item:10} {figure.content}")
            for command in filter(None, figure.command.split(" && ")):
                echo(f"{'':15}{command}")
            if figure.reason:
                echo(f"{'':15}{'note' if figure.command else 'not made'}: {figure.reason}")
