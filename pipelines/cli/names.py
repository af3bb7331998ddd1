"""The command `list`."""

import click


@click.command("list")
@click.argument("what", type=click.Choice(["extractors", "benchmarks", "formats", "nets", "methods", "experiments"]))
def list_names(what: str) -> None:
    """List what there is, with a line about each.

    \b
    Example:
      featcache list methods
    """
    import importlib

    folders = {
        "extractors": "featcache.extractors",
        "benchmarks": "featcache.builders",
        "formats": "featcache.bridges",
        "nets": "heads.nets",
        "methods": "heads.methods",
        "experiments": "pipelines.experiments",
    }
    registry = importlib.import_module(folders[what])
    for name in registry.names():
        doc = importlib.import_module(f"{folders[what]}.{name.replace('-', '_')}").__doc__ or ""
        click.echo(f"{name:15} {doc.split(chr(10) + chr(10))[0].replace(chr(10), ' ')}")
