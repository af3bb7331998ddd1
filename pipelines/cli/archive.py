"""The commands `featcache pack` and `featcache unpack`."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, note, progress_bar


@click.command()
@click.argument("store", type=PATH)
@click.argument("out", type=PATH)
def pack(store: Path, out: Path) -> None:
    """Write STORE as an archive to OUT, for shipping and for object storage: compressed, about 0.6 of the size.

    Everything reads an archive, by decoding it into memory; mapping it and extracting into it need `unpack` first.

    \b
    Example:
      featcache pack demo/stores/kitchens/hog.zarr hog-archive.zarr
    """
    from featcache.store import archive

    with progress_bar(f"pack {store.name}", "block") as progress:
        archive.pack(store, out, progress)
    before, after = _size(store), _size(out)
    note(f"{before / 1e6:.1f} MB -> {after / 1e6:.1f} MB, {after / max(1, before):.2f} of the size")
    click.echo(out)


@click.command()
@click.argument("source")
@click.argument("out", type=PATH)
def unpack(source: str, out: Path) -> None:
    """Write the store that an archive was made of to OUT, byte for byte, every block compared with its digest.

    SOURCE is a folder or a URL. Some kinds of URL need a package; the message says which.

    \b
    Examples:
      featcache unpack hog-archive.zarr demo/stores/kitchens/hog.zarr
      featcache unpack s3://bucket/hog-archive.zarr stores/kitchens/hog.zarr
    """
    from featcache.store import archive

    with progress_bar(f"unpack {source}", "block") as progress:
        archive.unpack(source, out, progress)
    note(f"{_size(out) / 1e6:.1f} MB")
    click.echo(out)


def _size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
