"""The commands `featcache pack` and `featcache unpack`."""

from pathlib import Path

import click

from featcache.remote.urls import shown
from featcache.wording import size
from pipelines.cli._shared import PATH, PLACE, echo, note, progress_bar


@click.command()
@click.argument("store", type=PATH)
@click.argument("out", type=PLACE)
def pack(store: Path, out: Path) -> None:
    """Write STORE as a compressed archive to OUT, a folder or a URL.

    An archive has about 0.6 of the size, and is meant for copying and for object storage. All commands can read an
    archive; they decode it into memory. To map its features or to extract into it, `unpack` it first.

    \b
    Examples:
      featcache pack demo/stores/kitchens/hog.zarr hog-archive.zarr
      featcache pack demo/stores/kitchens/hog.zarr s3://bucket/hog-archive.zarr
    """
    from featcache.files import folder_size
    from featcache.store import archive

    with progress_bar(f"pack {store.name}", "block") as progress:
        after = archive.pack(store, out, progress)
    before = folder_size(store)
    note(f"{size(before)} -> {size(after)}, {after / max(1, before):.2f} of the size")
    echo(shown(out))


@click.command()
@click.argument("source")
@click.argument("out", type=PATH)
def unpack(source: str, out: Path) -> None:
    """Write the store in the archive SOURCE to OUT, byte for byte.

    Every block is compared with its digest. SOURCE is a folder or a URL: s3://, gs:// and az:// need
    `pip install 'featcache[s3]'`. Other kinds of URL need other packages; the error message names them.

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
