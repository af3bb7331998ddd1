"""The commands `featcache import` and `featcache export`: feature files of other tools to stores, and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.wording import first, visible
from pipelines.cli._completion import entries
from pipelines.cli._shared import PATH, PLACE, echo, note, progress_bar

if TYPE_CHECKING:
    from featcache.importing import Imported
    from featcache.store import FeatureStore


@click.command("import")
@click.argument("format", shell_complete=entries("format"))
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.argument("manifest", type=PATH)
@click.option("--stores", type=PATH, default="stores", show_default=True, help="Folder of all stores.")
@click.option("--key", multiple=True, metavar="KEY[=NAME]", help="Import only this key, into the store NAME.")
@click.option("--modality", multiple=True, metavar="KEY=NAME", help="Modality of a key: rgb, flow, ...")
@click.option(
    "--ids",
    type=PATH,
    multiple=True,
    help="Text file with the clip ids of a FILE without ids, one per line: once per FILE, in their order, or once for "
    "all.  [default: FILE.ids.txt next to FILE]",
)
@click.option(
    "--dtype", type=click.Choice(["float16", "float32"]), help="Type of the features.  [default: that of FILE]"
)
def import_(
    format: str,
    files: tuple[Path, ...],
    manifest: Path,
    stores: Path,
    key: tuple[str, ...],
    modality: tuple[str, ...],
    ids: tuple[Path, ...],
    dtype: str | None,
) -> None:
    """Import features of other tools from FILEs into stores.

    Features are matched with the clips of MANIFEST by clip id. FORMAT is a name from `featcache list formats`, or
    `store` for a featcache store. Every key of the files (modality, data set, column) becomes a store; several FILES
    of one key fill it together, in one command. The ids are in FILE, in FILE.ids.txt or in --ids. Clips that are
    missing in the files become absent; clips with values that are not finite become failed. The exit code is 1 if a
    clip failed or no clip was imported.

    \b
    Examples:
      featcache import npz S04.npz S04.csv --key rgb=s04_i3d --key emg
      featcache import epic100 P01_train.pkl P01_test.pkl P01.csv
      featcache import store old/m/hog.zarr m.csv
    """
    from featcache.importing import import_features
    from featcache.store import FeatureStore

    named = " and ".join(file.name for file in files)
    with progress_bar(f"import {named}", "clip") as progress:
        reports = import_features(
            files,
            format,
            manifest,
            stores,
            ids=ids or None,
            key=key,
            modality=modality,
            dtype=dtype,
            progress=progress,
        )
    unusable = False
    for report in reports:
        store = FeatureStore.open(report.path)
        counts = store.counts()
        words = [f"{count} {state}" for state, count in counts.items() if count]
        echo(f"{report.path}\t{', '.join([*words, *_rows(store)])}")
        note(
            f"{report.key}: {len(report.matched)} clips matched, {len(report.missing)} missing in {named}, "
            f"{len(report.extra)} extra (not in the manifest)"
        )
        _details(report)
        unusable |= bool(report.failed) or not counts["done"]
    if unusable:
        raise SystemExit(1)


def _details(report: "Imported") -> None:
    """Print the notes of an import, and its clips that have no features."""
    for text in report.notes:
        note(visible(f"{report.key}: {text}"))
    _list(f"{report.key}: missing", report.missing)
    _list(f"{report.key}: extra", report.extra)
    _list(f"{report.key}: edited, not imported", [f"{clip_id}: {edit}" for clip_id, edit in report.edited])
    _list(f"{report.key}: failed", [f"{clip_id}: {reason}" for clip_id, reason in report.failed])


@click.command("export")
@click.argument("stores", nargs=-1, required=True, type=PLACE)
@click.option("--format", required=True, shell_complete=entries("format"), help="A name from `featcache list formats`.")
@click.option("--out", required=True, type=PATH, help="The file or folder to write.")
@click.option("--key", multiple=True, metavar="STORE=NAME", help="Key of the store STORE.zarr in the file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file or folder.")
def export(stores: tuple[Path, ...], format: str, out: Path, key: tuple[str, ...], overwrite: bool) -> None:
    """Export the features of STORES to a file for other tools.

    All STORES (zarr folders) must have the same manifest. The key of a store is the key it was imported from, or else
    its modality; stores with the same key get their names instead. The command lists everything that the format cannot
    keep, and the clips without features.

    \b
    Example:
      featcache export stores/kitchens/hog.zarr stores/kitchens/hof.zarr --format hdf5 --out kitchens.h5
    """
    from featcache.exporting import export_features

    with progress_bar(f"export {out.name}", "clip") as progress:
        report = export_features(stores, format, out, overwrite=overwrite, key=key, progress=progress)
    echo(f"{out}\t{', '.join(f'{count} clips of {key}' for key, count in report.clips.items())}")
    for loss in report.lost:
        note(f"{format} does not keep {loss}")
    _list("left out", [f"{key}: {clip_id}: {reason}" for key, clip_id, reason in report.left_out])


def _rows(store: "FeatureStore") -> list[str]:
    """Return the windows, shape and dtype of the rows as a list of one text; empty if no row is done."""
    lengths = store.length[store.length > 0]
    if not len(lengths):
        return []
    least, most = lengths.min(), lengths.max()
    span = f"{least} to {most}" if least < most else f"{most}"
    return [f"{span} window{'s' if most > 1 else ''} of {store.row_shape} {store.layout.dtype}"]


def _list(title: str, lines: list[str]) -> None:
    """Print the first lines of a list, and the number of the others."""
    if lines:
        note(first([visible(f"{title}: {line}") for line in lines], between="\n"))
