"""The commands `featcache manifest scan`, `build` and `join`, which make manifests."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.wording import first
from pipelines.cli._shared import PATH, Commands, note, progress_bar

if TYPE_CHECKING:
    from featcache.scan import Scan


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
    "layouts",
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
    layouts: tuple[str, ...],
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
    from featcache.scan import scan

    if not layouts and domain is None:
        raise click.UsageError("name the parts of the paths with --layout, or the domain of all clips with --domain")
    out = out or folder / f"{folder.resolve().name}.csv"
    scanned = scan(
        folder,
        layouts,
        name=out.stem,
        domain=domain,
        labelled=not unlabelled,
        test_share=test_share,
        seed=seed,
        fps=fps,
    )
    if out.is_file() and not overwrite and out.read_bytes() != scanned.manifest.content(out.parent):
        raise click.ClickException(
            f"{out} exists and differs; name another file with --out, or replace it with --overwrite"
        )
    scanned.manifest.write(out)
    _print(scanned)
    click.echo(out)


def _print(scanned: "Scan") -> None:
    """Print the files that are not in the manifest, its domains and classes, and the clips without labels."""
    from featcache.check import spellings
    from featcache.scan import counted

    if scanned.unmatched:
        paths = first(map(str, scanned.unmatched), between="\n  ")
        note(f"not in the manifest, because the path does not match the layout:\n  {paths}")
    if scanned.renamed:
        note("several files have the same clip_id, so their paths are used as clip ids")
    if scanned.left_out:
        files = counted(scanned.left_out)
        note(f"not in the manifest: {files} (these endings are of no media, or of arrays next to media)")
    for problem in spellings(scanned.manifest):
        note(f"Warning: {problem}")
    classes = scanned.manifest.classes.get("label", ())
    note(f"{len(scanned.manifest)} clips, domains {', '.join(scanned.manifest.domains)}, {len(classes)} classes")
    for domain in scanned.manifest.domains:
        rows = scanned.manifest.rows(domain=domain)
        if lacking := sum(not scanned.manifest.clips[row].labels for row in rows):
            only = "; it can be a target only" if lacking == len(rows) else ""
            note(f"{domain}: {lacking} of {len(rows)} clips have no label{only}")


@manifest.command("build")
@click.argument("benchmark")
@click.argument("folder", type=PATH)
def manifest_build(benchmark: str, folder: Path) -> None:
    """Make the manifest of a published BENCHMARK.

    BENCHMARK is a name from `featcache list benchmarks`, and FOLDER has its files. The files are the official
    annotations, which you download yourself. data_manifests/BENCHMARK.md lists their addresses and the place of the
    videos. The command warns if a split has another number of clips than published. The demo benchmark `kitchens` draws
    its own videos into FOLDER.

    \b
    Example:
      featcache manifest build kitchens demo/videos
    """
    import warnings

    from featcache import builders
    from featcache.joining import captions_of

    with progress_bar(f"build {benchmark}", "clip") as progress, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        built = builders.load(benchmark).build(folder, progress=progress)
    for warning in caught:
        note(f"Warning: {warning.message}")
    note(f"{len(built)} clips, domains {', '.join(built.domains)}")
    path = folder / f"{built.name}.csv"
    click.echo(path)
    if captions_of(path).is_file():
        click.echo(captions_of(path))


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
    from featcache.joining import join as joined_of

    joined = joined_of(manifests, out, prefix=prefix)
    for path, part in joined.items():
        if path.is_file() and not overwrite and path.read_bytes() != part.content(path.parent):
            raise click.ClickException(
                f"{path} exists and differs; name another file as OUT, or replace it with --overwrite"
            )
    for path, part in joined.items():
        part.write(path)
        note(f"{len(part)} {'clips' if path == out else 'captions'}, domains {', '.join(part.domains)}")
        click.echo(path)
