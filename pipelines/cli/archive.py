"""The commands `featcache pack` and `featcache unpack`."""

from pathlib import Path

import click

from featcache.wording import size
from pipelines.cli._shared import PATH, echo, note, progress_bar


@click.command()
@click.argument("store", type=PATH)
@click.argument("out", type=PATH)
def pack(store: Path, out: Path) -> None:
    """Write STORE as a compressed archive to OUT.

    An archive has about 0.6 of the size, and is meant for copying and for object storage. All commands can read an
    archive; they decode it into memory. To map its features or to extract into it, `unpack` it first.

    \b
    Example:
      featcache pack demo/stores/kitchens/hog.zarr hog-archive.zarr
    """
    from featcache.files import folder_size
    from featcache.store import archive

    with progress_bar(f"pack {store.name}", "block") as progress:
        archive.pack(store, out, progress)
    before, after = folder_size(store), folder_size(out)
    note(f"{size(before)} -> {size(after)}, {after / max(1, before):.2f} of the size")
    echo(out)


@click.command()
@click.argument("source")
@click.argument("out", type=PATH)
def unpack(source: str, out: Path) -> None:
    """Write the store in the archive SOURCE to OUT, byte for byte.

    Every block is compared with its digest. SOURCE is a folder or a URL. Some kinds of URL need a package; the error
    message names it.

    \b
    Examples:
      featcache unpack hog-archive.zarr demo/stores/kitchens/hog.zarr
      featcache unpack s3://bucket/hog-archive.zarr stores/kitchens/hog.zarr
    """
    from featcache.files import folder_size
    from featcache.store import archive

    with progress_bar(f"unpack {source}", "block") as progress:
        archive.unpack(source, out, progress)
    note(size(folder_size(out)))
    echo(out)
