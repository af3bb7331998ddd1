"""The files of folders of stores, to compare what several ways have written."""

from featcache.store.provenance import Record


def content(folder):
    """Path -> bytes of all files of a folder of stores, except parts of shards and locks of writers.

    A record of the media files (`.NAME.zarr.files`) is a list of events, whose order varies: only its last line of
    each row counts, so it is given as row -> that line.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".shards" not in path.parts and path.suffix != ".lock":
            store = path.with_name(path.name.removeprefix(".").removesuffix(".files"))
            content_of = Record(store).files if path.suffix == ".files" else path.read_bytes
            found[str(path.relative_to(folder))] = content_of()
    return found
