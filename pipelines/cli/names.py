"""The command `featcache list`."""

import importlib
from itertools import groupby

import click

from featcache import registry
from pipelines import catalogue
from pipelines.cli._shared import note

FOLDERS = {f"{kind}s": folder for kind, folder in catalogue.FOLDERS.items()}


@click.command("list")
@click.argument("kind", type=click.Choice([*FOLDERS, "metrics"]))
@click.option(
    "--figures",
    is_flag=True,
    help="With `experiments`: list every table and figure of the five papers, with the commands that make it, or the "
    "reason why there are none.",
)
def list_names(kind: str, figures: bool) -> None:
    """List the names of one KIND, each with a short description. `featcache show` has the details of one.

    \b
    Examples:
      featcache list methods
      featcache list metrics
      featcache list experiments --figures
    """
    if figures:
        _list_figures(kind)
        return
    if kind == "metrics":
        from pipelines import tasks

        for name, metric in tasks.metrics().items():
            click.echo(f"{name:23} {metric.title}")
        note("In results, /LABEL or /SIDE/MODALITY follows a name where there are several, such as top1/verb.")
        return
    for file in registry.names(FOLDERS[kind]):
        name = file.replace("_", "-") if kind == "extractors" else file
        doc = importlib.import_module(f"{FOLDERS[kind]}.{file}").__doc__ or ""
        click.echo(f"{name:15} {doc.split(chr(10) + chr(10))[0].replace(chr(10), ' ')}")


def _list_figures(kind: str) -> None:
    """Print the tables and figures of the papers."""
    from pipelines import experiments

    if kind != "experiments":
        raise click.UsageError(f"--figures belongs to experiments, not to {kind}: featcache list experiments --figures")
    for paper, items in groupby(experiments.figures(), key=lambda figure: figure.paper):
        click.echo(f"{paper} [{experiments.PAPERS[paper]}]")
        for figure in items:
            click.echo(f"  {figure.item:10} {figure.content}")
            for command in filter(None, figure.command.split(" && ")):
                click.echo(f"{'':15}{command}")
            if figure.reason:
                click.echo(f"{'':15}{'note' if figure.command else 'not made'}: {figure.reason}")
