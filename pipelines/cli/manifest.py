"""The commands `featcache manifest scan`, `from-csv`, `build` and `join`, which make manifests."""

import warnings
from pathlib import Path

import click

from featcache.wording import first, visible
from pipelines.cli._completion import entries
from pipelines.cli._shared import PATH, Commands, Words, echo, note, progress_bar

UNITS = ("seconds", "frames")


@click.group(cls=Commands)
def manifest() -> None:
    """Make manifests: lists of clips, one CSV row per clip.

    \b
    Example:
      featcache manifest scan videos --layout '{domain}/{label}/{clip_id}'
    """


@manifest.command("scan")
@click.argument("folder", type=PATH)
@click.option("--domain", help="Domain of all clips whose layout has no {domain}.  [default: FOLDER's name]")
@click.option(
    "--layout",
    multiple=True,
    help="Pattern of the paths, e.g. '{domain}/{label}/{clip_id}'; may be repeated, and the first that fits a path "
    "counts.  [default with --domain: '{label}/{clip_id}', or '{clip_id}' where FOLDER has no folders]",
)
@click.option("--out", type=PATH, help="File to write.  [default: FOLDER/FOLDER'S NAME.csv]")
@click.option("--overwrite", is_flag=True, help="Replace a different manifest, such as one edited by hand.")
@click.option("--test-share", default=0.3, show_default=True, help="Share of each class in the test split.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split into train and test.")
@click.option("--fps", type=float, help="Read folders of images as clips with this frame rate.")
@click.option(
    "--unlabelled",
    is_flag=True,
    help="No clip has a label: FOLDER is a target only. Without --layout, clips may be in folders of any depth.",
)
def manifest_scan(
    folder: Path,
    domain: str | None,
    layout: Words,
    out: Path | None,
    overwrite: bool,
    test_share: float,
    seed: int,
    fps: float | None,
    unlabelled: bool,
) -> None:
    """Make a manifest of the videos, sounds and images in FOLDER.

    The parts in braces are clip_id, domain, split and label; leave out file endings. Without {split}, a random share of
    each class becomes the test split. Clips without labels can be the target of a run: heads adapt to them, and
    `featcache predict` labels them. `featcache manifest join` joins the manifests of two folders.

    \b
    Examples:
      featcache manifest scan videos --layout '{domain}/{label}/{clip_id}'
      featcache manifest scan source --domain A        # source/CLASS/CLIP.mp4
      featcache manifest scan target --domain B --unlabelled
    """
    from featcache.checking import spellings
    from featcache.manifests import scan
    from featcache.scanning import counted

    scanned = scan(
        folder,
        layout,
        domain=domain,
        out=out,
        overwrite=overwrite,
        test_share=test_share,
        seed=seed,
        fps=fps,
        unlabelled=unlabelled,
    )
    if scanned.unmatched:
        paths = first(map(visible, scanned.unmatched), between="\n  ")
        note(f"not in the manifest, because the path does not match the layout:\n  {paths}")
    if scanned.renamed:
        note("several files have the same clip_id, so their paths are used as clip ids")
    if scanned.joined:
        folders = first(map(visible, scanned.joined), between="\n  ")
        note(f"one clip each, because it holds two folders of pictures of flow:\n  {folders}")
    if scanned.left_out:
        files = counted(scanned.left_out)
        note(f"not in the manifest: {files} (these endings are of no media, or of arrays next to media)")
    for problem in spellings(scanned.manifest):
        note(f"Warning: {problem}")
    classes = scanned.manifest.classes.get("label", ())
    note(f"{len(scanned.manifest)} clips, domains {', '.join(scanned.manifest.domains)}, {len(classes)} classes")
    for name in scanned.manifest.domains:
        rows = scanned.manifest.rows(domain=name)
        if lacking := sum(not scanned.manifest.clips[row].labels for row in rows):
            only = "; it can be a target only" if lacking == len(rows) else ""
            note(f"{name}: {lacking} of {len(rows)} clips have no label{only}")
    echo(out or scanned.manifest.root / f"{scanned.manifest.name}.csv")


@manifest.command("from-csv")
@click.argument("file", type=PATH)
@click.option("--clip-id", multiple=True, required=True, metavar="COLUMN", help="Ids; several columns are joined by _.")
@click.option("--label", multiple=True, metavar="[KIND=]COLUMN", help="Labels; repeat it for several label kinds.")
@click.option("--domain", default="", metavar="COLUMN", help="Domains.")
@click.option("--domain-name", default="", help="Domain of all clips.  [default: the name of FILE]")
@click.option("--split", default="", metavar="COLUMN", help="Splits.  [default: a share of each class is for tests]")
@click.option("--source", default="", metavar="COLUMN", help="Files.  [default: with --media, named like the clips]")
@click.option("--media", type=PATH, help="Folder of the files. Without it and --source, clips have features only.")
@click.option("--start", default="", metavar="COLUMN", help="Starts of the clips in their files.")
@click.option("--stop", default="", metavar="COLUMN", help="Ends of the clips in their files, exclusive.")
@click.option("--unit", type=click.Choice(UNITS), help="Unit of start and stop.  [default: by their names and values]")
@click.option("--fps", default="", metavar="COLUMN|NUMBER", help="Frame rate of folders of images.")
@click.option("--caption", default="", metavar="COLUMN", help="Sentences about the clips.")
@click.option("--of", default="", metavar="COLUMN", help="In a table of captions: the ids of the captioned clips.")
@click.option("--out", type=PATH, help="File to write.  [default: FILE'S NAME_clips.csv, next to FILE]")
@click.option("--overwrite", is_flag=True, help="Replace a different manifest, such as one edited by hand.")
@click.option("--test-share", default=0.3, show_default=True, help="Share of each class in the test split.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split into train and test.")
def manifest_from_csv(
    file: Path,
    clip_id: Words,
    label: Words,
    domain: str,
    domain_name: str,
    split: str,
    source: str,
    media: Path | None,
    start: str,
    stop: str,
    unit: str | None,
    fps: str,
    caption: str,
    of: str,
    out: Path | None,
    overwrite: bool,
    test_share: float,
    seed: int,
) -> None:
    """Make a manifest of a table, each row of which is a clip.

    FILE is CSV (.csv, .tsv, .txt), JSON or JSON lines, Parquet, HDF5, a pickled pandas frame (nothing in it is
    executed), or a data set folder of Hugging Face. Start and stop may be seconds, frames, or times such as 00:01:02.5;
    start_ms and the like become seconds.

    \b
    Examples:
      featcache manifest from-csv labels.csv --clip-id video --label action --domain camera --media videos
      featcache manifest from-csv P01.csv --clip-id narration_id --label verb --label noun --domain-name P01
    """
    from featcache.checking import spellings
    from featcache.clip_tables import from_csv

    with warnings.catch_warnings(record=True, action="always") as caught:
        made = from_csv(
            file,
            clip_id=clip_id,
            label=label,
            domain=domain,
            domain_name=domain_name,
            split=split,
            source=source,
            media=media,
            start=start,
            stop=stop,
            unit=unit,
            fps=fps,
            caption=caption,
            of=of,
            out=out,
            overwrite=overwrite,
            test_share=test_share,
            seed=seed,
        )
    for problem in (*(str(warning.message) for warning in caught), *spellings(made)):
        note(f"Warning: {problem}")
    classes = ", ".join(f"{len(names)} of {kind}" for kind, names in made.classes.items()) or "none"
    note(f"{len(made)} clips, domains {first(made.domains)}, classes: {classes}")
    echo(out or made.root / f"{made.name}.csv")


@manifest.command("build")
@click.argument("benchmark", shell_complete=entries("benchmark"))
@click.argument("folder", type=PATH)
def manifest_build(benchmark: str, folder: Path) -> None:
    """Make the manifest of a published BENCHMARK.

    BENCHMARK is a name from `featcache list benchmarks`, and FOLDER has its files. The files are the official
    annotations, which you download yourself. data_manifests/BENCHMARK.md, which `featcache show benchmark BENCHMARK`
    prints, lists their addresses and the place of the videos. The command warns if a split has another number of clips
    than published. The demo benchmark `kitchens` draws its own videos into FOLDER.

    \b
    Example:
      featcache manifest build kitchens demo/videos
    """
    from featcache.joining import captions_of
    from featcache.manifests import build

    with progress_bar(f"build {benchmark}", "clip") as progress, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        built = build(benchmark, folder, progress=progress)
    for warning in caught:
        note(f"Warning: {warning.message}")
    note(f"{len(built)} clips, domains {', '.join(built.domains)}")
    path = folder / f"{built.name}.csv"
    echo(path)
    if captions_of(path).is_file():
        echo(captions_of(path))


@manifest.command()
@click.argument("manifests", nargs=-1, required=True, type=PATH)
@click.argument("out", type=PATH)
@click.option("--prefix", is_flag=True, help="Use DOMAIN/CLIP as clip ids, for data sets that share clip ids.")
@click.option("--overwrite", is_flag=True, help="Replace a different manifest.")
def join(manifests: tuple[Path, ...], out: Path, prefix: bool, overwrite: bool) -> None:
    """Join MANIFESTS into OUT, for runs from one data set to another.

    Domains distinguish the data sets. Captions are joined as well: if a manifest A.csv has captions in A_captions.csv,
    OUT_captions.csv is also written. Features that were extracted for one of the manifests can be copied with
    `featcache import store`, unless --prefix changed the clip ids.

    \b
    Example:
      featcache manifest join MSRVTT/msrvtt.csv MSVD/msvd.csv msrvtt_msvd.csv
    """
    from featcache.manifests import join as joined

    for path, part in joined(manifests, out, prefix=prefix, overwrite=overwrite).items():
        note(f"{len(part)} {'clips' if path == out else 'captions'}, domains {', '.join(part.domains)}")
        echo(path)
