"""Commands that make manifests: scan, build, join."""

from pathlib import Path

import click

from pipelines.cli._shared import PATH, Commands, note, progress_bar


@click.group(cls=Commands)
def manifest() -> None:
    """Make a manifest: one CSV row per clip.

    \b
    Example:
      featcache manifest scan videos --layout '{domain}/{label}/{clip_id}'
    """


@manifest.command("scan")
@click.argument("folder", type=PATH)
@click.option("--layout", required=True, help="How paths name clips, e.g. '{domain}/{label}/{clip_id}'.")
@click.option("--out", type=PATH, help="Where to write it.  [default: FOLDER/FOLDER'S NAME.csv]")
@click.option("--overwrite", is_flag=True, help="Replace a manifest that differs, edited by hand for instance.")
@click.option("--test-share", default=0.3, show_default=True, help="Share of each class that is kept for testing.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split into train and test.")
@click.option("--fps", type=float, help="Take folders of images as clips with this frame rate.")
def manifest_scan(
    folder: Path, layout: str, out: Path | None, overwrite: bool, test_share: float, seed: int, fps: float | None
) -> None:
    """Make a manifest of the videos, sounds and images in FOLDER.

    Parts in braces are clip_id, domain, split and label; file endings are left out. Without {split}, a seeded share of
    each class becomes the test split.

    \b
    Example:
      featcache manifest scan videos --layout '{domain}/{label}/{clip_id}'
    """
    from featcache.scan import scan

    out = out or folder / f"{folder.resolve().name}.csv"
    found = scan(folder, layout, name=out.stem, test_share=test_share, seed=seed, fps=fps)
    if out.is_file() and not overwrite and out.read_bytes() != found.manifest.content(out.parent):
        raise click.ClickException(
            f"{out} exists and says something else; name another file with --out, or replace it with --overwrite"
        )
    found.manifest.write(out)
    for path in found.unmatched[:10]:
        note(f"not in the manifest, its path does not fit the layout: {path}")
    if len(found.unmatched) > 10:
        note(f"... and {len(found.unmatched) - 10} more")
    if found.renamed:
        note("several files have the same clip_id, so the clips are called by their paths")
    labels = found.manifest.classes.get("label", ())
    note(f"{len(found.manifest)} clips, domains {', '.join(found.manifest.domains)}, {len(labels)} classes")
    click.echo(out)


@manifest.command("build")
@click.argument("benchmark")
@click.argument("folder", type=PATH)
def manifest_build(benchmark: str, folder: Path) -> None:
    """Make the manifest of a known BENCHMARK from its files in FOLDER (`featcache list benchmarks`).

    These are the official annotation files, which you download: data_manifests/BENCHMARK.md says where they are and
    where the videos go. Splits with other numbers of clips than published are named, no more. The demo benchmark
    `kitchens` draws its own videos into FOLDER.

    \b
    Example:
      featcache manifest build kitchens demo/videos
    """
    import warnings

    from featcache import builders
    from featcache.joining import captions_of

    with progress_bar(f"build {benchmark}", "clip") as progress, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        built = builders.load(benchmark).build(folder, progress=progress)
    for warning in said:
        note(f"Warning: {warning.message}")
    note(f"{len(built)} clips, domains {', '.join(built.domains)}")
    path = folder / f"{built.name}.csv"
    click.echo(path)
    if captions_of(path).is_file():
        click.echo(captions_of(path))


@manifest.command()
@click.argument("manifests", nargs=-1, required=True, type=PATH)
@click.argument("out", type=PATH)
@click.option("--prefix", is_flag=True, help="Call clips DOMAIN/CLIP, where data sets call different clips alike.")
@click.option("--overwrite", is_flag=True, help="Replace a manifest that differs.")
def join(manifests: tuple[Path, ...], out: Path, prefix: bool, overwrite: bool) -> None:
    """Join MANIFESTS into OUT, for runs from one data set to another; their domains tell them apart.

    Captions follow: where A_captions.csv stands beside A.csv, OUT_captions.csv is written, too. Features that were
    extracted for a part are taken over with `featcache import`, unless clips get a prefix.

    \b
    Example:
      featcache manifest join MSRVTT/msrvtt.csv MSVD/msvd.csv msrvtt_msvd.csv
    """
    from featcache.joining import join as joined_of

    joined = joined_of(manifests, out, prefix=prefix)
    for path, found in joined.items():
        if path.is_file() and not overwrite and path.read_bytes() != found.content(path.parent):
            raise click.ClickException(f"{path} exists and says something else; name another, or use --overwrite")
    for path, found in joined.items():
        found.write(path)
        note(f"{len(found)} {'clips' if path == out else 'captions'}, domains {', '.join(found.domains)}")
        click.echo(path)
