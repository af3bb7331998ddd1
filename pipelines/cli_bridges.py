"""The commands `featcache import` and `featcache export`: feature files of others to stores, and back."""

from pathlib import Path

import click

from pipelines._commands import PATH, note, progress_bar

SHOWN = 10  #: ids that a list shows


@click.command("import")
@click.argument("format")
@click.argument("file", type=PATH)
@click.argument("manifest", type=PATH)
@click.option("--stores", type=PATH, default="stores", show_default=True, help="Folder of all stores.")
@click.option("--key", "keys", multiple=True, metavar="KEY[=NAME]", help="Take only this key, into the store NAME.")
@click.option("--modality", "modalities", multiple=True, metavar="KEY=NAME", help="What a key shows: rgb, flow, ...")
@click.option("--ids", type=PATH, help="Text file with the clip ids, one per line, where FILE has none.")
@click.option("--dtype", type=click.Choice(["float16", "float32"]), help="Of the stores.  [default: that of FILE]")
def import_(
    format: str,
    file: Path,
    manifest: Path,
    stores: Path,
    keys: tuple[str, ...],
    modalities: tuple[str, ...],
    ids: Path | None,
    dtype: str | None,
) -> None:
    """Fill stores with the features in FILE, joined with the clips of MANIFEST by clip id.

    FORMAT is one of `featcache list formats`, or `store` for a store of ours. Every key of the file (modality, data
    set, column) becomes a store. Clips that the file lacks are absent, those with values that are not finite failed;
    the exit code is 1 if a clip failed or nothing came in.

    \b
    Examples:
      featcache import npz S04.npz S04.csv --key rgb=s04_i3d --key emg
      featcache import store old/m/hog.zarr m.csv
    """
    from featcache.bridges import read_ids
    from featcache.exchange import import_features, store_name
    from featcache.manifest import Manifest
    from featcache.store import FeatureStore

    with progress_bar(f"import {file.name}", "clip") as progress:
        reports = import_features(
            file,
            format,
            Manifest.read(manifest),
            stores,
            ids=None if ids is None else read_ids(ids),
            names={key: name or store_name(key) for key, name in _pairs("--key", keys).items()} or None,
            modalities=_pairs("--modality", modalities),
            dtype=dtype,
            progress=progress,
        )
    unusable = False
    for report in reports:
        counts = FeatureStore.open(report.path).counts()
        click.echo(f"{report.path}\t{', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
        note(
            f"{report.key}: {len(report.matched)} clips matched, {len(report.missing)} missing in {file.name}, "
            f"{len(report.extra)} extra in it"
        )
        for text in report.notes:
            note(f"{report.key}: {text}")
        _list(f"{report.key}: missing", report.missing)
        _list(f"{report.key}: extra", report.extra)
        _list(f"{report.key}: edited, not taken", [f"{clip_id}: {how}" for clip_id, how in report.edited])
        _list(f"{report.key}: failed", [f"{clip_id}: {reason}" for clip_id, reason in report.failed])
        unusable |= bool(report.failed) or not counts["done"]
    if unusable:
        raise SystemExit(1)


@click.command("export")
@click.argument("stores", nargs=-1, required=True, type=PATH)
@click.option("--format", required=True, help="One of `featcache list formats`.")
@click.option("--out", required=True, type=PATH, help="The file or folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace what stands there.")
def export(stores: tuple[Path, ...], format: str, out: Path, overwrite: bool) -> None:
    """Write the clips of one or more STORES (zarr folders) of one manifest into a file for other tools.

    Keys are the stores' modalities, or their names where two show the same modality. What the format does not keep,
    and clips that are not done, are named.

    \b
    Example:
      featcache export stores/kitchens/hog.zarr stores/kitchens/hof.zarr --format hdf5 --out kitchens.h5
    """
    from featcache.exchange import export_features

    with progress_bar(f"export {out.name}", "clip") as progress:
        report = export_features(stores, format, out, overwrite=overwrite, progress=progress)
    click.echo(f"{out}\t{', '.join(f'{count} clips of {key}' for key, count in report.clips.items())}")
    for loss in report.lost:
        note(f"{format} does not keep {loss}")
    _list("left out", [f"{key}: {clip_id}: {reason}" for key, clip_id, reason in report.left_out])


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """KEY=NAME texts as {KEY: NAME}; NAME is "" where it lacks, which only --key allows."""
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, name = text.rpartition("=") if "=" in text else (text, "", "")
        if not key or key in pairs or bool(equals) != bool(name) or (not name and option != "--key"):
            raise click.ClickException(f"{option} {text}: write {option} KEY=NAME, each key once")
        pairs[key] = name
    return pairs


def _list(title: str, lines: list[str]) -> None:
    """The first lines of a list, and how many more there are."""
    for line in lines[:SHOWN]:
        note(f"{title}: {line}")
    if len(lines) > SHOWN:
        note(f"{title}: ... and {len(lines) - SHOWN} more")
