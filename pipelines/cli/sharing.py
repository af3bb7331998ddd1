"""The commands `featcache push` and `featcache pull`."""

from pathlib import Path

import click

from featcache.remote.urls import shown
from featcache.wording import size
from pipelines.cli._shared import PATH, PLACE, Words, echo, note, progress_bar


@click.command()
@click.argument("stores", type=PATH)
@click.argument("destination", type=PLACE)
@click.option(
    "--licence",
    multiple=True,
    metavar="[MANIFEST=]TEXT",
    help="Licence of the clips; may be repeated.  [default: that of the dataset card]",
)
@click.option("--card", multiple=True, metavar="[MANIFEST=]FILE", help="Dataset card, in Markdown; may be repeated.")
def push(stores: Path, destination: Path, licence: Words, card: Words) -> None:
    """Share the stores of a folder: write archives, a card and checksums to DESTINATION.

    STORES is a folder of all stores, or that of one manifest. DESTINATION is hf://datasets/OWNER/NAME[@REVISION][/PATH]
    (`pip install 'featcache[hub]'`), a URL s3://, gs:// or az:// (`pip install 'featcache[s3]'`), or a folder.

    A licence of the clips is required: --licence, or a line `licence: ...` of the dataset card that holds an identifier
    of the hub. Write MANIFEST=TEXT and MANIFEST=FILE if STORES has several manifests. Files that are there and equal
    are not written again, so the same command resumes. Files that no push has written are not replaced.

    A dataset of the hub that does not exist is made, and is private: its owner can make it public on its settings page.

    \b
    Examples:
      featcache push demo/stores shared --licence MIT
      featcache push stores/mine hf://datasets/me/mine-features --licence CC-BY-NC-4.0 --card mine.md
    """
    from featcache.sharing.push import push as run

    with progress_bar(f"push {stores.name}", "store") as progress:
        outcome = run(stores, destination, licence=licence, card=card, progress=progress)
    note(f"{outcome.files} files, {outcome.uploaded} written now ({size(outcome.bytes)})")
    if outcome.private:
        note(f"the dataset is private; make it public at {outcome.private} (Change dataset visibility)")
    echo(outcome.place)


@click.command()
@click.argument("source", type=PLACE)
@click.argument("folder", type=PATH)
def pull(source: Path, folder: Path) -> None:
    """Fetch the stores that `featcache push` has written to SOURCE into FOLDER, a folder of all stores.

    SOURCE is a URL hf://, s3://, gs:// or az://, or a folder. Every file is compared with SHA256SUMS, and the stores
    equal those that were pushed, byte for byte. Stores and files that are there are not fetched again, so the same
    command resumes.

    \b
    Examples:
      featcache pull hf://datasets/me/mine-features stores
      featcache pull shared stores
    """
    from featcache.sharing.pull import pull as run

    with progress_bar(f"pull {shown(source)}", "file") as progress:
        outcome = run(source, folder, progress=progress)
    note(f"{outcome.fetched} files fetched now ({size(outcome.bytes)})")
    for store in outcome.stores:
        echo(store)
