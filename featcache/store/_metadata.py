"""The JSON files of a store, read into dataclasses, and compared: its arrays must fit the features and each other."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from featcache import schema
from featcache.budget import MOST_WINDOWS, WINDOWS
from featcache.errors import ConfigError, StoreError
from featcache.files import regular
from featcache.schema import Count
from featcache.store import _format as fmt

MOST_NUMBERS = 1 << 31  #: maximum number of values of a row, all windows; far above that of any real store
MOST_HELD = 1 << 27  #: the same of a row that is held in memory without a store, whose size would prove it
CSV_BYTES = 10  #: a line of rows.csv is longer, so that the file's size limits the number of rows
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class _File:
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _External:
    format: str = ""
    key: str = ""
    files: tuple[_File, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """The parts of a recipe that the program reads."""

    extractor: str
    modality: str
    weights_sha256: str
    params: dict[str, Any] = field(default_factory=dict)
    window: dict[str, Any] = field(default_factory=dict)
    external: _External = field(default_factory=_External)
    precision: str = "fp32"
    dtype: str = ""


@dataclass(frozen=True)
class Facts:
    """The parts of the facts that the program reads."""

    licence: str = ""
    trained_on: str = ""


@dataclass(frozen=True)
class _Group:
    attributes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Attributes:
    manifest: str
    recipe: Recipe
    facts: Facts


@dataclass(frozen=True)
class _Codec:
    name: str
    configuration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Chunks:
    chunk_shape: tuple[Count, ...]


@dataclass(frozen=True)
class _Grid:
    configuration: _Chunks


@dataclass(frozen=True)
class _Array:
    shape: tuple[Count, ...]
    data_type: str
    chunk_grid: _Grid
    codecs: tuple[_Codec, ...]
    zarr_format: Annotated[int, schema.Range(3, 3)]


@dataclass(frozen=True)
class _Sharding:
    chunk_shape: tuple[Count, ...]
    codecs: tuple[_Codec, ...]
    index_codecs: tuple[_Codec, ...]
    index_location: str = "end"


def attributes(path: Path) -> dict[str, Any]:
    """Read the attributes of a store's group; StoreError if they are damaged or of another format."""
    place = f"{path / 'zarr.json'} is not a featcache store's, or it is damaged"
    fix = "`featcache repair` restores it if it can be computed; else get another copy of the store"
    group = schema.read(path / "zarr.json", _Group, place, error=StoreError, fix=fix, newer=True)
    if "featcache" not in group.attributes or type(group.attributes["featcache"].get("format")) is not int:
        raise StoreError(f"{place}: attributes.featcache.format is missing; {fix}")
    values = group.attributes["featcache"]
    if values["format"] != fmt.FORMAT:
        raise StoreError(
            f"{path} has format {values['format']}, and this featcache reads only {fmt.FORMAT}; extract or "
            "import it again, or read it with the featcache that wrote it"
        )
    try:
        schema.from_json(values, _Attributes, "attributes.featcache", newer=True)
    except ConfigError as error:
        raise StoreError(f"{place}: {error}; {fix}") from None
    return values


def checked(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return attributes that are to be written, as JSON holds them; StoreError if `attributes` would refuse them."""
    place, fix = f"{path} cannot be made", "correct its recipe or its facts"
    try:
        text = json.dumps({"attributes": {"featcache": values}})
        group = schema.parse(text, _Group, place, error=StoreError, fix=fix)
        made = schema.from_json(group.attributes["featcache"], _Attributes, newer=True)
    except (ConfigError, TypeError, ValueError) as error:  # the last two: values that JSON does not have
        raise StoreError(f"{place}: {error}; {fix}") from None
    if made.recipe.dtype not in DTYPES:
        raise StoreError(f"{place}: recipe.dtype is {made.recipe.dtype!r}; choose from {', '.join(DTYPES)}")
    return group.attributes["featcache"]


def check_recorded(recipe: dict[str, Any], windows: int, row_shape: tuple[int, ...], where: str) -> None:
    """Raise ConfigError unless a recipe that is recorded elsewhere, such as in a run, is one that a store can have."""
    made = schema.from_json(recipe, Recipe, where, newer=True)
    if made.dtype not in DTYPES:
        raise ConfigError(f"{where}.dtype is {made.dtype!r}; choose from {', '.join(DTYPES)}")
    if not 0 < windows * math.prod(row_shape) <= MOST_HELD:
        raise ConfigError(f"{where} has {windows} windows of {row_shape}, none or too many")


def layout(path: Path, *, archived: bool) -> fmt.Layout:
    """Read the layout of a store's features; StoreError if their metadata are damaged, or by another program."""
    place = path / "features" / "zarr.json"
    features = _array(path, "features")
    if len(features.shape) < 2 or features.data_type not in DTYPES:
        raise StoreError(
            f"{place}: shape={features.shape} of {features.data_type} is not (clips, windows, ...) of "
            f"{' or '.join(DTYPES)}; restore it from a copy of the store"
        )
    rows, windows, *row_shape = features.shape
    numbers = windows * math.prod(row_shape)
    if not (rows > 0 and 0 < windows <= max(MOST_WINDOWS, WINDOWS.value) and 0 < numbers <= MOST_NUMBERS):
        raise StoreError(
            f"{place}: shape={features.shape} has no clips, no windows or too many of them; restore it from a copy of "
            "the store"
        )
    made = fmt.Layout(rows, windows, tuple(row_shape), features.data_type)
    if not _matches(features, made, archived, place):
        raise StoreError(
            f"the features in {path} have other shards, chunks or codecs than featcache writes, so another "
            f"program has rewritten them; run `featcache check {path}`"
        )
    return made


def check_arrays(path: Path, layout: fmt.Layout) -> None:
    """Raise StoreError unless rows.csv and the small arrays have the sizes and types that follow from the features."""
    if layout.rows * CSV_BYTES > regular(path / "rows.csv", StoreError).stat().st_size:
        raise StoreError(
            f"{path / 'features' / 'zarr.json'}: shape has {layout.rows} clips, more than rows.csv; "
            f"try `featcache repair {path}`"
        )
    S, T, columns = layout.block_rows, layout.windows, len(fmt.BLOCK_FILES) + 1
    times = ((layout.rows, T), (S, T), "float64")
    expected = {
        "window_start": times,
        "window_stop": times,
        "length": ((layout.rows,), (S,), "uint32"),
        "state": ((layout.rows,), (S,), "uint8"),
        "digest": ((layout.blocks, columns), (1, columns), "uint32"),
    }
    for name, (shape, chunks, dtype) in expected.items():
        array = _array(path, name)
        stored = (array.shape, array.chunk_grid.configuration.chunk_shape, array.data_type)
        for part, is_, should in zip(
            ("shape", "chunk_shape", "data_type"), stored, (shape, chunks, dtype), strict=True
        ):
            if is_ != should:
                raise StoreError(
                    f"{path / name / 'zarr.json'}: {part} is {is_}, but the features need {should}; "
                    f"try `featcache repair {path}`"
                )
        if not _plain(array.codecs):
            raise StoreError(
                f"{path / name / 'zarr.json'}: codecs are not those of plain bytes; try `featcache repair`"
            )


def _array(path: Path, name: str) -> _Array:
    fix = f"try `featcache repair {path}`"
    return schema.read(path / name / "zarr.json", _Array, error=StoreError, fix=fix, newer=True)


def _plain(codecs: tuple[_Codec, ...], *more: str) -> bool:
    """Return whether values are stored as little-endian bytes, and then by the codecs `more`."""
    first = codecs[0].configuration if codecs else {}
    return [codec.name for codec in codecs] == ["bytes", *more] and first.get("endian", "little") == "little"


def _matches(features: _Array, layout: fmt.Layout, archived: bool, place: Path) -> bool:
    """Return whether the features are in shards of this layout: rows in order, or an archive's compressed chunks."""
    whole_rows = (layout.windows, *layout.row_shape)
    if [codec.name for codec in features.codecs] != ["sharding_indexed"]:
        return False
    try:
        sharding = schema.from_json(features.codecs[0].configuration, _Sharding, "codecs[0].configuration", newer=True)
    except ConfigError as error:
        raise StoreError(f"{place}: {error}; try `featcache repair`, or restore it from a copy of the store") from None
    rows = min(fmt.PACKED_ROWS, layout.block_rows) if archived else layout.chunk_rows
    return (
        _plain(sharding.codecs, *["zstd"] * archived)
        and _plain(sharding.index_codecs, "crc32c")
        and sharding.index_location == "end"
        and sharding.chunk_shape == (rows, *whole_rows)
        and features.chunk_grid.configuration.chunk_shape == (layout.block_rows, *whole_rows)
    )
