"""The command `featcache predict`."""

from functools import partial
from pathlib import Path

import click

from featcache.manifest import SPLITS
from pipelines.cli._shared import CORES, PATH, PLACE, Words, echo, note, progress_bar, stdout


@click.command()
@click.argument("run", type=PATH)
@click.argument("clips", nargs=-1, required=True, type=PLACE)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="Write the predictions to this .csv, .jsonl or .parquet file.  [default: CSV on standard output]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file of predictions.")
@click.option(
    "--top-k",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of classes, or of clusters, of each clip, the most probable first.",
)
@click.option("--domain", multiple=True, help="Predict only clips of this domain; may be repeated.  [default: all]")
@click.option("--split", type=click.Choice(SPLITS), help="Predict only clips of this split.  [default: all]")
@click.option(
    "--as-domain",
    default="",
    metavar="DOMAIN",
    help="Take all clips for clips of this domain of the run.  [default: the domain in the manifest; for media without "
    "a manifest the run's test domain]",
)
@click.option(
    "--stores",
    type=PATH,
    help="Keep the extracted features in this folder of all stores.  [default: they are not kept]",
)
@click.option("--runs", type=PATH, default="runs", show_default=True, help="Folder of all runs, for a run id.")
@click.option(
    "--weights",
    multiple=True,
    metavar="EXTRACTOR=FILE",
    help="The weights of a network, or the folder of its model, if they are not where `extract` finds them; their "
    "SHA-256 must be the recorded one.",
)
@click.option("--device", default="cpu", show_default=True, help="Device of networks and heads: cpu, cuda, cuda:1, ...")
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Decoding threads.  [default: one per core]")
def predict(
    run: Path,
    clips: tuple[Path, ...],
    out: Path | None,
    overwrite: bool,
    top_k: int,
    domain: Words,
    split: str | None,
    as_domain: str,
    stores: Path | None,
    runs: Path,
    weights: Words,
    device: str,
    workers: int,
) -> None:
    """Apply a finished RUN, or an ensemble of several, to CLIPS; no label is read.

    RUN is the folder or the id of a run; further runs are named among the CLIPS. CLIPS are manifests, folders of media,
    media files, stores, or folders of the stores of a manifest. Features that no store has are extracted by the recipe
    that the run records; features of another recipe are refused. Nothing is written except FILE, unless --stores keeps
    the features.

    The output has a line per clip and label: the most probable classes with their probabilities. Several runs are
    averaged by their probabilities. For a retrieval run the output has embeddings, and for a clustering run clusters.
    Clips without a prediction are named on standard error with the reason, and the exit code is then 1.

    \b
    Examples:
      featcache predict runs/rna_loft_with-cottage_on-cottage_s0_51d83a96be new_videos --out predictions.parquet
      featcache predict RUN_ID stores/kitchens --domain cottage --split test --top-k 3
      featcache predict RUN_ID_0 RUN_ID_1 RUN_ID_2 a.mp4 b.mp4 --out ensemble.jsonl
    """
    from pipelines.evaluation.predictions import write_csv
    from pipelines.predicting.predict import predict as apply
    from pipelines.training.runs import is_run

    others = [word for word in clips if is_run(word) or is_run(runs / word)]
    call = partial(apply, [run, *others], [word for word in clips if word not in others], out=out, overwrite=overwrite)
    call = partial(call, top_k=top_k, runs=runs, stores=stores, domain=domain, split=split, as_domain=as_domain)
    with progress_bar("predict", "clip") as progress:
        made = call(weights=weights, device=device, workers=workers, progress=progress, note=note)
        if not out:
            write_csv(stdout(), made.tables())
    if out:
        echo(out)
    if made.failures:
        note(f"{len(made.failures)} of {made.total} clips have no prediction")
    if made.failures or made.incomplete:
        raise SystemExit(1)
