"""Words on the command line -> calls of the rooms below, and printed lines.

Machine-readable output goes to stdout, the rest to stderr.

Heavy modules are imported only inside the commands that need them, so that `featcache --help` is fast.
"""

from collections.abc import Iterator

import click

import featcache
from pipelines.cli import (
    archive,
    compare,
    evaluate,
    exchange,
    export_head,
    extract,
    manifest,
    names,
    predict,
    report,
    search,
    sharing,
    show,
    stores,
    sweep,
    tables,
    train_head,
    weights,
)
from pipelines.cli._shared import Commands, no_locks_option, plugins_option, quiet_option


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(featcache.__version__)
def main() -> None:
    """Extract frozen video features once; train domain-adaptation heads on them in seconds.

    \b
    Example:
      featcache manifest build kitchens demo/videos
      featcache extract demo/videos/kitchens.csv hog hof logmel --stores demo/stores
      featcache train-head kitchens --stores demo/stores --runs demo/runs
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
      featcache table kitchens --stores demo/stores --runs demo/runs
      featcache compare kitchens source-only "RNA (UDA)" --stores demo/stores --runs demo/runs
      featcache report kitchens --stores demo/stores --runs demo/runs
    """


for command in (
    manifest.manifest,
    extract.extract,
    extract.merge,
    train_head.train_head,
    sweep.sweep,
    evaluate.evaluate,
    tables.table,
    tables.choose,
    compare.compare,
    report.report,
    predict.predict,
    search.search,
    export_head.export_head,
    stores.check,
    stores.repair,
    stores.info,
    exchange.import_,
    exchange.export,
    archive.pack,
    archive.unpack,
    sharing.push,
    sharing.pull,
    weights.weights,
    names.list_names,
    show.show_entry,
):
    main.add_command(command)


def _all_commands(command: click.Command) -> Iterator[click.Command]:
    """Yield a command, and all that are in its group."""
    yield command
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _all_commands(part)


for command in _all_commands(main):
    command.params.append(plugins_option())

for command in (
    manifest.manifest_build,
    extract.extract,
    extract.merge,
    train_head.train_head,
    sweep.sweep,
    evaluate.evaluate,
    predict.predict,
    stores.repair,
    exchange.import_,
    exchange.export,
    archive.pack,
    archive.unpack,
    sharing.push,
    sharing.pull,
    weights.fetch,
):
    command.params += [quiet_option(), no_locks_option()]

for command in (report.report, stores.check):
    command.params.append(quiet_option())
