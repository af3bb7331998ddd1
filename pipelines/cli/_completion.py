"""Completion of names by the shell, from the file names of the registries, which are not imported, and of plug-ins."""

from collections.abc import Callable
from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from featcache import plugins
from featcache.errors import FeatcacheError
from pipelines import catalogue

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def entries(kind: str = "", *, paths: bool = False) -> Complete:
    """Return a `shell_complete` with the names of a kind, by default of the kind on the command line.

    paths: also complete file names, for arguments that may be either.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        of = kind or context.params.get("kind") or ""
        names = []
        with suppress(FeatcacheError), plugins.added(context.meta.get(plugins.VARIABLE, ())):
            names = catalogue.names(of) if of in catalogue.KINDS else []
        items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *items] if paths else items

    return complete


def weights(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of weights, for `shell_complete`."""
    from featcache.weights.catalogue import CATALOGUE

    return [CompletionItem(name) for name in CATALOGUE if name.startswith(incomplete)]
