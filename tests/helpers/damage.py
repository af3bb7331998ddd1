"""Damage as disks, copies and cables make it: a flipped bit, a stretch of zeros, a file that is cut off."""

import contextlib
import os
import shutil


def damaged(data, rng):
    """The bytes with one damage at a random place; never equal to the whole ones."""
    kind = rng.choice(["flip", "flip", "zeros", "cut"])
    place = rng.randrange(len(data))
    if kind == "flip":
        out = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    elif kind == "zeros":
        stop = min(len(data), place + rng.choice([1, 16, 512, len(data)]))
        out = data[:place] + bytes(stop - place) + data[stop:]
    else:
        out = data[:place]
    return out if out != data else damaged(data, rng)


@contextlib.contextmanager
def damage(path, rng):
    """Damage a file in place, with its old time of change, and put the whole one back afterwards."""
    data, status = path.read_bytes(), path.stat()
    aside = path.with_name(f".{path.name}.whole")
    shutil.copy2(path, aside)
    path.write_bytes(damaged(data, rng))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        yield
    finally:
        os.replace(aside, path)
