"""Predictions of many runs in one file, for pandas and other tools: a line per run, label kind and test clip.

    run, row, manifest, source, target, test, seed     the run; several sources are joined by +
    step                                               step of the kept outputs: the last selected ones
    label, clip_id, truth                              label kind, clip and its class
    predicted, probabilities                           the class with the largest score, and the softmax of all scores
    branch, cluster                                    instead of probabilities in clustering; predicted is the class
                                                       that Hungarian matching pairs with the cluster

`probabilities` is a list in the order of the names of the classes of that label in the manifest, which are sorted. A
Parquet file holds them, too: `pandas.read_parquet(path).attrs["classes"][manifest][label]`.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from featcache.bridges.parquet import pyarrow
from featcache.errors import ConfigError, FormatError
from featcache.files import replacing
from featcache.progress import Progress, silent
from pipelines.config import RunConfig
from pipelines.data.stores import open_manifest
from pipelines.evaluation.evaluate import selected
from pipelines.measures.accuracy import probabilities
from pipelines.tasks.clustering import branches, cluster_of
from pipelines.training.runs import Run

ENDINGS = (".parquet", ".csv")
OF_RUN = ("run", "row", "manifest", "source", "target", "test")
WHOLE = ("seed", "step", "cluster")  #: columns of whole numbers
NUMBERS = "probabilities"
COLUMNS = {
    "classification": (*OF_RUN, "seed", "step", "label", "clip_id", "truth", "predicted", NUMBERS),
    "clustering": (*OF_RUN, "seed", "step", "label", "branch", "clip_id", "truth", "predicted", "cluster"),
}
Columns = dict[str, list[Any]]  #: column -> values


def check(path: Path, configs: Iterable[RunConfig], overwrite: bool) -> str:
    """Return the task of these runs; ConfigError or FormatError if their predictions cannot be written to this file."""
    tasks = {config.task.name for config in configs}
    if "retrieval" in tasks:
        raise ConfigError(
            "--predictions has a class for each clip, but a retrieval run ranks all clips for a sentence; `featcache "
            "search` prints the first ones, and outputs.npz of the run has all embeddings"
        )
    if len(tasks) > 1:
        raise ConfigError(f"--predictions has the runs of one task, not of {' and '.join(sorted(tasks))}; name one")
    if path.suffix not in ENDINGS:
        raise ConfigError(f"--predictions {path} must end in {' or '.join(ENDINGS)}")
    if path.suffix == ".parquet":
        pyarrow()
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise FormatError(f"{path} exists; name another file, or replace it with --overwrite")
    return tasks.pop()


def write(path: Path, runs: Sequence[tuple[RunConfig, Path, Path]], task: str, progress: Progress = silent) -> None:
    """Write the predictions of finished runs, whole or not at all. runs: (configuration, folder, folder of stores)."""
    tables = _tables(runs, progress)
    with replacing(path) as scratch:
        if path.suffix == ".csv":
            _write_csv(scratch, COLUMNS[task], tables)
        else:
            classes = {}
            for config, _, stores in runs:
                manifest = open_manifest(stores, config.manifest)
                classes[config.manifest] = {label: list(names) for label, names in manifest.classes.items()}
            _write_parquet(scratch, COLUMNS[task], tables, {"classes": classes})


def _tables(runs: Sequence[tuple[RunConfig, Path, Path]], progress: Progress) -> Iterator[Columns]:
    for number, (config, folder, stores) in enumerate(runs, 1):
        yield from of_run(Run.open(folder), stores, config.row)
        progress(number, len(runs))


def of_run(run: Run, stores: Path, row: str) -> Iterator[Columns]:
    """Yield column -> values of a run: a table per label kind, in clustering one per branch."""
    config, manifest = run.config, open_manifest(stores, run.config.manifest)
    truth, points = selected(run, stores)
    point, outputs = list(points.items())[-1]
    clips = [manifest.clips[number].clip_id for number in run.outputs["rows"].tolist()]
    facts = (config.id, row, config.manifest, "+".join(config.source), config.target, config.test, config.seed)
    common = dict(zip((*OF_RUN, "seed"), facts, strict=True)) | {"step": int(run.points[point]["step"])}
    for label, y in truth.items():
        names = config.task.tested(manifest, config.test)[label]
        for branch in branches(outputs) or [""]:
            predicted = config.task.predicted(outputs, label, y, len(names), branch)
            table = {
                **{name: [value] * len(clips) for name, value in (common | {"label": label}).items()},
                "clip_id": clips,
                "truth": [names[k] for k in y],
                "predicted": [names[k] for k in predicted],
            }
            if branch:
                table |= {"branch": [branch] * len(clips)}
                table |= {"cluster": cluster_of(outputs, len(names), branch).tolist()}
            else:
                table[NUMBERS] = list(probabilities(outputs[label]).astype("float32"))
            yield table


def _write_parquet(path: Path, columns: Sequence[str], tables: Iterable[Columns], attrs: dict[str, Any]) -> None:
    """Write a row group per table; pandas reads `attrs` from the metadata of the schema."""
    pa, pq = pyarrow()
    kinds = {name: pa.int64() for name in WHOLE} | {NUMBERS: pa.list_(pa.float32())}
    fields = [pa.field(name, kinds.get(name, pa.string())) for name in columns]
    schema = pa.schema(fields, {"PANDAS_ATTRS": json.dumps(attrs)})
    with pq.ParquetWriter(path, schema) as file:
        for table in tables:
            file.write_table(pa.table({name: table[name] for name in columns}, schema=schema))


def _write_csv(path: Path, columns: Sequence[str], tables: Iterable[Columns]) -> None:
    """Write a header and a line per prediction; probabilities are a JSON list of six decimals."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for table in tables:
            if NUMBERS in table:
                table[NUMBERS] = [json.dumps([round(p, 6) for p in p_K.tolist()]) for p_K in table[NUMBERS]]
            writer.writerows(zip(*(table[name] for name in columns), strict=True))
