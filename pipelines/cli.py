"""The command `featcache`: parse, call a recipe, print. What a program can read goes to stdout, the rest to stderr.

Nothing heavy is imported before a command runs, so that `featcache --help` answers at once.
"""

import time
from collections import Counter
from pathlib import Path

import click

import featcache
from featcache.errors import FeatcacheError
from pipelines import cli_archive, cli_bridges, cli_choose, cli_search, cli_stores, cli_weights
from pipelines._commands import CORES, PATH, Commands, Job, experiment_options, note, progress_bar

REASONS = 10  #: of clips without features that `extract` prints; `info` shows all


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(featcache.__version__)
def main() -> None:
    """Frozen video features, extracted once; adaptation heads, trained in seconds.

    \b
    Example:
      featcache manifest build kitchens demo/videos
      featcache extract demo/videos/kitchens.csv hog hof logmel --stores demo/stores
      featcache train-head kitchens --stores demo/stores --runs demo/runs
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
      featcache table kitchens --stores demo/stores --runs demo/runs
      featcache report kitchens --stores demo/stores --runs demo/runs
    """


@main.group(cls=Commands)
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


@main.command()
@click.argument("manifest", type=PATH)
@click.argument("extractors", nargs=-1, required=True)
@click.option("--stores", type=PATH, default="stores", show_default=True, help="Folder of all stores.")
@click.option(
    "--windows",
    default="segments:5",
    show_default=True,
    help="Windows per clip: segments:T, uniform:T, inner:T or all:SECONDS.",
)
@click.option("--set", "settings", multiple=True, metavar="EXTRACTOR.NAME=VALUE", help="A parameter of an extractor.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float16", "float32"]),
    default="auto",
    show_default=True,
    help="auto: float16, unless a row does not fit into it.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="EXTRACTOR=FILE",
    help="Weights of a network: a file, or a name of `featcache weights list`; or `untrained`.",
)
@click.option("--weights-seed", default=0, show_default=True, help="Seed of untrained weights.")
@click.option("--device", default="cpu", show_default=True, help="Where networks run: cpu, cuda, cuda:1, ...")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of networks; it becomes part of the recipe.",
)
@click.option("--channels-last/--channels-first", default=True, show_default=True, help="Memory order of networks.")
@click.option(
    "--compile",
    type=click.Choice(["off", "on", "graphs"]),
    default="off",
    show_default=True,
    help="torch.compile; graphs: with CUDA graphs.",
)
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Decoding threads, one per core if not given.")
@click.option("--retry-failed", is_flag=True, help="Try the clips again that failed before.")
def extract(
    manifest: Path,
    extractors: tuple[str, ...],
    stores: Path,
    windows: str,
    settings: tuple[str, ...],
    dtype: str,
    weights: tuple[str, ...],
    weights_seed: int,
    device: str,
    precision: str,
    channels_last: bool,
    compile: str,
    workers: int,
    retry_failed: bool,
) -> None:
    """Run frozen EXTRACTORS on the clips of MANIFEST; each fills one store (`featcache list extractors`).

    EXTRACTOR@VIEW sees another part of the pictures: flip (mirrored), top-left, ..., bottom-right-flip.

    Interrupted, the same command goes on where it stopped; started twice, both share the work. Clips that were added
    at the manifest's end are appended. A clip that cannot be read is recorded with its reason,
    the rest is finished, and the exit code is 1.

    \b
    Example:
      featcache extract demo/videos/kitchens.csv hog hof logmel --stores demo/stores
    """
    from featcache.extractors import Runtime
    from featcache.manifest import Manifest
    from featcache.windows import Plan
    from pipelines.extract import extract as run
    from pipelines.extract import load_extractors

    clips = Manifest.read(manifest)
    plan = Plan.parse(windows)
    runtime = Runtime("", weights_seed, device, precision, channels_last, compile)
    frozen = load_extractors(extractors, settings, weights, runtime, clips)
    with progress_bar(f"extract {', '.join(extractors)}", "clip") as progress:
        outcome = run(
            clips,
            frozen,
            stores,
            plan=plan,
            dtype=dtype,
            retry_failed=retry_failed,
            workers=workers,
            progress=progress,
        )
    for line in (*outcome.notes, outcome.summary()):
        note(line)
    for name, store in outcome.stores.items():
        counts = ", ".join(f"{count} {state}" for state, count in store.counts().items() if count)
        click.echo(f"{store.path}\t{counts}")
        for state in ("absent", "failed"):
            reasons = outcome.reasons(name, state)
            for reason, (first, *others) in list(reasons.items())[:REASONS]:
                also = f" and {len(others)} more" if others else ""
                note(f"{name}: {state}: {first}{also}: {reason}")
            if len(reasons) > REASONS:
                count = store.counts()[state]
                note(f"{name}: {state}: {count} clips in all; `featcache info {store.path} --failures {count}`")
    if outcome.unusable():
        raise SystemExit(1)


manifest.add_command(cli_stores.join)
for command in (
    cli_stores.check,
    cli_stores.repair,
    cli_stores.info,
    cli_bridges.import_,
    cli_bridges.export,
    cli_archive.pack,
    cli_archive.unpack,
    cli_weights.weights,
    cli_search.search,
    cli_choose.choose,
):
    main.add_command(command)


@main.command("train-head")
@experiment_options
@click.option("--workers", type=click.IntRange(1), default=CORES, help="Runs at a time, one per core if not given.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
def train_head(job: Job, workers: int, device: str) -> None:
    """Train the heads of EXPERIMENT on cached features.

    EXPERIMENT is a name (`featcache list experiments`), a Python file with RUNS, or a folder of stores such as
    stores/kitchens, which stands for every method on every pair of its domains. Runs that are done are left as they
    are; a run that fails is named at the end, and the exit code is 1.

    \b
    Examples:
      featcache train-head kitchens --stores demo/stores --runs demo/runs
      featcache train-head stores/mine --seeds 0,1,2,3,4 --set method.lambda_g=0.5 --only 'RNA (UDA)'
    """
    from pipelines.engines import Outcome
    from pipelines.engines.local import run_all

    began = time.monotonic()
    with progress_bar(f"train {job.experiment.name}", "run") as progress:

        def ended(outcome: Outcome, done: int, total: int) -> None:
            progress(done, total)

        progress(0, len({run.id for run in job.experiment.runs}))
        outcomes = run_all(job.experiment.runs, job.stores, job.runs, workers=workers, device=device, report=ended)
    counts = Counter(outcome.status for outcome in outcomes)
    note(f"{', '.join(f'{n} {status}' for status, n in counts.items())} in {time.monotonic() - began:.1f} s")
    for tier, why in {outcome.tier: outcome.tier_why for outcome in reversed(outcomes) if outcome.tier}.items():
        note(f"features: {tier}, {why}")
    for warning, count in Counter(text for outcome in outcomes for text in outcome.warnings).items():
        note(f"Warning, of {count} of {len(outcomes)} runs: {warning}")
    for outcome in outcomes:
        if outcome.note:
            note(f"{outcome.config.id}: {outcome.note}")
    click.echo(job.runs)
    if counts["failed"]:
        raise SystemExit(1)


@main.command()
@experiment_options
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--a-distance", is_flag=True, help="Of retrieval: A-distances of source and target, too; seconds per run."
)
def evaluate(job: Job, device: str, a_distance: bool) -> None:
    """Compare the runs of EXPERIMENT with the labels of their test clips; append the numbers to RUNS/results.jsonl.

    This is the only command that reads test labels.

    \b
    Example:
      featcache evaluate kitchens --stores demo/stores --runs demo/runs
    """
    from pipelines import results, typed
    from pipelines.evaluate import distances
    from pipelines.evaluate import evaluate as run

    shown = [config for config in job.experiment.runs if config.row]
    wrong, without = [], []  # results, A-distances
    with progress_bar(f"evaluate {job.experiment.name}", "run") as progress:
        for number, config in enumerate(shown, 1):
            try:
                where, name = job.runs / config.id, job.experiment.name
                results.append(job.results, run(where, job.stores, name, device, config.row))
                if a_distance:
                    try:
                        results.append(job.results, distances(where, job.stores, name, device, config.row))
                    except FeatcacheError as error:
                        without.append(str(error))
            except FeatcacheError as error:
                wrong.append(str(error))
            progress(number, len(shown))
    click.echo(job.results)
    if without:
        note(f"{len(without)} of {len(shown)} runs have all results but A-distances:\n  " + "\n  ".join(without))
    if wrong:
        raise click.ClickException(
            f"{len(wrong)} of {len(shown)} runs have no result; `featcache train-head {job.experiment.typed}` trains "
            "what is missing or out of date:\n  " + typed.first(wrong, between="\n  ")
        )
    if without:
        raise SystemExit(1)


@main.command()
@experiment_options
@click.option(
    "--metric",
    help="top1, t2v/R@1, v2t/MedR, nmi/B0, validator/snd, ...; norms: feature norms.  [default: the experiment's]",
)
@click.option("--format", type=click.Choice(["markdown", "csv", "latex"]), default="markdown", show_default=True)
def table(job: Job, metric: str | None, format: str) -> None:
    """Print the table of EXPERIMENT: methods × shifts, mean ± standard deviation over seeds, in per cent.

    \b
    Examples:
      featcache table kitchens --stores demo/stores --runs demo/runs
      featcache table kitchens --runs demo/runs --metric mean_class --format latex
    """
    from pipelines import results, tables

    rows = results.read(job.results)
    if metric == "norms":
        click.echo(tables.norms_table(rows, job.experiment))
    else:
        click.echo(tables.render(rows, job.experiment, metric, format))


@main.command()
@experiment_options
@click.option("--out", type=PATH, help="Where to write it.  [default: RUNS/EXPERIMENT.html]")
def report(job: Job, out: Path | None) -> None:
    """Write one self-contained HTML page about EXPERIMENT: tables, plots, frames, and how everything was made.

    \b
    Example:
      featcache report kitchens --stores demo/stores --runs demo/runs
    """
    from pipelines import report as page
    from pipelines import results

    out = out or job.runs / f"{job.experiment.name}.html"
    page.write(job.experiment, results.read(job.results), job.runs, job.stores, out)
    click.echo(out)


@main.command("list")
@click.argument("what", type=click.Choice(["extractors", "benchmarks", "formats", "nets", "methods", "experiments"]))
def list_names(what: str) -> None:
    """List what there is, with a line about each.

    \b
    Example:
      featcache list methods
    """
    import importlib

    folders = {
        "extractors": "featcache.extractors",
        "benchmarks": "featcache.builders",
        "formats": "featcache.bridges",
        "nets": "heads.nets",
        "methods": "heads.methods",
        "experiments": "pipelines.experiments",
    }
    registry = importlib.import_module(folders[what])
    for name in registry.names():
        doc = importlib.import_module(f"{folders[what]}.{name.replace('-', '_')}").__doc__ or ""
        click.echo(f"{name:15} {doc.split(chr(10) + chr(10))[0].replace(chr(10), ' ')}")


if __name__ == "__main__":
    main()
