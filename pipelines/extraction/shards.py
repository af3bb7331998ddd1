"""Shards: a manifest's clips divided by a hash of their ids, so that jobs without a connection extract a part each.

The part of shard i of n is a folder of stores of its own, STORES/MANIFEST/.shards/i-of-n, and only one job writes it.
`merging.merge` makes the whole stores of the parts. A clip stays in its shard when clips are appended to the manifest.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

from featcache.errors import ArgumentsError
from featcache.extractors import Extractor
from featcache.manifest import Manifest
from featcache.remote.cache import NothingThereError
from featcache.store import FeatureStore, StoreWriter
from featcache.store.copying import Place, copy
from featcache.store.places import dtypes_below, local
from featcache.store.provenance import Files, news
from featcache.store.sources import check_sources
from featcache.store.writer import check_folder, set_aside, stored_dtype
from featcache.windows import Plan
from pipelines.extraction.extract import AUTO, check_readable, recipe_of

PARTS = ".shards"  #: the folder of all parts, next to the stores that are made of them
MOST = 100_000  #: shards


class Shard(NamedTuple):
    """Shard number `number` of `of`; numbers begin with 0, as those of `sbatch --array=0-3` do."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "i/n"; ArgumentsError for anything else, and for a number that does not begin with 0."""
        number, slash, of = text.partition("/")
        if not (slash and all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (number, of))):
            raise ArgumentsError(f"--shards {text}: write i/n, such as 0/4, 1/4, 2/4 and 3/4 for four jobs")
        if not 0 < int(of) <= MOST:
            raise ArgumentsError(f"--shards {text}: n is {of}; give 1 to {MOST}")
        if int(number) >= int(of):
            raise ArgumentsError(
                f"--shards {text}: shards are counted from 0, so those of {of} jobs are 0/{of} to {int(of) - 1}/{of}; "
                f"for Slurm, write `sbatch --array=0-{int(of) - 1}`"
            )
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, clip_id: str) -> bool:
        """Return whether a clip is in this shard."""
        return self == shard_of(clip_id, self.of)

    def clips(self, manifest: Manifest) -> Manifest:
        """Return the clips of this shard, in their order."""
        return replace(manifest, clips=tuple(clip for clip in manifest if self.has(clip.clip_id)))

    def folder(self, home: Path) -> Path:
        """Return the folder of this part of the stores in `home`."""
        return home / PARTS / f"{self.number}-of-{self.of}"


def shard_of(clip_id: str, of: int) -> Shard:
    """Return the shard that a clip belongs to, of so many."""
    return Shard(crc32(clip_id.encode(errors="backslashreplace")) % of, of)


def parts(home: Path, store: str) -> dict[Shard, Path]:
    """Return shard -> path of its part of a store, of all parts that are there, in order."""
    found = {}
    for folder in home.glob(f"{PARTS}/*-of-*"):
        number, _, of = folder.name.partition("-of-")
        if number.isdecimal() and of.isdecimal() and (shard := Shard(int(number), int(of))).folder(home) == folder:
            found[shard] = folder / f"{store}.zarr"
    return {shard: found[shard] for shard in sorted(found, key=lambda s: (s.of, s.number)) if found[shard].exists()}


def stores_of_parts(home: Path) -> list[str]:
    """Return the names of all stores that have parts."""
    return sorted({path.stem for path in home.glob(f"{PARTS}/*-of-*/*.zarr")})


class Part(NamedTuple):
    """The part of an extraction that this command does."""

    clips: Manifest
    folder: Path  #: of its stores
    dtype: str | dict[str, str]  #: of all stores, or extractor -> dtype


def part_of(
    manifest: Manifest,
    extractors: Sequence[Extractor],
    home: Path,
    shard: Shard | None,
    plan: Plan,
    dtype: str,
    url: str = "",
) -> Part:
    """Return the part of a shard, or the whole without one; a part gets the rows that the whole stores have.

    home: folder of the stores, and of their parts. url: of the folder that `home` is the work folder of; the whole
    stores, and the dtypes of the other parts, are read from there.
    With the dtype `auto` all parts of a store have one dtype: float32, if a value of one of them needs it.
    Raises StoreError, as `extract` does, if the whole stores were made from other clips, other files or by another
    recipe, and ConfigError if no clip has a source.
    """
    check_readable(manifest, extractors)
    if shard is None:
        return Part(manifest, home, dtype)
    whole = _whole(home, url, [extractor.store for extractor in extractors])
    check_folder(whole, manifest)
    check_sources(whole, manifest)
    part, files = Part(shard.clips(manifest), shard.folder(home), dtypes := {}), Files()
    there = dtypes_below(f"{url}/{PARTS}", rf"\d+-of-{shard.of}/.+") if url and dtype == AUTO else {}
    for extractor in extractors if part.clips.clips else ():
        store = f"{extractor.store}.zarr"
        others = [path for other, path in parts(home, extractor.store).items() if other.of == shard.of]
        stored = {stored_dtype(path) for path in (whole / store, *others)}
        stored |= {found for name, found in there.items() if name.endswith(f"/{store}")}
        dtypes[extractor.name] = _dtype(home, shard, extractor.store, dtype, stored)
        taking = _Taking(manifest, whole / store, part.clips, part.folder / store, files)
        _take(taking, extractor, plan, dtype, dtypes[extractor.name])
    return part


def _whole(home: Path, url: str, names: Sequence[str]) -> Path:
    """Return the folder with the whole stores of these names, as far as they are there; that of a URL is its copy."""
    try:
        return local(url, {"manifest.csv", *(f"{name}.zarr" for name in names)}) if url else home
    except NothingThereError:
        return home / PARTS  # which has none


def _dtype(home: Path, shard: Shard, store: str, dtype: str, stored: Collection[str]) -> str:
    """Return the dtype of a part, and set its float16 store aside if another part needs float32.

    stored: dtypes of the whole store and of all parts.
    """
    if dtype != AUTO or "float32" not in stored:
        return dtype
    if stored_dtype(own := shard.folder(home) / f"{store}.zarr") == "float16":
        set_aside(own, "float16")
    return "float32"


class _Taking(NamedTuple):
    """The rows that a part takes from a whole store."""

    manifest: Manifest
    whole: Path
    clips: Manifest  #: those of the part
    part: Path
    files: Files


def _take(taking: _Taking, extractor: Extractor, plan: Plan, dtype: str, chosen: str) -> None:
    """Copy the rows that the whole store has into its part, so that only the others are computed.

    What is found out about their files is recorded in the part only, so each record has one writer.
    """
    if not (stored := stored_dtype(taking.whole)):
        return
    whole, part = FeatureStore.open(taking.whole), taking.part
    whole.check_recipe(recipe_of(extractor, plan, stored if dtype == AUTO else dtype))
    if chosen not in (AUTO, stored):  # another part needs float32, so all rows are computed again
        return
    row_of = {clip_id: row for row, clip_id in enumerate(whole.clip_ids) if whole.state[row]}
    if stored_dtype(part) and FeatureStore.open(part).windows < whole.windows:  # no room for new clips that fit `whole`
        set_aside(part, stored)
    with StoreWriter.open(
        part,
        taking.clips,
        whole.recipe,
        row_shape=whole.row_shape,
        windows=whole.windows,
        facts=whole.facts,
    ) as writer:
        ids = {row: taking.clips.clips[row].clip_id for row in writer.pending}
        places = [Place(row, whole, row_of[clip_id]) for row, clip_id in ids.items() if clip_id in row_of]
        known = news(taking.whole, taking.manifest, taking.files, {place.there for place in places}) if places else {}
        copy(writer, places, known=known)
