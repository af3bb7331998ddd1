"""Words on the command line -> the clips to predict, with the stores that already have their features.

A word is a manifest, a folder of media, a media file, a store (its `manifest.csv` is next to it), or a folder of the
stores of one manifest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from featcache import FeatureStore, Manifest
from featcache.endings import VIDEO
from featcache.errors import ArgumentsError, ConfigError, ManifestError
from featcache.files import near
from featcache.manifest import Clip
from featcache.scanning import MEDIA, unlabelled, whole_files
from featcache.store.sources import check_sources
from featcache.wording import first, quoted
from pipelines.training.runs import is_run

FILES = "clips"  #: begin of the name of the manifest of files that are named one by one


@dataclass(frozen=True)
class Source:
    """Clips of one manifest, and the stores of their features that were named or found."""

    manifest: Manifest
    where: str  #: the word that named the clips
    stores: tuple[Path, ...] = ()  #: they are opened by `features.matched`
    named: bool = False  #: True if the stores were named one by one, so that each of them must be of use
    media: bool = False  #: True for media without a manifest: their domain is not known
    gone: frozenset[str] = frozenset()  #: ids of clips that only the stores have
    refused: Mapping[str, str] = field(default_factory=dict)  #: file that no manifest can hold -> the reason
    rows: list[int] = field(default_factory=list)  #: rows of the manifest to predict


def sources(
    words: Sequence[Path],
    domain: str,
    *,
    domains: Sequence[str] = (),
    split: str = "",
    stores: Path | None = None,
) -> list[Source]:
    """Return the clips that these words name; files that are named one by one come last.

    stores: folder of all stores, which may have some of manifests and media. domain: the domain of media without a
    manifest. domains, split: predict only these clips of manifests and stores.
    FeatcacheError if a word names no clips, or if two clips have the same id.
    """
    if not words:
        raise ConfigError("no clips to predict; name a manifest, a folder of videos, video files, or stores")
    if "" in domains:
        raise ArgumentsError("--domain is empty; name a domain of the clips, or leave it out")
    found = [_with_stores(source, stores) for source in _sources(words, domain)]
    chosen = [_chosen(source, domains, split) for source in found]
    if not any(source.rows for source in chosen):
        splits: dict[str, set[str]] = {}
        for clip in (clip for source in found for clip in source.manifest):
            splits.setdefault(clip.domain, set()).add(clip.split)
        has = [f"{name} ({', '.join(sorted(splits[name]))})" if split else name for name in sorted(splits)]
        asked = [*(f"--domain {name}" for name in domains), *([f"--split {split}"] if split else [])]
        there = f"the domains {'(splits) ' * bool(split)}of the clips are: {first(has)}"
        raise ConfigError(f"no clip has {' and '.join(asked)}; {there}")
    _check_ids(chosen)
    return [source for source in chosen if source.rows]


def _sources(words: Sequence[Path], domain: str) -> Iterator[Source]:
    files, stores = list[Path](), dict[Path, list[Path]]()
    for word in words:
        if (word / "zarr.json").is_file():
            same = stores.setdefault(word.absolute().parent, [])
            same += [word] if word not in same else []
        elif word.is_dir() and not (word / "manifest.csv").is_file():
            _refuse_other_folders(word)
            yield _of_media(str(word), unlabelled(word, domain))
        elif word.is_dir():
            yield Source(Manifest.read(word / "manifest.csv"), str(word), _in_folder(word))
        elif word.suffix.lower() == ".csv":
            copied = word.name == "manifest.csv"  # `extract` has written it next to its stores
            yield Source(Manifest.read(word), str(word), _in_folder(word.parent) if copied else ())
        elif word.is_file() and word.suffix.lower() in MEDIA:
            files.append(word)
        else:
            raise _nothing(word)
    for folder, paths in stores.items():
        yield _of_stores(folder, paths)
    if files:
        yield _of_media(str(files[0]), whole_files(_name_of(files), files, domain))


def _of_media(where: str, found: tuple[Manifest, dict[str, str]]) -> Source:
    """Return the clips of media without a manifest."""
    manifest, refused = found
    return Source(manifest, where, media=True, refused=refused)


def _name_of(files: Sequence[Path]) -> str:
    """Return the name of a manifest of these very files, so that stores of other files are never taken for them."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"{FILES}-{sha256(repr(states).encode(errors='surrogateescape')).hexdigest()[:10]}"


def _in_folder(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.zarr")))


def _with_stores(source: Source, stores: Path | None) -> Source:
    """Return the source with the stores of its manifest in the folder of all stores, if none were named.

    StoreError if these stores were made of other files of the same names.
    """
    if not stores or source.stores:
        return source
    folder = stores / source.manifest.name
    found = replace(_behind(source, folder) if source.media else source, stores=_in_folder(folder))
    check_sources(folder, found.manifest, moved=not source.media)
    return found


def _behind(source: Source, folder: Path) -> Source:
    """Return the source with the media that a folder of stores has had before, in its order, then the new ones.

    Media that are gone stay in the manifest, because the rows of the stores follow it, but they are not predicted.
    ConfigError for new media in a folder whose stores belong to a manifest with labels, which they would change.
    """
    if not (folder / "manifest.csv").is_file():
        return source
    here = {clip.clip_id: clip for clip in source.manifest}
    before = Manifest.read(folder / "manifest.csv").relocated(source.manifest.root)
    known = {clip.clip_id: clip for clip in before}
    new = [name for name in here if name not in known]
    if new and any(clip.labels or clip.split != "test" for clip in before):
        raise ConfigError(
            f"{folder} has the stores of a manifest with labels, which lacks {quoted(new)}; name another --stores "
            "folder, or add the clips to that manifest"
        )
    same = {name for name in known.keys() & here.keys() if known[name].identity() == here[name].identity()}
    clips = known | here | {name: replace(known[name], source=here[name].source) for name in same}
    gone = frozenset(clips.keys() - here.keys())
    return replace(source, manifest=replace(source.manifest, clips=tuple(clips.values())), gone=gone)


def _nothing(word: Path) -> ConfigError:
    if not word.exists():
        return ConfigError(f"no clips at {word}: it does not exist{near(word)}")
    return ConfigError(
        f"{word} names no clips; name a manifest (.csv), a folder of media, a media file ({first(sorted(VIDEO), 5)}) "
        "or a store"
    )


def _refuse_other_folders(folder: Path) -> None:
    """Raise ConfigError for the folder of all stores or all runs, and for stores whose manifest is missing."""
    of_manifests = sorted(str(path.parent) for path in folder.glob("*/manifest.csv") if any(path.parent.glob("*.zarr")))
    if of_manifests:
        raise ConfigError(
            f"{folder} has the stores of several manifests; name the folder of one: {first(of_manifests)}"
        )
    if any(map(is_run, folder.iterdir())):
        raise ConfigError(f"{folder} is a folder of runs, not of clips; name one of its runs")
    if any(folder.glob("*.zarr")):
        raise ConfigError(f"{folder} has stores, but no manifest.csv; name its stores one by one")


def _of_stores(folder: Path, stores: Sequence[Path]) -> Source:
    """Return the clips of stores that were named one by one, and are in one folder."""
    has = (folder / "manifest.csv").is_file()
    manifest = Manifest.read(folder / "manifest.csv") if has else _manifest_of(FeatureStore.open(stores[0]), folder)
    return Source(manifest, ", ".join(map(str, stores)), tuple(stores), named=True)


def _manifest_of(store: FeatureStore, folder: Path) -> Manifest:
    """Return a manifest of the clips that a store records; their domains are those of no run."""

    def clip(row: dict[str, str]) -> Clip:
        start, stop, fps = (float(row[name]) if row[name] else None for name in ("start", "stop", "fps"))
        return Clip(row["clip_id"], "-", "test", row["source"], start, stop, row["unit"], {}, row["caption"], fps)

    return Manifest(store.manifest, tuple(map(clip, store.rows)), folder)


def _chosen(source: Source, domains: Sequence[str], split: str) -> Source:
    """Return the source with its rows to predict."""
    if source.media and (domains or split):
        raise ConfigError(
            f"--domain and --split choose clips of manifests and stores, but {source.where} has no manifest; leave "
            "them out, or take the clips for those of a domain with --as-domain"
        )
    clips = [(row, clip) for row, clip in enumerate(source.manifest.clips) if clip.clip_id not in source.gone]
    rows = [row for row, clip in clips if (not domains or clip.domain in domains) and split in ("", clip.split)]
    return replace(source, rows=rows)


def _check_ids(found: Sequence[Source]) -> None:
    """Raise ManifestError if two clips to predict have the same id, or two captions."""
    seen: dict[tuple[str, bool], str] = {}
    twice: dict[str, tuple[str, str]] = {}  # id -> the places of its clips
    for source in found:
        for clip in (source.manifest.clips[row] for row in source.rows):
            if (one := (clip.clip_id, bool(clip.of))) in seen:
                twice[clip.clip_id] = seen[one], source.where
            seen[one] = source.where
    if twice:
        places = " and in ".join(dict.fromkeys(next(iter(twice.values()))))
        count = "a clip comes" if len(twice) == 1 else f"{len(twice)} clips come"
        raise ManifestError(
            f"{count} twice, in {places}: {quoted(twice)}; name them once, or give different clips different ids"
        )
