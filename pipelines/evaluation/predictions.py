"""Predictions of many runs in one file, for pandas and other tools: a line per run, label kind and test clip.

    run, row, manifest, source, target, test, seed     the run; several sources are joined by +
    step                                               step of the kept outputs: the last selected ones
    label, clip_id, truth                              label kind, clip and its class; empty if it has no label
    predicted, probabilities                           the class with the largest score, and the softmax of all scores
    branch, cluster, predicted                         instead of these in clustering: the class is the one that
                                                       Hungarian matching pairs with the cluster

`probabilities` is a list in the order of the names of the classes of that label in the manifest, which are sorted. A
Parquet file holds them, too: `pandas.read_parquet(path).attrs["classes"][manifest][label]`.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from featcache.errors import ConfigError, FormatError
from featcache.files import replacing
from featcache.progress import Progress, silent
from featcache.untrusted.arrow import pyarrow
from pipelines.config import RunConfig
from pipelines.data.stores import open_manifest
from pipelines.evaluation.evaluate import predicted
from pipelines.training.runs import Run

ENDINGS = (".parquet", ".csv")
OF_RUN = ("run", "row", "manifest", "source", "target", "test", "seed", "step")
WHOLE = ("seed", "step", "cluster")  #: columns of whole numbers
NUMBERS = "probabilities"
Columns = dict[str, Any]  #: column -> values


def check(path: Path, configs: Iterable[RunConfig], overwrite: bool) -> None:
    """Raise ConfigError or FormatError if the predictions of these runs cannot be written to this file."""
    tasks = {config.task.name: config.task for config in configs}
    if reason := next(filter(None, (task.no_predictions for task in tasks.values())), ""):
        raise ConfigError(f"--predictions has a class for each clip, but {reason}")
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


def write(path: Path, runs: Sequence[tuple[RunConfig, Path, Path]], progress: Progress = silent) -> None:
    """Write the predictions of finished runs, whole or not at all. runs: (configuration, folder, folder of stores)."""
    tables, classes = _tables(runs, progress), {}
    for config, _, stores in runs:
        manifest = open_manifest(stores, config.manifest)
        classes[config.manifest] = {label: list(names) for label, names in manifest.classes.items()}
    with replacing(path) as scratch:
        if path.suffix == ".csv":
            _write_csv(scratch, tables)
        else:
            _write_parquet(scratch, tables, {"classes": classes})


def _tables(runs: Sequence[tuple[RunConfig, Path, Path]], progress: Progress) -> Iterator[Columns]:
    for number, (config, folder, stores) in enumerate(runs, 1):
        yield from of_run(Run.open(folder), stores, config.row)
        progress(number, len(runs))


def of_run(run: Run, stores: Path, row: str) -> Iterator[Columns]:
    """Yield column -> values of a run: a table per label kind, in clustering one per branch."""
    config, manifest = run.config, open_manifest(stores, run.config.manifest)
    run, truth, point, outputs = predicted(run, stores)
    source, step = "+".join(config.source), int(run.points[point]["step"])
    facts = (config.id, row, config.manifest, source, config.target, config.test, config.seed, step)
    clips = [manifest.clips[number].clip_id for number in run.outputs["rows"].tolist()]
    for label, y in truth.items():
        names = config.task.tested(manifest, config.test)[label]
        known = {
            **{name: [value] * len(clips) for name, value in zip(OF_RUN, facts, strict=True)},
            "label": [label] * len(clips),
            "clip_id": clips,
            "truth": [names[k] if k >= 0 else "" for k in y],
        }
        for table in config.task.predictions(outputs, label, y, len(names)):
            yield known | table | {"predicted": [names[k] for k in table["predicted"]]}


def _write_parquet(path: Path, tables: Iterator[Columns], attrs: dict[str, Any]) -> None:
    """Write a row group per table; pandas reads `attrs` from the metadata of the schema."""
    pa, pq = pyarrow()
    kinds = {name: pa.int64() for name in WHOLE} | {NUMBERS: pa.list_(pa.float32())}
    first = next(tables)
    fields = [pa.field(name, kinds.get(name, pa.string())) for name in first]
    schema = pa.schema(fields, {"PANDAS_ATTRS": json.dumps(attrs)})
    with pq.ParquetWriter(path, schema) as file:
        for table in chain([first], tables):
            file.write_table(pa.table(table, schema=schema))


def _write_csv(path: Path, tables: Iterator[Columns]) -> None:
    """Write a header and a line per prediction; probabilities are a JSON list of six decimals."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        first = next(tables)
        writer.writerow(first)
        for table in chain([first], tables):
            if NUMBERS in table:
                table[NUMBERS] = [json.dumps([round(p, 6) for p in p_K.tolist()]) for p_K in table[NUMBERS]]
            writer.writerows(zip(*table.values(), strict=True))
