"""Helpers of the builders of published benchmarks: find, read and check annotation files, and write the manifest.

A user's copy may have fewer or more clips than published, because users work with parts of a benchmark. This is not an
error: each (domain, split) that differs is a warning with both numbers. A missing file, a missing column and an invalid
cell are errors.
"""

import csv
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ManifestError
from featcache.files import regular
from featcache.manifest import Clip, Manifest, number
from featcache.progress import Progress
from featcache.untrusted import frames
from featcache.untrusted.npy import check_npz

Counts = Mapping[tuple[str, str], int]  #: (domain, split) -> clips


def find(folder: Path, names: Sequence[str], origin: str) -> Path:
    """The first of these files that is in the folder; otherwise a ManifestError names the source to get it from."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
    raise ManifestError(f"no {names[0]}{others} in {folder}; get it from {origin}")


def table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file or pickled pandas table as text; ManifestError if a column or a cell is missing."""
    rows = frames.rows(path) if path.suffix == ".pkl" else _csv(path)
    header = list(rows[0]) if rows else []
    if missing := [column for column in columns if column not in header]:
        raise ManifestError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(header) or 'no rows'}")
    for k, row in enumerate(rows, 1):
        if empty := [column for column in columns if not row[column]]:
            raise ManifestError(f"{path} row {k}: {', '.join(empty)} is empty")
    return rows


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        with regular(path, ManifestError).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restval="", strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not CSV in UTF-8 ({error})") from None
    for k, row in enumerate(rows, 1):
        if None in row:
            raise ManifestError(f"{path} row {k} has more cells than the header has columns")
    return rows


def npz_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file by name; ManifestError if one is missing or the file is damaged."""
    try:
        check_npz(regular(path, ManifestError))
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in names if name in file}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ManifestError(f"{path} is not an .npz file of plain arrays ({error})") from None
    if missing := [name for name in names if name not in content]:
        raise ManifestError(f"{path} has no array {', '.join(missing)}; it has: {', '.join(content) or 'none'}")
    return content


def words(path: Path, count: int) -> list[list[str]]:
    """The words of each line of a list; ManifestError names a line that does not have `count` words."""
    try:
        text = regular(path, ManifestError).read_text(encoding="utf-8-sig")
        lines = [line.split() for line in text.splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    for k, line in enumerate(lines, 1):
        if len(line) != count:
            raise ManifestError(f"{path} line {k}: {' '.join(line)!r} has {len(line)} words; {count} are expected")
    return lines


def seconds(time: str, place: str) -> float:
    """Convert 00:01:02.50 to 62.5."""
    try:
        hours, minutes, rest = time.split(":")
        return round(3600 * int(hours) + 60 * int(minutes) + float(rest), 6)  # 60 + 4.37 is 64.37000000000001
    except ValueError:
        raise ManifestError(f"{place}: {time!r} is not a time such as 00:01:02.50") from None


def choose(classes: Mapping[str, str], number: str, place: str) -> str:
    """The name of the class with this number; ManifestError if there is none."""
    if number not in classes:
        raise ManifestError(f"{place}: {number!r} is not a class number; there are: {', '.join(classes)}")
    return classes[number]


def numbered(names: Sequence[str]) -> dict[str, str]:
    """Map the numbers from 0, as text, to class names."""
    return {str(k): name for k, name in enumerate(names)}


def finish(name: str, clips: Sequence[Clip], folder: Path, published: Counts, progress: Progress) -> Manifest:
    """Check the clips, warn about numbers that differ from the published ones, and write `folder/NAME.csv`."""
    if not clips:
        raise ManifestError(f"{name}: the annotation files in {folder} contain no clips")
    twice = [clip_id for clip_id, count in Counter(clip.clip_id for clip in clips).items() if count > 1]
    if twice:
        raise ManifestError(
            f"{name}: clip {twice[0]!r} occurs more than once in the annotation files in {folder}; remove one"
        )
    for clip in clips:
        if clip.stop is not None and clip.stop <= (clip.start or 0):
            bounds = f"starts at {number(clip.start)} and stops at {number(clip.stop)} {clip.unit}"
            raise ManifestError(f"{name}: clip {clip.clip_id!r} {bounds}; correct the annotation file")
    counts = Counter((clip.domain, clip.split) for clip in clips)
    for domain, split in sorted({*counts, *published}):
        count, expected = counts[domain, split], published.get((domain, split))
        if expected is not None and count != expected:
            warnings.warn(
                f"{name}: {domain} {split} has {count} clips; the published number is {expected}", stacklevel=3
            )
    manifest = Manifest(name, tuple(clips), folder)
    manifest.write(folder / f"{name}.csv")
    progress(len(clips), len(clips))
    return manifest
