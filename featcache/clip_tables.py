"""A table about clips -> a manifest: `from_csv`, the function of the command `featcache manifest from-csv`."""

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path

from featcache.arguments import PathLike, numeric, several, some
from featcache.errors import ManifestError
from featcache.manifest import BOUNDS, Clip, Manifest, clip_of, number
from featcache.manifests import write
from featcache.scanning import MEDIA, seeded_split
from featcache.table_files import KEY, SPLIT_WORDS, Columns, read
from featcache.units import TIMES, seconds, unit_of
from featcache.wording import quoted, unknown

Cells = dict[str, list[str]]  #: column of a manifest -> its cells
TIME = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")  #: 00:01:02.5, or 01:02.5


def from_csv(
    file: PathLike,
    *,
    clip_id: str | Sequence[str],
    label: str | Sequence[str] = (),
    domain: str = "",
    domain_name: str = "",
    split: str = "",
    source: str = "",
    media: PathLike | None = None,
    start: str = "",
    stop: str = "",
    unit: str | None = None,
    fps: str = "",
    caption: str = "",
    of: str = "",
    out: PathLike | None = None,
    overwrite: bool = False,
    test_share: float = 0.3,
    seed: int = 0,
) -> Manifest:
    """Make a manifest of a table, each row of which is a clip, and write it. `featcache.table_files` lists the formats.

    file: the table.
    clip_id, label, domain, split, source, start, stop, caption, of: names of columns. Several columns of ids are joined
    by "_". Several labels are label kinds, each named after its column, or written KIND=COLUMN.
    domain_name: the domain of all clips, instead of a column; by default the name of the file.
    split: cells such as train, validation and test. test_share, seed: without a column of splits, this share of each
    class, drawn by this seed, is the test split.
    media: the folder of the sources: the file or folder that `source` names, with or without its ending; without
    `source`, the file named like the clip. Without both, clips have no source, as for imported features.
    unit: frames or seconds; 00:01:02.5 is seconds, and without it start_ms becomes seconds. fps: a column, or a number.
    out: file to write (default: FILE'S NAME_clips.csv, next to FILE). overwrite: replace a different manifest.

    Relative sources start at `media`, or at the folder of the table. ManifestError or FormatError name the column, row
    and value of a mistake; a warning names clips whose source is not there.
    """
    numeric("test_share", test_share, Real)
    numeric("seed", seed)
    path = Path(file)
    some("clip_id", several(clip_id))
    table = read(path)
    if domain and domain_name:
        raise ManifestError("both --domain, a column, and --domain-name, of all clips, are given; give one of them")
    words = {"domain": domain, "source": source, "caption": caption, "of": of, "split": split}
    columns: Cells = {word: _column(table, column, path) for word, column in words.items() if column}
    columns |= _ids(table, several(clip_id), path) | _labels(table, several(label), path)
    columns |= _bounds(table, {"start": start, "stop": stop}, unit, path) | _fps(table, fps, path)
    if split:
        columns["split"] = _splits(columns["split"], split, path)
    root = path if path.is_dir() else path.parent
    if media is not None:
        root = Path(media)
        columns["source"] = _found(root, columns.get("source", columns["clip_id"]), columns["clip_id"])
    clips = _clips(columns, domain_name or path.resolve().stem, path)
    clips = clips if split else seeded_split(clips, test_share, seed)
    place = Path(out) if out is not None else path.parent / f"{path.resolve().stem}_clips.csv"
    made = Manifest(place.stem, tuple(clips), root)
    write(made, place, overwrite, "--out")
    return made.relocated(place.parent)


def _clips(columns: Cells, domain: str, path: Path) -> list[Clip]:
    """Return the clips of columns that are named as in a manifest. domain: of clips without a column of domains."""
    kinds = {column: column.removeprefix("label:") for column in columns if column.startswith("label")}
    unit = next((unit for unit, pair in BOUNDS.items() if set(pair) & columns.keys()), "seconds")
    defaults = {"domain": domain, "split": "train", "source": ""}
    rows = (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
    return [clip_of(defaults | row, unit, kinds, f"{path} row {number}") for number, row in enumerate(rows, 1)]


def _column(table: Columns, name: str, path: Path) -> list[str]:
    if name in table.left_out:
        raise ManifestError(
            f"{path}: column {name!r} holds {table.left_out[name]}; name a column of text, numbers or times"
        )
    if name in table.get(KEY, ()):
        raise ManifestError(
            f"{path}: column {name!r} is an object of its cells by id, as pandas' to_json writes a frame whose index "
            "has ids; write it with orient='records' after reset_index()"
        )
    if name not in table:
        raise unknown("column", name, table, str(path), ManifestError)
    return table[name]


def _ids(table: Columns, names: Sequence[str], path: Path) -> Cells:
    """Return the column of ids; ManifestError if two are equal."""
    parts = [_column(table, name, path) for name in names]
    ids = ["_".join(cells) for cells in zip(*parts, strict=True)]
    first: dict[str, int] = {}
    for row, clip_id in enumerate(ids, 1):
        if clip_id in first:
            raise ManifestError(
                f"{path}: rows {first[clip_id]} and {row} have the same clip id, {clip_id!r}; name a column of "
                f"different values with --clip-id, or several (now: {', '.join(names)}), such as the start as well"
            )
        first[clip_id] = row
    return {"clip_id": ids}


def _labels(table: Columns, words: Sequence[str], path: Path) -> Cells:
    """Return the columns of labels: the only one is `label`, unless its kind is given."""
    if len(words) == 1 and "=" not in words[0]:
        return {"label": _column(table, words[0], path)}
    kinds = {word.partition("=")[0]: word.rpartition("=")[2] for word in words}
    if len(kinds) < len(words) or "" in kinds:
        raise ManifestError(f"labels {', '.join(words)}: write --label COLUMN or KIND=COLUMN, each kind once")
    return {f"label:{kind}": _column(table, column, path) for kind, column in kinds.items()}


def _bounds(table: Columns, words: Mapping[str, str], unit: str | None, path: Path) -> Cells:
    """Return the columns of start and stop in a unit: the given one, seconds for times, or by the columns' names."""
    if unit and unit not in BOUNDS:
        raise unknown("unit", unit, BOUNDS, error=ManifestError)
    given = {word: _column(table, column, path) for word, column in words.items() if column}
    if not given:
        return {}
    times = any(":" in cell for cells in given.values() for cell in cells)
    units = {words[word]: _unit(words[word], cells, unit, path) for word, cells in given.items()}
    if bare := [name for name in units if any(units.values()) and not units[name] and "sec" not in name.lower()]:
        raise ManifestError(
            f"{path}: the unit of {bare[0]} is not in its name, as that of the other bound is; give both"
        )
    names = " ".join(words.values()).lower()
    in_time = times or any(units.values()) or any(word in names for word in ("sec", "time"))
    counted = {"frames": "frame" in names, "seconds": in_time}
    chosen = [unit] if unit else [unit for unit, is_counted in counted.items() if is_counted]
    if len(chosen) != 1:
        named = " and ".join(filter(None, words.values()))
        raise ManifestError(f"{path}: {named} may be frames or seconds; give the unit, --unit frames or --unit seconds")
    if chosen == ["frames"] and times:
        raise ManifestError(f"{path}: the bounds are times such as 00:01:02.5, which are seconds, not frames")
    columns = dict(zip(("start", "stop"), BOUNDS[chosen[0]], strict=True))
    return {
        columns[word]: [_seconds(cell, words[word], units[words[word]], row, path) for row, cell in enumerate(cells, 1)]
        for word, cells in given.items()
    }


def _unit(column: str, cells: Sequence[str], unit: str | None, path: Path) -> str:
    """Return the unit of time in a column's name whose numbers are converted to seconds; "" if they stay as they are.

    ManifestError if the name has another unit than the given one, or one that cannot be converted.
    """
    own = unit_of(column)
    if not own or all(":" in cell or not cell.strip() for cell in cells) or (unit and own not in TIMES):
        return ""
    if own not in TIMES:
        raise ManifestError(f"{path}: {column} is in {own!r} by its name; give --unit if it is frames or seconds")
    if unit:
        raise ManifestError(
            f"{path}: {column} is in {own} by its name, but --unit {unit} is given; leave --unit out, so that it "
            "is converted to seconds, or rename the column"
        )
    return own


def _seconds(cell: str, column: str, unit: str, row: int, path: Path) -> str:
    """Return 00:01:02.50 as 62.5, and a number of a unit of time as seconds; unit "": numbers stay as they are."""
    if ":" not in cell:
        return seconds(cell, unit) if unit else cell
    match = TIME.fullmatch(cell.strip())
    if match is None:
        raise ManifestError(f"{path} row {row}: {column} {cell!r} is not a time such as 00:01:02.5")
    hours, minutes, rest = match.groups("0")
    return number(round(3600 * int(hours) + 60 * int(minutes) + float(rest), 6))  # 60 + 4.37 is 64.37000000000001


def _fps(table: Columns, fps: str, path: Path) -> Cells:
    if not fps:
        return {}
    if fps in table or not re.fullmatch(r"\d+(\.\d+)?", fps):
        return {"fps": _column(table, fps, path)}
    return {"fps": [fps] * len(next(iter(table.values())))}


def _splits(cells: list[str], column: str, path: Path) -> list[str]:
    for row, cell in enumerate(cells, 1):
        if cell.strip().lower() not in SPLIT_WORDS:
            raise ManifestError(
                f"{path} row {row}: {column} {cell!r} is no split; write train, val or test (also: "
                f"{', '.join(word for word in SPLIT_WORDS if word not in SPLIT_WORDS.values())}), or leave --split "
                "out: a share of each class is then the test split"
            )
    return [SPLIT_WORDS[cell.strip().lower()] for cell in cells]


def _found(media: Path, names: list[str], ids: list[str]) -> list[str]:
    """Return the source of each name, relative to the folder: the path itself, or the only media file of that name."""
    if not media.is_dir():
        raise ManifestError(f"no folder {media}; name the folder of the videos with --media")
    files = [path for path in sorted(media.rglob("*")) if path.suffix.lower() in MEDIA and path.is_file()]
    by_name: dict[str, list[str]] = defaultdict(list)
    for file in (file.relative_to(media) for file in files):
        for key in {file.with_suffix("").as_posix(), file.stem, file.name}:
            by_name[key].append(file.as_posix())
    sources, lacking = [], []
    for name, clip_id in zip(names, ids, strict=True):
        there = [name] if name and (media / name).exists() else by_name.get(name, [])
        if len(there) > 1:
            raise ManifestError(
                f"{media} has several files for clip {clip_id!r}: {quoted(there)}; name a column of their paths with "
                "--source"
            )
        lacking += [] if there else [clip_id]
        sources.append(there[0] if there else name)
    if len(lacking) == len(ids):
        raise ManifestError(
            f"{media} has a file for none of the {len(ids)} clips, such as {quoted(lacking)}; "
            "name another folder with --media, or a column of paths with --source"
        )
    if lacking:
        warnings.warn(f"{media} has no file for {len(lacking)} clips: {quoted(lacking)}", stacklevel=3)
    return sources
