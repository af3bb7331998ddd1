"""The command `featcache extract`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.wording import visible
from pipelines.cli._completion import entries
from pipelines.cli._shared import PATH, PLACE, echo, engine_options, note, progress_bar

if TYPE_CHECKING:
    from pipelines.extraction.extract import Extraction

REASONS = 10  #: number of reasons for clips without features that `extract` prints; `info` shows all


@click.command()
@click.argument("manifest", type=PATH)
@click.argument("extractors", nargs=-1, required=True, shell_complete=entries("extractor"))
@click.option("--stores", type=PLACE, default="stores", show_default=True, help="Folder of all stores, or its URL.")
@click.option(
    "--windows",
    default="segments:5",
    show_default=True,
    help="Windows per clip: segments:T, uniform:T, inner:T or all:SECONDS.",
)
@click.option("--set", multiple=True, metavar="EXTRACTOR.NAME=VALUE", help="Set an extractor's parameter.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float16", "float32"]),
    default="auto",
    show_default=True,
    help="Type of the features. auto: float16, or float32 if a value is out of its range.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="EXTRACTOR=FILE",
    help="Weights of a network: a file, a name from `featcache weights list`, or `untrained` (random).",
)
@click.option("--weights-seed", default=0, show_default=True, help="Seed of untrained weights.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Device of networks: cpu, cuda, cuda:1, ...; several, as cuda:0,cuda:1, have a worker process each.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Precision of networks; part of the recipe.",
)
@click.option("--channels-last/--channels-first", default=True, show_default=True, help="Memory order of networks.")
@click.option(
    "--compile",
    type=click.Choice(["off", "on", "graphs"]),
    default="off",
    show_default=True,
    help="Compile networks with torch.compile. graphs: also use CUDA graphs.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Decoding threads, or with --engine ray processes.  [default: one per core, or as many as have room]",
)
@engine_options
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Try failed clips again. A store in which no clip is done is made again, by the recipe of this command.",
)
@click.option("--renew", is_flag=True, help="Extract clips again whose files were replaced since, or may have been.")
@click.option(
    "--shards",
    metavar="I/N",
    help="Extract only part I of N of the clips, counted from 0, for `featcache merge`; each job has its own part.",
)
def extract(manifest: Path, extractors: tuple[str, ...], stores: Path, **options: Any) -> None:
    """Run frozen EXTRACTORS on the clips of MANIFEST.

    Each extractor (`featcache list extractors`) fills one store. EXTRACTOR@VIEW reads another view of the pictures:
    flip (mirrored), top-left, ..., bottom-right-flip.

    After an interruption, run the same command to resume. Two processes with the same command share the work. Clips
    that were added at the end of the manifest are appended to the stores. A clip that cannot be read is recorded as
    failed, with the reason; all other clips are finished, and the exit code is 1.

    With a URL, the stores are built in a work folder of this machine, and whole blocks are pushed (docs/scaling.md).

    \b
    Examples:
      featcache extract demo/videos/kitchens.csv hog hof logmel --stores demo/stores
      featcache extract videos.csv i3d-rgb --device cuda --engine ray --address head:6379
      featcache extract demo/videos/kitchens.csv hog --stores s3://bucket/stores
    """
    from pipelines.commands.extract import extract as run

    with progress_bar(f"extract {', '.join(extractors)}", "clip") as progress:
        outcome = run(manifest, extractors, stores, **options, progress=progress)
    _print(outcome, outcome.summary())


@click.command()
@click.argument("manifest", type=PATH)
@click.argument("extractors", nargs=-1, shell_complete=entries("extractor"))
@click.option("--stores", type=PLACE, default="stores", show_default=True, help="Folder of all stores, or its URL.")
def merge(manifest: Path, extractors: tuple[str, ...], stores: Path) -> None:
    """Make whole stores of the parts that `featcache extract --shards I/N` has made.

    The parts of all N shards must be finished and of one recipe. Each store then has the bytes that one process would
    have written. Without EXTRACTORS, all stores that have parts are made. The parts are in STORES/MANIFEST/.shards, and
    stay there: when clips are appended to MANIFEST, only these are extracted, and merged.

    After an interruption, run the same command to resume. The exit code is 1 if a clip has failed.

    \b
    Examples:
      featcache merge demo/videos/kitchens.csv hog logmel --stores demo/stores
      featcache merge videos.csv i3d-rgb --stores s3://bucket/stores
    """
    from pipelines.commands.extract import merge as run

    with progress_bar("merge", "clip") as progress:
        outcome = run(manifest, extractors, stores, progress=progress)
    _print(
        outcome, f"{outcome.clips} clips taken from parts" if outcome.clips else "nothing to do: all clips are there"
    )


def _print(outcome: "Extraction", summary: str) -> None:
    """Print the stores with their counts and training data, and the first reasons for clips without features.

    The exit code is 1 if a store cannot be used as it is.
    """
    from featcache import training_data

    for line in (*outcome.notes, summary):
        note(line)
    for name, store in outcome.stores.items():
        counts = ", ".join(f"{count} {state}" for state, count in store.counts().items() if count)
        echo(f"{outcome.urls.get(name, store.path)}\t{counts}")
        if (trained_on := training_data.of(store.recipe, store.facts)) != {}:
            note(f"{name}: training data: {training_data.words(trained_on)}")
        for state in ("absent", "failed"):
            reasons = outcome.reasons(name, state)
            for reason, (first, *others) in list(reasons.items())[:REASONS]:
                also = f" and {len(others)} more" if others else ""
                note(visible(f"{name}: {state}: {first}{also}: {reason}"))
            if len(reasons) > REASONS:
                count = store.counts()[state]
                note(f"{name}: {state}: {count} clips in all; `featcache info {store.path} --failures {count}`")
    if outcome.unusable():
        raise SystemExit(1)
