"""The command `featcache list`."""

import importlib

import click

from featcache import registry
from pipelines.cli._shared import note

FOLDERS = {
    "extractors": "featcache.extractors",
    "benchmarks": "featcache.builders",
    "formats": "featcache.bridges",
    "nets": "heads.nets",
    "methods": "heads.methods",
    "tasks": "pipelines.tasks",
    "experiments": "pipelines.experiments",
}


@click.command("list")
@click.argument("kind", type=click.Choice([*FOLDERS, "metrics"]))
def list_names(kind: str) -> None:
    """List the names of one KIND, each with a short description.

    \b
    Examples:
      featcache list methods
      featcache list metrics
    """
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
