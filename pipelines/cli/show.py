"""The command `featcache show`."""

import click

from pipelines.catalogue import KINDS
from pipelines.cli._completion import entries
from pipelines.cli._shared import echo


@click.command("show")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", shell_complete=entries())
def show_entry(kind: str, name: str) -> None:
    """Show the documentation and the parameters of one NAME of a KIND.

    `featcache list KINDs` lists the names. Each parameter has its default, type and range, its meaning, and the source
    of the default: the paper, its authors' code, or ours. Of a benchmark the command prints the dataset card, and of an
    experiment the rows and the settings of its runs.

    \b
    Examples:
      featcache show extractor i3d-rgb
      featcache show method rna
      featcache show benchmark epic8
    """
    from pipelines import catalogue

    echo(catalogue.show(kind, name))
