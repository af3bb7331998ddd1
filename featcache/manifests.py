"""Manifests made and written: the functions of `featcache manifest scan`, `build` and `join`."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path

from featcache import builders, joining, scanning
from featcache.arguments import PathLike, numeric, paths, some
from featcache.errors import ConfigError, ManifestError
from featcache.manifest import Manifest
from featcache.progress import Progress, reporting
from featcache.scanning import Scan


def scan(
    folder: PathLike,
    layout: str | Sequence[str] = (),
    *,
    domain: str | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    test_share: float = 0.3,
    seed: int = 0,
    fps: float | None = None,
    unlabelled: bool = False,
) -> Scan:
    """Make a manifest of the videos, sounds and images in a folder, and write it.

    folder: of the media, with all folders in it.
    layout: pattern of the paths, such as "{domain}/{label}/{clip_id}", or several, of which the first that fits a path
        counts (featcache/scanning.py). domain: of all clips whose layout has none (default: the folder's name). With a
        domain the default layout is "{label}/{clip_id}", or "{clip_id}" where the folder has no folders.
    unlabelled: True if no clip has a label; without a layout, clips may then be in folders of any depth.
    out: file to write (default: FOLDER/FOLDER'S NAME.csv). overwrite: replace a different manifest.
    test_share: share of each class in the test split, where the layout has no {split}. seed: of that split.
    fps: frame rate with which folders of images are read as clips.

    Returns the manifest, with the files that are not in it. Raises ManifestError when the folder has no media, no path
    fits a layout, or `out` exists and differs; ArgumentsError without layout and domain, unless `unlabelled`, and if
    they contradict.

    >>> featcache.scan("videos", "{domain}/{label}/{clip_id}").manifest          # doctest: +SKIP
    >>> featcache.scan("target", domain="B", unlabelled=True).manifest           # doctest: +SKIP
    """
    for option, value, kind in (("test_share", test_share, Real), ("seed", seed, Integral), ("fps", fps, Real)):
        numeric(option, value, kind)
    home = Path(folder)
    path = Path(out) if out else home / f"{home.resolve().name}.csv"
    scanned = scanning.scan(
        home,
        layout,
        name=path.stem,
        domain=domain,
        labelled=not unlabelled,
        test_share=test_share,
        seed=seed,
        fps=fps,
    )
    write(scanned.manifest, path, overwrite, "--out")
    return replace(scanned, manifest=scanned.manifest.relocated(path.parent))


def build(benchmark: str, folder: PathLike, *, progress: Progress | bool = False) -> Manifest:
    """Make the manifest of a published benchmark from its files in a folder, and write it to FOLDER/BENCHMARK.csv.

    benchmark: a name of `featcache list benchmarks`. folder: of the official annotations, which you download;
    `kitchens`, the demo, draws its own videos there. progress: True for a bar, or a callback (done, total).

    Warns if a split has another number of clips than published. Raises ConfigError for an unknown benchmark, and
    ManifestError for missing files, which it names.

    >>> featcache.build("kitchens", "demo/videos")                               # doctest: +SKIP
    """
    with reporting(progress, f"build {benchmark}", "clip") as moved:
        built = builders.load(benchmark).build(Path(folder), progress=moved)
    if not isinstance(built, Manifest):
        raise ConfigError(f"benchmark {benchmark}: build returned {built!r:.60}; it must return a Manifest")
    return built


def join(
    manifests: PathLike | Sequence[PathLike], out: PathLike, *, prefix: bool = False, overwrite: bool = False
) -> dict[Path, Manifest]:
    """Join manifests into one, for runs from one data set to another, and write it to `out`.

    manifests: the paths of their files. Captions are joined, too: those of A.csv are in A_captions.csv.
    out: file to write; overwrite: replace a different manifest. prefix: use DOMAIN/CLIP as clip ids, for data sets
    that share clip ids.

    Returns {path: manifest} of the joined manifest and, where there are captions, of their joined manifest. Raises
    ManifestError for ids that clash, for label columns that do not fit together, and if a file exists and differs.
    """
    some("manifests", paths(manifests))
    joined = joining.join(paths(manifests), Path(out), prefix=prefix)
    for path, manifest in joined.items():
        check_out(manifest, path, overwrite, "OUT")
    for path, manifest in joined.items():
        manifest.write(path)
    return joined


def write(manifest: Manifest, out: Path, overwrite: bool, option: str) -> None:
    """Write a manifest to a file; ManifestError if the file is another manifest. option: it names another file."""
    check_out(manifest, out, overwrite, option)
    manifest.write(out)


def check_out(manifest: Manifest, out: Path, overwrite: bool, option: str) -> None:
    """Raise ManifestError if a file is another manifest, unless it may be replaced."""
    if out.is_file() and not overwrite and out.read_bytes() != manifest.content(out.parent):
        way = "with --out" if option == "--out" else f"as {option}"
        raise ManifestError(f"{out} exists and differs; name another file {way}, or replace it with --overwrite")
