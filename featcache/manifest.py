"""The manifest: one line per clip, in a CSV file that people can read and edit.

Columns (an unknown column is an error, a missing optional one is empty):

    clip_id                          unique, any text that is not empty
    domain                           e.g. P08, kitchen_a, ucf
    split                            train, val or test
    source                           a video, sound or image file, or a folder of frames, relative to the manifest;
                                     empty for clips that have features only, which another tool extracted
    start_frame, stop_frame          half-open, frames from 0 }  one pair or the other, or neither for whole files;
    start_seconds, stop_seconds      half-open, seconds from 0 }  an empty cell means the file's own start or end
    fps                              frame rate of a folder of frames, of joints or of numbers (videos have their own)
    label, or label:verb, label:noun    a class name per label kind; the column `label` has the only kind, "label"
    caption                          one sentence about the clip
    of                               in a manifest of captions: the clip_id of the captioned clip in the clips' manifest
                                     (a clip may have many captions)

All cells are read as text, except bounds and fps, so that ids such as 007 and labels such as NA stay as written.
"""

import csv
import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.errors import ManifestError
from featcache.files import near, regular, write_file
from featcache.naming import folder_name, renamed
from featcache.spreadsheets import UTF8, advice, fault
from featcache.wording import first, quoted, shortened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

SPLITS = ("train", "val", "test")
REQUIRED = ("clip_id", "domain", "split", "source")
FILLED = REQUIRED[:3]  #: columns whose cells may not be empty
BOUNDS = {"frames": ("start_frame", "stop_frame"), "seconds": ("start_seconds", "stop_seconds")}
#: columns of numbers, in a manifest and in the rows of a store
NUMBERS = {*BOUNDS["frames"], *BOUNDS["seconds"], "start", "stop", "fps"}
NONE = "no labels"
SHOWN = 6  #: names that `repr` lists
OPTIONAL = (*BOUNDS["frames"], *BOUNDS["seconds"], "fps", "caption", "of")


@dataclass(frozen=True)
class Clip:
    """One clip: an interval of a source, with its domain, split, labels and caption.

    `start` and `stop` are half-open and counted in `unit` ("frames" or "seconds") from the first frame of the source;
    None means the source's own start or end. `labels` maps a label kind to a class name; a kind without a label is
    not a key.
    """

    clip_id: str
    domain: str
    split: str
    source: str
    start: float | None = None
    stop: float | None = None
    unit: str = "seconds"
    labels: dict[str, str] = field(default_factory=dict)
    caption: str = ""
    fps: float | None = None
    of: str = ""  #: in a manifest of captions: the id of the captioned clip

    def identity(self) -> dict[str, str]:
        """The fields that determine the clip's features, as text: those that a store records of the clip.

        The source is reduced to its file name, because folders are often moved.
        """
        return {
            "clip_id": self.clip_id,
            "source": os.path.basename(os.path.normpath(self.source)) if self.source else "",
            "start": number(self.start),
            "stop": number(self.stop),
            "unit": "seconds" if self.start is None and self.stop is None else self.unit,  # one value without bounds
            "fps": number(self.fps),
            "caption": self.caption,
        }


@dataclass(frozen=True, repr=False)
class Manifest:
    """An ordered set of clips. `root` is the folder that relative sources start from.

    >>> Manifest("two", (Clip("a", "day", "train", "a.mp4"), Clip("b", "night", "test", "b.mp4")))
    Manifest 'two': 2 clips (1 train, 1 test), domains day, night
    no labels
    """

    name: str
    clips: tuple[Clip, ...]
    root: Path = Path(".")

    def __post_init__(self) -> None:
        folder_name(self.name, "manifest", "give its file another name", ManifestError)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Manifest":
        """Read and validate a CSV file; ManifestError names the file, line, column and value of a mistake.

        The manifest is named after its file. The copy STORES/m/manifest.csv, next to *.zarr stores, has the name `m`.
        """
        path = Path(path)
        try:
            regular(path, ManifestError, or_folder=True)
            with path.open(encoding="utf-8-sig", newline="") as file:  # newlines unchanged: \r may be part of a cell
                text = file.read()
        except FileNotFoundError:
            raise ManifestError(f"no manifest {path}: the file does not exist{near(path)}") from None
        except IsADirectoryError:
            raise ManifestError(
                f"{path} is a folder, not a manifest; `featcache manifest scan {path}` makes one"
            ) from None
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {UTF8}") from None
        except OSError as error:
            raise ManifestError(f"manifest {path} cannot be read: {error.strerror or error}") from None
        is_copy = path.name == "manifest.csv" and any(path.parent.glob("*.zarr"))
        name = os.path.basename(os.path.dirname(os.path.abspath(path))) if is_copy else path.stem
        return cls(name, tuple(_parse(text, path)), path.parent)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file from which `read` returns an equal manifest; relative sources start at the file's folder.

        The file is replaced whole or, on failure, stays as it was.
        """
        path = Path(path)
        if path.is_dir():
            raise ManifestError(f"{path} is a folder; name a file for the manifest, such as {path / self.name}.csv")
        write_file(path, self.content(path.parent), shared=True)

    def content(self, root: str | os.PathLike[str]) -> bytes:
        """The bytes that `write` puts into a file in the folder `root`."""
        text = self.relocated(root).text
        for number, clip in enumerate(self.clips, 2):
            _check_names((clip.clip_id, clip.domain, clip.source), f"manifest {self.name!r} line {number}")
        try:
            return text.encode()
        except UnicodeEncodeError as error:  # file names that are not UTF-8 contain lone surrogates
            number = text.count("\n", 0, error.start)
            line = text.split("\n")[number]
            raise ManifestError(
                f"manifest {self.name!r} line {number + 1}: {line!a} is not UTF-8; rename the file or folder"
            ) from None

    def relocated(self, root: str | os.PathLike[str]) -> "Manifest":
        """The same clips for another root: relative sources are rewritten to start there."""
        root = Path(root)
        if root.resolve() == self.root.resolve():
            return self
        old_root, new_root = self.root.resolve(), root.resolve()
        moved = {  # many clips, few sources
            source: os.path.relpath(old_root / source, new_root) if source and not os.path.isabs(source) else source
            for source in {clip.source for clip in self.clips}
        }
        clips = [replace(clip, source=moved[clip.source]) for clip in self.clips]
        return Manifest(self.name, tuple(clips), root)

    @cached_property
    def text(self) -> str:
        """The manifest as CSV: only the columns that some clip uses, numbers in their shortest exact form."""
        kinds = sorted({kind for clip in self.clips for kind in clip.labels})
        units = {clip.unit for clip in self.clips if clip.start is not None or clip.stop is not None}
        if len(units) > 1:
            raise ManifestError(f"manifest {self.name!r} mixes bounds in frames and in seconds; use one unit")
        bounds = BOUNDS[units.pop()] if units else ()
        columns = [*REQUIRED, *bounds]
        columns += [name for name in ("fps", "caption", "of") if any(getattr(clip, name) for clip in self.clips)]
        columns += ["label" if kind == "label" else f"label:{kind}" for kind in kinds]
        out = io.StringIO()
        plain = csv.writer(out, lineterminator="\n")
        quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)  # Python 3.11 does not quote a lone \r
        plain.writerow(columns)
        for clip in self.clips:
            cells = {
                **{name: getattr(clip, name) for name in (*REQUIRED, "caption", "of")},
                **dict(zip(bounds, (number(clip.start), number(clip.stop)), strict=False)),
                "fps": number(clip.fps),
                **{("label" if kind == "label" else f"label:{kind}"): label for kind, label in clip.labels.items()},
            }
            row = [cells.get(column, "") for column in columns]
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
        return out.getvalue()

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the clips; the file's name, folder and column order do not matter."""
        rows = [[*clip.identity().values(), clip.domain, clip.split, clip.labels] for clip in self.clips]
        if any(clip.of for clip in self.clips):  # only then, so that stores of other manifests keep their fingerprint
            rows = [[*row, clip.of] for row, clip in zip(rows, self.clips, strict=True)]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    @cached_property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Label kind -> class names of all clips, sorted, so that the order does not depend on the order of clips."""
        names: dict[str, set[str]] = {}
        for clip in self.clips:
            for kind, label in clip.labels.items():
                names.setdefault(kind, set()).add(label)
        return {kind: tuple(sorted(classes)) for kind, classes in sorted(names.items())}

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Sorted domain names."""
        return tuple(sorted({clip.domain for clip in self.clips}))

    def rows(self, *, domain: str | Iterable[str] | None = None, split: str | None = None) -> list[int]:
        """Row numbers of the clips of these domains and this split, in manifest order; unknown names are errors."""
        wanted = {domain} if isinstance(domain, str) else None if domain is None else set(domain)
        for name in sorted(wanted or ()):
            if name not in self.domains:
                raise ManifestError(f"no domain {name!r} in manifest {self.name!r}; it has: {', '.join(self.domains)}")
        if split is not None and split not in SPLITS:
            raise ManifestError(f"no split {split!r}; choose from {', '.join(SPLITS)}")
        return [
            row
            for row, clip in enumerate(self.clips)
            if (wanted is None or clip.domain in wanted) and (split is None or clip.split == split)
        ]

    def select(self, *, domain: str | Iterable[str] | None = None, split: str | None = None) -> "Manifest":
        """A manifest of only those clips. A store's rows follow the whole manifest, so runs use `rows` instead."""
        return Manifest(self.name, tuple(self.clips[row] for row in self.rows(domain=domain, split=split)), self.root)

    def labels(self, rows: "ArrayLike | None" = None, kind: str | None = None) -> "NDArray[np.int64]":
        """The class numbers (n,) of these rows: indices into `classes[kind]`, -1 for clips without a label.

        rows: row numbers, or a mask (N,); default: all. kind: a label kind; default: the only one. ManifestError for a
        kind that no clip has, and for several kinds of which none is named; IndexError for rows outside.
        """
        import numpy as np

        kinds = list(self.classes)
        if kind is None and len(kinds) != 1:
            raise ManifestError(
                f"manifest {self.name!r} has {f'several label kinds: {quoted(kinds, 10)}; name one' if kinds else NONE}"
            )
        kind = kinds[0] if kind is None else kind
        if kind not in self.classes:
            raise ManifestError(f"no label kind {kind!r} in manifest {self.name!r}; it has: {', '.join(kinds) or NONE}")
        numbers = {name: number for number, name in enumerate(self.classes[kind])}
        labels = np.array([numbers.get(clip.labels.get(kind, ""), -1) for clip in self.clips], np.int64)
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        return labels[chosen if chosen.size else chosen.astype(np.int64)]

    def frame(self) -> "pd.DataFrame":
        """A table with one line per clip, in manifest order, and the columns of the CSV file.

        Only the columns that some clip uses; bounds and fps are numbers, NaN where a cell is empty.
        """
        import pandas as pd

        columns, *lines = csv.reader(io.StringIO(self.text, newline=""), strict=True)
        return typed(pd.DataFrame(lines, columns=columns, dtype=str))

    def __repr__(self) -> str:
        splits = Counter(clip.split for clip in self.clips)
        counts = ", ".join(f"{splits[split]} {split}" for split in SPLITS if split in splits)
        kinds = []
        for kind, names in self.classes.items():
            count = f"{len(names)} class{'es' * (len(names) > 1)}{'' if kind == 'label' else f' of {kind}'}"
            kinds.append(f"{count} ({first(names, SHOWN)})")
        domains = f"domains {first(self.domains, SHOWN)}" if self.domains else "no domains"
        head = f"Manifest {self.name!r}: {len(self)} clips ({counts}), {domains}"
        return f"{shortened(head)}\n{shortened('; '.join(kinds) or NONE)}"

    def _repr_html_(self) -> str:
        head, labels = map(escape, repr(self).split("\n"))
        return f"<p>{head}<br>{labels}</p>\n{self.frame().to_html(max_rows=10)}"

    def path(self, clip: Clip) -> Path:
        """The path of the clip's source; that of the manifest's folder if the clip has none."""
        return self.root / clip.source

    def portable(self, reason: str, clip: Clip) -> str:
        """Return a sentence about a clip with paths as the manifest has them, whatever folder a command ran in."""
        return renamed(reason, {self.path(clip): clip.source, self.root: ""})

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)


def typed(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table of clips, made of text, with the columns that some clip uses, and with bounds and fps as numbers.

    An empty cell is NaN in a column of numbers.
    """
    import pandas as pd

    table = table[[name for name in table if name in REQUIRED or (table[name] != "").any()]].copy()
    for name in NUMBERS & set(table):
        table[name] = pd.to_numeric(table[name])
    return table


def number(value: float | None) -> str:
    """The shortest exact text of a number: 7, not 7.0; "" for None."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _parse(text: str, path: Path) -> Iterator[Clip]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if not header or not any(header):
            raise ManifestError(f"{path} is empty; its first line must name the columns {', '.join(REQUIRED)}, ...")
        unit = _check_header(header, path)
        kinds = {name: name.removeprefix("label:") for name in header if name == "label" or name.startswith("label:")}
        line_of: dict[str, int] = {}
        for cells in reader:
            if not cells:
                continue
            line = reader.line_num
            if len(cells) != len(header):
                raise ManifestError(f"{path} line {line}: {len(cells)} cells for {len(header)} columns{advice(cells)}")
            clip = clip_of(dict(zip(header, cells, strict=True)), unit, kinds, f"{path} line {line}")
            if clip.clip_id in line_of:
                raise ManifestError(
                    f"{path} line {line}: clip_id {clip.clip_id!r} is already on line {line_of[clip.clip_id]}; "
                    "ids must be unique"
                )
            line_of[clip.clip_id] = line
            yield clip
    except csv.Error as error:
        raise ManifestError(f"{path} line {reader.line_num}: not CSV ({error})") from None
    if not line_of:
        raise ManifestError(f"{path} has columns but no clips")


def _check_header(header: list[str], path: Path) -> str:
    """Check the column names, and return the unit of the bounds."""
    if problem := fault(header):
        raise ManifestError(f"{path} line 1: {problem}")
    for column in header:
        if header.count(column) > 1:
            raise ManifestError(f"{path} line 1: column {column!r} occurs twice; remove or rename one")
        is_label = column == "label" or (column.startswith("label:") and column != "label:")
        if not is_label and column not in (*REQUIRED, *OPTIONAL):
            choices = ", ".join((*REQUIRED, *OPTIONAL, "label", "label:KIND"))
            raise ManifestError(f"{path} line 1: unknown column {column!r}; there are: {choices}")
    for column in REQUIRED:
        if column not in header:
            raise ManifestError(
                f"{path} line 1: column {column!r} is missing; every manifest has {', '.join(REQUIRED)}"
            )
    if "label" in header and any(column.startswith("label:") for column in header):
        raise ManifestError(f"{path} line 1: use either `label` or `label:KIND` columns, not both")
    units = [unit for unit, pair in BOUNDS.items() if set(pair) & set(header)]
    if len(units) > 1:
        raise ManifestError(f"{path} line 1: bounds are given in frames and in seconds; use one unit")
    return units[0] if units else "seconds"


def _check_names(names: Sequence[str], place: str) -> None:
    """Raise ManifestError for a clip id, domain or source that no file can be named after."""
    if "\0" in "".join(names):
        name = next(name for name in names if "\0" in name)
        raise ManifestError(f"{place}: {name!r} has a NUL character; remove it")


def clip_of(row: dict[str, str], unit: str, kinds: dict[str, str], place: str) -> Clip:
    """The clip of a line, column -> cell. Manifests may have 10^5 lines, so what lines have in common is prepared.

    unit: that of the bounds. kinds: column of labels -> label kind. place: the line, for messages.
    """
    _check_names((row["clip_id"], row["domain"], row["source"]), place)
    if not all(map(str.strip, map(row.__getitem__, FILLED))):
        empty = next(column for column in FILLED if not row[column].strip())
        raise ManifestError(f"{place}: {empty} is empty")
    if row["split"] not in SPLITS:
        raise ManifestError(f"{place}: split {row['split']!r} is not one of {', '.join(SPLITS)}")
    start_column, stop_column = BOUNDS[unit]
    start = _read_number(row, start_column, place)
    stop = _read_number(row, stop_column, place)
    fps = _read_number(row, "fps", place)
    if fps == 0:
        raise ManifestError(f"{place}: fps is 0; a frame folder needs its frames per second")
    if unit == "frames":
        for column, value in ((start_column, start), (stop_column, stop)):
            if value is not None and not value.is_integer():
                raise ManifestError(f"{place}: {column} {value} is not a whole frame")
    if stop is not None and stop <= (start or 0):
        raise ManifestError(
            f"{place}: {stop_column} {number(stop)} is not after {start_column} {number(start or 0)}; "
            "the interval is half-open"
        )
    labels = {kind: cell for column, kind in kinds.items() if (cell := row[column])}
    return Clip(
        clip_id=row["clip_id"],
        domain=row["domain"],
        split=row["split"],
        source=row["source"] if row["source"].strip() else "",
        start=start,
        stop=stop,
        unit=unit,
        labels=labels,
        caption=row.get("caption", ""),
        of=row.get("of", ""),
        fps=fps,
    )


def _read_number(row: dict[str, str], column: str, place: str) -> float | None:
    cell = row.get(column, "").strip()
    if not cell:
        return None
    if len(cell) < 16 and cell.isascii() and cell.isdecimal():
        return float(cell)
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else math.nan  # float() reads 1_0 and ٥
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ManifestError(f"{place}: {column} {cell!r} is not a number of at least 0{advice([column, cell])}")
    return value
